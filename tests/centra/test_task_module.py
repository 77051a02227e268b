"""Task modules: one file with spec and weights, and one test per refusal."""

from __future__ import annotations

import dataclasses
import json
import pickle
import struct
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from centra.errors import (
    FormatError,
    IncompatibleError,
    StoreNotWritableError,
    UnsupportedFormatError,
    VerificationError,
)
from centra.formats.contract import Contract
from centra.formats.documents import canonical_json
from centra.formats.task_module import (
    HeadSpec,
    TaskModule,
    TaskSpec,
    check_fits,
    check_module,
    read_spec,
)
from centra.formats.tensors import RawTensor, content_checksum
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.backbone import BackboneSpec

KINDS = ("classification", "multilabel", "regression", "tagging")
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int32: "I32", torch.int64: "I64"}

# What a real run writes, with the numbers and letters whose spelling is not unique in JSON.
TRAINING = {"recipe": {"learning_rate": 1e-05, "weight_decay": 0.01}, "versions": {"torch": "2.0"}}


@pytest.fixture
def module(make_module: Callable[..., TaskModule]) -> TaskModule:
    return make_module("classification", tap=1, depth=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "task.safetensors"


@pytest.fixture
def spec(tiny_backbone: support.Backbone) -> BackboneSpec:
    return tiny_backbone.spec


def written(module: TaskModule, path: Path) -> Path:
    module.write(path)
    return path


def respecified(module: TaskModule, **fields: object) -> TaskModule:
    return dataclasses.replace(module, spec=module.spec.model_copy(update=fields))


def with_tensors(module: TaskModule, **tensors: torch.Tensor | None) -> TaskModule:
    """Replace tensors, named with ``__`` for dots; None leaves one out."""
    changed = module.tensors | {name.replace("__", "."): t for name, t in tensors.items()}
    return dataclasses.replace(module, tensors={n: t for n, t in changed.items() if t is not None})


def craft(path: Path, fields: object, tensors: dict[str, torch.Tensor]) -> Path:
    """Write a file with a true checksum over whatever it is given."""
    raw = {
        name: RawTensor(dtype=DTYPES[t.dtype], shape=tuple(t.shape), data=t.numpy().tobytes())
        for name, t in sorted(tensors.items())
    }
    header = {"checksum": content_checksum(fields, raw), "spec": fields}
    path.write_bytes(save(tensors, metadata={"centra": canonical_json(header).decode()}))
    return path


def fields_of(module: TaskModule) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(module.spec.to_bytes())
    return found


# Round trip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tap", "depth"), [(0, 0), (1, 2), (3, 0), (0, 3)])
def test_what_is_written_reads_back(
    kind: str,
    tap: int,
    depth: int,
    make_module: Callable[..., TaskModule],
    path: Path,
    spec: BackboneSpec,
) -> None:
    module = make_module(kind, tap=tap, depth=depth, metrics={"accuracy": 0.5}, training=TRAINING)

    module.write(path)
    read = TaskModule.read(path)
    file = check_module(path)
    check_fits(file, spec, "tiny@1")

    assert read_spec(path).model_dump() == module.spec.model_dump()
    assert read.spec.contract == Contract(kind=kind, input="single", labels=module.spec.labels)
    assert read.tensors.keys() == module.tensors.keys() == file.tensors.keys()
    assert all(torch.equal(read.tensors[name], t) for name, t in module.tensors.items())
    assert (file.path, file.size) == (path, len(module.to_bytes()))
    assert read.to_bytes() == path.read_bytes() == module.to_bytes()


def test_same_content_gives_the_same_bytes(
    make_module: Callable[..., TaskModule],
) -> None:
    module, again = make_module(seed=3), make_module(seed=3)
    backwards = dataclasses.replace(again, tensors=dict(reversed(again.tensors.items())))

    assert module.to_bytes() == again.to_bytes() == backwards.to_bytes()
    assert module.to_bytes() != make_module(seed=4).to_bytes()


def test_bytes_do_not_depend_on_how_tensors_lie_in_memory(module: TaskModule) -> None:
    weight = module.tensors["layers.1.output.dense.weight"]
    transposed = weight.t().contiguous().t()
    assert not transposed.is_contiguous()
    assert torch.equal(transposed, weight)

    moved = with_tensors(module, layers__1__output__dense__weight=transposed)

    assert moved.to_bytes() == module.to_bytes()


def test_spec_read_from_a_file_can_be_changed(module: TaskModule, path: Path) -> None:
    read = TaskModule.read(written(module, path))
    changed = respecified(read, metrics={"accuracy": 0.75})

    changed.write(path)

    assert check_module(path).spec.metrics == {"accuracy": 0.75}


def test_weights_leave_the_probe_out(module: TaskModule) -> None:
    assert module.weights.keys() == {n for n in module.tensors if not n.startswith("probe.")}
    assert "head.out.weight" in module.weights


def test_labels_may_hold_any_text(make_module: Callable[..., TaskModule], path: Path) -> None:
    labels = ['quote " and \\', "日本語", "😀", "line\nbreak", "\x00\x1f\x7f", " "]

    make_module(labels=labels).write(path)

    assert check_module(path).spec.labels == tuple(labels)


@pytest.mark.parametrize("size", [0x580, 0x10280])
def test_header_whose_length_looks_like_the_start_of_a_pickle_is_no_pickle(
    size: int, make_module: Callable[..., TaskModule], path: Path
) -> None:
    """A safetensors file starts with its header's length: 0x580 is the bytes ``80 05``."""

    def noted(length: int) -> TaskModule:
        return make_module("tagging", tap=0, depth=0, labels=["O"], training={"note": "x" * length})

    missing = size - len(_header(noted(0).to_bytes()))
    module = noted(missing)
    written(module, path)
    assert path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x05")

    assert check_module(path).spec.training["note"]
    assert read_spec(path).kind == "tagging"


def _header(data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    return data[8 : 8 + length]


def test_judging_a_module_needs_neither_torch_nor_transformers(
    module: TaskModule, path: Path, tiny_backbone: support.Backbone
) -> None:
    module.write(path)
    loaded = support.imported_by(
        "from pathlib import Path\n"
        "from centra.formats.backbone import BackboneSpec\n"
        "from centra.store import LocalStore\n"
        "from centra.formats.task_module import check_fits, check_module, read_spec\n"
        f"path, store = Path({str(path)!r}), LocalStore(Path({tiny_backbone.store.url!r}))\n"
        "spec = read_spec(path)\n"
        "check_fits(check_module(path), BackboneSpec.fetch(spec.backbone, store), 'tiny')\n"
    )

    assert "centra" in loaded
    assert not loaded & {"torch", "transformers", "tokenizers", "sqlalchemy", "click"}


def test_folder_that_cannot_be_written_is_named(module: TaskModule, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreNotWritableError, match="cannot write"):
        module.write(tmp_path / "file" / "task.safetensors")


def test_failed_write_leaves_the_earlier_file(
    module: TaskModule, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(module, path).read_bytes()

    def fail(_: TaskModule) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(TaskModule, "to_bytes", fail)
    with pytest.raises(KeyboardInterrupt):
        module.write(path)

    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


# Damaged files


@pytest.mark.parametrize("judge", [read_spec, check_module])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 500, -4000, -1])
def test_truncated_file_is_refused(
    length: int, judge: Callable[[Path], object], module: TaskModule, path: Path
) -> None:
    path.write_bytes(module.to_bytes()[:length])

    with pytest.raises(FormatError, match=r"task\.safetensors"):
        judge(path)


@pytest.mark.parametrize("extra", [b"\0", b"trailing"])
def test_trailing_bytes_are_refused(extra: bytes, module: TaskModule, path: Path) -> None:
    path.write_bytes(module.to_bytes() + extra)

    with pytest.raises(FormatError):
        check_module(path)


def test_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        check_module(path)


@pytest.fixture(scope="module")
def small_file(
    make_module: Callable[..., TaskModule], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The smallest module that has everything a spec may hold."""
    module = make_module(
        "tagging",
        tap=0,
        depth=0,
        labels=["O", "B-é", "I-\x1f"],
        metrics={"entity_f1": 0.5},
        training=TRAINING,
        teacher="e" * 64,
    )
    return written(module, tmp_path_factory.mktemp("small") / "task.safetensors")


@given(data=st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject, small_file: Path) -> None:
    bit = data.draw(st.integers(0, 8 * small_file.stat().st_size - 1), label="bit")
    support.flip(small_file, bit)
    try:
        with pytest.raises(FormatError):
            check_module(small_file)
    finally:
        support.flip(small_file, bit)
    check_module(small_file)


@given(data=st.data())
def test_any_flipped_bit_in_the_header_is_refused(data: st.DataObject, small_file: Path) -> None:
    header = len(_header(small_file.read_bytes()))
    bit = data.draw(st.integers(0, 8 * (8 + header) - 1), label="bit")
    support.flip(small_file, bit)
    try:
        with pytest.raises(FormatError):
            check_module(small_file)
    finally:
        support.flip(small_file, bit)


@pytest.mark.parametrize(
    ("text", "offset"), [(b"1e-05", 1), (rb"\\u001f", 6)], ids=["exponent", "escaped character"]
)
def test_flipped_bit_that_only_changes_the_spelling_is_refused(
    text: bytes, offset: int, small_file: Path
) -> None:
    """``1E-05`` is the same number as ``1e-05``, but the file is no longer the one written."""
    place = small_file.read_bytes().index(text) + offset
    bit = 8 * place + 5  # the bit between lower and upper case
    support.flip(small_file, bit)
    try:
        assert small_file.read_bytes()[place : place + 1] in b"EF"
        with pytest.raises(FormatError):
            check_module(small_file)
    finally:
        support.flip(small_file, bit)


def test_corrupt_weights_are_named_as_such(module: TaskModule, path: Path) -> None:
    data = written(module, path).read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    with pytest.raises(FormatError, match="is corrupt: its content's SHA-256 is"):
        check_module(path)


# Files of another sort


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("judge", [read_spec, check_module])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_is_refused_and_never_run(
    protocol: int, judge: Callable[[Path], object], path: Path
) -> None:
    path.write_bytes(pickle.dumps({"x": _Evil()}, protocol=protocol))

    with pytest.raises(FormatError, match="this is a pickle"):
        judge(path)


@pytest.mark.parametrize("protocol", [0, 1])
def test_old_pickle_is_refused_and_never_run(protocol: int, path: Path) -> None:
    path.write_bytes(pickle.dumps({"x": _Evil()}, protocol=protocol))

    with pytest.raises(FormatError):
        check_module(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_archive_is_refused(zipped: bool, module: TaskModule, path: Path) -> None:
    torch.save(module.tensors, path, _use_new_zipfile_serialization=zipped)

    with pytest.raises(FormatError, match="torch zip archive"):
        check_module(path)


def test_safetensors_without_a_spec_is_no_task_module(module: TaskModule, path: Path) -> None:
    save_file(module.tensors, path, metadata={"format": "pt"})

    with pytest.raises(FormatError, match="not a Centra task module"):
        check_module(path)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "null",
        "[]",
        "{}",
        "not json",
        '{"spec": {}}',
        '{"checksum": "0"}',
        '{"spec": NaN, "checksum": "0"}',
        '{"spec": {"format": "\\ud800"}, "checksum": "0"}',
        pytest.param("[" * 100_000, id="nested too deeply"),
    ],
)
def test_damaged_spec_is_refused(header: str, module: TaskModule, path: Path) -> None:
    save_file(module.tensors, path, metadata={"centra": header})

    for judge in (read_spec, check_module):
        with pytest.raises(FormatError):
            judge(path)


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.3"])
def test_other_major_version_is_refused_with_both_versions_named(
    version: str, module: TaskModule, path: Path
) -> None:
    craft(path, fields_of(module) | {"format_version": version}, module.tensors)

    for judge in (read_spec, check_module):
        with pytest.raises(UnsupportedFormatError) as caught:
            judge(path)
        assert f"centra/task-module {version}" in str(caught.value)
        assert "centra/task-module 1.x" in str(caught.value)
        assert caught.value.found == f"centra/task-module {version}"


@pytest.mark.parametrize("version", ["1", "one.two", "", None, "1.0.0", "-1.0"])
def test_malformed_version_is_refused(version: object, module: TaskModule, path: Path) -> None:
    craft(path, fields_of(module) | {"format_version": version}, module.tensors)

    with pytest.raises(UnsupportedFormatError):
        check_module(path)


def test_newer_minor_version_may_have_more_fields(module: TaskModule, path: Path) -> None:
    craft(path, fields_of(module) | {"format_version": "1.7", "colour": "red"}, module.tensors)

    assert check_module(path).spec.kind == "classification"


def test_unknown_field_of_our_own_version_is_refused(module: TaskModule, path: Path) -> None:
    craft(path, fields_of(module) | {"colour": "red"}, module.tensors)

    with pytest.raises(FormatError, match="colour"):
        check_module(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "centra/release"},
        {"kind": "guessing"},
        {"input": "triple"},
        {"backbone": "abc"},
        {"backbone": "A" * 64},
        {"teacher": "abc"},
        {"dtype": "float16"},
        {"tap_layer": "deep"},
        {"head": {"activation": "sigmoid"}},
        {"head": None},
        {"labels": "abc"},
        {"metrics": {"accuracy": "good"}},
    ],
    ids=str,
)
def test_wrong_field_is_refused_by_name(
    fields: dict[str, object], module: TaskModule, path: Path
) -> None:
    craft(path, fields_of(module) | fields, module.tensors)

    (name,) = fields
    for judge in (read_spec, check_module):
        with pytest.raises(FormatError, match=name if name != "format" else "centra/release"):
            judge(path)


@pytest.mark.parametrize("name", ["kind", "labels", "backbone", "tap_layer", "depth", "head"])
def test_missing_field_is_refused_by_name(name: str, module: TaskModule, path: Path) -> None:
    fields = fields_of(module)
    del fields[name]
    craft(path, fields, module.tensors)

    with pytest.raises(FormatError, match=name):
        check_module(path)


# Specs that contradict themselves or their weights


@pytest.mark.parametrize(
    ("kind", "fields", "match"),
    [
        ("classification", {"labels": ("a", "a", "b")}, "distinct"),
        ("classification", {"labels": ("a", "", "b")}, "not empty"),
        ("classification", {"labels": ("a",)}, "1 labels; expected at least 2"),
        ("multilabel", {"labels": ()}, "0 labels; expected at least 1"),
        ("regression", {"labels": ("a",)}, "expected none"),
        ("tagging", {"labels": ("O", "city", "I-city")}, "BIO.*city"),
        ("tagging", {"labels": ("B-x", "B-city", "I-city")}, "no O"),
        ("tagging", {"labels": ("O", "B-", "I-")}, "BIO"),
        ("tagging", {"head": HeadSpec(activation="tanh")}, "head.activation"),
        ("tagging", {"input": "pair"}, "single"),
        ("classification", {"head": HeadSpec(activation=None)}, "head.activation"),
        (
            "classification",
            {"head": HeadSpec(activation="tanh", tags=("O", "S-city"))},
            "head.tags is for tagging tasks",
        ),
        ("tagging", {"head": HeadSpec(tags=("O", "S-city"), crf=True)}, "without a CRF"),
        ("tagging", {"head": HeadSpec(tags=("O", "U-city"))}, "head.tags must be .* U-city"),
        ("tagging", {"head": HeadSpec(tags=("O", "O"))}, "found one twice"),
        ("tagging", {"head": HeadSpec(tags=("O", "S-day"))}, "without the label B-day"),
        ("classification", {"tap_layer": -1}, "tap_layer: expected a number at least 0, found -1"),
        ("classification", {"depth": -1}, "depth: expected a number at least 0, found -1"),
    ],
)
def test_spec_that_contradicts_itself_is_refused(
    kind: str,
    fields: dict[str, object],
    match: str,
    make_module: Callable[..., TaskModule],
    path: Path,
) -> None:
    respecified(make_module(kind), **fields).write(path)

    with pytest.raises(FormatError, match=match):
        check_module(path)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "tagging"])
@pytest.mark.parametrize("labels", [("O", "B-x"), ("O", "B-x", "I-x", "B-y")])
def test_labels_that_do_not_match_the_head_are_refused(
    kind: str, labels: tuple[str, ...], make_module: Callable[..., TaskModule], path: Path
) -> None:
    respecified(make_module(kind), labels=labels).write(path)

    with pytest.raises(FormatError, match=f"{len(labels)} labels but the head has 3 outputs"):
        check_module(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["layers.1.output.dense.bias", "head.out.bias", "probe.logits"])
def test_nan_and_infinite_values_are_refused_by_name(
    name: str, value: float, module: TaskModule, path: Path
) -> None:
    tensor = module.tensors[name].clone()
    tensor.view(-1)[1] = value
    dataclasses.replace(module, tensors=module.tensors | {name: tensor}).write(path)

    with pytest.raises(FormatError, match=f"{name} holds 1 NaN or infinite values"):
        check_module(path)


def test_largest_finite_values_are_no_infinities(module: TaskModule, path: Path) -> None:
    limits = torch.finfo(torch.float32)
    bias = torch.tensor([limits.max, limits.min, limits.smallest_normal / 4])

    with_tensors(module, head__out__bias=bias).write(path)

    check_module(path)


@pytest.mark.parametrize(
    "name",
    [
        "probe.input_ids",
        "probe.attention_mask",
        "probe.token_type_ids",
        "probe.logits",
        "head.out.weight",
        "head.out.bias",
        "head.dense.weight",
        "head.dense.bias",
    ],
)
def test_missing_tensor_is_refused_by_name(
    name: str, module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    with_tensors(module, **{name: None}).write(path)

    with pytest.raises(VerificationError, match=name):
        check_fits(check_module(path), spec, "tiny@1")


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_layers_that_do_not_match_the_depth_are_refused(
    depth: int, make_module: Callable[..., TaskModule], path: Path
) -> None:
    respecified(make_module(depth=2), depth=depth).write(path)

    with pytest.raises(FormatError, match=rf"depth is {depth}, but the file has layers \[1, 2\]"):
        check_module(path)


@pytest.mark.parametrize(
    "name", ["layers.x.weight", "layers.", "layers", "layers.-1.weight", "layers.²", "layers.1"]
)
def test_layer_without_a_proper_number_is_refused(
    name: str, module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    with_tensors(module, **{name: torch.zeros(2)}).write(path)

    with pytest.raises(VerificationError):
        check_fits(check_module(path), spec, "tiny@1")


@pytest.mark.parametrize(
    "name", ["stray", "head.extra", "layers.1.extra.weight", "probe.extra", "head.out.weight2"]
)
def test_tensor_that_nothing_reads_is_refused(
    name: str, module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    """It would be found only when a server loads the release."""
    with_tensors(module, **{name: torch.zeros(2)}).write(path)

    with pytest.raises(VerificationError, match=name):
        check_fits(check_module(path), spec, "tiny@1")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("probe.attention_mask", torch.ones(3, 1, dtype=torch.int64)),
        ("probe.token_type_ids", torch.zeros(2, 2, dtype=torch.int64)),
        ("probe.logits", torch.zeros(3, 4)),
        ("probe.logits", torch.zeros(9)),
        ("probe.input_ids", torch.ones(3, dtype=torch.int64)),
        ("probe.input_ids", torch.tensor(1)),
        ("probe.input_ids", torch.ones(3, 2, 2, dtype=torch.int64)),
        ("head.out.bias", torch.zeros(4)),
        ("head.out.bias", torch.zeros(1, 3)),
        ("head.out.weight", torch.zeros(3)),
        ("head.out.weight", torch.zeros(3, 31)),
        ("head.dense.weight", torch.zeros(32, 31)),
        ("head.dense.bias", torch.zeros(31)),
        ("layers.1.output.dense.weight", torch.zeros(64, 32)),
        ("layers.1.attention.self.query.bias", torch.zeros(33)),
    ],
    ids=lambda value: value if isinstance(value, str) else str([*value.shape]),
)
def test_wrong_shape_is_refused(
    name: str, tensor: torch.Tensor, module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    with_tensors(module, **{name: tensor}).write(path)

    with pytest.raises(VerificationError, match=r"probe|head|layers"):
        check_fits(check_module(path), spec, "tiny@1")


@pytest.mark.parametrize(
    "inputs", [(3,), (), (0, 4), (3, 0)], ids=["flat", "scalar", "no rows", "no tokens"]
)
def test_probe_that_is_no_batch_is_refused(
    inputs: tuple[int, ...], module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    """All three arrays agree with each other here."""
    ids = torch.zeros(inputs, dtype=torch.int64)
    with_tensors(
        module,
        probe__input_ids=ids,
        probe__attention_mask=ids,
        probe__token_type_ids=ids,
        probe__logits=torch.zeros(*inputs[:1], 3),
    ).write(path)

    with pytest.raises(VerificationError, match="probe"):
        check_fits(check_module(path), spec, "tiny@1")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("probe.input_ids", torch.int32),
        ("probe.input_ids", torch.float32),
        ("probe.attention_mask", torch.float32),
        ("probe.logits", torch.float64),
        ("head.out.weight", torch.float64),
        ("layers.1.output.dense.bias", torch.float64),
        ("layers.1.output.dense.bias", torch.int64),
    ],
)
def test_wrong_element_type_is_refused_by_name(
    name: str, dtype: torch.dtype, module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    tensors = module.tensors | {name: module.tensors[name].to(dtype)}
    craft(path, fields_of(module), tensors)

    with pytest.raises(VerificationError, match=name):
        check_fits(check_module(path), spec, "tiny@1")


# Backbones


def test_module_of_another_backbone_is_refused(
    module: TaskModule, path: Path, imported: Callable[[str], support.Backbone]
) -> None:
    other = imported("electra").spec

    with pytest.raises(IncompatibleError, match=rf"{module.spec.backbone}.*tiny@2.*{other.digest}"):
        check_fits(check_module(written(module, path)), other, "tiny@2")


@pytest.mark.parametrize("tap", [4, 99])
def test_tap_beyond_the_backbone_is_refused(
    tap: int, module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    respecified(module, tap_layer=tap).write(path)

    with pytest.raises(IncompatibleError, match=f"taps layer {tap}, but tiny@1 has 3 layers"):
        check_fits(check_module(path), spec, "tiny@1")


def test_deepest_tap_is_the_last_layer(
    make_module: Callable[..., TaskModule], path: Path, spec: BackboneSpec
) -> None:
    check_fits(check_module(written(make_module(tap=3, depth=0), path)), spec, "tiny@1")


def test_more_layers_above_the_tap_than_the_backbone_has_are_allowed(
    make_module: Callable[..., TaskModule], path: Path, spec: BackboneSpec
) -> None:
    check_fits(check_module(written(make_module(tap=3, depth=2), path)), spec, "tiny@1")


def test_missing_tensor_of_a_layer_is_refused_by_name(
    module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    name = "layers.1.attention.self.key.bias"
    with_tensors(module, **{name: None}).write(path)

    with pytest.raises(IncompatibleError, match=f"{name} is None, tiny@1 needs"):
        check_fits(check_module(path), spec, "tiny@1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probe.input_ids", -1),
        ("probe.input_ids", 10**6),
        ("probe.token_type_ids", 2),
        ("probe.token_type_ids", -1),
    ],
)
def test_probe_that_the_backbone_cannot_read_is_refused(
    name: str, value: int, module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    tensor = module.tensors[name].clone()
    tensor[0, 0] = value
    with_tensors(module, **{name: tensor}).write(path)

    with pytest.raises(VerificationError, match="probe"):
        check_fits(check_module(path), spec, "tiny@1")


def test_probe_longer_than_the_backbone_takes_is_refused(
    module: TaskModule, path: Path, spec: BackboneSpec
) -> None:
    long = torch.ones(3, support.MAX_LENGTH + 1, dtype=torch.int64)
    with_tensors(
        module, probe__input_ids=long, probe__attention_mask=long, probe__token_type_ids=0 * long
    ).write(path)

    with pytest.raises(IncompatibleError, match="probe does not fit"):
        check_fits(check_module(path), spec, "tiny@1")


# Specs by themselves


@pytest.mark.parametrize(
    ("kind", "labels", "outputs"),
    [("classification", ("a", "b"), 2), ("regression", (), 1), ("tagging", ("O",), 1)],
)
def test_outputs_follow_the_labels(kind: str, labels: tuple[str, ...], outputs: int) -> None:
    assert support.make_spec("0" * 64, kind, labels=labels).outputs == outputs


@settings(max_examples=50)
@given(
    labels=st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6, unique=True),
    tap=st.integers(0, 100),
    metrics=st.dictionaries(
        st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3
    ),
)
def test_spec_round_trips_to_the_same_bytes(
    labels: list[str], tap: int, metrics: dict[str, float]
) -> None:
    spec = support.make_spec("a" * 64, labels=labels, tap=tap, metrics=metrics)

    read = TaskSpec.from_bytes(spec.to_bytes(), "spec")

    assert read.model_dump() == spec.model_dump()
    assert read.to_bytes() == canonical_json(json.loads(spec.to_bytes())) == spec.to_bytes()
