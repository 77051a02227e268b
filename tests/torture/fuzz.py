"""Hostile input for every parser of bytes from outside: what it is made from, mutations, a coverage loop.

Each parser is fed mutations of real bytes. It must return, or raise a :class:`CentraError`; any other
exception is a fault, and so is what takes longer than a second or more memory than a multiple of its
input (see :func:`limited`). Inputs that reach lines which none has reached before are mutated further.

No fuzzer of others is used: atheris is built for few platforms, ends the process that calls it, and
HypoFuzz needs a server of its own; neither knows the structure of these formats.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.checkpoints.saved_model import read_config, read_headers
from centra.checkpoints.task import read_task
from centra.data.labels import read_labels
from centra.errors import CentraError
from centra.families.settings import read_family
from centra.formats.backbone import BackboneSpec
from centra.formats.documents import canonical_json, sha256
from centra.formats.identities import VersionNumber
from centra.formats.manifest import ChannelPointer, ReleaseManifest
from centra.formats.task_module import check_module, read_spec
from centra.formats.tensors import RawTensor, content_checksum, map_tensors, read_raw
from centra.releases.folder import ReleaseFolder
from centra.releases.signing import check_subject
from centra.store import LocalStore
from tests.torture.losses import lose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "PARSERS",
    "Campaign",
    "Parser",
    "attack",
    "campaigns",
    "limited",
    "mutated",
    "run",
    "seeds",
]

_LIMIT = 10
"""Seconds of one input; only what never ends takes so long."""
_SHOWN = 4000
"""Characters of an input that are shown with its fault."""
_ROOT = Path(__file__).resolve().parent.parent.parent
_WATCHED = tuple(f"{_ROOT / name}{os.sep}" for name in ("centra", "registry"))
_EXTREMES: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 9999, 10_000, 2**31, 2**53 + 1, 2**63, 2**64, 10**9, 10**30, -(10**30)),
    *(
        0.5,
        1.0,
        -0.0,
        1e308,
        5e-324,
        True,
        False,
        None,
        "",
        "1",
        "\0",
        "\x1b[2J",
        "\u202e",
        "\ud800",
    ),
    *("é", "é", "a" * 5000, "../../x", "/etc/passwd", "layers.1.", [], {}, [[]], {"": {}}),
)
_TOKENS = (
    *(b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 5000, b"\\ud800", b"\\u0000", b'"a":1,"a":2,'),
    *(
        b"\xef\xbb\xbf",
        b"\r",
        b"\0",
        b"\x1b]0;x\x07",
        b"\xed\xa0\x80",
        b"[" * 3000,
        b'{"a":' * 3000,
    ),
    *(
        b"=",
        b"[[a]]\n",
        b"a.a.a.",
        b"'''",
        b"../",
        b"\n",
        b"  ",
        b"\xff\xfe",
        b",",
        b'"',
        b"{",
        b"}",
    ),
)


@dataclass(frozen=True)
class Parser:
    """A parser of bytes from outside."""

    parse: Callable[[bytes, Path], object]
    """Takes them, and an empty folder of its own for the file that they are."""
    kind: str
    """Of what its inputs are made: ``json``, ``tensors``, ``module``, ``export`` or ``text``."""
    share: float = 1.0
    """Of the inputs of others that it gets; less where each needs a process of its own."""


def _written(name: str, parse: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """A parser of a file."""

    def parsed(data: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        return parse(path)

    return parsed


def _config(data: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(data)
    raw = read_config(str(folder))
    read_family(raw, "x")
    for tagging in (False, True):
        read_task(raw, 3, tagging=tagging, where="x")


def _weights(data: bytes, folder: Path) -> None:
    (folder / "model-1.safetensors").write_bytes(_SHARD)
    (folder / "model.safetensors.index.json").write_bytes(data)
    read_headers(str(folder))


def _sums(data: bytes, folder: Path) -> None:
    (folder / "SHA256SUMS").write_bytes(data)
    (folder / "release.json").write_bytes(_manifest().to_bytes())
    ReleaseFolder.open(folder)


def _export(data: bytes, folder: Path) -> None:
    from registry.transfer.archive import unpack

    (folder / "x.tar").write_bytes(data)
    unpack(folder / "x.tar", LocalStore(folder / "store"))


def _settings(data: bytes, folder: Path) -> None:
    from registry.rules.policy import Policy
    from registry.settings import Settings

    (folder / "centra.toml").write_bytes(data)
    found = Settings.load(folder=folder)
    Policy.parse(found.rules.tables if found.rules else {}, str(folder))


def _plan(path: Path) -> None:
    from centra.training.plan import Plan

    plan = Plan.read(path)
    _ = plan.recipe, plan.distillation


def _scores(path: Path) -> None:
    from centra.training.select import parse_threshold, read_scores, select

    select(read_scores(path), parse_threshold("1"))


def _examples(path: Path) -> None:
    from centra.data.inputs import read_examples
    from centra.training.contract_inference import infer_contract

    examples = read_examples(path)
    infer_contract(examples, examples)


def _key(path: Path) -> None:
    from centra.releases.signing import verify_release

    assert path.parent
    verify_release(_manifest(), LocalStore(path.parent / "store"), [path])


def _address(data: bytes, folder: Path) -> None:
    from centra.store import open_store
    from registry.database.address import address_text, parse_address
    from registry.rules.lifecycle import Actor

    text = data.decode(errors="surrogateescape")
    for reading in (
        lambda: address_text(parse_address(text)),
        lambda: open_store(text),
        lambda: Actor.parse(text),
    ):
        try:
            reading()
        except CentraError:
            continue


def _tokenizer(path: Path) -> None:
    from centra.tokenization.text_encoder import TextEncoder
    from centra.tokenization.trial import try_tokenizer

    try_tokenizer(path.read_bytes(), "x")
    TextEncoder(path, max_length=16, pad_token_id=0, token_types=True)


PARSERS: Mapping[str, Parser] = {
    "module": Parser(_written("x.safetensors", check_module), "module"),
    "module header": Parser(_written("x.safetensors", read_spec), "module"),
    "tensors": Parser(_written("x.safetensors", read_raw), "tensors"),
    "mapped tensors": Parser(_written("x.safetensors", map_tensors), "tensors"),
    "manifest": Parser(lambda data, _: _used(ReleaseManifest.from_bytes(data, "x")), "json"),
    "backbone": Parser(lambda data, _: BackboneSpec.from_bytes(data, "x").blobs(), "json"),
    "pointer": Parser(lambda data, _: ChannelPointer.from_bytes(data, "x"), "json"),
    "signature": Parser(lambda data, _: check_subject(_manifest(), data), "json"),
    "export": Parser(_export, "export"),
    "sums": Parser(_sums, "text"),
    "weight map": Parser(_weights, "json"),
    "config": Parser(_config, "json"),
    "examples": Parser(_written("train.jsonl", _examples), "json"),
    "labels": Parser(_written("labels", read_labels), "json"),
    "settings": Parser(_settings, "text"),
    "recipe": Parser(_written("fit.toml", _plan), "text"),
    "scores": Parser(_written("scores.csv", _scores), "text"),
    "key": Parser(_written("key.pem", _key), "text"),
    "address": Parser(_address, "text"),
    "tokenizer": Parser(_written("tokenizer.json", _tokenizer), "json", share=0.02),
}
"""Every parser of bytes from outside, by what it reads."""


# What honest files are made from


def seeds() -> dict[str, list[bytes]]:
    """Honest bytes for each parser, as Centra and its peers write them."""
    spec, manifest, module = _backbone(), _manifest(), _module()
    rows = [{"text": "wake me", "label": "alarm"}, {"text": "play", "label": "music"}]
    tagged = {"tokens": ["to", "new", "york"], "labels": ["O", "B-city", "I-city"]}
    config = {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "a", "1": "b", "2": "c"},
        "label2id": {"a": 0, "b": 1, "c": 2},
        "problem_type": None,
        "hidden_size": 32,
    }
    toml = b'database = "r.db"\nstore = "s"\nactor = "nlu/ada"\n[compose]\nallow_two_backbones = true\n'
    toml += b'[channels.production]\nfrom = "staging"\nmax_size = "2 GB"\nmax_layers = 40\n'
    toml += b'[channels.production.min_metrics."*"]\naccuracy = 0.9\n'
    plan = b'task = "a"\nbackbone = "b@1"\ndata = "d"\n[search]\nlayers = [1, 3]\nseeds = [0, 1]\n'
    plan += b"[training]\nepochs = 3\ndropout = 0.1\n[distill]\nlayers = [1]\n"
    scores = b"task,frozen_layers,task_layers,role,score\na,2,1,teacher,91.5\na,,1,student,90\n"
    sums = dict(manifest.files().items())
    sums["release.json"] = sha256(manifest.to_bytes())
    return {
        "module": [module],
        "module header": [module],
        "tensors": [module, _SHARD],
        "mapped tensors": [module, _SHARD],
        "manifest": [manifest.to_bytes()],
        "backbone": [spec.to_bytes()],
        "pointer": [
            ChannelPointer(
                name="a",
                revision=1,
                release=1,
                manifest=manifest.digest,
                versions={"intent": VersionNumber(2, 1)},
            ).to_bytes()
        ],
        "signature": [_signature(manifest)],
        "export": [_exported()],
        "sums": ["".join(f"{digest}  {path}\n" for path, digest in sums.items()).encode()],
        "weight map": [
            json.dumps({"weight_map": dict.fromkeys("ab", "model-1.safetensors")}).encode()
        ],
        "config": [json.dumps(config).encode()],
        "examples": [
            "".join(f"{json.dumps(row)}\n" for row in rows).encode(),
            json.dumps(tagged).encode(),
            b'{"text":"a","text_pair":"b","label":2.5}\n',
        ],
        "labels": [b'["a","b",3]', b"a\nb\n"],
        "settings": [toml],
        "recipe": [plan],
        "scores": [scores],
        "key": [_PEM],
        "address": [
            b"sqlite:///a.db",
            b"postgresql://u:p@h:5432/d?sslmode=require",
            b"nlu/ada",
            b"s3://bucket/prefix?region=eu&addressing_style=path&endpoint_url=http://h:1",
            b"file:///a",
        ],
        "tokenizer": [_tokenizer_json()],
    }


def _backbone() -> BackboneSpec:
    return BackboneSpec(
        family="bert",
        config={"vocab_size": 9, "hidden_size": 4, "num_attention_heads": 2},
        num_layers=2,
        hidden_size=4,
        max_length=8,
        pad_token_id=0,
        token_types=True,
        embeddings=sha256(b"e"),
        layers=(sha256(b"1"), sha256(b"2")),
        layer_tensors={"output.dense.weight": (4, 4)},
        tokenizer={"tokenizer.json": sha256(b"t")},
    )


@cache
def _manifest() -> ReleaseManifest:
    from tests.support import make_spec

    spec = _backbone()
    tasks = {
        "intent": (sha256(b"m"), make_spec(spec.digest, tap=2)),
        "slots": (sha256(b"n"), make_spec(spec.digest, "tagging")),
    }
    return ReleaseManifest.build(tasks, {spec.digest: spec}, {"slots": "int8"})


def _used(manifest: ReleaseManifest) -> None:
    """What is asked of a manifest before anything else is known."""
    _ = manifest.account, manifest.files(), manifest.trunk_depths(), manifest.digest


def _tensor_file(tensors: Mapping[str, RawTensor], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file without the library, which would refuse to write what is wrong."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, tensor in tensors.items():
        end = len(data) + len(tensor.data)
        header[name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [len(data), end],
        }
        data += tensor.data
    return _framed(json.dumps(header).encode(), data)


def _framed(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _floats(*shape: int) -> RawTensor:
    size = 1
    for length in shape:
        size *= length
    return RawTensor(dtype="F32", shape=shape, data=bytes(4 * size))


_SHARD = _tensor_file({"a": _floats(2, 2), "b": _floats()})
_PEM = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
"""


