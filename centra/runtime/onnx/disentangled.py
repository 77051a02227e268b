"""Scores that positions have with content, in the onnx engine; see :class:`Disentangled`.

Keys and queries of distances depend on weights alone and are computed when a layer is loaded. For inputs
of a length l there are 2l of them, one after the other, so that what query i has with all distances is
``(l, 2l)``, and what it has with all keys is that with each row moved one further than the last. Such a
move is a change of shape: without its first row, ``(2l, l)`` read as ``(l, 2l - 1)`` has it done. So
nothing is looked up, and rows that a length does not need are not computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from centra.families.positions import distance_rows
from centra.formats.tensors import map_tensors
from centra.runtime.onnx.graph import MICROSOFT
from centra.runtime.onnx.products import bias_of, weight_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.description import Attention, Disentangled
    from centra.formats.backbone import BackboneSpec
    from centra.runtime.onnx.graph import Graph
    from centra.runtime.packing import Bucket
    from centra.store import BlobReader

__all__ = ["DistanceTerms", "distance_embeddings", "first_scores", "scores"]


def distance_embeddings(spec: BackboneSpec, reader: BlobReader) -> np.ndarray | None:
    """A backbone's embeddings of distances behind their norm, ``(rows, size)``; None where it has none."""
    described = spec.description.distances
    if described is None:
        return None
    weights = map_tensors(reader.fetch(spec.embeddings))
    rows = weights[described.table].astype(np.float64)
    if described.norm is not None:
        norm = described.norm
        centred = rows - rows.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + norm.epsilon)
        rows = centred / deviation * weights[f"{norm.name}.weight"] + weights[f"{norm.name}.bias"]
    return rows.astype(np.float32)


class DistanceTerms:
    """The keys and queries that a layer makes of distances."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        attention: Attention,
        parts: Disentangled,
        embeddings: np.ndarray,
    ) -> None:
        """Compute them.

        Args:
            weights: of the layer.
            attention: how its attention looks.
            parts: how distances come into it.
            embeddings: of distances; see :func:`distance_embeddings`.
        """
        self._heads, self._size = attention.heads, attention.head_size
        self._distances = parts.distances
        # Row c of a length l is for the distance l - c, or c - l.
        self._tables = [
            (sign, embeddings @ weight_of(weights, part).T + bias_of(weights, part))
            for sign, part in ((-1, parts.key), (1, parts.query))
            if part is not None
        ]

    def of(self, bucket: Bucket) -> tuple[np.ndarray, ...]:
        """The last inputs of attention on a bucket; see :func:`scores`."""
        count, length = bucket.mask.shape
        places = np.arange(2 * length) - length
        tables = [
            self._rows(table, sign * places)
            .reshape(2 * length, self._heads, self._size)
            .transpose(1, 0, 2)
            for sign, table in self._tables
        ]
        shapes = ([count, self._heads, 2 * length, length], [count, self._heads, length, -1])
        return (
            *(np.ascontiguousarray(table) for table in tables),
            *(np.array(shape) for shape in (*shapes, [length])),
        )

    def of_first(self, bucket: Bucket) -> tuple[np.ndarray, ...]:
        """Those of attention of the first tokens; see :func:`first_scores`."""
        behind = -np.arange(bucket.mask.shape[1])
        return tuple(self._rows(table, behind)[None] for _, table in self._tables)

    def _rows(self, table: np.ndarray, distances: np.ndarray) -> np.ndarray:
        found: np.ndarray = table[distance_rows(self._distances, distances)]
        return found


def scores(graph: Graph, query: str, key: str, attention: Attention, parts: Disentangled) -> str:
    """What positions add to scores.

    Takes :meth:`DistanceTerms.of` as inputs of the graph.

    Args:
        graph: what it becomes part of.
        query, key: ``(n, length, hidden)``.
        attention: how attention looks.
        parts: how distances come into it.

    Returns:
        ``(n, heads, length, length)``.
    """
    heads, size = attention.heads, attention.head_size
    terms = [(query, "distance_keys")] if parts.key is not None else []
    terms += [(key, "distance_queries")] if parts.query is not None else []
    tables = [graph.input(name, "float32", [heads, "distances", size]) for _, name in terms]
    folded = graph.input("folded", "int64", [4])
    moved = graph.input("moved", "int64", [4])
    length = graph.input("width", "int64", [1])
    split = graph.constant(np.array([0, 0, heads, size]))
    zero, one = (graph.constant(np.array([number])) for number in (0, 1))
    last, third = graph.constant(np.array([3])), graph.constant(np.array([2]))
    end = graph.constant(np.array([np.iinfo(np.int64).max]))
    found = ""
    for (content, name), table in zip(terms, tables, strict=True):
        rows = graph.node("Reshape", content, split)
        rows = graph.node("Transpose", rows, perm=(0, 2, 1, 3))
        met = graph.node(
            "FusedMatMul", rows, table, domain=MICROSOFT, transB=1, alpha=attention.scale
        )
        met = graph.node("Reshape", met, folded)
        met = graph.node("Slice", met, one, end, third)
        met = graph.node("Reshape", met, moved)
        met = graph.node("Slice", met, zero, length, last)
        if name == "distance_queries":
            met = graph.node("Transpose", met, perm=(0, 1, 3, 2))
        found = graph.node("Add", found, met) if found else met
    return found


def first_scores(
    graph: Graph, queries: str, keys: str, attention: Attention, parts: Disentangled
) -> str:
    """The scores of first tokens with all of theirs.

    Takes :meth:`DistanceTerms.of_first` as inputs of the graph.

    Args:
        graph: what it becomes part of.
        queries: ``(n, heads, hidden)``, each head's own and else 0.
        keys: ``(n, length, hidden)``.
        attention: how attention looks.
        parts: how distances come into it.

    Returns:
        ``(n, heads, length)``.
    """
    heads, size = attention.heads, attention.head_size
    names = [("distance_keys", parts.key), ("distance_queries", parts.query)]
    tables = {
        name: graph.input(name, "float32", [1, "length", heads * size])
        for name, part in names
        if part is not None
    }
    met = keys
    if "distance_keys" in tables:
        met = graph.node("Add", keys, tables["distance_keys"])
    found = graph.node(
        "FusedMatMul", queries, met, domain=MICROSOFT, transB=1, alpha=attention.scale
    )
    if "distance_queries" in tables:
        product = graph.node("Mul", keys, tables["distance_queries"])
        product = graph.node("Reshape", product, graph.constant(np.array([0, 0, heads, size])))
        summed = graph.node("ReduceSum", product, graph.constant(np.array([3])), keepdims=0)
        scaled = graph.node(
            "Mul", summed, graph.constant(np.array(attention.scale, dtype=np.float32))
        )
        found = graph.node("Add", found, graph.node("Transpose", scaled, perm=(0, 2, 1)))
    return found
