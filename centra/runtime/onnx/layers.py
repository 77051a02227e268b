"""The graphs of a merged model's parts: embeddings, layers, first-token layers, heads, attention.

A layer is two graphs with weights and attention between them, which has none and is shared by all
layers of a shape. All but attention works on packed tokens; see :mod:`centra.runtime.packing`.

A **first-token layer** is the last one of a task that reads the first token alone. Query, output and
feed-forward are computed for that row. Its query q meets all keys, so the key projection moves onto
the query: q·(W x) = (qW)·x; a bias of the keys adds the same to all scores and falls out of the
softmax. The value projection moves behind the average, since the weights of an average add up to
one: Σ aᵢ(W xᵢ + b) = W(Σ aᵢ xᵢ) + b. No key or value is computed for any other token.

Products with weights are two-dimensional, head by head where need be, in the precision asked for; see
:mod:`centra.runtime.onnx.products`. Everything else is float32: embeddings, attention, activations,
norms, biases, and the last linear layer of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from centra.errors import IncompatibleError
from centra.families.table import LayerNames, family_of
from centra.formats.precision import Precision
from centra.runtime.onnx.graph import MICROSOFT, Graph
from centra.runtime.onnx.products import Rows, linear, product, products_by_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import HeadSpec

__all__ = [
    "Shape",
    "attention",
    "embeddings",
    "finish",
    "finish_first",
    "first_attention",
    "head_alone",
    "project",
    "project_first",
]

_GELU = {"gelu", "gelu_python"}
_TANH_GELU = {"gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate"}
_PLAIN = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
_SWISH = {"silu", "swish"}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the layers of a backbone, and of the tasks on it, have in common."""

    names: LayerNames
    hidden: int
    heads: int
    activation: str
    epsilon: float

    @classmethod
    def of(cls, spec: BackboneSpec) -> Shape:
        """The shape of a backbone's layers.

        Raises:
            IncompatibleError: an activation that no graph is known for.
        """
        names = family_of(spec.family).names
        activation = spec.config[names.activation_key]
        if activation not in _GELU | _TANH_GELU | _PLAIN.keys() | _SWISH:
            raise IncompatibleError(
                f"backbone sha256:{spec.digest}: the onnx engine does not know the activation "
                f"{activation!r}; load the release with engine 'torch'"
            )
        epsilon = names.epsilon if names.epsilon is not None else spec.config["layer_norm_eps"]
        return cls(
            names=names,
            hidden=spec.hidden_size,
            heads=int(spec.config[names.heads_key]),
            activation=activation,
            epsilon=float(epsilon),
        )

    @property
    def head_size(self) -> int:
        """The width of one attention head."""
        return self.hidden // self.heads


def embeddings(weights: Mapping[str, np.ndarray], shape: Shape) -> Graph:
    """Layer 0.

    Returns:
        From ``input_ids``, ``token_type_ids`` and ``positions`` of ``(tokens,)``, as far as the
        family has them, to hidden states ``(tokens, hidden)``.
    """
    graph = Graph("embeddings")
    summed = ""
    for source, table in _TABLES.items():
        name = f"embeddings.{table}_embeddings.weight"
        if name not in weights:
            continue
        ids = graph.input(source, "int64", ["tokens"])
        found = graph.node("Gather", graph.weight(table, weights[name]), ids, axis=0)
        summed = graph.node("Add", summed, found) if summed else found
    scale = graph.weight("scale", weights["embeddings.LayerNorm.weight"])
    shift = graph.weight("shift", weights["embeddings.LayerNorm.bias"])
    states = graph.node("LayerNormalization", summed, scale, shift, axis=-1, epsilon=shape.epsilon)
    if "embeddings_project.weight" in weights:
        states = linear(
            graph, Rows.of(graph, states, Precision.FP32), weights, "embeddings_project"
        )
    graph.output(states, "float32", ["tokens", shape.hidden])
    return graph


_TABLES = {"input_ids": "word", "token_type_ids": "token_type", "positions": "position"}


def project(weights: Mapping[str, np.ndarray], shape: Shape, precision: Precision) -> Graph:
    """A layer up to attention: hidden states to query, key and value, all ``(tokens, hidden)``."""
    graph, names = Graph("project"), shape.names
    states = graph.input("states", "float32", ["tokens", shape.hidden])
    rows = Rows.of(graph, states, precision)
    for part in (names.query, names.key, names.value):
        graph.output(linear(graph, rows, weights, part), "float32", ["tokens", shape.hidden])
    return graph


