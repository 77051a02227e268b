"""What the listing commands share: their options of time and of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.options import TIME
from cli.output import remark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["page_bounds", "page_options", "rows_of_page", "time_options"]

_Row = TypeVar("_Row")


def time_options(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--since`` and ``--until``, of what is done to a row: ``made``."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option("--until", type=TIME, help=f"Only what was {what} before.")(command)
        help_text = f"Only what was {what} then or later: 2026-11-01, 7d."
        return click.option("--since", type=TIME, help=help_text)(command)

    return add


def page_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--limit`` and ``--page``; see :func:`window` and :func:`cut`."""
    count = click.IntRange(min=1)
    command = click.option("--page", type=count, default=1, help="Which page, from 1.")(command)
    return click.option("--limit", type=count, help="Rows a page; default all.")(command)


def page_bounds(limit: int | None, page: int) -> dict[str, Any]:
    """The limit and offset to list a page with: one row more than it shows, to know of more."""
    if limit is None:
        if page > 1:
            raise click.UsageError("--page needs --limit: the number of rows a page")
        return {}
    return {"limit": limit + 1, "offset": limit * (page - 1)}


def rows_of_page(rows: Sequence[_Row], limit: int | None, page: int) -> list[_Row]:
    """The rows of a page, with a remark where there are more."""
    if limit is not None and len(rows) > limit:
        remark(f"there are more; see: --page {page + 1}")
    return list(rows[:limit])