def _module() -> bytes:
    from tests.support import make_spec

    ids = RawTensor(dtype="I64", shape=(1, 2), data=bytes(16))
    tensors = {
        "head.dense.bias": _floats(4),
        "head.dense.weight": _floats(4, 4),
        "head.out.bias": _floats(3),
        "head.out.weight": _floats(3, 4),
        "layers.1.output.dense.weight": _floats(4, 4),
        "probe.attention_mask": ids,
        "probe.input_ids": ids,
        "probe.logits": _floats(1, 3),
        "probe.token_type_ids": ids,
    }
    spec = make_spec(_backbone().digest, metrics={"accuracy": 0.9}, training={"seed": 0})
    return _sealed(json.loads(spec.to_bytes()), tensors)


def _sealed(spec: Any, tensors: dict[str, RawTensor]) -> bytes:
    """A task module whose checksum is right, whatever it says."""
    header = {"checksum": content_checksum(spec, dict(sorted(tensors.items()))), "spec": spec}
    return _tensor_file(tensors, {"centra": canonical_json(header).decode()})


def _signature(manifest: ReleaseManifest) -> bytes:
    files = {**manifest.files(), "release.json": manifest.digest}
    resources = [{"name": path, "digest": digest} for path, digest in files.items()]
    payload = base64.b64encode(
        json.dumps({"predicate": {"resources": resources}}).encode()
    ).decode()
    bundle = {
        "verificationMaterial": {"publicKey": {"hint": sha256(_PEM)}},
        "dsseEnvelope": {"payload": payload, "payloadType": "x", "signatures": [{"sig": "AA=="}]},
    }
    return json.dumps(bundle).encode()


