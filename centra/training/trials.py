"""The table of what was tried for a task, with a score for each: what ``centra select`` reads."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from centra.errors import StoreNotWritableError
from centra.system.files import make_folder, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Trial", "best_trial", "write_trials"]

_COLUMNS = (
    "task",
    "frozen_layers",
    "task_layers",
    "role",
    "score",
    "metric",
    "learning_rate",
    "seed",
    "epochs",
    "state",
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run of a search."""

    role: Literal["teacher", "student"]
    frozen_layers: int
    task_layers: int
    learning_rate: float
    seed: int
    metric: str
    score: float
    """The best dev metric so far, in points: 100 is perfect. Four decimals, as the table has."""
    epochs: int
    """That were trained."""
    pruned: bool
    """Given up because it could not win."""


def best_trial(trials: Iterable[Trial]) -> Trial:
    """The best score; ties go to fewer layers, then to the first."""
    return max(trials, key=lambda trial: (trial.score, -trial.task_layers))


def write_trials(path: Path, task: str, trials: Iterable[Trial]) -> None:
    """Write a table as CSV, in one step.

    Raises:
        StoreNotWritableError: the file cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for trial in trials:
        state = "pruned" if trial.pruned else "complete"
        fields = vars(trial) | {"task": task, "state": state, "score": f"{trial.score:.4f}"}
        table.writerow([fields[column] for column in _COLUMNS])
    try:
        make_folder(path.parent)
        with replacing(path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise StoreNotWritableError(
            f"cannot write {path}: {error.strerror}", code="file-not-writable", file=str(path)
        ) from error
