"""Tensors of the Open Inference Protocol: from bytes or JSON to texts, and from answers to both.

Pure, and for hostile bytes: a shape is compared with the data that came before anything of its size
is made. As bytes a tensor is its elements in row-major order, little-endian: a text is preceded by
its length in four bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import DataError
from centra.serving.errors import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BYTES", "FP32", "InputTensor", "OutputTensor", "join_body", "split_body", "texts_of"]

BYTES, FP32 = "BYTES", "FP32"
"""The data types of texts and of scores."""

_LENGTH = struct.Struct("<I")
_SHOWN = 60
"""So many characters of what a client wrote are shown to it again."""


@dataclass(frozen=True, kw_only=True)
class InputTensor:
    """An input tensor as a client gives it; nothing is checked yet."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes | Sequence[object]
    """All elements as bytes, or one by one; these may be nested as the shape is."""


@dataclass(frozen=True, kw_only=True)
class OutputTensor:
    """An output tensor."""

    name: str
    datatype: str
    """:data:`BYTES` or :data:`FP32`."""
    shape: tuple[int, ...]
    values: Sequence[str] | Sequence[float]
    """In row-major order: texts of a BYTES tensor, numbers of an FP32 tensor."""

    @property
    def texts(self) -> list[bytes]:
        """The values of a BYTES tensor in UTF-8."""
        return [str(value).encode() for value in self.values]

    def to_bytes(self) -> bytes:
        """All values as bytes, one after the other."""
        if self.datatype == FP32:
            return struct.pack(f"<{len(self.values)}f", *self.values)
        return b"".join(_LENGTH.pack(len(text)) + text for text in self.texts)


def texts_of(tensor: InputTensor, most: int) -> list[str]:
    """The texts of a BYTES tensor of shape ``[n]`` or ``[n, 1]``.

    Args:
        tensor: the tensor.
        most: elements that it may have.

    Raises:
        TooLargeError: it has more.
        DataError: another data type or shape, data that do not fill the shape, or no UTF-8; the
            tensor and the element, from 0, are named.
    """
    where = f"input {shown(tensor.name)}"
    if tensor.datatype != BYTES:
        raise _wrong(f"{where}: its datatype is {shown(tensor.datatype)}; expected BYTES")
    match [*tensor.shape[:3]]:
        case [count] | [count, 1] if count >= 1:
            pass
        case shape:
            raise _wrong(
                f"{where}: its shape is {shown(shape)}; expected [n] or [n, 1], with n at least 1"
            )
    if count > most:
        raise TooLargeError(
            f"{where}: has {count} elements; at most {most} are taken", field="inputs", limit=most
        )
    if isinstance(tensor.data, bytes):
        return [_text(data, where, i) for i, data in enumerate(_split(tensor.data, count, where))]
    elements = _flat(tensor.data, nested=len(tensor.shape) == 2)
    if len(elements) != count:
        raise _wrong(f"{where}: has {len(elements)} elements; its shape says {count}")
    return [_text(element, where, i) for i, element in enumerate(elements)]


def split_body(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """Cut an HTTP body into its JSON and the binary data behind it.

    Args:
        body: the whole.
        header_length: the header ``Inference-Header-Content-Length``; without it all is JSON.

    Raises:
        DataError: the header is no length within the body.
    """
    if header_length is None:
        return body, b""
    digits = header_length.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise _wrong(
            f"header Inference-Header-Content-Length is {shown(header_length)}; expected the number "
            "of bytes of the body's JSON"
        )
    length = int(digits)
    if length > len(body):
        raise _wrong(
            f"header Inference-Header-Content-Length is {length}, but the body has {len(body)} bytes"
        )
    return body[:length], body[length:]


def join_body(document: bytes, parts: Iterable[bytes]) -> bytes:
    """An HTTP body of JSON and the binary data behind it."""
    return b"".join((document, *parts))


def shown(value: object) -> str:
    """What a client wrote, for an error that it gets: cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _split(data: bytes, count: int, where: str) -> list[bytes]:
    """The elements of a BYTES tensor."""
    if count > len(data) // _LENGTH.size:
        raise _wrong(f"{where}: {len(data)} bytes of data are too few for {count} elements")
    elements: list[bytes] = []
    place = 0
    for i in range(count):
        start = place + _LENGTH.size
        if start > len(data):
            raise _wrong(f"{where}: its data end before element {i} of {count}")
        (length,) = _LENGTH.unpack_from(data, place)
        place = start + length
        if place > len(data):
            raise _wrong(
                f"{where}: element {i} says that it has {length} bytes; {len(data) - start} are left"
            )
        elements.append(data[start:place])
    if place != len(data):
        raise _wrong(f"{where}: {len(data) - place} bytes of data are left behind its elements")
    return elements


def _flat(elements: Sequence[object], *, nested: bool) -> Sequence[object]:
    """The elements of a tensor of two dimensions, which may stand in lists of their own."""
    if nested and all(isinstance(row, list) and len(row) == 1 for row in elements):
        return [element for row in elements if isinstance(row, list) for element in row]
    return elements


def _text(element: object, where: str, place: int) -> str:
    if isinstance(element, str):
        return element
    if not isinstance(element, bytes):
        raise _wrong(f"{where}: element {place} is {shown(element)}; expected a text")
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise _wrong(f"{where}: element {place} is not valid UTF-8 (byte {error.start})") from error


def _wrong(text: str) -> DataError:
    return DataError(text, code="wrong-tensor")
