"""A report on a task's answers in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.output import metrics_text, print_table

if TYPE_CHECKING:
    from centra.evaluation.report import Report

__all__ = ["print_slices"]


def print_slices(report: Report) -> None:
    """The metrics of each slice, by column."""
    for column, slices in report.slices.items():
        click.echo("")
        print_table(
            (column, "rows", "metrics"),
            [(one.value, one.rows, metrics_text({**one.metrics})) for one in slices],
        )
