"""What the listing commands share: bounds on metrics, spans of time, order, pages; all in SQL."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from sqlalchemy import exists

from centra.errors import UsageError
from centra.formats.names import parse_task_reference
from registry.database.models import Backbone, ReleaseTask

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import InstrumentedAttribute

    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "MetricBound",
    "Moment",
    "by_name",
    "holds",
    "is_backbone",
    "metric",
    "paged",
    "within",
]

Moment: TypeAlias = "datetime | timedelta"
"""A time, or how long ago."""

_Query = TypeVar("_Query", bound="Select[*tuple[Any, ...]]")
_BOUND = re.compile(r"\s*(?P<name>[^\s<>=].*?)\s*(?P<comparison>>=|<=|>|<|=)\s*(?P<value>\S+)\s*")


@dataclass(frozen=True, kw_only=True)
class MetricBound:
    """What a reported metric must be: ``accuracy>=0.9``."""

    name: str
    comparison: Literal[">=", "<=", ">", "<", "="]
    value: float

    @classmethod
    def parse(cls, text: str) -> MetricBound:
        """Read ``NAME>=VALUE``, or the same with ``<=``, ``>``, ``<`` or ``=``.

        Raises:
            UsageError: anything else.
        """
        match = _BOUND.fullmatch(text)
        try:
            value = float(match["value"]) if match else math.nan
        except ValueError:
            value = math.nan
        if match is None or not math.isfinite(value):
            raise UsageError(
                f"metric {text!r}: expected NAME>=VALUE, or <=, >, <, = in place of >=, "
                "for example 'accuracy>=0.9'"
            )
        comparison: Any = match["comparison"]
        return cls(name=match["name"], comparison=comparison, value=value)

    def holds(
        self, registry: Registry, metrics: InstrumentedAttribute[dict[str, float]]
    ) -> ColumnElement[bool]:
        """The condition on a column of metrics; false where the metric is not reported.

        Raises:
            UsageError: see :func:`metric`.
        """
        found: ColumnElement[bool] = metric(registry, metrics, self.name).op(
            self.comparison, is_comparison=True
        )(self.value)
        return found


def metric(
    registry: Registry, metrics: InstrumentedAttribute[dict[str, float]], name: str
) -> ColumnElement[float | None]:
    """One metric out of a column of metrics; null where it is not reported.

    Raises:
        UsageError: a name that SQLite's paths into JSON cannot express.
    """
    if not name or not name.isprintable() or '"' in name:
        raise UsageError(
            f"metric {name!r}: its name is empty or holds quotes or control characters"
        )
    # SQLite compares a path with the name as it is written in the JSON, escapes and all.
    written = json.dumps(name)[1:-1] if registry.engine.dialect.name == "sqlite" else name
    found: Any = metrics
    value: ColumnElement[float | None] = found[written].as_float()
    return value


def by_name(registry: Registry, column: InstrumentedAttribute[str]) -> ColumnElement[str]:
    """A column to order by, letter for letter, as SQLite does and Python too.

    PostgreSQL would follow the language of its database, and skip hyphens.
    """
    postgresql = registry.engine.dialect.name == "postgresql"
    return column.collate("C" if postgresql else "BINARY")


def is_backbone(reference: str) -> ColumnElement[bool]:
    """Whether a backbone is called so: ``name``, in whatever version, or ``name@version``."""
    name, at, version = reference.partition("@")
    condition = Backbone.name == name
    if not at:
        return condition
    number = int(version) if version.isdecimal() and len(version) < 10 else 0
    return condition & (Backbone.version == number)


def holds(
    uow: UnitOfWork, release: InstrumentedAttribute[int], reference: str
) -> ColumnElement[bool]:
    """Whether the release of this id holds a task, ``name``, or its version ``name@major.minor``.

    Raises:
        InvalidNameError: the name or the number is malformed.
        TaskNotFoundError: there is no such task or version.
    """
    name, number = parse_task_reference(reference)
    # By both columns of the primary key: a page of the newest releases is found without a scan.
    condition = exists().where(
        ReleaseTask.release_id == release, ReleaseTask.task_id == uow.task(name).id
    )
    if number is None:
        return condition
    return condition.where(ReleaseTask.version_id == uow.version(name, number).id)


def within(
    uow: UnitOfWork,
    query: _Query,
    column: InstrumentedAttribute[datetime],
    since: Moment | None,
    until: Moment | None,
) -> _Query:
    """Keep the rows whose time is ``since`` or later, and before ``until``."""
    if since is not None:
        query = query.where(column >= _when(uow, since))
    if until is not None:
        query = query.where(column < _when(uow, until))
    return query


def _when(uow: UnitOfWork, moment: Moment) -> datetime:
    # Back from now by the clock that dates the rows, which need not be this machine's.
    when = uow.now - moment if isinstance(moment, timedelta) else moment
    return when.astimezone(UTC)


def paged(query: _Query, limit: int | None, offset: int) -> _Query:
    """Keep at most ``limit`` rows of an ordered query, after the first ``offset``.

    Raises:
        UsageError: a limit or an offset that counts nothing.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise UsageError(f"limit {limit} and offset {offset} must not be negative")
    return query.limit(limit).offset(offset or None)