def _exported(fields: Mapping[str, Any] | None = None, blob: bytes = b"blob") -> bytes:
    """An export, whose document may say what it likes under a right checksum."""
    digest = sha256(blob)
    content: dict[str, Any] = {
        "format": "centra/export",
        "format_version": "1.0",
        "backbones": {digest: {"name": "tiny", "source": "x"}},
        "tasks": {"intent": {"team": "nlu", "module": digest}},
        "release": {"manifest": digest, "signatures": []},
        "blobs": {digest: len(blob)},
        **(fields or {}),
    }
    content.pop("checksum", None)
    content["checksum"] = sha256(canonical_json(content))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in (("export.json", canonical_json(content)), (f"blobs/{digest}", blob)):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return out.getvalue()


def _tokenizer_json() -> bytes:
    from tests.support import _wordpiece

    return _wordpiece().to_str().encode()


# Mutations


def mutated(kind: str, data: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """Change an input in a few places, as what it is or as mere bytes.

    Args:
        kind: see :class:`Parser`.
        data: the input.
        chance: decides.
        other: another input, of which parts may be taken.
    """
    try:
        if chance.random() < 0.6:
            match kind:
                case "json":
                    return _json_mutated(data, chance)
                case "tensors":
                    return _tensors_mutated(data, chance)
                case "module":
                    return _module_mutated(data, chance)
                case "export":
                    return _export_mutated(chance)
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError):
        pass  # It is no longer of that kind.
    return _bytes_mutated(data, chance, other)


