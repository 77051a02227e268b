"""Reading safetensors files without torch: header, raw bytes, checks.

Writers use ``safetensors.torch``; everything that only has to *judge* a file (registering, diffing,
verifying) comes here, so it neither imports torch nor trusts the file.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError, deserialize, safe_open

from centra.errors import FormatError
from centra.formats.documents import canonical_json, sha256
from centra.formats.strict_json import parse_document
from centra.system.reading import open_regular, read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

__all__ = [
    "LARGEST_HEADER",
    "Header",
    "HeaderTensor",
    "RawTensor",
    "check_finite",
    "check_header_size",
    "content_checksum",
    "map_tensors",
    "read_header",
    "read_metadata",
    "read_raw",
    "under",
]

T = TypeVar("T")

LARGEST_HEADER = 1 << 23
"""Bytes of a safetensors header; the largest encoders' have a tenth of it."""
_SMALL_HEADER = 1 << 20
"""Longer ones are as honest as the tensors that they tell of are large."""

# The bits of the exponent: all set means NaN or infinity, in any of these formats.
_EXPONENT_MASKS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
_MAPPED = {"F32": "<f4", "I64": "<i8"}
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


@dataclass(frozen=True, kw_only=True)
class RawTensor:
    """One tensor as it lies in the file."""

    dtype: str
    """The safetensors name of the element type, e.g. ``"F32"``."""
    shape: tuple[int, ...]
    data: bytes

    @property
    def digest(self) -> str:
        """The SHA-256 digest of the tensor's bytes (little-endian, row-major)."""
        return sha256(self.data)


@dataclass(frozen=True, kw_only=True)
class HeaderTensor:
    """One tensor as the header describes it."""

    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, int]
    """Where its bytes begin and end, counted from the end of the header."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says of itself."""

    size: int
    """Bytes, those of the length before it included."""
    metadata: dict[str, str]
    tensors: dict[str, HeaderTensor]
    """By name, sorted."""


def read_header(path: Path) -> Header:
    """The header of a safetensors file, which is all of it that is read.

    Raises:
        FormatError: the file is a pickle, truncated, or otherwise no safetensors file; or its header
            says something twice, or is longer than any that tells of so many tensors.
    """
    try:
        with open_regular(path) as file:
            start = file.read(9)
            _refuse_pickle(path, start)
            rest = file.seek(0, 2) - 8
            length = int.from_bytes(start[:8], "little")
            if len(start) < 9 or length > rest:
                raise ValueError(f"it has {rest + 8:,} bytes, its header claims {length:,}")
            check_header_size(length, rest - length, str(path))
            file.seek(8)
            header = _parsed_header(file.read(length))
        # It judges what the header says of the file's bytes.
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return Header(
        size=8 + length,
        metadata=header.pop("__metadata__", None) or {},
        tensors={name: _header_tensor(entry) for name, entry in sorted(header.items())},
    )


def check_header_size(length: int, data: int, where: str) -> None:
    """Refuse a header that is longer than honest ones, before it is parsed.

    Args:
        length: its bytes.
        data: the bytes of the tensors behind it.
        where: what to call the file in errors.

    Raises:
        FormatError: it is.
    """
    most = min(LARGEST_HEADER, max(_SMALL_HEADER, data))
    if length > most:
        raise FormatError(
            f"{where}: its header has {length:,} bytes before {data:,} of tensors; at most {most:,} "
            "are read"
        )


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, reading its header alone.

    Raises:
        FormatError: see :func:`read_header`.
    """
    return read_header(path).metadata


def read_raw(path: Path) -> dict[str, RawTensor]:
    """All tensors of a safetensors file as raw bytes, by name in sorted order.

    Raises:
        FormatError: see :func:`read_header`.
    """
    read_header(path)
    try:
        tensors = deserialize(read_regular(path))  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    return {
        name: RawTensor(
            dtype=tensor["dtype"], shape=tuple(tensor["shape"]), data=bytes(tensor["data"])
        )
        for name, tensor in sorted(tensors)
    }


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as arrays over the mapped file, without reading it.

    The mapping ends with the last of the arrays. Until then they show what the file holds, so a
    caller copies what must outlast a change of it.

    Raises:
        FormatError: see :func:`read_header`; or the file holds tensors of another type than float32
            and int64.
    """
    import numpy as np

    header = read_header(path)
    try:
        with open_regular(path) as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _unreadable(path, error) from error
    found = {}
    for name, tensor in header.tensors.items():
        if tensor.dtype not in _MAPPED:
            raise FormatError(f"{path}: tensor {name} is {tensor.dtype}, expected F32 or I64")
        dtype = np.dtype(_MAPPED[tensor.dtype])
        start = header.size + tensor.offsets[0]
        flat = np.frombuffer(mapped, dtype, math.prod(tensor.shape), start)
        found[name] = flat.reshape(tensor.shape)
    return found


def under(tensors: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The tensors whose names begin with a prefix, under the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def content_checksum(spec: object, tensors: dict[str, RawTensor]) -> str:
    """One SHA-256 digest over a spec and every tensor's name, type, shape and bytes.

    Stored inside the file, it shows a flipped bit anywhere in it.
    """
    table = {name: [t.dtype, list(t.shape), t.digest] for name, t in tensors.items()}
    return sha256(canonical_json({"spec": spec, "tensors": table}))


def check_finite(tensors: dict[str, RawTensor], where: str) -> None:
    """Refuse tensors that hold NaN or infinity.

    Raises:
        FormatError: naming the first such tensor and how many of its values are not finite.
    """
    import numpy as np

    for name, tensor in tensors.items():
        if tensor.dtype not in _EXPONENT_MASKS:
            continue
        integer, mask = _EXPONENT_MASKS[tensor.dtype]
        bits = np.frombuffer(tensor.data, dtype=integer)
        bad = int(np.count_nonzero((bits & mask) == mask))
        if bad:
            raise FormatError(
                f"{where}: tensor {name} holds {bad} NaN or infinite values of {bits.size}. "
                "The training run diverged; train again, for example with a lower learning rate."
            )


def _parsed_header(text: bytes) -> dict[str, Any]:
    header = parse_document(text, LARGEST_HEADER)
    if not isinstance(header, dict):
        raise ValueError(f"its header is no JSON object but a {type(header).__name__}")  # noqa: TRY004 - of the content
    return header


def _header_tensor(entry: Any) -> HeaderTensor:
    """An entry of a header that the library has judged."""
    start, end = entry["data_offsets"]
    return HeaderTensor(dtype=entry["dtype"], shape=tuple(entry["shape"]), offsets=(start, end))


def _refuse_pickle(path: Path, start: bytes) -> None:
    # A safetensors header of 640 bytes starts like a pickle of protocol 2, but "{" follows.
    if start.startswith(_PICKLE_STARTS) and start[8:] != b"{":
        raise FormatError(
            f"{path}: this is a pickle (or a torch zip archive), which can run code when read; "
            "Centra never reads one. Save the weights as safetensors."
        )


def _unreadable(path: Path, error: Exception) -> FormatError:
    mend = "" if isinstance(error, OSError) else ". Copy or download it again."
    return FormatError(f"{path}: not a readable safetensors file ({error}){mend}")
