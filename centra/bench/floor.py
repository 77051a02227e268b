"""The floor under a release's time: what this machine can compute, and read from memory, at best.

No algorithm that does the same operations on the same weights is faster than its floor, whatever
its code. How far a measured time lies above says what is left to gain.
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from centra.bench.timing import measure
from centra.system.processors import affinity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from centra.bench.work import Work

__all__ = ["Floor", "limits", "measure_floor"]

_SIZE = 1024
"""Rows and columns of the matrices that are multiplied: large beside any cost of a call, and still
done in less than a scheduler's time slice, so that some product has a busy machine to itself."""
_READ = 2**28
"""Bytes that are read: many times any cache."""
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The two limits of a machine."""

    flops: float
    """The most float32 operations per second; a multiplication with an addition is two."""
    bandwidth: float
    """The most bytes per second that are read from memory."""

    @classmethod
    def of(cls, times: Mapping[str, Sequence[float]]) -> Floor:
        """From the seconds of what :func:`limits` names, measured some times each.

        The fastest counts: whatever else the machine does can only make one slower.
        """
        products = [min(seconds) for name, seconds in times.items() if name != "reading"]
        return cls(flops=2 * _SIZE**3 / min(products), bandwidth=_READ / min(times["reading"]))

    def seconds(self, works: Iterable[Work]) -> float:
        """The least time for some units one after the other, in seconds.

        Each takes what its operations take or what reading its weights takes, whichever is longer.
        """
        return sum(max(work.flops / self.flops, work.bytes / self.bandwidth) for work in works)


def measure_floor(threads: int) -> Floor:
    """Measure the limits of this machine, in two to three seconds; see :func:`limits`."""
    return Floor.of(measure(limits(threads), _ROUNDS))


def limits(threads: int) -> dict[str, Callable[[], object]]:
    """What shows the limits of this machine, as functions to time; see :meth:`Floor.of`.

    - ``onnx product``, where onnxruntime is installed: the product of two float32 matrices of 1,024
      rows and columns, the second one packed beforehand, as the onnx engine packs weights.
    - ``numpy product``: the same by numpy, which cannot be told how many threads to use. So it is
      left out where ONNX Runtime is there and not all of this machine's are to be used.
    - ``reading``: the largest of 2²⁸ bytes of float32, each thread looking at a part of its own.

    Args:
        threads: how many processors to use.
    """
    matrix = np.ones((_SIZE, _SIZE), dtype=np.float32)
    parts = np.array_split(np.ones(_READ // 4, dtype=np.float32), threads)
    executor = ThreadPoolExecutor(threads)
    # Finding the largest is one instruction a vector and lets go of the interpreter's lock.
    found: dict[str, Callable[[], object]] = {"reading": lambda: [*executor.map(np.max, parts)]}
    installed = importlib.util.find_spec("onnxruntime") is not None
    if installed:
        found["onnx product"] = _onnx_product(matrix, threads)
    if not installed or threads >= affinity():
        found["numpy product"] = lambda: matrix @ matrix
    return found


def _onnx_product(matrix: np.ndarray, threads: int) -> Callable[[], object]:
    from centra.runtime.onnx.graph import Graph
    from centra.runtime.onnx.session import Program

    graph = Graph("product")
    rows = graph.input("rows", "float32", ["rows", _SIZE])
    product = graph.node("MatMul", rows, graph.weight("weight", matrix))
    graph.output(product, "float32", ["rows", _SIZE])
    program = Program(graph, threads=threads)
    return lambda: program(matrix)
