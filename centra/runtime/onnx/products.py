"""Products of rows with weights, in float32 or in eight bits.

In eight bits a weight is held as whole numbers with one scale per output, and rows are turned into
bytes: from a row's least value in steps of its own, up to its largest. So what a row becomes depends
on no other row, and nothing has to be calibrated. Sums are of whole numbers and therefore exact, in
any order. What comes out is float32 again: with x = least + step · byte and W = scale · number,
x · W = step · scale · Σ byte · number + least · Σ W.

All are two-dimensional products with a constant weight behind: ONNX Runtime packs such weights once,
and gives a row the same bits whatever other rows there are, even none. Batched products do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from centra.formats.precision import Precision
from centra.runtime.onnx.graph import MICROSOFT, Graph
from centra.runtime.onnx.session import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.families.description import Linear

__all__ = ["Rows", "bias_of", "linear", "name_of", "product", "products_by_part", "weight_of"]

_STEPS = 255
"""Between the least and the largest value of a row."""
_LARGEST = 127
"""The largest number in a weight."""
_TINY = np.float32(1e-30)
"""In place of 0, where something is divided by it."""


@dataclass(frozen=True)
class Rows:
    """Rows that are to be multiplied with one weight or several."""

    value: str
    """``(rows, inputs)``: float32, or bytes."""
    step: str | None = None
    """``(rows, 1)``: what one step of the bytes is worth."""
    least: str | None = None
    """``(rows, 1)``: what the byte 0 stands for."""

    @classmethod
    def of(cls, graph: Graph, value: str, precision: Precision) -> Rows:
        """Prepare float32 rows ``(rows, inputs)``; once for all weights that they meet."""
        if precision == Precision.FP32:
            return cls(value)
        across = graph.constant(np.array([1]))
        least = graph.node("ReduceMin", value, across)
        span = graph.node("Sub", graph.node("ReduceMax", value, across), least)
        step = graph.node("Mul", span, graph.constant(np.array(1 / _STEPS, dtype=np.float32)))
        step = graph.node("Max", step, graph.constant(np.array(_TINY)))
        steps = graph.node("Reshape", step, graph.constant(np.array([-1])))
        above = graph.node("Sub", value, least)
        return cls(graph.node("QuantizeLinear", above, steps, axis=0), step, least)


def linear(graph: Graph, rows: Rows, weights: Mapping[str, np.ndarray], part: Linear) -> str:
    """A linear layer, with its bias where it has one."""
    weight, bias = weight_of(weights, part), bias_of(weights, part)
    return products_by_part(graph, rows, name_of(part), [weight.T], bias)


def product(graph: Graph, rows: Rows, weights: Mapping[str, np.ndarray], part: Linear) -> str:
    """A linear layer without its bias."""
    return products_by_part(graph, rows, name_of(part), [weight_of(weights, part).T])


def weight_of(weights: Mapping[str, np.ndarray], part: Linear) -> np.ndarray:
    """A linear layer's weight ``(outputs, inputs)``, out of what may be stored for several."""
    return weights[f"{part.name}.weight"][part.rows]


def bias_of(weights: Mapping[str, np.ndarray], part: Linear) -> np.ndarray | None:
    """A linear layer's bias ``(outputs,)``."""
    return weights[f"{part.name}.bias"][part.rows] if part.bias else None


def name_of(part: Linear) -> str:
    """What its weight is called in a graph."""
    return f"{part.name}.weight" + (f".{part.first_row}" if part.first_row else "")


def products_by_part(
    graph: Graph,
    rows: Rows,
    name: str,
    weights: Sequence[np.ndarray],
    bias: np.ndarray | None = None,
) -> str:
    """Each part of the rows with a weight of its own, the results side by side.

    Args:
        graph: what they become part of.
        rows: are cut into as many parts of one size as there are weights.
        name: of the weights in the graph.
        weights: each ``(inputs of a part, outputs)``.
        bias: is added; ``(outputs of all)``.
    """
    parts = [rows.value]
    if len(weights) > 1:
        parts = graph.split(rows.value, len(weights), len(weights[0]))
    named = [(part, f"{name}.{i}") for i, part in enumerate(parts)]
    shift = [] if bias is None else [graph.weight(f"{name}.bias", bias)]
    if rows.step is None or rows.least is None:
        if len(parts) == 1:
            return _exact(graph, *named[0], weights[0], *shift)
        found = [_exact(graph, *of, weight) for of, weight in zip(named, weights, strict=True)]
        joined = graph.node("Concat", *found, axis=1)
        return graph.node("Add", joined, *shift) if shift else joined
    largest = graph.largest_number or _largest_weight()
    numbers = [_quantised(weight, largest) for weight in weights]
    found = [_rounded(graph, *of, *pair) for of, pair in zip(named, numbers, strict=True)]
    joined = graph.node("Concat", *found, axis=1) if len(found) > 1 else found[0]
    sums = np.concatenate([scales * values.sum(axis=0) for values, scales in numbers])
    of_sums = graph.weight(f"{name}.sums", sums.astype(np.float32)[None])
    return graph.node(
        "Add",
        graph.node("Mul", joined, rows.step),
        graph.node("Gemm", rows.least, of_sums, *shift),
    )


def _exact(graph: Graph, part: str, name: str, weight: np.ndarray, *bias: str) -> str:
    """A product in float32."""
    # Packing takes a weight either way; so it is handed over as it lies in the file.
    if weight.flags.c_contiguous:
        return graph.node("Gemm", part, graph.weight(name, weight), *bias)
    return graph.node("Gemm", part, graph.weight(name, weight.T), *bias, transB=1)


def _rounded(graph: Graph, part: str, name: str, values: np.ndarray, scales: np.ndarray) -> str:
    """A product of bytes and whole numbers, with the weight's scales but not yet the rows' steps."""
    return graph.node(
        "MatMulIntegerToFloat",
        part,
        graph.weight(name, values),
        graph.constant(np.array(1, dtype=np.float32)),
        graph.weight(f"{name}.scales", scales),
        domain=MICROSOFT,
    )


def _quantised(weight: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight ``(inputs, outputs)`` as whole numbers up to a largest one, and a scale per output."""
    scales = np.maximum(weight.max(axis=0), -weight.min(axis=0)) / np.float32(largest)
    scales = np.maximum(scales, _TINY)
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
    (sums,) = Program(graph)(np.full((size, size), _STEPS, dtype=np.uint8))
    return _LARGEST if bool((sums == size * _STEPS * _LARGEST).all()) else _LARGEST // 2
