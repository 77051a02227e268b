"""ONNX graphs without the ``onnx`` package: a builder, and the few protobuf messages it needs.

A graph's weights stay outside the message; a session is handed them in memory. So the bytes of a
layer's graph are a few kilobytes, made in no time, and the same for all layers of one shape.

Field numbers are those of ``onnx.proto`` (ONNX 1.14, IR version 8), wire types those of the
protocol buffers encoding: 0 a varint, 2 a length and that many bytes, 5 a 32-bit float.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["MICROSOFT", "Attribute", "Graph", "Type", "type_number"]

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

Attribute = int | float | str | tuple[int, ...]
Type = Literal["float32", "float16", "uint8", "int8", "int32", "int64", "bool"]

_IR_VERSION, _OPSET, _MICROSOFT_OPSET = 8, 18, 1
_TYPES: dict[str, int] = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7} | {
    "bool": 9,
    "float16": 10,
}
_FLOAT, _INT, _STRING, _INTS = 1, 2, 3, 7
_EXTERNAL = 1
# A reader that is not handed the weights looks for this file, and fails.
_NOWHERE = "not-in-a-file"


def type_number(dtype: Type) -> int:
    """What ONNX calls a type, as operators are told of it."""
    return _TYPES[dtype]


class Graph:
    """A graph under construction. Values are named by strings; nodes must come in running order."""

    _opsets: ClassVar[Mapping[str, int]] = {"": _OPSET, MICROSOFT: _MICROSOFT_OPSET}
    """The sets of operators that it is written in."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._initializers: list[bytes] = []
        self._count = 0
        self.inputs: list[str] = []
        """The names of the inputs, in order."""
        self.outputs: list[str] = []
        """The names of the outputs, in order."""
        self.weights: dict[str, np.ndarray] = {}
        """What a session must be handed, by name."""
        self.largest_number: int | None = None
        """The largest in a weight of eight bits; None for what the processor here adds up exactly."""

    def input(self, name: str, dtype: Type, shape: Sequence[int | str]) -> str:
        """Declare an input; a dimension given by name may have any size."""
        self._inputs.append(_value_info(name, dtype, shape))
        self.inputs.append(name)
        return name

    def output(self, value: str, dtype: Type, shape: Sequence[int | str]) -> None:
        """Declare that a value is an output, under its own name."""
        self._outputs.append(_value_info(value, dtype, shape))
        self.outputs.append(value)

    def weight(self, name: str, array: np.ndarray) -> str:
        """Declare a weight of float32, float16 or int8, which a session is handed from outside.

        Args:
            name: its name in the graph.
            array: its values; may lie in a mapped file, as a session takes a copy of its own.
        """
        self.weights[name] = array
        return name

    def constant(self, array: np.ndarray) -> str:
        """Embed a small array of any :data:`Type`."""
        name = self._fresh("constant")
        self._initializers.append(_inside(name, array))
        return name

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """Add an operator with one result.

        Args:
            op: the operator's type.
            inputs: names of values; an empty name leaves an optional input out.
            domain: empty for ONNX's own operators, or :data:`MICROSOFT`.
            attributes: as the operator defines them.

        Returns:
            The name of the result.
        """
        return self._add(op, inputs, 1, domain, attributes)[0]

    def named(self, name: str, value: str) -> str:
        """Give a value a name."""
        self._nodes.append(_node("Identity", [value], [name], "", {}))
        return name

    def split(self, value: str, parts: int, size: int) -> list[str]:
        """Cut a value along its second axis into so many parts of one size."""
        sizes = self.constant(np.full(parts, size, dtype=np.int64))
        return self._add("Split", (value, sizes), parts, "", {"axis": 1})

    def to_bytes(self, places: Mapping[str, tuple[str, int]] | None = None) -> bytes:
        """The whole as an ONNX ``ModelProto``; the same calls give the same bytes.

        Args:
            places: per weight the file that it lies in, beside the graph's, and where it begins there.
                None leaves all to whoever makes a session.
        """
        weights = (
            _external(name, array, None if places is None else places[name])
            for name, array in self.weights.items()
        )
        return self._whole(weights)

    def to_file_bytes(self) -> bytes:
        """The whole with its weights in it; they must be fewer than two gigabytes."""
        return self._whole(_inside(name, array) for name, array in self.weights.items())

    def _whole(self, weights: Iterable[bytes]) -> bytes:
        graph = b"".join(
            (
                *(_bytes(1, node) for node in self._nodes),
                _text(2, self._name),
                *(_bytes(5, tensor) for tensor in self._initializers),
                *(_bytes(5, tensor) for tensor in weights),
                *(_bytes(11, value) for value in self._inputs),
                *(_bytes(12, value) for value in self._outputs),
            )
        )
        return b"".join(
            (
                _varint(1, _IR_VERSION),
                _text(2, "centra"),
                _bytes(7, graph),
                *(
                    _bytes(8, _text(1, name) + _varint(2, version))
                    for name, version in self._opsets.items()
                ),
            )
        )

    def _add(
        self,
        op: str,
        inputs: Sequence[str],
        results: int,
        domain: str,
        attributes: Mapping[str, Attribute],
    ) -> list[str]:
        found = [self._fresh(op.lower()) for _ in range(results)]
        self._nodes.append(_node(op, inputs, found, domain, attributes))
        return found

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}.{self._count}"


def _node(
    op: str,
    inputs: Sequence[str],
    results: Sequence[str],
    domain: str,
    attributes: Mapping[str, Attribute],
) -> bytes:
    return b"".join(
        (
            *(_text(1, name) for name in inputs),
            *(_text(2, name) for name in results),
            _text(3, results[0]),
            _text(4, op),
            *(_bytes(5, _attribute(k, v)) for k, v in sorted(attributes.items())),
            _text(7, domain),
        )
    )


def _inside(name: str, array: np.ndarray) -> bytes:
    """A tensor with its values."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return _tensor(name, array.dtype.name, array.shape) + _bytes(9, little.tobytes())


def _external(name: str, array: np.ndarray, place: tuple[str, int] | None) -> bytes:
    """A tensor whose values lie in a file, or nowhere."""
    told = {"location": _NOWHERE}
    if place is not None:
        file, start = place
        told = {"location": file, "offset": str(start), "length": str(array.nbytes)}
    entries = b"".join(_bytes(13, _text(1, key) + _text(2, text)) for key, text in told.items())
    return _tensor(name, array.dtype.name, array.shape) + entries + _varint(14, _EXTERNAL)


def _tensor(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_varint(1, size) for size in shape)
    return dims + _varint(2, _TYPES[dtype]) + _text(8, name)


def _attribute(name: str, value: Attribute) -> bytes:
    match value:
        case int():
            return _text(1, name) + _varint(3, value) + _varint(20, _INT)
        case float():
            return _text(1, name) + _key(2, 5) + struct.pack("<f", value) + _varint(20, _FLOAT)
        case tuple():
            numbers = b"".join(_varint(8, number) for number in value)
            return _text(1, name) + numbers + _varint(20, _INTS)
        case str():
            return _text(1, name) + _text(4, value) + _varint(20, _STRING)


def _value_info(name: str, dtype: Type, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(
        _bytes(1, _text(2, size) if isinstance(size, str) else _varint(1, size)) for size in shape
    )
    tensor = _varint(1, _TYPES[dtype]) + _bytes(2, dims)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _key(field: int, wire_type: int) -> bytes:
    return _base128(field << 3 | wire_type)


def _varint(field: int, value: int) -> bytes:
    return _key(field, 0) + _base128(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _base128(len(value)) + value


def _base128(value: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers as 64 bits in two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