def attention(heads: int, hidden: int, *, whole: bool) -> Graph:
    """Attention of all tokens of one bucket; see :class:`centra.runtime.packing.Bucket`.

    Args:
        heads, hidden: how many heads, and the width of all together.
        whole: for a batch whose tokens lie as they must, so that nothing is moved.

    Returns:
        From ``query``, ``key``, ``value`` of ``(tokens, hidden)``, ``mask``, and ``gather`` and
        ``scatter`` or, for a whole batch, ``shape``, to ``(tokens of the bucket, hidden)``.
    """
    graph = Graph("attention")
    values = [
        graph.input(name, "float32", ["tokens", hidden]) for name in ("query", "key", "value")
    ]
    mask = graph.input("mask", "int32", ["n", "length"])
    if whole:
        target = graph.input("shape", "int64", [3])
        values = [graph.node("Reshape", value, target) for value in values]
    else:
        gather = graph.input("gather", "int64", ["n", "length"])
        values = [graph.node("Gather", value, gather, axis=0) for value in values]
    # The mask is given even where it masks nothing: without one, another kernel would run.
    context = graph.node("MultiHeadAttention", *values, "", mask, domain=MICROSOFT, num_heads=heads)
    context = graph.node("Reshape", context, graph.constant(np.array([-1, hidden])))
    if not whole:
        scatter = graph.input("scatter", "int64", ["found"])
        context = graph.node("Gather", context, scatter, axis=0)
    graph.output(context, "float32", ["found", hidden])
    return graph


def finish(
    weights: Mapping[str, np.ndarray],
    shape: Shape,
    precision: Precision,
    head: HeadSpec | None = None,
) -> Graph:
    """A layer from attention on, and perhaps a head on every token.

    Args:
        weights: of the layer, and of the head under ``head.``.
        shape: of the layer.
        precision: of the products.
        head: after the last layer of a task.

    Returns:
        From ``context`` and ``states``, the layer's input, to its output or the logits, all of
        ``(tokens, …)``.
    """
    graph = Graph("finish")
    context = graph.input("context", "float32", ["tokens", shape.hidden])
    states = graph.input("states", "float32", ["tokens", shape.hidden])
    states = _after_attention(graph, context, states, weights, shape, precision=precision)
    _end(graph, states, weights, shape, precision=precision, head=head)
    return graph


def project_first(weights: Mapping[str, np.ndarray], shape: Shape, precision: Precision) -> Graph:
    """A first-token layer up to attention.

    Returns:
        From ``states`` ``(tokens, hidden)`` and ``firsts`` ``(batch,)`` to the queries in the space
        of the layer's input, ``(batch, heads, hidden)``, and the first tokens' own states.
    """
    graph, names = Graph("project-first"), shape.names
    states = graph.input("states", "float32", ["tokens", shape.hidden])
    firsts = graph.input("firsts", "int64", ["batch"])
    rows = graph.node("Gather", states, firsts, axis=0)
    query = linear(graph, Rows.of(graph, rows, precision), weights, names.query)
    keys = [*_by_head(weights[f"{names.key}.weight"], shape)]
    queries = products_by_part(graph, Rows.of(graph, query, precision), "key", keys)
    target = graph.constant(np.array([-1, shape.heads, shape.hidden]))
    graph.output(
        graph.node("Reshape", queries, target), "float32", ["batch", shape.heads, shape.hidden]
    )
    graph.output(rows, "float32", ["batch", shape.hidden])
    return graph


