"""What it costs to choose a module's layers, beside one conventional fine-tuning.

Per task, by turns: one full fine-tuning of every layer, as ``centra train`` does it; then ``fit``,
which searches a teacher, distils students and selects, its feature cache empty. Both train for the
same epochs on the same rows, with the whole machine. Afterwards the same trials run to their end,
to see what stopping most of them early has cost in points.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    Goal,
    add_options,
    goal_table,
    our_versions,
    publish,
    report,
    say,
    system,
    table,
)
from benchmarks.tools.real import find_data, minilm, take_rows
from centra.kinds import kind_named
from centra.training.engines import LocalEngine
from centra.training.features import FeatureCache
from centra.training.pipeline import PipelineResult, run_pipeline
from centra.training.plan import Plan
from centra.training.recipe import Recipe
from centra.training.train import train_module
from centra.training.trials import best_trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.tools.real import Backbone

RESULTS = ROOT / "benchmarks" / "CHOOSING.md"
TASKS = ("trec", "slots_restaurant", "stsb", "cola", "emotion", "intent_snips")
"""Halving was made for the first three."""
LAYERS, RATES = (2, 5), (1e-4, 3e-4)
STUDENTS, STUDENT_RATES = (1, 2), (4e-4,)
MAX_LENGTH = 64


@dataclass(frozen=True)
class Findings:
    """One task's times in seconds, and what was chosen, in points."""

    task: str
    full_s: float
    full_score: float
    fit_s: float
    chosen: PipelineResult
    exhaustive: PipelineResult

    @property
    def ratio(self) -> float:
        """The time to choose, in full fine-tunings."""
        return self.fit_s / self.full_s

    @property
    def loss(self) -> float:
        """Points that the chosen module is below the one of the exhaustive search."""
        return float(self.exhaustive.choice.score - self.chosen.choice.score)


def main() -> int:
    """Measure; 0 where everything could be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_options(parser, RESULTS, "one task, few rows, teachers and epochs", pins=None)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "choosing")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--rows", type=int, default=500, help="of each train set")
    parser.add_argument("--dev-rows", type=int, default=400)
    parser.add_argument("--layers", type=int, nargs=2, default=LAYERS, help="of the teachers")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--jobs", type=int, help="processes that train; default one per core")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.rows, options.dev_rows, options.epochs = ("trec",), 28, 10, 1
        options.layers = (1, 2)
    load = os.getloadavg()[0]
    try:
        backbone, source = minilm(options.work / "store"), find_data()
        tasks = [_Task(backbone, source, task, options) for task in options.tasks]
        timed = [(task, task.full(), task.choose()) for task in tasks]
        found = [_findings(*each) for each in timed]
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    ratios = [each.ratio for each in found]
    goals = [
        Goal.at_most(3, "time to choose, in full fine-tunings, at most", max(ratios)),
        Goal.at_most(2.5, "time to choose, in full fine-tunings, mean", mean(ratios)),
        Goal.at_most(0.3, "points below the exhaustive search, mean", mean(f.loss for f in found)),
    ]
    publish(options, RESULTS, _report(found, goals, options, load), goals)
    return 0


class _Task:
    """One task's data and plan, and the three things that are done with them."""

    def __init__(
        self, backbone: Backbone, source: Path, name: str, options: argparse.Namespace
    ) -> None:
        self.name = name
        self._backbone = backbone
        self._work = options.work / name
        # What an earlier run left would make this one look faster; the rest may stay.
        for timed in ("full", "fit"):
            shutil.rmtree(self._work / timed, ignore_errors=True)
        self._data = take_rows(
            source / name, self._work / "data", train=options.rows, dev=options.dev_rows
        )
        self._layers = options.layers
        self._jobs = options.jobs
        self._engine = LocalEngine(self._jobs)
        self._shared = {
            "epochs": options.epochs,
            "patience": options.epochs,
            "max_length": MAX_LENGTH,
        }

    def full(self) -> tuple[float, float]:
        """One full fine-tuning: its seconds, and its score in points."""
        say(f"{self.name}: full fine-tuning")
        start = time.perf_counter()
        module = train_module(
            self._backbone.spec,
            self._backbone.store,
            self._data,
            Recipe(
                tap=0,
                depth=self._backbone.spec.num_layers,
                learning_rate=RATES[0],
                **self._shared,
            ),
            work=self._work / "full",
        )
        seconds = time.perf_counter() - start
        metric = kind_named(module.spec.kind).metrics[0]
        return seconds, 100 * module.spec.metrics[metric]

    def choose(self, *, exhaustive: bool = False) -> tuple[float, PipelineResult]:
        """Search, distil and select: the seconds, and what came out."""
        say(f"{self.name}: choosing{', every trial to its end' * exhaustive}")
        start = time.perf_counter()
        folder = self._work / ("exhaustive" if exhaustive else "fit")
        # Processes start within the time of choosing; the exhaustive search may have the same.
        self._engine = self._engine if exhaustive else LocalEngine(self._jobs)
        found = run_pipeline(
            self._backbone.spec,
            self._backbone.store,
            self._data,
            Plan.model_validate(
                {
                    "task": self.name,
                    "backbone": "minilm",
                    "data": str(self._data),
                    "training": self._shared,
                    "search": {"layers": self._layers, "learning_rates": RATES},
                    "distill": {"layers": STUDENTS, "learning_rates": STUDENT_RATES},
                }
            ),
            output=folder,
            engine=self._engine,
            cache=FeatureCache(folder / "features", 20 * 10**9),
            exhaustive=exhaustive,
        )
        return time.perf_counter() - start, found


