"""Products with weights: float32 is exact, int8 is off by rounding alone, and rows stay apart."""

from __future__ import annotations

import numpy as np
import pytest

from centra.families.description import Linear
from centra.formats.precision import Precision
from centra.runtime.onnx.graph import Graph
from centra.runtime.onnx.products import Rows, linear, products_by_part
from centra.runtime.onnx.session import Program

INPUTS, OUTPUTS = 48, 20
SOURCE = np.random.default_rng(0)


def layer(weight: np.ndarray, bias: np.ndarray, precision: Precision) -> Program:
    graph = Graph("linear")
    rows = Rows.of(graph, graph.input("x", "float32", ["rows", weight.shape[1]]), precision)
    weights = {"layer.weight": weight, "layer.bias": bias}
    part = Linear(name="layer", inputs=weight.shape[1], outputs=len(bias))
    graph.output(linear(graph, rows, weights, part), "float32", ["rows", len(bias)])
    return Program(graph)


def normal(*shape: int) -> np.ndarray:
    return SOURCE.standard_normal(shape).astype(np.float32)


def rounding(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The most that halves of steps of rows and weights can add up to."""
    row = np.abs(x).max(axis=1, keepdims=True) / 254
    column = np.abs(weight).max(axis=1) / 126  # the coarser steps, of a processor without VNNI
    sums = np.abs(x).sum(axis=1, keepdims=True) * column + row * np.abs(weight).sum(axis=1)
    found: np.ndarray = sums + INPUTS * row * column + 1e-5
    return found


def test_fp32_is_exact() -> None:
    x, weight, bias = normal(5, INPUTS), normal(OUTPUTS, INPUTS), normal(OUTPUTS)

    (found,) = layer(weight, bias, Precision.FP32)(x)

    assert np.allclose(found, x @ weight.T + bias, atol=1e-4)


def test_int8_is_off_by_rounding_alone() -> None:
    x, weight, bias = normal(9, INPUTS), normal(OUTPUTS, INPUTS), normal(OUTPUTS)
    x[1] *= 1000  # rows and outputs of any size have steps of their own
    x[2] /= 1000
    x[3, 7] = 80
    weight[4] *= 100
    weight[5] /= 100

    (found,) = layer(weight, bias, Precision.INT8)(x)

    off = np.abs(found - (x @ weight.T + bias))
    assert (off <= rounding(x, weight)).all()
    assert off.max() > 1e-3  # it did compute in eight bits


def test_int8_takes_rows_and_weights_of_zeros() -> None:
    x, weight, bias = normal(3, INPUTS), normal(OUTPUTS, INPUTS), normal(OUTPUTS)
    x[1] = 0
    weight[2] = 0

    (found,) = layer(weight, bias, Precision.INT8)(x)

    assert np.array_equal(found[1], bias)
    assert np.array_equal(found[:, 2], np.repeat(bias[2], 3))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_overflow(sign: int) -> None:
    """Processors without VNNI add two byte products in 16 bits."""
    x = np.ones((4, INPUTS), dtype=np.float32)
    weight = np.full((OUTPUTS, INPUTS), sign, dtype=np.float32)

    (found,) = layer(weight, np.zeros(OUTPUTS, dtype=np.float32), Precision.INT8)(x)

    assert np.allclose(found, sign * INPUTS, rtol=1e-5)


@pytest.mark.parametrize("precision", [*Precision])
def test_each_part_of_the_rows_meets_its_own_weight(precision: Precision) -> None:
    x, weights = normal(5, 2 * INPUTS), normal(2, INPUTS, OUTPUTS)
    graph = Graph("parts")
    rows = Rows.of(graph, graph.input("x", "float32", ["rows", 2 * INPUTS]), precision)
    found = products_by_part(graph, rows, "weight", list(weights))
    graph.output(found, "float32", ["rows", 2 * OUTPUTS])

    (both,) = Program(graph)(x)

    expected = np.hstack([x[:, :INPUTS] @ weights[0], x[:, INPUTS:] @ weights[1]])
    assert np.allclose(both, expected, atol=1e-4 if precision is Precision.FP32 else 0.5)


@pytest.mark.parametrize("precision", [*Precision])
def test_a_row_comes_out_the_same_in_any_company(precision: Precision) -> None:
    program = layer(normal(OUTPUTS, INPUTS), normal(OUTPUTS), precision)
    x = normal(40, INPUTS)
    (together,) = program(x)

    for size in (1, 2, 3, 5, 16, 17):
        for start in range(0, len(x), size):
            (part,) = program(x[start : start + size])
            assert part.tobytes() == together[start : start + size].tobytes()
    x[1] = 1e6
    assert program(x)[0][0].tobytes() == together[0].tobytes()
