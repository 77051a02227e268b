"""What graphs of layers are made of: rows of tokens in, rows of tokens out, as parts of whatever graph.

Attention is not among them: it is where tokens meet, and how they lie decides how it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from centra.families.description import Norm
from centra.formats.precision import Precision
from centra.runtime.onnx.convolution import convolved
from centra.runtime.onnx.elementwise import activated, add_and_norm, normed
from centra.runtime.onnx.products import Rows, linear

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from centra.families.description import Attention, Embeddings, Layer, Linear
    from centra.formats.head import HeadSteps
    from centra.runtime.onnx.graph import Graph

__all__ = [
    "after_attention",
    "before_attention",
    "embedded",
    "for_all_heads",
    "headed",
    "projected",
    "turned",
]


def embedded(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    description: Embeddings,
    ids: Callable[[str], str],
) -> str:
    """Hidden states of layer 0, ``(tokens, hidden)``.

    Args:
        graph: what they become part of.
        weights: of the embeddings.
        description: how they look.
        ids: gives the values ``(tokens,)`` that choose a table's rows; see :attr:`Table.ids`.
    """
    states = ""
    for table in description.tables:
        stored = weights[f"{table.name}.weight"]
        if table.ids == "zeros":
            rows = graph.weight(table.name, stored[:1])
        else:
            chosen = ids(table.ids)
            rows = graph.node("Gather", graph.weight(table.name, stored), chosen, axis=0)
        states = graph.node("Add", states, rows) if states else rows
    for part in description.norm_and_projection:
        if isinstance(part, Norm):
            states = normed(graph, states, weights, part)
        else:
            states = linear(graph, Rows.of(graph, states, Precision.FP32), weights, part)
    return states


def projected(
    graph: Graph,
    states: str,
    weights: Mapping[str, np.ndarray],
    layer: Layer,
    tables: Sequence[str],
    *,
    precision: Precision,
) -> list[str]:
    """Query, key and value of states ``(tokens, hidden)``; see :func:`project`."""
    found, parts = [], layer.attention
    rows = Rows.of(graph, before_attention(graph, states, weights, layer), precision)
    for part in (parts.query, parts.key, parts.value):
        value = linear(graph, rows, weights, part)
        if part is not parts.value:
            value = turned(graph, value, tables, part, parts.head_size)
        if part is not parts.query:
            value = for_all_heads(graph, value, parts)
        found.append(value)
    return found


def after_attention(
    graph: Graph,
    context: str,
    states: str,
    weights: Mapping[str, np.ndarray],
    layer: Layer,
    *,
    neighbours: str,
    precision: Precision,
) -> str:
    """What follows attention: the rest of a layer, and the convolution beside it.

    Args:
        graph: what it becomes part of.
        context: what attention gives, ``(tokens, heads * head size)``.
        states: the layer's input, ``(tokens, hidden)``.
        weights: of the layer.
        layer: how it looks.
        neighbours: see :func:`centra.runtime.onnx.convolution.neighbours`; empty without a convolution.
        precision: of the products.
    """
    parts = layer.feed_forward
    rows = Rows.of(graph, context, precision)
    projected = linear(graph, rows, weights, layer.attention.output)
    if layer.norm_first:
        states = read = graph.node("Add", projected, states)
        if layer.feed_forward_norm is not None:
            read = normed(graph, states, weights, layer.feed_forward_norm)
    else:
        states = read = add_and_norm(graph, projected, states, weights, layer.attention_norm)
    rows = Rows.of(graph, read, precision)
    inner = activated(graph, rows, weights, parts.inner, parts.activation)
    if parts.gate is not None:
        inner = graph.node("Mul", inner, linear(graph, rows, weights, parts.gate))
    outer = linear(graph, Rows.of(graph, inner, precision), weights, parts.outer)
    norm = None if layer.norm_first else layer.feed_forward_norm
    states = add_and_norm(graph, outer, states, weights, norm)
    if layer.convolution is None:
        return states
    return convolved(graph, states, neighbours, weights, layer.convolution)


def headed(
    graph: Graph,
    states: str,
    weights: Mapping[str, np.ndarray],
    head: HeadSteps,
    *,
    precision: Precision,
) -> str:
    """What a head makes of states ``(rows, hidden)``."""
    if head.norm is not None:
        states = normed(graph, states, weights, head.norm)
    if head.dense is not None:
        rows = Rows.of(graph, states, precision)
        states = activated(graph, rows, weights, head.dense, head.activation)
    if head.dense_norm is not None:
        states = normed(graph, states, weights, head.dense_norm)
    if head.out is not None:
        states = linear(graph, Rows.of(graph, states, Precision.FP32), weights, head.out)
    return states


def before_attention(
    graph: Graph, states: str, weights: Mapping[str, np.ndarray], layer: Layer
) -> str:
    """What a layer's attention reads of its input."""
    if not layer.norm_first or layer.attention_norm is None:
        return states
    return normed(graph, states, weights, layer.attention_norm)


def turned(graph: Graph, value: str, tables: Sequence[str], part: Linear, size: int) -> str:
    """Queries or keys ``(tokens, heads * size)`` turned by their positions, head by head."""
    if not tables:
        return value
    half = size // 2
    target = graph.constant(np.array([-1, part.outputs // size, size]))
    split = graph.node("Reshape", value, target)
    # (-second half, first half), as a choice of places and a change of signs.
    places = np.concatenate([np.arange(half, size), np.arange(half)])
    signs = np.concatenate([np.full(half, -1), np.ones(half)]).astype(np.float32)
    swapped = graph.node("Gather", split, graph.constant(places), axis=2)
    swapped = graph.node("Mul", swapped, graph.constant(signs))
    cosines, sines = (
        graph.node("Reshape", table, graph.constant(np.array([-1, 1, size]))) for table in tables
    )
    found = graph.node("Add", graph.node("Mul", split, cosines), graph.node("Mul", swapped, sines))
    return graph.node("Reshape", found, graph.constant(np.array([-1, part.outputs])))


def for_all_heads(graph: Graph, value: str, parts: Attention) -> str:
    """Keys or values ``(tokens, key heads * size)``, each head as often as queries look at it."""
    count, heads, size = parts.queries_per_key, parts.key_heads, parts.head_size
    if count == 1:
        return value
    split = graph.node("Reshape", value, graph.constant(np.array([-1, heads, 1, size])))
    found = graph.node("Expand", split, graph.constant(np.array([1, heads, count, size])))
    return graph.node("Reshape", found, graph.constant(np.array([-1, parts.query.outputs])))