def first_attention(heads: int, hidden: int) -> Graph:
    """Attention of the first tokens of one bucket; see :class:`centra.runtime.packing.Bucket`.

    Returns:
        From ``queries`` of all inputs, ``inputs`` ``(n,)``, their padded ``states``
        ``(n, length, hidden)`` and ``bias`` to averages ``(n, heads * hidden)`` of the states.
    """
    graph = Graph("first-attention")
    queries = graph.input("queries", "float32", ["batch", heads, hidden])
    inputs = graph.input("inputs", "int64", ["n"])
    states = graph.input("states", "float32", ["n", "length", hidden])
    bias = graph.input("bias", "float32", ["n", 1, "length"])
    own = graph.node("Gather", queries, inputs, axis=0)
    scale = (hidden // heads) ** -0.5
    scores = graph.node("FusedMatMul", own, states, domain=MICROSOFT, transB=1, alpha=scale)
    weights = graph.node("Softmax", graph.node("Add", scores, bias), axis=-1)
    average = graph.node("MatMul", weights, states)
    target = graph.constant(np.array([-1, heads * hidden]))
    graph.output(graph.node("Reshape", average, target), "float32", ["n", heads * hidden])
    return graph


def finish_first(
    weights: Mapping[str, np.ndarray], shape: Shape, precision: Precision, head: HeadSpec
) -> Graph:
    """A first-token layer from attention on, and its head.

    Returns:
        From ``averages`` ``(batch, heads * hidden)`` and ``states``, the first tokens' own, to
        logits ``(batch, outputs)``.
    """
    graph, names = Graph("finish-first"), shape.names
    averages = graph.input("averages", "float32", ["batch", shape.heads * shape.hidden])
    states = graph.input("states", "float32", ["batch", shape.hidden])
    values = [weight.T for weight in _by_head(weights[f"{names.value}.weight"], shape)]
    bias = weights[f"{names.value}.bias"]
    context = products_by_part(graph, Rows.of(graph, averages, precision), "value", values, bias)
    states = _after_attention(graph, context, states, weights, shape, precision=precision)
    _end(graph, states, weights, shape, precision=precision, head=head)
    return graph


def head_alone(
    weights: Mapping[str, np.ndarray], shape: Shape, precision: Precision, head: HeadSpec
) -> Graph:
    """The head of a task without layers, from ``states`` at the tap to logits.

    A head on the first token takes ``firsts`` too.
    """
    graph = Graph("head")
    states = graph.input("states", "float32", ["tokens", shape.hidden])
    if head.activation is not None:
        states = graph.node("Gather", states, graph.input("firsts", "int64", ["batch"]), axis=0)
    _end(graph, states, weights, shape, precision=precision, head=head)
    return graph


def _after_attention(
    graph: Graph,
    context: str,
    states: str,
    weights: Mapping[str, np.ndarray],
    shape: Shape,
    *,
    precision: Precision,
) -> str:
    names = shape.names
    rows = Rows.of(graph, context, precision)
    projected = linear(graph, rows, weights, names.attention_output)
    norm = names.attention_norm
    states = _add_and_norm(graph, projected, states, weights, norm, epsilon=shape.epsilon)
    rows = Rows.of(graph, states, precision)
    inner = _activated(graph, rows, weights, names.inner, shape.activation)
    outer = linear(graph, Rows.of(graph, inner, precision), weights, names.outer)
    return _add_and_norm(graph, outer, states, weights, names.norm, epsilon=shape.epsilon)


def _end(
    graph: Graph,
    states: str,
    weights: Mapping[str, np.ndarray],
    shape: Shape,
    *,
    precision: Precision,
    head: HeadSpec | None,
) -> None:
    """Make the states the graph's output, or what a head makes of them."""
    if head is None:
        graph.output(states, "float32", ["rows", shape.hidden])
        return
    if head.activation is not None:
        rows = Rows.of(graph, states, precision)
        states = _activated(graph, rows, weights, "head.dense", head.activation)
    logits = linear(graph, Rows.of(graph, states, Precision.FP32), weights, "head.out")
    graph.output(logits, "float32", ["rows", len(weights["head.out.bias"])])


def _activated(
    graph: Graph, rows: Rows, weights: Mapping[str, np.ndarray], name: str, activation: str
) -> str:
    """A linear layer and its activation; where one kernel adds the bias too, that one."""
    if activation in _GELU | _TANH_GELU:
        bias = graph.weight(f"{name}.bias", weights[f"{name}.bias"])
        op = "BiasGelu" if activation in _GELU else "FastGelu"
        return graph.node(op, product(graph, rows, weights, name), bias, domain=MICROSOFT)
    value = linear(graph, rows, weights, name)
    if activation in _SWISH:
        return graph.node("Mul", value, graph.node("Sigmoid", value))
    return graph.node(_PLAIN[activation], value)


def _add_and_norm(
    graph: Graph,
    value: str,
    residual: str,
    weights: Mapping[str, np.ndarray],
    name: str,
    *,
    epsilon: float,
) -> str:
    """A residual connection and the layer norm after it."""
    scale = graph.weight(f"{name}.weight", weights[f"{name}.weight"])
    shift = graph.weight(f"{name}.bias", weights[f"{name}.bias"])
    return graph.node(
        "SkipLayerNormalization",
        value,
        residual,
        scale,
        shift,
        domain=MICROSOFT,
        epsilon=epsilon,
    )


def _by_head(array: np.ndarray, shape: Shape) -> np.ndarray:
    """The rows of a projection, head by head."""
    return array.reshape(shape.heads, shape.head_size, *array.shape[1:])