def _bytes_mutated(data: bytes, chance: random.Random, other: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place, end = sorted(chance.randrange(len(found) + 1) for _ in range(2))
        match chance.randrange(7):
            case 0 if found:
                found[place % len(found)] ^= 1 << chance.randrange(8)
            case 1:
                del found[place:]
            case 2:
                del found[place : min(end, place + 16)]
            case 3:
                found[place:place] = chance.choice(_TOKENS)
            case 4:
                found[place:end] = found[place:end] * 2
            case 5:
                found[place:end] = other[place:end]
            case _:
                found[place:place] = chance.randbytes(4)
    return bytes(found)


def _json_mutated(data: bytes, chance: random.Random) -> bytes:
    lines = data.decode().split("\n")
    number = chance.randrange(len(lines)) if len(lines) < 50 else 0
    lines[number] = json.dumps(_value_mutated(json.loads(lines[number]), chance))
    text = "\n".join(lines)
    if chance.random() < 0.1:  # A key that stands twice.
        text = text.replace("{", '{"format":"x",', 1)
    return text.encode()


def _value_mutated(value: Any, chance: random.Random) -> Any:
    """A JSON value, changed in a place or two."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.choice((1, 1, 2))):
        places = [*_places(value)]
        if not places:
            return chance.choice(_EXTREMES)
        whole, key = chance.choice(places)
        match chance.randrange(6):
            case 0:
                del whole[key]
            case 1:
                whole[key] = [whole[key]] * chance.choice((1, 2, 50))
            case 2:
                whole[key] = _nested(chance.choice((3, 70, 400)), whole[key])
            case 3 if isinstance(whole, dict):
                whole[str(chance.choice(_EXTREMES))] = whole.pop(key)
            case _:
                whole[key] = chance.choice(_EXTREMES)
    return value


def _nested(depth: int, value: Any) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each item of each object and list in a value."""
    todo = [value]
    while todo:
        whole = todo.pop()
        keys: Any = whole.keys() if isinstance(whole, dict) else range(len(whole or ()))
        if isinstance(whole, dict | list):
            for key in keys:
                yield whole, key
                todo.append(whole[key])


def _header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _tensors_mutated(data: bytes, chance: random.Random) -> bytes:
    header, rest = _header_of(data)
    return _framed(json.dumps(_value_mutated(header, chance)).encode(), rest)


def _module_mutated(data: bytes, chance: random.Random) -> bytes:
    header, rest = _header_of(data)
    spec = json.loads(header.pop("__metadata__")["centra"])["spec"]
    tensors = {
        name: RawTensor(
            dtype=t["dtype"], shape=tuple(t["shape"]), data=rest[slice(*t["data_offsets"])]
        )
        for name, t in header.items()
    }
    if chance.random() < 0.7:
        spec = _value_mutated(spec, chance)
    else:
        name = chance.choice(sorted(tensors))
        tensor = tensors.pop(name)
        names = [name, f"layers.{chance.choice((0, 2, 9999, 10_000))}.x", "stray", f"{name}\n"]
        shape = chance.choice((tensor.shape, (*tensor.shape, 1), (0,), (2, 2)))
        size = 4
        for length in shape:
            size *= length
        tensors[chance.choice(names)] = RawTensor(dtype="F32", shape=shape, data=bytes(size))
    return _sealed(spec, tensors)


def _export_mutated(chance: random.Random) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(_exported())) as archive:
        document = archive.extractfile("export.json")
        assert document
        fields = _value_mutated(json.loads(document.read()), chance)
    return _exported(fields)


