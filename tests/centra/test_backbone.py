"""Importing encoders: digests that depend on weights alone, refusals, the tokenizer."""

from __future__ import annotations

import json
import shutil
import struct
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    FormatError,
    IncompatibleError,
    NotFoundError,
)
from centra.formats.backbone import BackboneSpec
from centra.store import LocalStore
from centra.system.files import file_digest
from centra.tokenization.text_encoder import TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MINILM_DIGEST = "68956d4fe8b07171211751f85224fd79abe55ddd945962483f94f6fd30dfe433"
MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

WEIGHTS = "model.safetensors"

TEXTS = [
    "hello",
    "Hello, World!",
    "  leading and trailing  ",
    "tabs\tand\nnewlines\r\n",
    "wake me at seven",
    "play some jazz in New York, please",
    "UPPER lower MiXeD",
    "naïve café résumé",
    "cafe\u0301 decomposed",
    "Ⅻ ﬁne ½ ① full ｗｉｄｔｈ",
    "straße ẞ İstanbul ıı",
    "Привет, как дела?",
    "Γειά σου Κόσμε ΣΊΣΥΦΟΣ",
    "今天天气很好。",
    "東京タワーへ行きたい",
    "한국어 문장입니다",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "😀",
    "emoji 😀🎉 in 👩‍👩‍👧‍👦 text 🇫🇷",
    "❤️ with variation selector",
    "zero\u200bwidth\u200djoiner\ufeffbom",
    "non\u00a0breaking\u2003spaces\u3000here",
    "right\u202eto left override",
    "control \x00 \x01 \x1f \x7f \x80 characters",
    "replacement \ufffd and private \ue000",
    "math 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ∑∫√ ≠ ∞",
    "combining a\u0300\u0301\u0302\u0303\u0304",
    "a" * 150,
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "1234567890 3.14159 1,000,000 1e-5",
    "user@example.com https://example.com/a?b=c&d=e#f",
    "don't can't won't it's o'clock",
    "«quotes» “curly” ‘single’ ‚low‘",
    "dash - en – em — minus −",
    "...!!!???;;;:::",
    "snake_case camelCase kebab-case",
    "def f(x): return {x: [1, 2]}",
    "<html><body>&amp;</body></html>",
    "[CLS] literal [SEP] special [MASK] tokens [PAD] [UNK]",
    "<s> literal </s> special <mask> tokens <pad> <unk>",
    "##piece ##s",
    "▁metaspace ▁ Ġ Ċ",
    "x",
    "  ",
    "w o r d s " * 30,
    "long text beyond the maximum length, " * 80,
    "长" * 700,
]
assert len(TEXTS) == 50


