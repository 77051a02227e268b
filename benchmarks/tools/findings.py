"""What a run of runtime.py measures with, and what it has found."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.tools.common import Comparison, Goal
from benchmarks.tools.peer import running_worker
from benchmarks.tools.reference import TASKS
from benchmarks.tools.turns import Size, size_text, turns
from centra.bench import release_work
from centra.runtime import load_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.tools.reference import Setup, Setups
    from centra.bench import Floor
    from centra.runtime import Release

__all__ = [
    "ABOVE",
    "ADAPTERS",
    "EAGER",
    "ONNX",
    "OTHER_ROUNDS",
    "PEERS",
    "PEFT",
    "QUICK_SIZES",
    "SIZES",
    "TABLE",
    "Bench",
    "Findings",
    "running_models",
    "take_turns",
]

OTHER_ROUNDS = 2
"""Of sizes that no goal is about."""

Times = dict[tuple[str, Size], list[float]]
"""Seconds per round, by what was timed."""

QUICK_SIZES: tuple[Size, ...] = ((1, 32), (8, 32))
SIZES: tuple[Size, ...] = (*QUICK_SIZES, (32, 32))
TABLE: tuple[Size, ...] = ((1, 16), *SIZES, (1, 128), (8, 128))
_LONG: Size = (32, 128)

ONNX = f"{TASKS} models, ONNX Runtime"
EAGER = f"{TASKS} models, transformers"
ADAPTERS = f"{TASKS} adapters in parallel"
ABOVE = f"{TASKS} adapters above layer 8"
PEFT = f"{TASKS} LoRA adapters, mixed batch"
PEERS = {"transformers": EAGER, "adapters": ADAPTERS, "adapters-above": ABOVE, "peft": PEFT}
"""The workers' kinds, and what each is called."""


@dataclass(frozen=True)
class Bench:
    """What a run measures with."""

    setups: Setups
    python: Path
    """The interpreter that has the peers."""
    work: Path
    rounds: int
    threads: int
    quick: bool
    floor: Floor

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Of the rows that compare."""
        return QUICK_SIZES if self.quick else SIZES

    def least(self, setup: Setup, size: Size) -> float:
        """The seconds that this machine needs at least."""
        backbone, (batch, length) = self.setups.backbone, size
        work = release_work(
            setup.manifest.tasks, {backbone.digest: backbone}, batch=batch, length=length
        )
        return self.floor.seconds(work)

    def load(self, setup: Setup, base: Release | None = None) -> Release:
        """Load a release of the reference store."""
        return load_release(setup.address, engine="onnx", threads=self.threads, base=base)


@dataclass
class Findings:
    """Everything that was measured so far."""

    times: Times = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Of the report: what a goal's number does not say."""
    arrivals: list[float] = field(default_factory=list)
    """Seconds after which each task of S answered at 1 × 32, streaming; medians."""

    def faster(self, least: float, way: str, than: str, *sizes: Size) -> None:
        """Add a goal for each size that was timed: how many times as fast one way is as another."""
        for size in sizes:
            if (way, size) in self.times:
                ratio = 1 / Comparison.of(self.times[way, size], self.times[than, size]).worse
                name = f"{way[0]}, times as fast as {than}, {size_text(size)}"
                self.goals.append(Goal.at_least(least, name, ratio))

    def median(self, way: str, size: Size) -> float:
        """Seconds."""
        return median(self.times[way, size])


@contextmanager
def running_models(
    bench: Bench, kind: str, count: int, *, threads: int | None = None
) -> Iterator[Callable[[Size], float]]:
    """A peer in its own process: what asks it for the seconds of a size.

    Args:
        bench: what is measured with.
        kind: of ``models_worker.py``.
        count: of models, or the number of a layer.
        threads: if not all.
    """
    # transformers' own model runs in our environment, with the version that we run on.
    python = Path(sys.executable) if kind == "transformers" else bench.python
    encoder = bench.setups.encoder
    settings = json.dumps({"model_type": encoder.model_type, **encoder.settings})
    arguments = (kind, count, threads or bench.threads, bench.work, settings)
    with running_worker(
        python, "models_worker.py", *arguments, folder=bench.work / "peers"
    ) as worker:
        yield lambda size: float(worker.ask(batch=size[0], length=size[1])["seconds"])


def take_turns(
    bench: Bench, found: Findings, ways: Mapping[str, Callable[[Size], float]], size: Size
) -> None:
    """Time ways to answer inputs of a size, and note the seconds."""
    bound = {name: (lambda way=way: way(size)) for name, way in ways.items()}
    rounds = bench.rounds if size in (*SIZES, _LONG) else OTHER_ROUNDS
    for name, seconds in turns(rounds, bound).items():
        found.times[name, size] = seconds
