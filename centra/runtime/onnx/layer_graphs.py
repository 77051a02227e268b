"""The graphs of a merged model's parts: embeddings, layers, first-token layers, heads, attention.

A layer is two graphs with weights and attention between them, which has none and is shared by all
layers of a shape. All but attention works on packed tokens; see :mod:`centra.runtime.packing`.

A **first-token layer** is the last one of a task that reads the first token alone. Query, output and
feed-forward are computed for that row. Its query q meets all keys, so the key projection moves onto
the query: q·(W x) = (qW)·x; a bias of the keys adds the same to all scores and falls out of the
softmax. The value projection moves behind the average, since the weights of an average add up to
one: Σ aᵢ(W xᵢ + b) = W(Σ aᵢ xᵢ) + b. No key or value is computed for any other token. Keys that turn
with their positions do not move: they alone are computed for every token.

Products with weights are two-dimensional, head by head where need be, in the precision asked for; see
:mod:`centra.runtime.onnx.products`. Everything else is float32: embeddings, attention, a convolution,
activations, norms, biases, and the last linear layer of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from centra.runtime.onnx import disentangled
from centra.runtime.onnx.graph import MICROSOFT, Graph
from centra.runtime.onnx.layer_parts import (
    after_attention,
    before_attention,
    embedded,
    headed,
    projected,
    turned,
)
from centra.runtime.onnx.products import (
    Rows,
    bias_of,
    linear,
    products_by_part,
    weight_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.description import Attention, Embeddings, Layer
    from centra.formats.head import HeadSteps
    from centra.formats.precision import Precision

__all__ = [
    "attention",
    "embeddings",
    "finish",
    "finish_first",
    "first_attention",
    "head_alone",
    "needs_keys",
    "plain_attention",
    "project",
    "project_first",
]


def embeddings(weights: Mapping[str, np.ndarray], description: Embeddings) -> Graph:
    """Layer 0.

    Returns:
        From ``input_ids``, ``token_type_ids`` and ``positions`` of ``(tokens,)``, as far as there
        are tables for them, to hidden states ``(tokens, hidden)``.
    """
    graph = Graph("embeddings")
    projection = description.projection
    width = description.width if projection is None else projection.outputs
    states = embedded(
        graph, weights, description, lambda ids: graph.input(ids, "int64", ["tokens"])
    )
    graph.output(states, "float32", ["tokens", width])
    return graph


def project(weights: Mapping[str, np.ndarray], layer: Layer, precision: Precision) -> Graph:
    """A layer up to attention.

    Returns:
        From ``states`` and, for a layer with rotary positions, ``cosines`` and ``sines``
        ``(tokens, head size)`` to query, key and value, all ``(tokens, heads * head size)``: each head
        of keys and values as often as heads of queries look at it.
    """
    graph, parts = Graph("project"), layer.attention
    states = graph.input("states", "float32", ["tokens", layer.hidden])
    tables = _rotary_inputs(graph, parts)
    for found in projected(graph, states, weights, layer, tables, precision=precision):
        graph.output(found, "float32", ["tokens", parts.query.outputs])
    return graph


def attention(parts: Attention, *, whole: bool) -> Graph:
    """Attention of all tokens of one bucket; see :class:`centra.runtime.packing.Bucket`.

    Args:
        parts: how it looks. Where something is added to the scores, there is a last input ``scores``
            ``(1, 1 or heads, length, seen)``; where positions meet content, those of
            :meth:`centra.runtime.onnx.disentangled.DistanceTerms.of`.
        whole: for a batch whose tokens lie as they must, so that nothing is moved.

    Returns:
        From ``query``, ``key``, ``value`` of ``(tokens, hidden)``, ``mask``, and ``gather``, what is
        gathered to be looked at and ``scatter`` or, for a whole batch, ``shape``, to
        ``(tokens of the bucket, hidden)``.
    """
    graph, heads, hidden = Graph("attention"), parts.heads, parts.query.outputs
    values = [
        graph.input(name, "float32", ["tokens", hidden]) for name in ("query", "key", "value")
    ]
    mask = graph.input("mask", "int32", ["n", "seen"])
    if whole:
        target = graph.input("shape", "int64", [3])
        values = [graph.node("Reshape", value, target) for value in values]
    else:
        gather = graph.input("gather", "int64", ["n", "length"])
        seen = graph.input("looked-at", "int64", ["n", "seen"])
        places = (gather, seen, seen)
        values = [
            graph.node("Gather", value, own, axis=0)
            for value, own in zip(values, places, strict=True)
        ]
    scatter = "" if whole else graph.input("scatter", "int64", ["found"])
    added = []
    if parts.adds_to_scores:
        added = [graph.input("scores", "float32", [1, "heads", "length", "seen"])]
    if parts.disentangled is not None:
        query, key, _ = values
        added = [disentangled.scores(graph, query, key, parts, parts.disentangled)]
    # The mask is given even where it masks nothing: without one, another kernel would run.
    context = graph.node(
        *("MultiHeadAttention", *values, "", mask, *added),
        domain=MICROSOFT,
        num_heads=heads,
        scale=parts.scale,
    )
    context = graph.node("Reshape", context, graph.constant(np.array([-1, hidden])))
    if not whole:
        context = graph.node("Gather", context, scatter, axis=0)
    graph.output(context, "float32", ["found", hidden])
    return graph


def plain_attention(parts: Attention) -> Graph:
    """Attention of tokens that look at all of one long input, with nothing added to their scores.

    ONNX Runtime has a kernel for that which never keeps all scores.

    Returns:
        From ``query`` ``(1, tokens, hidden)``, ``key`` and ``value`` ``(1, seen, hidden)`` to
        ``(tokens, hidden)``.
    """
    graph, hidden = Graph("plain-attention"), parts.query.outputs
    names = (("query", "tokens"), ("key", "seen"), ("value", "seen"))
    values = [graph.input(name, "float32", [1, rows, hidden]) for name, rows in names]
    context = graph.node(
        *("MultiHeadAttention", *values),
        domain=MICROSOFT,
        num_heads=parts.heads,
        scale=parts.scale,
    )
    context = graph.node("Reshape", context, graph.constant(np.array([-1, hidden])))
    graph.output(context, "float32", ["tokens", hidden])
    return graph


def finish(
    weights: Mapping[str, np.ndarray],
    layer: Layer,
    precision: Precision,
    head: HeadSteps | None = None,
) -> Graph:
    """A layer from attention on, and perhaps what a head makes of every token.

    Args:
        weights: of the layer, and of the head under ``head.``.
        layer: how it looks.
        precision: of the products.
        head: after the last layer of a task.

    Returns:
        From ``context`` and ``states``, the layer's input, and for a layer with a convolution its
        ``neighbours``, to its output or what the head makes of it, all of ``(tokens, …)``.
    """
    graph = Graph("finish")
    context = graph.input("context", "float32", ["tokens", layer.attention.output.inputs])
    states = graph.input("states", "float32", ["tokens", layer.hidden])
    read = _neighbours_input(graph, layer)
    states = after_attention(
        graph, context, states, weights, layer, neighbours=read, precision=precision
    )
    _end(graph, states, weights, precision=precision, head=head, hidden=layer.hidden)
    return graph


def project_first(weights: Mapping[str, np.ndarray], layer: Layer, precision: Precision) -> Graph:
    """A first-token layer up to attention.

    Returns:
        From ``states`` ``(tokens, hidden)``, ``firsts`` ``(batch,)`` and, for a layer with rotary
        positions, ``cosines`` and ``sines`` to the queries ``(batch, heads, width)`` and the first
        tokens' own states; then, of a layer whose norms come first, all states behind the norm; then,
        of a layer whose keys are needed, these ``(tokens, width)``. Then the queries are in the space
        of all the keys, otherwise in that of what the keys are made of.
    """
    graph, parts, hidden = Graph("project-first"), layer.attention, layer.hidden
    states = graph.input("states", "float32", ["tokens", hidden])
    firsts = graph.input("firsts", "int64", ["batch"])
    tables = _rotary_inputs(graph, parts)
    own = graph.node("Gather", states, firsts, axis=0)
    before = before_attention(graph, states, weights, layer)
    read = own if before == states else graph.node("Gather", before, firsts, axis=0)
    query = linear(graph, Rows.of(graph, read, precision), weights, parts.query)
    if needs_keys(parts):
        # A first token's position is 0, which turns nothing.
        queries = _at_own_keys(graph, query, parts)
    else:
        keys = [*_by_head(weight_of(weights, parts.key), parts)]
        queries = products_by_part(graph, Rows.of(graph, query, precision), "key", keys)
        target = graph.constant(np.array([-1, parts.heads, hidden]))
        queries = graph.node("Reshape", queries, target)
    width = parts.key.outputs if needs_keys(parts) else hidden
    graph.output(queries, "float32", ["batch", parts.heads, width])
    graph.output(own, "float32", ["batch", hidden])
    if before != states:
        graph.output(before, "float32", ["tokens", hidden])
    if needs_keys(parts):
        key = linear(graph, Rows.of(graph, before, precision), weights, parts.key)
        key = turned(graph, key, tables, parts.key, parts.head_size)
        graph.output(key, "float32", ["tokens", width])
    return graph


def needs_keys(parts: Attention) -> bool:
    """Whether a first-token layer needs keys: where they turn, or meet distances."""
    return parts.rotary is not None or parts.disentangled is not None


def first_attention(parts: Attention, hidden: int) -> Graph:
    """Attention of the first tokens of one bucket; see :class:`centra.runtime.packing.Bucket`.

    Args:
        parts: how it looks. Where :func:`needs_keys` says so the queries meet keys of their own, a
            further input, instead of the states.
        hidden: the width of states.

    Returns:
        From ``queries`` of all inputs, ``inputs`` ``(n,)``, their padded ``states``
        ``(n, length, hidden)`` and ``bias`` to averages ``(n, heads * hidden)`` of the states. Where
        positions meet content, the last inputs are those of
        :meth:`centra.runtime.onnx.disentangled.DistanceTerms.of_first`.
    """
    graph, heads = Graph("first-attention"), parts.heads
    keys = needs_keys(parts)
    width = parts.key.outputs if keys else hidden
    queries = graph.input("queries", "float32", ["batch", heads, width])
    inputs = graph.input("inputs", "int64", ["n"])
    states = graph.input("states", "float32", ["n", "length", hidden])
    bias = graph.input("bias", "float32", ["n", "rows", "length"])
    met = graph.input("keys", "float32", ["n", "length", width]) if keys else states
    own = graph.node("Gather", queries, inputs, axis=0)
    if parts.disentangled is None:
        scores = graph.node("FusedMatMul", own, met, domain=MICROSOFT, transB=1, alpha=parts.scale)
    else:
        scores = disentangled.first_scores(graph, own, met, parts, parts.disentangled)
    weights = graph.node("Softmax", graph.node("Add", scores, bias), axis=-1)
    average = graph.node("MatMul", weights, states)
    target = graph.constant(np.array([-1, heads * hidden]))
    graph.output(graph.node("Reshape", average, target), "float32", ["n", heads * hidden])
    return graph


def finish_first(
    weights: Mapping[str, np.ndarray], layer: Layer, precision: Precision, head: HeadSteps
) -> Graph:
    """A first-token layer from attention on, and its head.

    Returns:
        From ``averages`` ``(batch, heads * hidden)``, ``states``, the first tokens' own, and for a
        layer with a convolution their ``neighbours``, to logits ``(batch, outputs)``.
    """
    graph, parts = Graph("finish-first"), layer.attention
    averages = graph.input("averages", "float32", ["batch", parts.heads * layer.hidden])
    states = graph.input("states", "float32", ["batch", layer.hidden])
    values = [weight.T for weight in _by_head(weight_of(weights, parts.value), parts)]
    bias = bias_of(weights, parts.value)
    if bias is not None:
        bias = _by_head(bias, parts).reshape(-1)
    context = products_by_part(graph, Rows.of(graph, averages, precision), "value", values, bias)
    read = _neighbours_input(graph, layer)
    states = after_attention(
        graph, context, states, weights, layer, neighbours=read, precision=precision
    )
    _end(graph, states, weights, precision=precision, head=head, hidden=layer.hidden)
    return graph


def head_alone(
    weights: Mapping[str, np.ndarray], hidden: int, precision: Precision, head: HeadSteps
) -> Graph:
    """What a head makes of ``states`` ``(rows, hidden)``: of each token, or each input."""
    graph = Graph("head")
    states = graph.input("states", "float32", ["rows", hidden])
    _end(graph, states, weights, precision=precision, head=head, hidden=hidden)
    return graph


def _neighbours_input(graph: Graph, layer: Layer) -> str:
    beside = layer.convolution
    if beside is None:
        return ""
    return graph.input("neighbours", "float32", ["tokens", beside.linear.inputs])


def _end(
    graph: Graph,
    states: str,
    weights: Mapping[str, np.ndarray],
    *,
    precision: Precision,
    head: HeadSteps | None,
    hidden: int,
) -> None:
    """Make the states the graph's output, or what a head makes of them."""
    width = hidden
    if head is not None:
        states = headed(graph, states, weights, head, precision=precision)
        width = hidden if head.out is None else head.out.outputs
    graph.output(states, "float32", ["rows", width])


