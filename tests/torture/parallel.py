"""Attacks on both set-ups at once, each in a process of its own, with the same servers."""

from __future__ import annotations

import atexit
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.torture import losses
from tests.torture.worlds import Services, opened, running

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["both", "services"]

KINDS = ("sqlite", "servers")


@cache
def services() -> Services:
    """What worlds are made with, until this process ends; with servers where there are some."""
    stack = ExitStack()
    atexit.register(stack.close)
    try:
        return stack.enter_context(running(servers=True))
    except pytest.skip.Exception as missing:
        print(f"SQLite and folders alone: {missing.msg}", file=sys.stderr)
        return stack.enter_context(running(servers=False))


def both(
    storm: Callable[..., Counter[str]],
    seconds: float,
    seed: int,
    *,
    kinds: Sequence[str] = KINDS,
    **options: Any,
) -> dict[str, int]:
    """Run a storm of attacks in each set-up, side by side.

    Args:
        storm: takes a kind of set-up, a world, seconds and a seed; a module's own function.
        seconds: how long.
        seed: of each.
        kinds: which set-ups.
        options: of the storm.

    Returns:
        The counts, each after its set-up's name; ``losses`` of all.
    """
    began = time.monotonic()
    there = services()
    seconds = max(seconds / 2, seconds - (time.monotonic() - began))
    kinds = [kind for kind in kinds if kind == "sqlite" or there.postgres]
    found = Counter[str]()
    if not kinds:
        return {}
    with ProcessPoolExecutor(len(kinds), mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(_run, storm, kind, there, seconds, seed, options) for kind in kinds]
        for one in runs:
            name, counts, lost = one.result()
            losses.LOSSES.extend(lost)
            found["losses"] += counts.pop("losses", 0)
            for key, count in counts.items():
                found[f"{name}: {key}"] += count
    return dict(found)


def _run(
    storm: Callable[..., Counter[str]],
    kind: str,
    there: Services,
    seconds: float,
    seed: int,
    options: dict[str, Any],
) -> tuple[str, Counter[str], list[losses.Loss]]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="centra-world-"))
        world = stack.enter_context(opened(kind, there, Path(folder, "world")))
        return world.name, storm(kind, world, seconds, seed, **options), losses.LOSSES
