"""Printing: results on standard output, progress and remarks on standard error."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from centra.progress import Progress
    from centra.release import LayerAccount
    from registry.releases import Change

__all__ = [
    "account_line",
    "change_fields",
    "change_lines",
    "metrics_text",
    "print_json",
    "print_table",
    "remark",
    "reporting",
    "to_plain",
]


def to_plain(value: Any) -> Any:
    """Dataclasses and times as plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(asdict(value))
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(to_plain(value), indent=2, ensure_ascii=False))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns on standard output; plain text, so that pipes can read it."""
    cells = [[" ".join(str(cell).split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in ([header.upper() for header in headers], *cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def remark(text: str) -> None:
    """A line for people, on standard error."""
    click.echo(text, err=True)


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
        lines.append(f"{change.change:<10} {change.task} {versions}")
    return lines


def change_fields(changes: Sequence[Change]) -> list[dict[str, str | None]]:
    """Changes as JSON fields."""
    return [{"task": c.task, "change": c.change, "from": c.before, "to": c.after} for c in changes]


@contextmanager
def reporting() -> Iterator[Progress]:
    """A progress report on standard error: a moving bar on a terminal, else a line per stage."""
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("", visible=False)

        def report(what: str, done: int, total: int) -> None:
            bar.update(row, description=what, completed=done, total=total, visible=True)

        yield report


def _lines() -> Progress:
    """A line whenever the stage changes or ends; loops of a few steps stay silent until then."""
    last = ""

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        if what != last and (done == total or "epoch" in what):
            remark(f"{what} ({done}/{total})")
            last = what

    return report
