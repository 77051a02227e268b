"""The floor under a release's time: what this machine can compute, and read from memory, at best.

No algorithm that does the same operations on the same weights is faster than its floor, whatever
its code. How far a measured time lies above says what is left to gain.
"""

from __future__ import annotations

import importlib.util
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from centra.bench.work import Work

__all__ = ["Floor", "measure_floor"]

_SIZE = 2048
"""Rows and columns of the matrices that are multiplied: large beside any cost of a call."""
_READ = 2**28
"""Bytes that are read: many times any cache."""
_SECONDS = 0.4
"""How long each of the two is tried, at least; enough for a handful of times."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The two limits of a machine."""

    flops: float
    """The most float32 operations per second; a multiplication with an addition is two."""
    bandwidth: float
    """The most bytes per second that are read from memory."""

    def seconds(self, works: Iterable[Work]) -> float:
        """The least time for some units one after the other, in seconds.

        Each takes what its operations take or what reading its weights takes, whichever is longer.
        """
        return sum(max(work.flops / self.flops, work.bytes / self.bandwidth) for work in works)


def measure_floor(threads: int) -> Floor:
    """Measure the limits of this machine, in about two seconds.

    - Operations: the product of two float32 matrices of 2,048 rows and columns, by ONNX Runtime
      with so many threads and the second matrix packed beforehand, as the onnx engine packs
      weights. Where onnxruntime is not installed, by numpy, whose library chooses its threads.
    - Bandwidth: the largest of 2²⁸ bytes of float32, each thread looking at a part of its own.

    Each is done for 0.4 seconds and three times at least, and the fastest counts: whatever else the
    machine does can only make one slower.

    Args:
        threads: how many processors to use.
    """
    product = _product(threads)
    # Finding the largest is one instruction a vector and lets go of the interpreter's lock.
    parts = np.array_split(np.ones(_READ // 4, dtype=np.float32), threads)
    with ThreadPoolExecutor(threads) as executor:
        reading = _fastest(lambda: list(executor.map(np.max, parts)))
    return Floor(flops=2 * _SIZE**3 / _fastest(product), bandwidth=_READ / reading)


def _product(threads: int) -> Callable[[], object]:
    matrix = np.ones((_SIZE, _SIZE), dtype=np.float32)
    if importlib.util.find_spec("onnxruntime") is None:
        return lambda: matrix @ matrix
    from centra.runtime.onnx_graph import Graph
    from centra.runtime.session import Program

    graph = Graph("product")
    rows = graph.input("rows", "float32", ["rows", _SIZE])
    product = graph.node("MatMul", rows, graph.weight("weight", matrix))
    graph.output(product, "float32", ["rows", _SIZE])
    program = Program(graph, threads=threads)
    return lambda: program(matrix)


def _fastest(run: Callable[[], object]) -> float:
    """The seconds of the fastest of several runs, after one that does not count."""
    run()
    found: list[float] = []
    while len(found) < 3 or sum(found) < _SECONDS:
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)
