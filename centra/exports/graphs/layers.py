"""Layers of a graph: attention of all tokens of a padded batch, and what stands around it.

All but attention and a convolution work on rows, and are what the onnx engine's graphs are made of; see
:mod:`centra.runtime.onnx.layer_parts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from centra.runtime.onnx.layer_parts import after_attention, projected
from centra.runtime.onnx.products import bias_of, weight_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.exports.graphs.batch import Batch
    from centra.exports.graphs.portable import PortableGraph
    from centra.families.description import Disentangled, Layer, Linear

__all__ = ["LayerGraph"]

_LEAST = -10_000.0
"""In place of the scores of what is not looked at: nothing is left of it, and 16 bits hold it."""
_TO_HEADS = (0, 2, 1, 3)
"""``(batch, length, heads, size)`` and ``(batch, heads, length, size)``, one made the other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerGraph:
    """A layer as part of a graph."""

    graph: PortableGraph
    batch: Batch
    layer: Layer
    weights: Mapping[str, np.ndarray]
    """Its own, by their names within it."""
    distances: np.ndarray | None
    """The backbone's embeddings of distances, where it has any."""

    def add(self, states: str) -> str:
        """Build it; from states ``(batch * length, hidden)`` to the next."""
        graph, layer = self.graph, self.layer
        turns = self.batch.turns(layer.attention)
        values = projected(graph, states, self.weights, layer, turns, precision=graph.products)
        return after_attention(
            graph,
            self._attention(*values),
            states,
            self.weights,
            layer,
            neighbours=self._neighbours(states),
            precision=graph.products,
        )

    def _attention(self, query: str, key: str, value: str) -> str:
        """From rows of each to rows ``(batch * length, heads * size)``."""
        graph, batch, parts = self.graph, self.batch, self.layer.attention
        heads, size = parts.heads, parts.head_size
        # In 16 bits products of long queries and keys could leave what these hold.
        query = graph.node("Mul", query, graph.number(parts.scale))
        query, key, value = (
            graph.node("Transpose", batch.by_input(rows, heads, size), perm=_TO_HEADS)
            for rows in (query, key, value)
        )
        scores = graph.node("MatMul", query, graph.node("Transpose", key, perm=(0, 1, 3, 2)))
        if parts.relative_bias is not None:
            scores = graph.node("Add", scores, batch.bias(parts.relative_bias))
        if parts.disentangled is not None:
            scores = graph.node(
                "Add", scores, self._distance_scores(query, key, parts.disentangled)
            )
        scores = graph.node("Where", batch.seen(parts.window), scores, graph.number(_LEAST))
        context = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
        context = graph.node("Transpose", context, perm=_TO_HEADS)
        return graph.node("Reshape", context, graph.numbers(-1, heads * size))

    def _distance_scores(self, query: str, key: str, terms: Disentangled) -> str:
        """What positions add, from the scaled query and the key ``(batch, heads, length, size)``."""
        graph = self.graph
        rows = self.batch.distance_rows(terms.distances)
        ends, three = graph.node("Shape", query), graph.numbers(3)
        first = graph.node("Slice", ends, graph.numbers(0), three)
        length = graph.node("Slice", ends, graph.numbers(2), three)
        shape = graph.node("Concat", first, length, axis=0)

        def met(content: str, part: Linear, chosen: str) -> str:
            found = graph.node("MatMul", content, self._distance_table(part))
            places = graph.node("Expand", chosen, shape)
            return graph.node("GatherElements", found, places, axis=3)

        found = []
        if terms.key is not None:
            found.append(met(query, terms.key, rows))
        if terms.query is not None:
            scaled = graph.node("Mul", key, graph.number(self.layer.attention.scale))
            across = met(scaled, terms.query, graph.node("Transpose", rows, perm=(1, 0)))
            found.append(graph.node("Transpose", across, perm=(0, 1, 3, 2)))
        return found[0] if len(found) == 1 else graph.node("Add", *found)

    def _distance_table(self, part: Linear) -> str:
        """What a layer makes of distances, ``(heads, size, rows)``."""
        assert self.distances is not None
        parts = self.layer.attention
        table = self.distances @ weight_of(self.weights, part).T
        bias = bias_of(self.weights, part)
        table = table if bias is None else table + bias
        table = table.reshape(-1, parts.heads, parts.head_size).transpose(1, 2, 0)
        name = f"distances.{part.name}.{part.first_row}"
        return self.graph.weight(name, np.ascontiguousarray(table, dtype=np.float32))

    def _neighbours(self, states: str) -> str:
        """What a convolution reads, ``(batch * length, kernel * hidden)``; nothing without one."""
        graph, beside = self.graph, self.layer.convolution
        if beside is None:
            return ""
        hidden, kernel = beside.hidden, beside.kernel
        around, zero = kernel // 2, graph.number(0)
        own = self.batch.by_input(states, hidden)
        own = graph.node("Where", self.batch.real(0, -1, 1), own, zero)
        padded = graph.node("Pad", own, graph.numbers(0, around, 0, 0, around, 0), zero)
        # As many as there are tokens, from each place on.
        ends = [place + 1 - kernel or int(np.iinfo(np.int64).max) for place in range(kernel)]
        shifted = [
            graph.node(
                *("Slice", padded, graph.numbers(place)), graph.numbers(end), graph.numbers(1)
            )
            for place, end in enumerate(ends)
        ]
        side = graph.node("Concat", *shifted, axis=2)
        return graph.node("Reshape", side, graph.numbers(-1, kernel * hidden))
