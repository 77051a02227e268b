"""What `study.py` reports."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    Goal,
    goal_table,
    our_versions,
    system,
    table,
)
from benchmarks.tools.study_setups import HEAD_EPOCHS, HEAD_RATE, JOINT_RATE, MAX_LENGTH
from centra.kinds import kind_named

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from benchmarks.tools.real import Backbone
    from benchmarks.tools.study_setups import Setup
    from centra.training.task_data import TaskData

__all__ = ["Row", "goals_of", "mean_of", "published_rows", "results", "settings_of"]


@dataclass(frozen=True)
class Row:
    """One method: a score in points for each task, and the layers that serving them computes."""

    method: str
    scores: dict[str, float]
    layers: float

    @property
    def average(self) -> float:
        """Over the tasks."""
        return mean(self.scores.values())


def mean_of(rows: Sequence[Row]) -> Row:
    """One method over the seeds."""
    return Row(
        rows[0].method,
        {task: mean(row.scores[task] for row in rows) for task in rows[0].scores},
        mean(row.layers for row in rows),
    )


def goals_of(rows: Sequence[Row], share: float, *, full: int) -> list[Goal]:
    """At the threshold that scores best within the layers that the goal allows."""
    mixed = [row for row in rows if row.method.startswith("mixed")]
    within = [row for row in mixed if row.layers <= share * full] or [
        min(mixed, key=lambda row: row.layers)
    ]
    best = max(within, key=lambda row: row.average)
    quality = 100 * best.average / rows[0].average
    return [
        Goal.at_least(99.6, f"{best.method}: % of full fine-tuning's average", quality),
        Goal.at_most(100 * share, f"{best.method}: % of its layers", 100 * best.layers / full),
    ]


def results(
    rows: Sequence[Row], goals: Sequence[Goal], published: Sequence[Row], *, full: float
) -> list[str]:
    """The results as Markdown."""
    lines = [*goal_table(goals), "", *_table(rows, full)]
    if published:
        lines += ["", "The paper's (table 2), BERT base, all rows:", ""]
        lines += _table(published, published[0].layers)
    return lines


def _table(rows: Sequence[Row], full: float) -> list[str]:
    tasks = [*rows[0].scores]
    lines = [
        [
            row.method,
            *(f"{row.scores[task]:.1f}" for task in tasks),
            f"{row.average:.2f}",
            f"{100 * row.average / rows[0].average:.1f}",
            f"{row.layers:g}",
            f"{row.layers / full:.1%}",
        ]
        for row in rows
    ]
    headers = ("dev metric in points", *tasks, "average", "% of full", "layers", "overhead")
    return table(headers, lines)


def published_rows() -> list[Row]:
    """The paper's table 2, from ``CENTRA_PAPER`` or ``shared/paper`` beside the checkout.

    Raises:
        BenchmarkError: it is not there.
    """
    file = (
        Path(os.environ.get("CENTRA_PAPER", ROOT.parent / "shared" / "paper")) / "tables2and5.csv"
    )
    try:
        with file.open(encoding="utf-8") as lines:
            found = [*csv.DictReader(lines)]
    except OSError as error:
        raise BenchmarkError(f"{file}: {error.strerror}; set CENTRA_PAPER to its folder") from error
    beside = ("method", "average", "layers", "overhead")
    return [
        Row(
            row["method"],
            {task: float(score) for task, score in row.items() if task not in beside},
            float(row["layers"]),
        )
        for row in found
        if row["method"].startswith(("full", "kd", "mixed"))
    ]


def settings_of(
    setup: Setup,
    options: argparse.Namespace,
    backbone: Backbone,
    examples: Mapping[str, TaskData],
    load: float,
) -> list[str]:
    """What was run on what, a line each."""
    metrics = {
        task: setup.metrics.get(task, kind_named(found.spec.kind).metrics[0])
        for task, found in examples.items()
    }
    rates = " and ".join(f"{rate:g}" for rate in setup.rates)
    student_rates = " and ".join(f"{rate:g}" for rate in setup.student_rates)
    fewest, most = options.layers
    lines = (
        (
            f"{options.backbone}, {backbone.spec.num_layers} layers; {MAX_LENGTH} tokens; of each set "
            f"{options.rows} train and {options.dev_rows} dev rows at even distances, or all there are"
        ),
        "metrics: " + ", ".join(f"{task} {metric}" for task, metric in metrics.items()),
        (
            f"{options.seeds} seed{'' if options.seeds == 1 else 's'}; {options.epochs} epochs, batches "
            f"of {setup.batch_size}, the best epoch by the dev metric; full fine-tuning and teachers at learning rates "
            f"{rates}, the best counts; teachers of {fewest} to {most} layers by successive halving"
        ),
        (
            f"students of {', '.join(map(str, setup.students))} layers at {student_rates}, "
            "temperature 2, weight 0.5"
        ),
        f"{system()}; load average {load:.1f} before",
        our_versions("torch", "transformers"),
    )
    joint = (
        f"joint: {options.joint_epochs} epochs over all tasks' rows at {JOINT_RATE:g}; leave one "
        f"out: {options.left_out_epochs} over the others', then the head alone for "
        f"{HEAD_EPOCHS} at {HEAD_RATE:g}"
    )
    both = {"joint", "leave-one-out"} <= {*options.without}
    return [*lines] if both else [*lines, joint]