def _rotary_inputs(graph: Graph, parts: Attention) -> list[str]:
    if parts.rotary is None:
        return []
    shape: list[int | str] = ["tokens", parts.head_size]
    return [graph.input(name, "float32", shape) for name in ("cosines", "sines")]


def _at_own_keys(graph: Graph, query: str, parts: Attention) -> str:
    """Queries ``(batch, heads * size)`` as ``(batch, heads, key heads * size)``, each where its keys stand."""
    heads, size = parts.key_heads, parts.head_size
    shape = [-1, heads, parts.queries_per_key, 1, size]
    split = graph.node("Reshape", query, graph.constant(np.array(shape)))
    own = np.eye(heads, dtype=np.float32).reshape(1, heads, 1, heads, 1)
    found = graph.node("Mul", split, graph.constant(own))
    target = graph.constant(np.array([-1, parts.heads, parts.key.outputs]))
    return graph.node("Reshape", found, target)


def _by_head(array: np.ndarray, parts: Attention) -> np.ndarray:
    """The rows of a projection of keys or values that each head of queries looks at."""
    heads: np.ndarray = array.reshape(parts.key_heads, parts.head_size, *array.shape[1:])
    count = parts.queries_per_key
    return heads if count == 1 else np.repeat(heads, count, axis=0)
