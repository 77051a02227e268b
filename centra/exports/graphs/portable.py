"""Graphs that any reader of ONNX runs: standard operators alone, weights of 32 or 16 bits."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from centra.exports.base import ExportPrecision
from centra.formats.precision import Precision
from centra.runtime.onnx.graph import Graph, Type, type_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from centra.runtime.onnx.graph import Attribute

__all__ = ["PortableGraph"]

_LARGEST_EXACT = 63
"""In weights of eight bits. Processors without instructions for sums of byte products add two of them in
16 bits, which hold 2 * 255 * 63; who will run the graph nobody knows."""


class PortableGraph(Graph):
    """A graph under construction, written with the operators of ONNX Runtime's engine.

    What these builders take from ONNX Runtime is put in standard operators, in the forms that ONNX Runtime
    fuses again when it loads the graph.
    """

    _opsets: ClassVar[Mapping[str, int]] = {"": Graph._opsets[""]}  # noqa: SLF001 - of the same graph

    def __init__(self, name: str, precision: ExportPrecision) -> None:
        """Begin one; of fp16 all floating-point values are of 16 bits."""
        super().__init__(name)
        half = precision == ExportPrecision.FP16
        self.float_type: Type = "float16" if half else "float32"
        self.products = Precision.INT8 if precision == ExportPrecision.INT8 else Precision.FP32
        """How rows are multiplied with weights."""
        self.largest_number = _LARGEST_EXACT
        self._within = ""

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Put a part's name before the names of its weights; a part that is there twice has them once."""
        before, self._within = self._within, f"{part}/"
        try:
            yield
        finally:
            self._within = before

    def weight(self, name: str, array: np.ndarray) -> str:
        full = self._within + name
        if full not in self.weights:
            super().weight(full, self._stored(array))
        return full

    def constant(self, array: np.ndarray) -> str:
        return super().constant(self._stored(array))

    def numbers(self, *numbers: int) -> str:
        """Whole numbers ``(n,)``, as shapes and places are."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def number_of(self, number: int) -> str:
        """One whole number, without dimensions."""
        return self.constant(np.array(number, dtype=np.int64))

    def number(self, number: float) -> str:
        """One number of the graph's floating-point type."""
        return self.constant(np.array(number, dtype=np.float32))

    def cast(self, value: str, dtype: Type) -> str:
        """A value in another type."""
        return self.node("Cast", value, to=type_number(dtype))

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        written = _STANDARD.get(op)
        if written is None:
            assert not domain, f"{op} is no standard operator"
            return super().node(op, *inputs, domain="", **attributes)
        return written(self, *inputs, **attributes)

    def _stored(self, array: np.ndarray) -> np.ndarray:
        if array.dtype != np.float32 or self.float_type == "float32":
            return array
        largest = np.finfo(np.float16).max
        half: np.ndarray = np.clip(array, -largest, largest).astype(np.float16)
        return half


def _gelu(graph: PortableGraph, value: str) -> str:
    scaled = graph.node("Div", value, graph.number(math.sqrt(2)))
    above = graph.node("Add", graph.node("Erf", scaled), graph.number(1))
    return graph.node("Mul", graph.node("Mul", value, above), graph.number(0.5))


def _bias_gelu(graph: PortableGraph, value: str, bias: str) -> str:
    return _gelu(graph, graph.node("Add", value, bias))


def _fast_gelu(graph: PortableGraph, value: str, bias: str = "") -> str:
    value = graph.node("Add", value, bias) if bias else value
    cube = graph.node("Mul", graph.node("Mul", value, value), value)
    inner = graph.node("Add", value, graph.node("Mul", cube, graph.number(0.044715)))
    inner = graph.node("Mul", inner, graph.number(math.sqrt(2 / math.pi)))
    above = graph.node("Add", graph.node("Tanh", inner), graph.number(1))
    return graph.node("Mul", graph.node("Mul", value, above), graph.number(0.5))


def _rms_norm(graph: PortableGraph, value: str, weight: str, *, axis: int, epsilon: float) -> str:
    # In 32 bits: squares of what 16 bits hold are more than they hold.
    wide = graph.cast(value, "float32")
    square = graph.node("Mul", wide, wide)
    mean = graph.node("ReduceMean", square, graph.numbers(axis), keepdims=1)
    # A constant of the graph would be of 16 bits, which do not hold it.
    above = graph.node("Add", mean, Graph.constant(graph, np.array(epsilon, dtype=np.float32)))
    normed = graph.node("Div", wide, graph.node("Sqrt", above))
    return graph.node("Mul", graph.cast(normed, graph.float_type), weight)


def _skip_layer_norm(
    graph: PortableGraph, value: str, residual: str, *parts: str, epsilon: float
) -> str:
    added = graph.node("Add", value, residual)
    return graph.node("LayerNormalization", added, *parts, axis=-1, epsilon=epsilon)


def _skip_rms_norm(
    graph: PortableGraph, value: str, residual: str, weight: str, *, epsilon: float
) -> str:
    return _rms_norm(graph, graph.node("Add", value, residual), weight, axis=-1, epsilon=epsilon)


def _product_of_bytes(graph: PortableGraph, rows: str, weight: str, _one: str, scales: str) -> str:
    sums = graph.node("MatMulInteger", rows, weight)
    return graph.node("Mul", graph.cast(sums, "float32"), scales)


_STANDARD: dict[str, Callable[..., str]] = {
    "BiasGelu": _bias_gelu,
    "FastGelu": _fast_gelu,
    "Gelu": _gelu,
    "MatMulIntegerToFloat": _product_of_bytes,
    "SimplifiedLayerNormalization": _rms_norm,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
}
"""Operators that ONNX Runtime alone has."""
