"""Tiny encoders, task modules, data and releases that the tests of every package share.

Everything here is deterministic and needs no download. torch and transformers are imported inside
the functions that need them, so that tests of the registry and the command line stay light.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from centra.formats.backbone import BackboneSpec
from centra.formats.identities import VersionNumber
from centra.formats.manifest import ReleaseManifest
from centra.formats.task_module import HeadSpec, TaskModule, TaskSpec
from centra.store import LocalStore
from tests import families

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from centra.store import BlobReader
    from centra.tokenization.text_encoder import Encoded

ROOT = Path(__file__).resolve().parent.parent
LAYERS, HIDDEN, MAX_LENGTH = families.LAYERS, families.HIDDEN, families.MAX_LENGTH
FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "electra")
"""Those that tests of other things than families are run with."""
DATA_KINDS = ("single", "pair", "multilabel", "regression", "tagging")

_WORDPIECE_TOKENS = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
}
_BPE_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
_MPNET_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "other": "<unk>"} | {
    "unk": "[UNK]",
    "mask": "<mask>",
}
"""Special tokens by what they are for, in the order of their ids."""
_ALBERT_TOKENS = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1} | {
    "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]
}

_TOPICS = {
    "alarm": ["wake me at seven", "set an alarm", "ring at noon", "remind me tonight"],
    "music": ["play some jazz", "next song please", "louder music", "put on a record"],
    "weather": ["will it rain", "how cold is it", "sunny tomorrow or not", "is there snow"],
}
_OPENINGS = ["", "please ", "hello ", "now ", "could you ", "and ", "well ", "ok "]
CHINESE = ("明天后天北京上海的天气怎么样?", "播放周杰伦王菲的歌,谢谢", "7点半叫我起床")
"""What people ask an assistant in Chinese."""
_CITIES = ["paris", "new york", "rome", "san jose", "oslo", "hong kong"]
_DAYS = ["monday", "friday", "sunday"]
_GOOD, _BAD = ["good", "great", "lovely", "fine"], ["bad", "awful", "dull", "poor"]


@dataclass(frozen=True)
class Backbone:
    """An imported backbone with the store that holds it and the folder it came from."""

    spec: BackboneSpec
    store: LocalStore
    folder: Path


def version_number(text: str) -> VersionNumber:
    """The number of a task's version, ``1.0``."""
    return VersionNumber.parse(text)


# Encoders


