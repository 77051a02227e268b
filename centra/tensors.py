"""Reading safetensors files without torch: header, raw bytes, checks.

Writers use ``safetensors.torch``; everything that only has to *judge* a file (registering, diffing,
verifying) comes here, so it neither imports torch nor trusts the file.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError, deserialize, safe_open

from centra.documents import canonical_json, sha256
from centra.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

__all__ = [
    "RawTensor",
    "check_finite",
    "content_checksum",
    "map_tensors",
    "read_metadata",
    "read_raw",
    "under",
]

T = TypeVar("T")

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


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, reading its header alone.

    Raises:
        FormatError: the file is a pickle, truncated, or otherwise no safetensors file.
    """
    _refuse_pickle(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def read_raw(path: Path) -> dict[str, RawTensor]:
    """All tensors of a safetensors file as raw bytes, by name in sorted order.

    Raises:
        FormatError: the file is a pickle, truncated, or otherwise no safetensors file.
    """
    _refuse_pickle(path)
    try:
        tensors = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
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
        FormatError: the file is a pickle, truncated, or otherwise no safetensors file, or holds
            tensors of another type than float32 and int64.
    """
    import numpy as np

    read_metadata(path)  # Refuses headers that do not fit the file.
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _unreadable(path, error) from error
    length = int.from_bytes(mapped[:8], "little")
    header: dict[str, Any] = json.loads(mapped[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in sorted(header.items()):
        if entry["dtype"] not in _MAPPED:
            raise FormatError(f"{path}: tensor {name} is {entry['dtype']}, expected F32 or I64")
        start, end = entry["data_offsets"]
        dtype = np.dtype(_MAPPED[entry["dtype"]])
        flat = np.frombuffer(mapped, dtype, (end - start) // dtype.itemsize, 8 + length + start)
        found[name] = flat.reshape(entry["shape"])
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


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise _unreadable(path, error) from error
    # A safetensors header of 640 bytes starts like a pickle of protocol 2, but "{" follows.
    if start.startswith(_PICKLE_STARTS) and start[8:] != b"{":
        raise FormatError(
            f"{path}: this is a pickle (or a torch zip archive), which can run code when read; "
            "Centra never reads one. Save the weights as safetensors."
        )


def _unreadable(path: Path, error: Exception) -> FormatError:
    mend = ". Copy or download it again." if isinstance(error, SafetensorError) else ""
    return FormatError(f"{path}: not a readable safetensors file ({error}){mend}")
