"""A graph on disk: in one file, or beside a file of its weights where one could not hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from centra.exports.graphs.portable import PortableGraph

__all__ = ["write_graph"]

_MOST_INSIDE = 1 << 30
"""Bytes of weights in the graph's own file; protocol buffers end at two gigabytes."""
_ALIGNED = 4096
"""Where weights begin in a file of their own, so that it can be mapped."""


def write_graph(graph: PortableGraph, path: Path) -> None:
    """Write a graph to ``path``, and its weights to ``path`` with ``_data`` behind it where they are many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if sum(array.nbytes for array in graph.weights.values()) <= _MOST_INSIDE:
        path.write_bytes(graph.to_file_bytes())
        return
    beside = path.with_name(f"{path.name}_data")
    places: dict[str, tuple[str, int]] = {}
    with beside.open("wb") as file:
        for name, array in graph.weights.items():
            file.write(bytes(-file.tell() % _ALIGNED))
            places[name] = beside.name, file.tell()
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    path.write_bytes(graph.to_bytes(places))
