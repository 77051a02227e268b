"""Documents from outside: each number is what its type says, and no more than what it counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import FormatError, UnsupportedFormatError
from centra.formats.backbone import BackboneSpec
from centra.formats.documents import canonical_json
from centra.formats.manifest import ChannelPointer, ReleaseManifest
from centra.formats.strict_json import LARGEST
from centra.formats.task_module import TaskSpec, check_module, read_spec
from tests.support import make_spec
from tests.torture import fuzz

if TYPE_CHECKING:
    from pathlib import Path

    from centra.formats.documents import FormattedDocument

SPEC = fuzz._backbone()
MANIFEST = fuzz._manifest()
POINTER = ChannelPointer(name="production", revision=3, release=7, manifest=MANIFEST.digest)
TASK = make_spec(SPEC.digest)
TRUNK = MANIFEST.trunks[0].model_dump(mode="json")
ENTRY = MANIFEST.tasks["intent"].model_dump(mode="json")
DEEP: Any = json.loads("[" * 80 + "]" * 80)


def changed(document: FormattedDocument, **fields: Any) -> bytes:
    return canonical_json({**json.loads(document.to_bytes()), **fields})


def refusal(kind: type[FormattedDocument], data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        kind.from_bytes(data, "x.json")
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize(
    "version",
    [
        "9" * 5000 + ".0",
        "1." + "9" * 5000,
        "١.٠",
        "1.0\n",
        " 1.0",
        "1",
        "+1.0",
        1.0,
        1,
        None,
        ["1.0"],
    ],
    ids=lambda version: repr(version)[:12],
)
def test_a_version_that_is_none_is_not_supported(version: object) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        ReleaseManifest.from_bytes(changed(MANIFEST, format_version=version), "x.json")

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [True, 1.0, "1", 1e308, None, [1], -1, 2**53 + 2, 10**400])
def test_a_number_of_layers_is_a_whole_number(value: object) -> None:
    data = changed(TASK).replace(b'"depth":1', b'"depth":' + json.dumps(value).encode())

    assert "depth" in refusal(TaskSpec, data) or "too large" in refusal(TaskSpec, data)


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        (ReleaseManifest, b'{"format":"x","format":"centra/release"}', "'format' stands twice"),
        (ReleaseManifest, changed(MANIFEST, tasks=DEEP), "nested deeper"),
        (TaskSpec, changed(TASK, training={"a": DEEP}), "nested deeper"),
        (TaskSpec, changed(TASK, metrics={"a\0": 1}), "metrics"),
        (TaskSpec, changed(TASK).replace(b'"alarm"', b'"\\ud800"'), "half of a character"),
        (TaskSpec, changed(TASK).replace(b'"metrics":{}', b'"metrics":{"a":NaN}'), "no finite"),
        (TaskSpec, changed(TASK).replace(b'"training":{}', b'"training":{"a":1e999}'), "no finite"),
        (TaskSpec, b"\xef\xbb\xbf" + changed(TASK), "BOM"),
        (TaskSpec, changed(TASK).decode().encode("utf-16"), "decode"),
        (ReleaseManifest, b" " * (LARGEST + 1), "at most 33,554,432 are read"),
        (ReleaseManifest, changed(MANIFEST, format=[["a"] * 10_000]), "expected a centra/release"),
        (ReleaseManifest, changed(MANIFEST, tasks={"a": ENTRY | {"tap_layer": 3}}), "taps layer 3"),
        (ReleaseManifest, changed(MANIFEST, tasks={"a": ENTRY | {"tap_layer": 10**9}}), "has 2"),
        (ReleaseManifest, changed(MANIFEST, tasks={"a": ENTRY | {"depth": 10**9}}), "at most 9999"),
        (ReleaseManifest, changed(MANIFEST, tasks={"a": ENTRY | {"depth": -1}}), "at least 0"),
        (
            ReleaseManifest,
            changed(MANIFEST, tasks={"a": ENTRY | {"backbone": "0" * 64}}),
            "no trunk",
        ),
        (ReleaseManifest, changed(MANIFEST, trunks=[]), "no trunk"),
        (ReleaseManifest, changed(MANIFEST, trunks=[TRUNK, TRUNK]), "two trunks"),
        (ReleaseManifest, changed(MANIFEST, trunks=[TRUNK | {"num_layers": 1}]), "2 layers of 1"),
        (ReleaseManifest, changed(MANIFEST, trunks=[TRUNK | {"num_layers": 0}]), "at least 1"),
        (ChannelPointer, changed(POINTER, revision=0), "revision"),
        (ChannelPointer, changed(POINTER, release=-7), "release"),
        (ChannelPointer, changed(POINTER, versions={"a": "2"}), "versions"),
        (ChannelPointer, changed(POINTER, versions={"../a": "2.1"}), "versions"),
        (BackboneSpec, changed(SPEC, num_layers=10**9), "num_layers is 1000000000, but 2"),
        (BackboneSpec, changed(SPEC, num_layers=0, layers=[]), "at least 1"),
        (BackboneSpec, changed(SPEC, max_length=-1), "max_length"),
        (BackboneSpec, changed(SPEC, layer_tensors={"a": [-1]}), "layer_tensors"),
        (BackboneSpec, changed(SPEC, tokenizer={"../../x": "0" * 64}), "tokenizer"),
        (BackboneSpec, changed(SPEC, tokenizer={"vocab.txt": "0" * 64}), "no tokenizer.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_a_document_cannot_say_is_refused(
    kind: type[FormattedDocument], data: bytes, says: str
) -> None:
    assert says in refusal(kind, data)


def test_a_document_that_nobody_could_read_is_not_written() -> None:
    labels = tuple(f"{i:0>40}" for i in range(800_000))

    with pytest.raises(FormatError, match="at most 33,554,432 are read"):
        make_spec(SPEC.digest, labels=labels).to_bytes()


@pytest.mark.parametrize("depth", [10_000, 10**9, 2**53])
def test_a_depth_that_the_file_does_not_hold_is_refused_before_it_is_counted_to(
    depth: int, tmp_path: Path
) -> None:
    header, rest = fuzz._header_of(fuzz._module())
    content = json.loads(header["__metadata__"]["centra"])
    content["spec"]["depth"] = depth
    header["__metadata__"]["centra"] = canonical_json(content).decode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(fuzz._framed(json.dumps(header).encode(), rest))

    for read in (read_spec, check_module):
        with pytest.raises(FormatError, match=rf"depth is {depth}, but the file has layers \[1\]"):
            read(path)
