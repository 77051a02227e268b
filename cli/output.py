"""Printing: results on standard output, progress and remarks on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from centra.progress import Notice
from cli.errors import NOTICES
from cli.streams import CONTROLS, printable, unescaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from centra.formats.manifest import LayerAccount
    from centra.progress import Progress
    from centra.training.trials import Trial
    from registry.documents.base import Document
    from registry.releases import Change

__all__ = [
    "account_line",
    "change_lines",
    "json_text",
    "metrics_text",
    "print_json",
    "print_table",
    "remark",
    "reporting",
    "trial_table",
]

_SILENCE = 60
"""Seconds after which a long stage is heard of again."""


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as standard output can take it.

    JSON has escapes for what an encoding lacks, and for what a terminal would obey.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    # All of these but the line feeds between values stand in texts.
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(document: Document | Sequence[Document]) -> None:
    """A document, or an array of documents, on standard output."""
    plain = (
        [part.to_json() for part in document]
        if isinstance(document, Sequence)
        else document.to_json()
    )
    click.echo(json_text(plain, indent=2))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns on standard output; plain text, so that pipes can read it."""
    cells = [[printable(" ".join(str(cell).split())) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in ([header.upper() for header in headers], *cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def remark(text: str) -> None:
    """A line for people, on standard error; of a notice, with what to do about it."""
    if isinstance(text, Notice):
        text = f"{text}; {NOTICES[text.code]}"
    # While a bar is shown, rich has the stream.
    click.echo(printable(text), err=True)


def metrics_text(metrics: dict[str, float]) -> str:
    """Metrics in one line: ``accuracy 0.9512, macro_f1 0.9498``."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()) or "-"


def account_line(layers: LayerAccount) -> str:
    """The layer account in one line."""
    return (
        f"{layers.shared} shared + {layers.task} own = {layers.total} layers, "
        f"{layers.overhead:.1%} of {layers.single_task} with a full model per task"
    )


def change_lines(changes: Sequence[Change]) -> list[str]:
    """One line per changed task."""
    lines = []
    for change in changes:
        versions = " → ".join(filter(None, (change.before, change.after)))
        precision = f", {' → '.join(change.precision)}" if change.precision else ""
        lines.append(f"{change.change:<10} {change.task} {versions}{precision}")
    return lines


def trial_table(
    trials: Sequence[Trial], marks: Mapping[Trial, str]
) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of trials.

    Args:
        trials: in the order of the rows; at least one.
        marks: what to say of some of them instead of ``complete`` or ``pruned``.
    """
    headers = ["role", "frozen layers", "task layers", "learning rate", "seed", "epochs"]
    rows = [
        [
            trial.role,
            str(trial.frozen_layers),
            str(trial.task_layers),
            f"{trial.learning_rate:g}",
            str(trial.seed),
            str(trial.epochs),
            f"{trial.score:.2f}",
            marks.get(trial, "pruned" if trial.pruned else "complete"),
        ]
        for trial in trials
    ]
    return [*headers, trials[0].metric.replace("_", " "), "state"], rows


@contextmanager
def reporting() -> Iterator[Progress]:
    """A progress report on standard error: a moving bar per stage on a terminal, else lines."""
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(file=unescaped(sys.stderr))
    with Progress(*columns, console=console, transient=True) as bars:

        def report(what: str, done: int, total: int) -> None:
            what = printable(what)
            latest = bars.tasks[-1] if bars.tasks else None
            # A stage may change its text while it goes on, but never goes back.
            if latest is None or total != latest.total or done < latest.completed:
                bars.add_task(what, completed=done, total=total)
            else:
                bars.update(latest.id, description=what, completed=done)

        yield report


def _lines() -> Progress:
    """A line whenever the stage changes or ends, and after a long silence.

    Loops of a few steps stay silent until they end.
    """
    last, reported_at = "", time.monotonic()
    stage, begun, begun_at = 0, 0, reported_at

    def report(what: str, done: int, total: int) -> None:
        nonlocal last, reported_at, stage, begun, begun_at
        if total != stage or done < begun:
            stage, begun, begun_at = total, done, time.monotonic()
        is_new = what != last and (done == total or "epoch" in what)
        if is_new:
            last = what
        if is_new or time.monotonic() - reported_at >= _SILENCE:
            reported_at = time.monotonic()
            left = ""
            if begun < done < total:
                seconds = (reported_at - begun_at) / (done - begun) * (total - done)
                left = f", {timedelta(seconds=round(seconds))} left"
            remark(f"{what} ({done}/{total}{left})")

    return report