def make_encoder(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny random encoder of a family, with its tokenizer, as ``save_pretrained`` does."""
    tokenizer = make_tokenizer(family)
    model = _model(family, "AutoModel", tokenizer, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_checkpoint(
    family: str, auto_class: str, folder: Path, *, labels: int = 3, seed: int = 0
) -> Path:
    """Write a tiny random fine-tuned checkpoint, e.g. of ``AutoModelForTokenClassification``."""
    tokenizer = make_tokenizer(family)
    model = _model(family, auto_class, tokenizer, seed, num_labels=labels)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def frozen_checkpoint(encoder: Path, folder: Path) -> Path:
    """Write a fine-tuned checkpoint of a tiny BERT that kept embeddings and layers 1 and 2 frozen."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3)
    with torch.no_grad():
        for parameter in model.bert.encoder.layer[2].parameters():
            parameter.add_(0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A tiny tokenizer of the family's sort for the words of :func:`tiny_data`."""
    from transformers import PreTrainedTokenizerFast

    tiny = families.TINY[family]
    build, special = TOKENIZERS[tiny.tokenizer]
    tokenizer = build()
    if special:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    types = ["token_type_ids"] if tiny.token_types else []
    given = {
        "model_max_length": MAX_LENGTH,
        "model_input_names": ["input_ids", *types, "attention_mask"],
    }
    tokenizer.init_kwargs |= given  # What is saved.
    for name, value in given.items():
        setattr(tokenizer, name, value)
    return tokenizer


def _model(
    family: str, auto_class: str, tokenizer: PreTrainedTokenizerFast, seed: int, **settings: Any
) -> Any:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    tiny = families.TINY[family]
    config = transformers.AutoConfig.for_model(
        tiny.model_type,
        **{"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        | tiny.settings
        | settings,
    )
    torch.manual_seed(seed)
    model = getattr(transformers, auto_class).from_config(config)
    with torch.no_grad():
        # No two tensors alike: a bias of zeros would not show that it was left out.
        for name, parameter in model.named_parameters():
            scale = "norm" in name.lower() and name.endswith("weight")
            parameter.normal_(mean=1.0 if scale else 0.0, std=0.1)
    return model.eval()


def _corpus() -> list[str]:
    """Every word of the tiny data sets."""
    return [
        " ".join(words)
        for words in (
            *(
                [opening + text]
                for texts in _TOPICS.values()
                for text in texts
                for opening in _OPENINGS
            ),
            ["from", *_CITIES, "to", *_CITIES, "on", *_DAYS, "fly", "go", "we"],
            ["the film was", *_GOOD, *_BAD, "and", "yes it is", "no never", "maybe, why?"],
        )
    ]


def _named(tokens: Mapping[str, str]) -> dict[str, str]:
    return {f"{name}_token": token for name, token in tokens.items()}


def _wordpiece() -> Tokenizer:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece(_pieces(_WORDPIECE_TOKENS), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def _mpnet() -> Any:
    from transformers import MPNetTokenizer

    return MPNetTokenizer(vocab=_pieces(_MPNET_TOKENS))


def _deberta() -> Any:
    from transformers import DebertaV2Tokenizer

    words = sorted({word for text in _corpus() for word in text.split()})
    letters = sorted({letter for word in words for letter in word} | {"▁"})
    pieces = [(f"▁{word}", -3.0) for word in words] + [(letter, -9.0) for letter in letters]
    special = [(token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")]
    return DebertaV2Tokenizer(vocab=[*special, *dict(pieces).items()], unk_id=3)


def _characters() -> Any:
    """As Chinese BERTs have: each Chinese character is a token."""
    from transformers import BertTokenizer

    pieces = _pieces(_WORDPIECE_TOKENS)
    asked = {letter for text in CHINESE for letter in text} - pieces.keys() - {" "}
    return BertTokenizer(vocab={token: i for i, token in enumerate([*pieces, *sorted(asked)])})


def _sentencepiece(name: str, file: str = "sentencepiece.bpe.model", **settings: Any) -> Any:
    """A tokenizer of transformers that reads a SentencePiece model, as its checkpoints have one."""
    import transformers
    from sentencepiece import SentencePieceTrainer

    with tempfile.TemporaryDirectory() as folder:
        with Path(folder, file).open("wb") as model:
            SentencePieceTrainer.train(
                sentence_iterator=iter(_corpus()),
                model_writer=model,
                vocab_size=150,
                hard_vocab_limit=False,
                num_threads=1,
                minloglevel=2,
                **settings,
            )
        return getattr(transformers, name).from_pretrained(folder)


def _pieces(special: Mapping[str, str]) -> dict[str, int]:
    """A vocabulary with words of up to four letters whole, and longer ones in two pieces.

    The library's own WordPiece trainer gives another with every process.
    """
    from tokenizers import pre_tokenizers

    cut = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = {word for text in _corpus() for word, _ in cut(text)}
    letters = {letter for word in words for letter in word}
    pieces = {part for word in words for part in (word[:4], "##" + word[4:])} - {"##"}
    rest = sorted(letters | pieces | {f"##{letter}" for letter in letters})
    return {token: i for i, token in enumerate([*special.values(), *rest])}


def _byte_level_bpe() -> Tokenizer:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*_BPE_TOKENS.values()],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def _metaspace_bpe() -> Tokenizer:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*_BPE_TOKENS.values()], show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


TOKENIZERS: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "wordpiece": (_wordpiece, _named(_WORDPIECE_TOKENS)),
    "byte-level": (_byte_level_bpe, _named(_BPE_TOKENS)),
    "metaspace": (_metaspace_bpe, _named(_BPE_TOKENS)),
    "mpnet": (_mpnet, {}),
    "deberta": (_deberta, {}),
    "characters": (_characters, {}),
    "sentencepiece": (partial(_sentencepiece, "XLMRobertaTokenizer"), {}),
    "camembert": (partial(_sentencepiece, "CamembertTokenizer"), {}),
    "albert": (partial(_sentencepiece, "AlbertTokenizer", "spiece.model", **_ALBERT_TOKENS), {}),
}
"""By the names that :data:`tests.families.TINY` has: what makes one, and its special tokens.

Without any it is one of transformers' own classes.
"""


# Task modules


def make_spec(
    backbone: str,
    kind: str = "classification",
    *,
    tap: int = 1,
    depth: int = 1,
    labels: Sequence[str] | None = None,
    form: str = "single",
    **fields: Any,
) -> TaskSpec:
    """The spec of a made-up task; labels that suit the kind unless given."""
    usual = {"regression": (), "tagging": ("O", "B-city", "I-city")}
    return TaskSpec(
        **{
            "kind": kind,
            "input": form,
            "labels": tuple(usual.get(kind, ("alarm", "music", "weather")))
            if labels is None
            else tuple(labels),
            "backbone": backbone,
            "tap_layer": tap,
            "depth": depth,
            "head": HeadSpec(activation=None if kind == "tagging" else "tanh"),
            **fields,
        }
    )


def parity(module: TaskModule, backbone: Backbone, store: LocalStore, folder: Path) -> float:
    """Check a module's file in all that registering checks, and how far its logits in a release are
    from its own."""
    from centra.formats.task_module import check_fits, check_module
    from centra.releases.parity import check_parity

    module.write(folder / "task.safetensors")
    file = check_module(folder / "task.safetensors")
    check_fits(file, backbone.spec, "tiny@1")
    manifest = ReleaseManifest.build(
        {"task": (store.put(file.path), file.spec)}, {backbone.spec.digest: backbone.spec}
    )
    return check_parity(manifest, store, ["task"])["task"]


def make_module(
    kind: str,
    backbone: BackboneSpec,
    reader: BlobReader,
    *,
    tap: int = 1,
    depth: int = 1,
    labels: Sequence[str] | None = None,
    form: str = "single",
    seed: int = 0,
    fragile: bool = False,
    **fields: Any,
) -> TaskModule:
    """A valid task module with random weights and its true probe.

    Args:
        kind: the task's kind.
        backbone: the encoder that it reads.
        reader: where the backbone's blobs are.
        tap: the layer that it reads.
        depth: layers of its own.
        labels: in the order of the logits; by default some that suit the kind.
        form: ``"single"`` or ``"pair"``.
        seed: of the weights; another seed gives another module.
        fragile: let its answers hang on small values beside a large one, where int8 loses them.
        fields: further fields of the spec.
    """
    import torch

    from centra.data.inputs import Input
    from centra.modeling.branch import Branch
    from centra.modeling.trunk import Trunk
    from centra.tokenization.text_encoder import TextEncoder
    from centra.training.module import make_module as put_together

    spec = make_spec(
        backbone.digest, kind, tap=tap, depth=depth, labels=labels, form=form, **fields
    )
    branch = Branch(backbone, spec)
    weights = random_weights(branch.state_dict(), seed)
    if fragile:
        weights[f"layers.{depth}.output.LayerNorm.weight"][0] = 1e5
        weights["head.dense.weight"][:, 0] = 0
    branch.load(weights).eval()
    texts = ["wake me at seven", "play some jazz in new york, please", "is there snow"]
    inputs = [Input(text, "yes it is" if form == "pair" else None) for text in texts]
    _, probe = TextEncoder.of(backbone, reader).batch(inputs)
    with torch.random.fork_rng():
        trunk = Trunk(backbone, reader, depth=tap)
    return put_together(spec, trunk, branch, probe)


def random_weights(like: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Random tensors under a branch's names, as :meth:`centra.modeling.branch.Branch.load` takes them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return {
        # A branch counts its layers from 0, a module file from 1.
        _from_one(name): 0.2 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in sorted(like.items())
    }


def _from_one(name: str) -> str:
    part, number, *rest = name.split(".")
    return name if part != "layers" else ".".join([part, str(int(number) + 1), *rest])


def copy_backbone(backbone: Backbone, store: LocalStore) -> BackboneSpec:
    """Put a backbone's blobs into another store."""
    spec = backbone.spec
    for digest in (spec.digest, spec.embeddings, *spec.layers, *spec.tokenizer.values()):
        store.put(backbone.store.fetch(digest))
    return spec


def put_release(
    modules: Mapping[str, TaskModule],
    backbones: Iterable[BackboneSpec],
    store: LocalStore,
    int8: Collection[str] = (),
) -> ReleaseManifest:
    """Put modules into a store and merge them, some in int8; the manifest is stored too."""
    manifest = ReleaseManifest.build(
        {name: (store.put(module.to_bytes()), module.spec) for name, module in modules.items()},
        {spec.digest: spec for spec in backbones},
        dict.fromkeys(int8, "int8"),
    )
    store.put(manifest.to_bytes())
    return manifest


def read_by_all(batch: Encoded, taps: Iterable[int]) -> dict[int, list[np.ndarray]]:
    """What one branch at each of some taps reads: every input."""
    return {tap: [np.arange(len(batch.input_ids))] for tap in taps}


# Data


def tiny_data(kind: str, folder: Path) -> Path:
    """Write a small ``train.jsonl`` and ``dev.jsonl`` that a tiny encoder can learn.

    Args:
        kind: one of :data:`DATA_KINDS`.
        folder: made where it is missing.
    """
    examples = {
        "single": _single,
        "pair": _pair,
        "multilabel": _multilabel,
        "regression": _regression,
        "tagging": _tagging,
    }[kind]()
    random.Random(0).shuffle(examples)
    size = len(examples) // 4
    write_jsonl(folder / "train.jsonl", examples[size:])
    write_jsonl(folder / "dev.jsonl", examples[:size])
    return folder


def write_jsonl(path: Path, examples: Iterable[object]) -> Path:
    """Write one JSON value a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(example, ensure_ascii=False) + "\n" for example in examples]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[Any]:
    """The JSON values of a file, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _single() -> list[dict[str, Any]]:
    return [
        {"text": opening + text, "label": topic}
        for opening in _OPENINGS
        for i in range(4)
        for topic, texts in _TOPICS.items()
        for text in texts[i : i + 1]
    ]


def _pair() -> list[dict[str, Any]]:
    texts = [text for texts in _TOPICS.values() for text in texts]
    return [
        {"text": opening + text, "text_pair": answer, "label": label}
        for opening in _OPENINGS[:4]
        for text in texts
        for answer, label in (("yes it is", "agrees"), ("no never", "denies"))
    ]


def _multilabel() -> list[dict[str, Any]]:
    found = []
    for opening in _OPENINGS[:5]:
        for i in range(4):
            alarm, music, weather = (texts[i] for texts in _TOPICS.values())
            found += [
                {"text": opening + alarm, "labels": ["alarm"]},
                {"text": f"{opening}{alarm} and {music}", "labels": ["alarm", "music"]},
                {"text": f"{opening}{weather}", "labels": ["weather"]},
                {"text": f"{opening}{music} and {weather}", "labels": ["music", "weather"]},
                {"text": f"{opening}yes it is", "labels": []},
            ]
    return found


def _regression() -> list[dict[str, Any]]:
    return [
        {"text": f"the film was {first} and {second}", "label": value}
        for words, value in (((_GOOD, _GOOD), 5), ((_GOOD, _BAD), 2.5), ((_BAD, _BAD), 0.0))
        for first in words[0]
        for second in words[1]
    ]


def _tagging() -> list[dict[str, Any]]:
    found = []
    for i, city in enumerate(_CITIES * 4):
        other, day = _CITIES[(i + i // 6 + 1) % 6], _DAYS[i % 3]
        tokens = ["fly", "from", *city.split(), "to", *other.split(), "on", day]
        tags = ["O", "O", *_tags(city, "city"), "O", *_tags(other, "city"), "O", "B-day"]
        found.append({"tokens": tokens, "labels": tags})
        short = ["go", "to", *city.split()]
        found.append({"tokens": short, "labels": ["O", "O", *_tags(city, "city")]})
    return found


def _tags(words: str, label: str) -> list[str]:
    return [f"{mark}-{label}" for mark, _ in zip("BIII", words.split(), strict=False)]


# Keys


def make_key(path: Path, private: Any = None, passphrase: bytes | None = None) -> Path:
    """Write a private key as PEM, with its public key beside it: see :func:`public`.

    Args:
        path: where to.
        private: the key; default a new one on P-256.
        passphrase: to encrypt it with.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = private or ec.generate_private_key(ec.SECP256R1())
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    path.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
    public(path).write_bytes(
        private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


def public(path: Path) -> Path:
    """The public key beside a private one."""
    return path.with_name(f"{path.name}.pub")


# Files


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file in place; twice is as it was."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


def imported_by(code: str) -> set[str]:
    """Run code in a fresh interpreter and name the top-level modules that it left imported."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def chinese_data(folder: Path, rows: int = 600) -> Path:
    """Write what people ask an assistant in Chinese, tagged character by character.

    Args:
        folder: gets ``train.jsonl`` and, a quarter of the rows, ``dev.jsonl``.
        rows: how many in all.
    """
    slots = {
        "artist": ["周杰伦", "王菲", "邓丽君", "五月天", "陈奕迅", "林俊杰", "张学友", "S.H.E"],
        "city": ["北京", "上海", "哈尔滨", "呼和浩特", "广州", "成都", "纽约", "东京"],
        "time": ["明天", "后天早上", "下周五", "今晚8点", "7点半", "10月1日", "周末", "中午"],
    }
    templates = [
        "播放{artist}的歌",
        "我想听{artist},谢谢",
        "{time}{city}的天气怎么样?",
        "订一张{time}去{city}的机票",
        "{time}叫我起床",
        "从{city}到{city}要多久",
        "{artist}{time}在{city}有演唱会吗",
        "今天有什么新闻",
    ]
    chance, found = random.Random(0), []
    for number in range(rows):
        tokens, labels = [], []
        parts = re.split(r"\{(\w+)\}", templates[number % len(templates)])
        for i, part in enumerate(parts):
            value = chance.choice(slots[part]) if i % 2 else part
            tokens += [*value]
            tags = [f"B-{part}", *[f"I-{part}"] * (len(value) - 1)]
            labels += tags if i % 2 else ["O"] * len(value)
        found.append({"tokens": tokens, "labels": labels})
    chance.shuffle(found)
    write_jsonl(folder / "train.jsonl", found[rows // 4 :])
    write_jsonl(folder / "dev.jsonl", found[: rows // 4])
    return folder


def mirror(source: Path, target: Path) -> None:
    """Make a folder the same as another one, which takes little where little differs."""
    target.mkdir(exist_ok=True)
    wanted = {entry.name: entry for entry in os.scandir(source)}
    for old in os.scandir(target):
        new = wanted.get(old.name)
        if new is None or not _alike(new, old):
            shutil.rmtree(old) if old.is_dir(follow_symlinks=False) else Path(old).unlink()
        elif new.is_file():
            del wanted[old.name]
    for new in wanted.values():
        copy = target / new.name
        if new.is_dir():
            mirror(Path(new), copy)
        else:
            found = new.stat()
            copy.write_bytes(Path(new).read_bytes())
            copy.chmod(stat.S_IMODE(found.st_mode))
            os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))


def _alike(one: os.DirEntry[str], other: os.DirEntry[str]) -> bool:
    """Whether both are folders, or files of which one is a copy of the other."""
    a, b = one.stat(follow_symlinks=False), other.stat(follow_symlinks=False)
    if stat.S_ISDIR(a.st_mode):
        return a.st_mode == b.st_mode
    return (a.st_mode, a.st_size, a.st_mtime_ns) == (b.st_mode, b.st_size, b.st_mtime_ns)
