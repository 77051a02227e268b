"""Times of things that take turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from centra.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["measure"]

K = TypeVar("K")

_SECONDS = 0.2
"""For how long each is repeated in a round, at least; it runs once at least."""


def measure(
    runs: Mapping[K, Callable[[], object]], rounds: int, progress: Progress = silent
) -> dict[K, list[float]]:
    """The seconds that each of some runs takes, once for each time that it ran.

    Every round takes all of them, and every other one in the opposite order. A round before the
    first warms up and does not count.

    Args:
        runs: what to time, by anything that names it.
        rounds: how many count.
        progress: told of each turn.
    """
    found: dict[K, list[float]] = {key: [] for key in runs}
    total = (rounds + 1) * len(runs)
    for number in range(rounds + 1):
        keys = list(runs) if number % 2 else list(runs)[::-1]
        for place, key in enumerate(keys, 1):
            seconds = _repeated(runs[key])
            if number:
                found[key] += seconds
            progress("measure", number * len(runs) + place, total)
    return found


def _repeated(run: Callable[[], object]) -> list[float]:
    found: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not found or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found