def _findings(
    task: _Task, full: tuple[float, float], chosen: tuple[float, PipelineResult]
) -> Findings:
    """Put what was timed together with the exhaustive search, whose time does not matter."""
    _, exhaustive = task.choose(exhaustive=True)
    return Findings(task.name, *full, *chosen, exhaustive)


def _report(
    found: Sequence[Findings], goals: Sequence[Goal], options: argparse.Namespace, load: float
) -> str:
    """The results as Markdown."""
    rows = [
        [
            item.task,
            f"{item.full_s:.0f}",
            f"{item.fit_s:.0f}",
            f"{item.ratio:.2f}",
            f"{item.full_score:.2f}",
            _teacher(item.chosen),
            _teacher(item.exhaustive),
            _choice(item.chosen),
            _choice(item.exhaustive),
        ]
        for item in found
    ]
    headers = (
        *("task", "full, s", "choosing, s", "ratio", "full, points"),
        *("teacher", "teacher, exhaustive", "chosen", "chosen, exhaustive"),
    )
    fewest, most = options.layers
    trials = len(RATES) * (most - fewest + 1)
    settings = (
        (
            f"all-MiniLM-L6-v2; {options.rows} train and {options.dev_rows} dev rows at even "
            f"distances, {MAX_LENGTH} tokens; {options.epochs} epochs, batches of 32, seed 0"
        ),
        f"full fine-tuning: 6 layers at {RATES[0]:g}, one process on all cores",
        (
            f"choosing: {trials} teachers, of {fewest} to {most} layers at "
            f"{' and '.join(f'{rate:g}' for rate in RATES)}; students of "
            f"{' and '.join(map(str, STUDENTS))} layers at {STUDENT_RATES[0]:g}; one process per "
            "core; the feature cache empty at the start, the start of processes included, with "
            "their imports in the first task's"
        ),
        f"{system()}; load average {load:.1f} before and {os.getloadavg()[0]:.1f} after",
        our_versions("torch", "transformers"),
    )
    body = (*goal_table(goals), "", *table(headers, rows))
    return report("What choosing costs", "choosing.py", body, settings)


def _teacher(found: PipelineResult) -> str:
    best = best_trial(trial for trial in found.trials if trial.role == "teacher")
    return f"{best.score:.2f} ({best.frozen_layers}, {best.task_layers})"


def _choice(found: PipelineResult) -> str:
    choice = found.choice
    return f"{float(choice.score):.2f} ({choice.frozen_layers}, {choice.task_layers})"


if __name__ == "__main__":
    sys.exit(main())
