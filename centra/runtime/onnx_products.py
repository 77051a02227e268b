"""Products of rows with weights, in float32 or in eight bits.

In eight bits a weight is held as whole numbers with one scale per output, and the rows are turned
into bytes with one scale per row, from that row alone. So a row's product depends on no other row,
and nothing has to be calibrated. Sums are of whole numbers and therefore exact, in any order. What
comes out is float32 again.

All are two-dimensional products with a constant weight behind: ONNX Runtime packs such weights once,
and gives a row the same bits whatever other rows there are, even none. Batched products do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from centra.runtime.onnx_graph import MICROSOFT, Graph
from centra.runtime.session import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.release import Precision

__all__ = ["Rows", "linear", "product", "products_by_part"]

_ZERO = 128
"""The byte that stands for 0, in the rows."""
_LARGEST = 127
_TINY = 1e-30
"""Instead of the largest value of a row of zeros, which nothing can be divided by."""


@dataclass(frozen=True)
class Rows:
    """Rows that are to be multiplied with one weight or several."""

    value: str
    """``(rows, inputs)``: of float32, or bytes."""
    scale: str | None
    """``(rows, 1)``: what one step of the bytes is worth."""

    @classmethod
    def of(cls, graph: Graph, value: str, precision: Precision) -> Rows:
        """Prepare float32 rows ``(rows, inputs)``; once for all weights that they meet."""
        if precision == "fp32":
            return cls(value, None)
        largest = graph.node("ReduceMax", graph.node("Abs", value), _axes(graph, 1))
        largest = graph.node("Max", largest, _number(graph, _TINY))
        steps = graph.node("Mul", value, graph.node("Div", _number(graph, _LARGEST), largest))
        scale = graph.node("Mul", largest, _number(graph, 1 / _LARGEST))
        return cls(graph.node("QuantizeLinear", steps, _number(graph, 1), _zero(graph)), scale)


def linear(graph: Graph, rows: Rows, weights: Mapping[str, np.ndarray], name: str) -> str:
    """A linear layer, ``name.weight`` of ``(outputs, inputs)`` and ``name.bias``."""
    bias = graph.weight(f"{name}.bias", weights[f"{name}.bias"])
    if rows.scale is None:
        weight = graph.weight(f"{name}.weight", weights[f"{name}.weight"])
        return graph.node("Gemm", rows.value, weight, bias, transB=1)
    return graph.node("Add", product(graph, rows, weights, name), bias)


def product(graph: Graph, rows: Rows, weights: Mapping[str, np.ndarray], name: str) -> str:
    """A linear layer without its bias."""
    return products_by_part(graph, rows, f"{name}.weight", [weights[f"{name}.weight"].T])


def products_by_part(graph: Graph, rows: Rows, name: str, weights: Sequence[np.ndarray]) -> str:
    """Each part of the rows with a weight of its own, the results side by side.

    Args:
        graph: what they become part of.
        rows: are cut into as many parts of one size as there are weights.
        name: of the weights in the graph.
        weights: each ``(inputs of a part, outputs)``.
    """
    parts = [rows.value]
    if len(weights) > 1:
        parts = graph.split(rows.value, len(weights), len(weights[0]))
    found = [
        _product(graph, part, f"{name}.{i}", weight, exact=rows.scale is None)
        for i, (part, weight) in enumerate(zip(parts, weights, strict=True))
    ]
    joined = graph.node("Concat", *found, axis=1) if len(found) > 1 else found[0]
    return joined if rows.scale is None else graph.node("Mul", joined, rows.scale)


def _product(graph: Graph, part: str, name: str, weight: np.ndarray, *, exact: bool) -> str:
    """One product; in eight bits, not yet with the scale of the rows."""
    if exact:
        # Packing takes a weight either way; so it is handed over as it lies in the file.
        if weight.flags.c_contiguous:
            return graph.node("Gemm", part, graph.weight(name, weight))
        return graph.node("Gemm", part, graph.weight(name, weight.T), transB=1)
    values, scales = _quantised(weight, _largest_weight())
    return graph.node(
        "MatMulIntegerToFloat",
        part,
        graph.weight(name, values),
        _number(graph, 1),
        graph.weight(f"{name}.scale", scales),
        _zero(graph),
        domain=MICROSOFT,
    )


def _quantised(weight: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight ``(inputs, outputs)`` as whole numbers up to a largest one, and a scale per output."""
    scales = np.maximum(weight.max(axis=0), -weight.min(axis=0)) / np.float32(largest)
    scales = np.maximum(scales, np.float32(_TINY))
    values = weight / scales
    return np.ascontiguousarray(np.rint(values, out=values).astype(np.int8)), scales


@cache
def _largest_weight() -> int:
    """127, or 63 where the processor would not add up such weights exactly.

    Processors without instructions for sums of byte products (VNNI) add two of them in 16 bits,
    which hold 2 * 255 * 63 but not 2 * 255 * 127.
    """
    size = 64
    graph = Graph("saturation")
    rows = graph.input("rows", "uint8", ["rows", size])
    weight = graph.weight("weight", np.full((size, size), _LARGEST, dtype=np.int8))
    graph.output(graph.node("MatMulInteger", rows, weight), "int32", ["rows", size])
    (sums,) = Program(graph, threads=1)(np.full((size, size), 255, dtype=np.uint8))
    return _LARGEST if bool((sums == size * 255 * _LARGEST).all()) else _LARGEST // 2


def _number(graph: Graph, value: float) -> str:
    return graph.constant(np.array(value, dtype=np.float32))


def _zero(graph: Graph) -> str:
    return graph.constant(np.array(_ZERO, dtype=np.uint8))


def _axes(graph: Graph, *axes: int) -> str:
    return graph.constant(np.array(axes, dtype=np.int64))
