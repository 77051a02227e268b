"""Safetensors files as arrays over the mapped file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from centra.errors import FormatError
from centra.formats.task_module import read_spec
from centra.formats.tensors import map_tensors, read_header, read_metadata, read_raw

if TYPE_CHECKING:
    from pathlib import Path

TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([-1, 2**40], dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "scalar": np.array(7, dtype=np.float32),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"centra": "{}"})
    return tmp_path / "x.safetensors"


def test_mapped_tensors_are_those_of_the_file(path: Path) -> None:
    found = map_tensors(path)

    assert list(found) == sorted(TENSORS)
    for name, array in TENSORS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


def test_mapped_tensors_are_not_copied_and_cannot_be_written(path: Path) -> None:
    found = map_tensors(path)["b"]

    assert not found.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


def test_another_type_is_refused(tmp_path: Path) -> None:
    save_file({"half": np.zeros(2, dtype=np.float16)}, tmp_path / "half.safetensors")

    with pytest.raises(FormatError, match="tensor half is F16, expected F32 or I64"):
        map_tensors(tmp_path / "half.safetensors")


@pytest.mark.parametrize("damage", ["cut", "beyond", "pickle", "missing"])
def test_a_file_that_is_none_is_refused(damage: str, path: Path) -> None:
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-4])
    elif damage == "beyond":
        header = json.dumps({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}})
        path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    elif damage == "pickle":
        path.write_bytes(b"\x80\x02" + data)
    else:
        path.unlink()

    with pytest.raises(FormatError, match=r"x\.safetensors"):
        map_tensors(path)


def framed(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (framed(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{}}'), "stands twice"),
        (framed(b'{"__metadata__":{"a":"b"},"__metadata__":{"a":"c"}}'), "stands twice"),
        (framed(b'{"__metadata__":{"a":NaN}}'), "no finite number"),
        (framed(b'{"__metadata__":{"a":"\\ud800"}}'), "half of a character"),
        (framed(b"[" * 5000), "nested deeper"),
        (framed(b"[]"), "no JSON object"),
        (framed(b" " * ((1 << 20) + 1)), "has 1,048,577 bytes before 0 of tensors"),
        (framed(b" " * 9_000_000, bytes(10_000_000)), "at most 8,388,608 are read"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "claims 1,099,511,627,776"),
        ((2**64 - 1).to_bytes(8, "little") + b"{", "claims"),
        (b"", "it has 0 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_header_that_no_writer_writes_is_refused(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)

    for read in (read_header, read_metadata, read_raw, map_tensors, read_spec):
        with pytest.raises(FormatError, match=says):
            read(path)
