"""What all layers of a graph share: the shape of the batch, what is real in it, and positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from centra.families import family_named
from centra.families.positions import distance_buckets, distance_rows, rotary_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.exports.graphs.portable import PortableGraph
    from centra.families.description import Attention, DistanceEmbeddings, RelativeBias, Rotary
    from centra.formats.backbone import BackboneSpec

__all__ = ["Batch"]


class Batch:
    """A batch of a graph, whose inputs ``input_ids``, ``attention_mask`` … are ``(batch, length)``.

    States lie as rows, ``(batch * length, hidden)``. What no layer asks for is not in the graph, and what
    several ask for is there once.
    """

    def __init__(
        self, graph: PortableGraph, backbone: BackboneSpec, embeddings: Mapping[str, np.ndarray]
    ) -> None:
        """Declare the inputs.

        Args:
            graph: what they are inputs of.
            backbone: the encoder.
            embeddings: the tensors of its embeddings.
        """
        self._graph, self._backbone, self._embeddings = graph, backbone, embeddings
        self._made: dict[object, str] = {}
        self._ids = graph.input("input_ids", "int64", ["batch", "length"])
        self._mask = graph.input("attention_mask", "int64", ["batch", "length"])
        if any(table.ids == "token_type_ids" for table in backbone.description.tables):
            self._types = graph.input("token_type_ids", "int64", ["batch", "length"])

    def ids(self, name: str) -> str:
        """What chooses rows of tables of embeddings, ``(batch * length,)``; see :attr:`Table.ids`."""
        match name:
            case "input_ids":
                values = self._ids
            case "token_type_ids":
                values = self._types
            case _:
                values = self._positions()
        return self._graph.node("Reshape", values, self._graph.numbers(-1))

    def by_input(self, rows: str, *sizes: int) -> str:
        """Rows as ``(batch, length, *sizes)``."""
        key = "shape", sizes
        if key not in self._made:
            shape = self._graph.node("Shape", self._ids)
            parts = (shape, self._graph.numbers(*sizes))
            self._made[key] = self._graph.node("Concat", *parts, axis=0)
        return self._graph.node("Reshape", rows, self._made[key])

    def real(self, *shape: int) -> str:
        """Where tokens are and no padding, of so many dimensions (0 stands for one of the batch's)."""
        key = "real", shape
        if key not in self._made:
            there = self._graph.cast(self._mask, "bool")
            self._made[key] = self._graph.node("Reshape", there, self._graph.numbers(*shape))
        return self._made[key]

    def seen(self, window: int | None) -> str:
        """Which tokens each looks at, ``(batch, 1, 1 or length, length)``."""
        graph, real = self._graph, self.real(0, 1, 1, -1)
        if window is None:
            return real
        key = "window", window
        if key not in self._made:
            far = graph.node("Abs", self._distances())
            near = graph.node("LessOrEqual", far, graph.number_of(window))
            self._made[key] = graph.node("And", real, near)
        return self._made[key]

    def turns(self, attention: Attention) -> list[str]:
        """Cosines and sines ``(batch * length, head size)``; none where nothing turns."""
        rotary = attention.rotary
        return [] if rotary is None else [self._turn(rotary, part) for part in (0, 1)]

    def bias(self, bias: RelativeBias) -> str:
        """What is added to scores by distance, ``(heads, length, length)``."""
        if bias not in self._made:
            # A token that is looked at stands so far behind the one that looks.
            behind = -self._every_distance
            table = self._embeddings[bias.table][distance_buckets(bias, behind)]
            with self._graph.within("embeddings"):
                found = self._by_distance(self._graph.weight(bias.table, table))
            self._made[bias] = self._graph.node("Transpose", found, perm=(2, 0, 1))
        return self._made[bias]

    def distance_rows(self, embeddings: DistanceEmbeddings) -> str:
        """The row of the distance of each token from each, ``(length, length)``."""
        if embeddings not in self._made:
            rows = distance_rows(embeddings, self._every_distance)
            self._made[embeddings] = self._by_distance(self._graph.constant(rows))
        return self._made[embeddings]

    @property
    def _every_distance(self) -> np.ndarray:
        most = self._backbone.max_length - 1
        return np.arange(-most, most + 1)

    def _by_distance(self, table: str) -> str:
        """A table's entries, one for each of :attr:`_every_distance`, for each two tokens."""
        most = self._graph.number_of(self._backbone.max_length - 1)
        places = self._graph.node("Add", self._distances(), most)
        return self._graph.node("Gather", table, places, axis=0)

    def _distances(self) -> str:
        """How far each token stands behind each, ``(length, length)``."""
        if "distances" not in self._made:
            columns = self._columns()
            down = self._graph.node("Unsqueeze", columns, self._graph.numbers(1))
            across = self._graph.node("Unsqueeze", columns, self._graph.numbers(0))
            self._made["distances"] = self._graph.node("Sub", down, across)
        return self._made["distances"]

    def _turn(self, rotary: Rotary, part: int) -> str:
        key = rotary, part
        if key not in self._made:
            tables = rotary_tables(rotary, self._backbone.max_length)
            name = f"rotary.{rotary.base:g}.{('cosines', 'sines')[part]}"
            with self._graph.within("embeddings"):
                table = self._graph.weight(name, tables[part])
            places = self._graph.node("Reshape", self._every_column(), self._graph.numbers(-1))
            self._made[key] = self._graph.node("Gather", table, places, axis=0)
        return self._made[key]

    def _positions(self) -> str:
        """Each token's position as the family counts, ``(batch, length)``."""
        graph = self._graph
        if not family_named(self._backbone.family).position_offset:
            return self._every_column()
        pad = graph.number_of(self._backbone.pad_token_id)
        real = graph.cast(graph.node("Not", graph.node("Equal", self._ids, pad)), "int64")
        count = graph.node("CumSum", real, graph.number_of(1))
        return graph.node("Add", graph.node("Mul", count, real), pad)

    def _columns(self) -> str:
        """0, 1, 2 … ``(length,)``."""
        if "columns" not in self._made:
            graph = self._graph
            length = graph.node("Gather", graph.node("Shape", self._ids), graph.numbers(1), axis=0)
            length = graph.node("Squeeze", length, graph.numbers(0))
            zero, one = (graph.number_of(n) for n in (0, 1))
            self._made["columns"] = graph.node("Range", zero, length, one)
        return self._made["columns"]

    def _every_column(self) -> str:
        """The same for each input, ``(batch, length)``."""
        if "every column" not in self._made:
            shape = self._graph.node("Shape", self._ids)
            self._made["every column"] = self._graph.node("Expand", self._columns(), shape)
        return self._made["every column"]