# The loop


class _Hang(BaseException):
    """An input took too long."""


@dataclass
class Campaign:
    """What a parser has been fed."""

    corpus: list[bytes]
    reached: set[tuple[Any, int]] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, bytes] = field(default_factory=dict)
    """By what went wrong, the first input that did it."""


def attack(
    name: str, campaign: Campaign, chance: random.Random, inputs: int, *, guided: bool = True
) -> None:
    """Feed a parser with so many mutations of its corpus, which grows by those that reach new lines.

    Args:
        name: the parser's.
        campaign: what it has been fed so far; changed.
        chance: decides on mutations.
        inputs: how many.
        guided: watch which lines are reached, which takes longer.
    """
    parser = PARSERS[name]
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(inputs):
            data, other = chance.choice(campaign.corpus), chance.choice(campaign.corpus)
            data = mutated(parser.kind, data, chance, other)
            folder = Path(scratch) / str(number)
            folder.mkdir()
            before = len(campaign.reached)
            with _watched(campaign.reached) if guided else _unwatched():
                outcome = _outcome(parser, data, folder)
            campaign.counts["inputs"] += 1
            campaign.counts[outcome if outcome in ("accepted", "refused") else "faults"] += 1
            if outcome not in ("accepted", "refused"):
                campaign.faults.setdefault(outcome, data)
            elif len(campaign.reached) > before and len(data) < 100_000:
                campaign.corpus.append(data)
            _emptied(folder)


def run(seconds: float, seed: int) -> dict[str, int]:
    """Attack all parsers in turn for a time; see :mod:`tests.torture.__main__`.

    Returns:
        How many ``parsers`` there were, the ``inputs`` of all, how many of those were refused and
        accepted, and how many faults were found (``losses``).
    """
    chance, end = random.Random(seed), time.monotonic() + seconds
    made, counts = campaigns(), Counter[str]()
    for name, campaign in cycle(made.items()):
        if time.monotonic() >= end:
            break
        with limited(1 << 31):
            attack(name, campaign, chance, max(1, int(50 * PARSERS[name].share)))
    for name, campaign in made.items():
        counts.update(campaign.counts)
        for fault, data in campaign.faults.items():
            text = base64.b64encode(data).decode()
            again = f"echo {text} | base64 -d | python -m tests.torture.fuzz {name!r}"
            long = f"python -m tests.torture --part 'hostile input' --seed {seed}"
            lose(f"{name}: {fault}", again if len(text) < _SHOWN else long)
    return {
        "parsers": len(made),
        **{what: counts[what] for what in ("inputs", "refused", "accepted")},
        "losses": sum(len(campaign.faults) for campaign in made.values()),
    }


def campaigns() -> dict[str, Campaign]:
    """A campaign for each parser, at its beginning."""
    return {name: Campaign([*data]) for name, data in seeds().items()}


def _outcome(parser: Parser, data: bytes, folder: Path) -> str:
    def ring(*_: object) -> None:
        raise _Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, _LIMIT)
    try:
        parser.parse(data, folder)
        return "accepted"
    except CentraError:
        return "refused"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - each is a fault
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
        return f"{type(error).__name__} at {where}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def limited(more: int) -> Iterator[None]:
    """Let this process take so many more bytes of addresses, and no more."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    now = int(pages) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _watched(reached: set[tuple[Any, int]]) -> Iterator[None]:
    """Note which lines of ours are run."""

    def note(frame: Any, event: str, _: object) -> Any:
        if event == "call" and not frame.f_code.co_filename.startswith(_WATCHED):
            return None
        reached.add((frame.f_code, frame.f_lineno))
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def _unwatched() -> Iterator[None]:
    yield


def _emptied(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


if __name__ == "__main__":
    # One input again: a parser's name, and the bytes on standard input.
    with tempfile.TemporaryDirectory() as place:
        PARSERS[sys.argv[1]].parse(sys.stdin.buffer.read(), Path(place))
