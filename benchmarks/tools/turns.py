"""Timing ways to answer by turns, and the inputs that they are timed on."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from centra.runtime import Release

__all__ = ["SECONDS", "Size", "predicting", "size_text", "timed", "turns", "words"]


SECONDS = 0.2
"""For how long each way is repeated at its turn, at least."""

Size = tuple[int, int]
"""Inputs, and tokens of each."""


def turns(rounds: int, ways: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """The seconds of each way per round; every other round goes in the opposite order."""
    for way in ways.values():
        way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in [*ways][:: -1 if number % 2 else 1]:
            seconds = [ways[name]()]
            while sum(seconds) < SECONDS:
                seconds.append(ways[name]())
            found[name].append(median(seconds))
    return found


def predicting(release: Release) -> Callable[[Size], float]:
    """What gives the seconds that a release takes for a size."""
    return lambda size: timed(release, [words(size[1])] * size[0])()


def timed(release: Release, texts: list[str]) -> Callable[[], float]:
    """Whole answers, tokenizing and decoding included."""

    def run() -> float:
        start = time.perf_counter()
        release.predict(texts)
        return time.perf_counter() - start

    return run


def words(tokens: int) -> str:
    """A text of so many tokens, the special ones included."""
    return " ".join(["hello"] * (tokens - 2))


def size_text(size: Size) -> str:
    """As tables show it."""
    return f"{size[0]} × {size[1]}"