def resave(source: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """Copy an encoder's folder with its tensors changed in place."""
    shutil.copytree(source, folder)
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def configured(source: Path, folder: Path, **settings: object) -> Path:
    """Copy an encoder's folder with other settings in its config.json."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    return folder


def test_spec_reads_back_from_the_store(tiny_backbone: support.Backbone) -> None:
    read = BackboneSpec.fetch(tiny_backbone.spec.digest, tiny_backbone.store)

    assert read.to_bytes() == tiny_backbone.spec.to_bytes()
    assert read.model_dump() == tiny_backbone.spec.model_dump()
    assert read.digest == tiny_backbone.spec.digest
    assert (read.num_layers, read.hidden_size, len(read.layers)) == (3, 32, 3)
    assert read.max_length == support.MAX_LENGTH


@pytest.mark.parametrize("family", support.FAMILIES)
def test_every_tensor_of_the_encoder_is_in_exactly_one_shard(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    state = transformers.AutoModel.from_pretrained(backbone.folder).state_dict()
    expected = {name for name in state if not name.startswith("pooler.")}

    found: list[str] = []
    for digest in (backbone.spec.embeddings, *backbone.spec.layers):
        shard = load_file(backbone.store.fetch(digest))
        assert all(torch.equal(tensor, state[name]) for name, tensor in shard.items())
        found += shard

    assert sorted(found) == sorted(expected)


def test_same_weights_in_another_folder_and_store_give_the_same_digests(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = shutil.copytree(tiny_backbone.folder, tmp_path / "elsewhere")

    assert import_backbone(str(folder), store).to_bytes() == tiny_backbone.spec.to_bytes()


def test_same_weights_in_many_files_give_the_same_digests(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    model = transformers.AutoModel.from_pretrained(tiny_backbone.folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    for path in tiny_backbone.folder.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "sharded")
    assert len([*(tmp_path / "sharded").glob("*.safetensors")]) > 2

    assert import_backbone(str(tmp_path / "sharded"), store).digest == tiny_backbone.spec.digest


def test_same_weights_in_another_order_and_with_metadata_give_the_same_digests(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = shutil.copytree(tiny_backbone.folder, tmp_path / "reordered")
    before = (folder / WEIGHTS).read_bytes()
    _write_reversed(folder / WEIGHTS, load_file(folder / WEIGHTS))
    assert (folder / WEIGHTS).read_bytes() != before

    assert import_backbone(str(folder), store).digest == tiny_backbone.spec.digest


def _write_reversed(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A valid safetensors file in an order that the library itself would not choose."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "note": "reordered"}}
    data = b""
    for name in sorted(tensors, reverse=True):
        part = tensors[name].contiguous().numpy().tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": [*tensors[name].shape],
            "data_offsets": [len(data), len(data) + len(part)],
        }
        data += part
    text = json.dumps(header, indent=1).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_settings_that_the_layers_do_not_depend_on_leave_the_digest_alone(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = configured(
        tiny_backbone.folder,
        tmp_path / "renamed",
        _name_or_path="somebody/else",
        id2label={"0": "a", "1": "b", "2": "c"},
        transformers_version="4.0.0",
    )

    assert import_backbone(str(folder), store).digest == tiny_backbone.spec.digest


def test_settings_that_the_layers_depend_on_change_the_digest(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = configured(tiny_backbone.folder, tmp_path / "relu", hidden_act="relu")
    spec = import_backbone(str(folder), store)

    assert spec.digest != tiny_backbone.spec.digest
    assert spec.layers == tiny_backbone.spec.layers


def test_one_changed_weight_changes_exactly_its_layer_s_digest(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["encoder.layer.1.output.dense.bias"][7] += 1e-6

    spec = import_backbone(str(resave(tiny_backbone.folder, tmp_path / "x", change)), store)
    before = tiny_backbone.spec

    assert [a == b for a, b in zip(spec.layers, before.layers, strict=True)] == [True, False, True]
    assert spec.embeddings == before.embeddings
    assert spec.tokenizer == before.tokenizer
    assert spec.digest != before.digest


def test_pooler_is_no_part_of_the_backbone(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith("pooler.")]:
            del state[name]

    folder = resave(tiny_backbone.folder, tmp_path / "x", change)

    assert import_backbone(str(folder), store).digest == tiny_backbone.spec.digest


def test_half_precision_weights_are_taken_as_float32(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state.update({name: tensor.half() for name, tensor in state.items()})

    folder = resave(tiny_backbone.folder, tmp_path / "x", change)
    shard = load_file(store.fetch(import_backbone(str(folder), store).layers[0]))

    assert {tensor.dtype for tensor in shard.values()} == {torch.float32}


def test_importing_twice_into_one_store_adds_nothing(
    tiny_backbone: support.Backbone, backbone_store: LocalStore
) -> None:
    before = {path: path.stat().st_mtime_ns for path in backbone_store.root.rglob("*")}

    import_backbone(str(tiny_backbone.folder), backbone_store)

    assert {path: path.stat().st_mtime_ns for path in backbone_store.root.rglob("*")} == before


def test_import_reports_each_layer(tiny_backbone: support.Backbone, store: LocalStore) -> None:
    seen: list[tuple[str, int, int]] = []

    import_backbone(str(tiny_backbone.folder), store, progress=lambda *call: seen.append(call))

    assert seen == [("shard layers", i, 3) for i in (1, 2, 3)]


# Refusals


def refused(folder: Path, store: LocalStore, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        import_backbone(str(folder), store)
    assert not store.root.exists(), "a refused import must store nothing"


def test_pickled_weights_are_refused(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = shutil.copytree(tiny_backbone.folder, tmp_path / "pickled")
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()

    refused(folder, store, FormatError, "never reads pickled weights")


def test_truncated_weights_are_refused(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = shutil.copytree(tiny_backbone.folder, tmp_path / "truncated")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])

    refused(folder, store, FormatError, "model.safetensors: not a readable safetensors file")


def test_missing_weights_are_refused_instead_of_made_up(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state["encoder.layer.1.output.dense.weight"]

    folder = resave(tiny_backbone.folder, tmp_path / "x", change)

    refused(folder, store, FormatError, "encoder.layer.1.output.dense.weight")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinite_weights_are_refused(
    value: float, tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["encoder.layer.2.output.dense.bias"][0] = value

    folder = resave(tiny_backbone.folder, tmp_path / "x", change)

    refused(folder, store, FormatError, r"encoder\.layer\.2\.output\.dense\.bias holds NaN")


def test_model_type_that_centra_does_not_know_is_refused(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = configured(tiny_backbone.folder, tmp_path / "gpt2", model_type="gpt2")

    refused(folder, store, IncompatibleError, "'gpt2' is not supported; Centra knows .*bert")


def test_model_type_that_nobody_knows_is_refused(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = configured(tiny_backbone.folder, tmp_path / "nonsense", model_type="nonsense")

    refused(folder, store, IncompatibleError, "'nonsense' is not supported")


def test_decoder_is_refused(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = configured(tiny_backbone.folder, tmp_path / "decoder", is_decoder=True)

    refused(folder, store, IncompatibleError, "is a decoder")


def test_relative_positions_are_refused(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = configured(
        tiny_backbone.folder, tmp_path / "relative", position_embedding_type="relative_key"
    )

    refused(folder, store, IncompatibleError, "absolute position embeddings")


def test_missing_tokenizer_is_refused_instead_of_made_up(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = shutil.copytree(tiny_backbone.folder, tmp_path / "mute")
    for path in folder.glob("tokenizer*"):
        path.unlink()

    refused(folder, store, FormatError, "tokenizer")


def test_tokenizer_with_ids_beyond_the_embeddings_is_refused(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    """It would end in an index error at the first text that holds such a token."""
    folder = shutil.copytree(tiny_backbone.folder, tmp_path / "extended")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["beyond"])
    tokenizer.save_pretrained(folder)

    refused(folder, store, IncompatibleError, "tokenizer")


@pytest.mark.parametrize("source", ["none", "deeply/nested/none", "./none"])
def test_missing_folder_is_not_found(
    source: str, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="none"):
        import_backbone(source, store)


def test_missing_absolute_folder_is_not_found(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="none"):
        import_backbone(str(tmp_path / "none"), store)


def test_folder_without_config_is_refused(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    refused(tmp_path / "empty", store, FormatError, "config.json")


def test_spec_that_is_not_in_the_store_is_not_found(store: LocalStore) -> None:
    with pytest.raises(BlobNotFoundError, match="0" * 64):
        BackboneSpec.fetch("0" * 64, store)


def test_damaged_spec_is_refused(
    tiny_backbone: support.Backbone, backbone_store: LocalStore
) -> None:
    digest = tiny_backbone.spec.digest
    support.flip(backbone_store.fetch(digest), 100)

    with pytest.raises(CorruptBlobError, match=digest):
        BackboneSpec.fetch(digest, backbone_store)


# The real MiniLM


def test_minilm_has_the_digest_that_it_had_on_every_machine_before(
    minilm: support.Backbone,
) -> None:
    assert file_digest(minilm.folder / WEIGHTS) == MINILM_WEIGHTS
    assert minilm.spec.digest == MINILM_DIGEST
    assert (minilm.spec.num_layers, minilm.spec.hidden_size, minilm.spec.max_length) == (
        6,
        384,
        512,
    )


# Tokenizers


def assert_same_ids(backbone: support.Backbone, texts: list[Any]) -> None:
    reference = transformers.AutoTokenizer.from_pretrained(backbone.folder)
    encoder = TextEncoder.of(backbone.spec, backbone.store)
    rows = encoder.encode(Input(*((t,) if isinstance(t, str) else t)) for t in texts)
    for text, row in zip(texts, rows, strict=True):
        pair = (text,) if isinstance(text, str) else text
        expected = reference(
            *pair,
            truncation=True,
            max_length=backbone.spec.max_length,
            return_token_type_ids=True,
        )
        assert row.input_ids == expected["input_ids"], text
        if backbone.spec.token_types:
            assert row.token_type_ids == expected["token_type_ids"], text


@pytest.mark.parametrize("family", support.FAMILIES)
def test_tokenizer_from_the_store_gives_transformers_ids(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    assert_same_ids(imported(family), TEXTS)


@pytest.mark.parametrize("family", support.FAMILIES)
def test_tokenizer_from_the_store_gives_transformers_ids_for_pairs(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    assert_same_ids(imported(family), [*zip(TEXTS, reversed(TEXTS), strict=True)])


@pytest.mark.parametrize("family", support.FAMILIES)
def test_of_long_pairs_only_what_is_kept_is_tokenised_together(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    """The tokenizer makes a piece of each piece of one text with each of the other."""
    backbone = imported(family)
    long, other = ("wake me at noon " * 50, "play jazz in the Köln kitchen, " * 40)
    assert_same_ids(backbone, [(long, other), (long, "noon"), ("noon", long)])
    encoder = TextEncoder.of(backbone.spec, backbone.store)
    once, (pair,) = (
        encoder.encode([Input(long), Input(other)]),
        encoder.encode([Input(long, other)]),
    )
    specials = [encoder.tokenizer.num_special_tokens_to_add(is_pair=pair) for pair in (False, True)]
    assert pair.given - specials[1] == sum(row.given - specials[0] for row in once)
    (huge,) = encoder.encode([Input(long * 40, other * 40)])  # Takes gigabytes otherwise.
    assert huge.input_ids == pair.input_ids


def test_tokenizer_of_minilm_gives_transformers_ids(minilm: support.Backbone) -> None:
    assert_same_ids(minilm, TEXTS)
    assert_same_ids(minilm, [*zip(TEXTS, reversed(TEXTS), strict=True)])


@pytest.fixture(scope="module")
def minilm_tokenizers(minilm: support.Backbone) -> tuple[TextEncoder, Any]:
    """Ours and transformers'."""
    ours = TextEncoder.of(minilm.spec, minilm.store)
    return ours, transformers.AutoTokenizer.from_pretrained(minilm.folder)


@given(text=st.text(max_size=60))
def test_tokenizer_of_minilm_gives_transformers_ids_for_any_text(
    text: str, minilm_tokenizers: tuple[TextEncoder, Any]
) -> None:
    ours, theirs = minilm_tokenizers

    (row,) = ours.encode([Input(text)])

    assert row.input_ids == theirs(text)["input_ids"]


def test_tokenizer_files_do_not_carry_the_folder_s_name(tiny_backbone: support.Backbone) -> None:
    config = json.loads(
        tiny_backbone.store.fetch(tiny_backbone.spec.tokenizer["tokenizer_config.json"]).read_text()
    )

    assert config == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": support.MAX_LENGTH,
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
