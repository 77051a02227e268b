"""Graphs that are written without the onnx package: by their bytes, and as ONNX Runtime reads them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from centra.runtime.onnx.graph import MICROSOFT, Graph
from centra.runtime.onnx.session import Program


def sums(weight: np.ndarray) -> Graph:
    """x + weight, and twice that."""
    graph = Graph("sums")
    x = graph.input("x", "float32", ["rows", 2])
    total = graph.node("Add", x, graph.weight("w", weight))
    twice = graph.node("Mul", total, graph.constant(np.array(2, dtype=np.float32)))
    graph.output(total, "float32", ["rows", 2])
    graph.output(twice, "float32", ["rows", 2])
    return graph


def test_bytes_are_those_of_the_protocol_buffers_encoding() -> None:
    graph = Graph("g" * 150)
    graph.output(graph.node("Neg", graph.input("x", "float32", ["n", 300])), "float32", ["n"])

    name, dims = b"\x12\x96\x01" + b"g" * 150, b"\x12\x0a\x0a\x03\x12\x01n\x0a\x03\x08\xac\x02"
    node = b"\x0a\x18\x0a\x01x\x12\x05neg.1\x1a\x05neg.1\x22\x03Neg\x3a\x00"
    x = b"\x5a\x15\x0a\x01x\x12\x10\x0a\x0e\x08\x01" + dims
    y = b"\x62\x14\x0a\x05neg.1\x12\x0b\x0a\x09\x08\x01\x12\x05\x0a\x03\x12\x01n"
    body = node + name + x + y
    assert graph.to_bytes() == (
        b"\x08\x08\x12\x06centra"
        + (b"\x3a" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body)
        + b"\x42\x04\x0a\x00\x10\x12"
        + (b"\x42\x11\x0a\x0dcom.microsoft\x10\x01")
    )


def test_a_graph_runs_with_the_weights_it_was_given() -> None:
    weight = np.array([1, 2], dtype=np.float32)
    program = Program(sums(weight))

    total, twice = program(np.array([[10, 20], [30, 40]], dtype=np.float32))

    assert total.tolist() == [[11, 22], [31, 42]]
    assert twice.tolist() == [[22, 44], [62, 84]]


def test_a_compiled_graph_keeps_what_it_was_given() -> None:
    weight = np.ones(2, dtype=np.float32)
    program = Program(sums(weight))
    weight[:] = 7

    total, _ = program(np.zeros((1, 2), dtype=np.float32))

    assert total.tolist() == [[1, 1]]


def test_weights_are_no_part_of_the_bytes() -> None:
    first, second = (sums(np.full(2, value, dtype=np.float32)) for value in (1, 2))

    assert first.to_bytes() == second.to_bytes()
    with pytest.raises(Exception, match=r"not-in-a-file|model_path"):
        onnxruntime.InferenceSession(first.to_bytes(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
def test_constants_of_every_type_come_through(dtype: type) -> None:
    array = np.array([[-3, 0], [1, 127]], dtype=dtype)
    graph = Graph("constant")
    given = graph.input("x", np.dtype(dtype).name, [2, 2])
    graph.output(graph.node("Add", given, graph.constant(array)), np.dtype(dtype).name, [2, 2])

    (found,) = Program(graph)(np.zeros((2, 2), dtype=dtype))

    assert found.dtype == dtype
    assert np.array_equal(found, array)


def test_attributes_come_through() -> None:
    graph = Graph("attributes")
    x = graph.input("x", "float32", ["rows", 4])
    left, right = graph.split(x, 2, 2)
    joined = graph.node("Concat", right, left, axis=-1)  # a negative integer
    product = graph.node("FusedMatMul", joined, x, domain=MICROSOFT, transB=1, alpha=0.5)
    graph.output(product, "float32", ["rows", "rows"])
    graph.output(graph.node("DepthToSpace", _image(graph), blocksize=2, mode="CRD"), "float32", [])
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)

    found, image = Program(graph)(rows)

    assert found.tolist() == (0.5 * rows[:, [2, 3, 0, 1]] @ rows.T).tolist()
    assert image.ravel().tolist() == [0, 1, 2, 3]


def _image(graph: Graph) -> str:
    return graph.constant(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1))


def test_an_optional_input_is_left_out_by_an_empty_name() -> None:
    graph = Graph("clip")
    x, most = graph.input("x", "float32", ["n"]), graph.constant(np.array(1, dtype=np.float32))
    graph.output(graph.node("Clip", x, "", most), "float32", ["n"])

    (found,) = Program(graph)(np.array([-5, 5], dtype=np.float32))

    assert found.tolist() == [-5, 1]


def test_inputs_must_all_be_given() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Program(sums(np.ones(2, dtype=np.float32)))()
