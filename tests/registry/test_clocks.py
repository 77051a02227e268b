"""Clients whose clocks are minutes apart: what they do has one order, and no clock decides it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from registry import audit, channels, evaluations, releases, tasks
from registry.database.models import Base, ChannelMove, Evaluation, Release, TaskVersion, UtcTime
from registry.promotion import StaleReleaseError, promote
from tests.registry.helpers import refused
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from registry import Registry

AHEAD, BEHIND = timedelta(minutes=5), timedelta(minutes=-5)


@contextmanager
def clock(shift: timedelta) -> Iterator[None]:
    """This machine's clock is ahead, or behind, by so much."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + shift

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("registry.database.models.datetime", Shifted)
        yield


@pytest.fixture
def published(registry: Registry, module: Callable[..., Path]) -> Registry:
    """``intent`` and ``slots`` in release 1, which production serves; 2 and 3 change one each."""
    tasks.register(registry, "intent", module())
    tasks.register(registry, "slots", module(seed=1))
    releases.compose(registry, publish=True)
    promote(registry, "1", "production")
    for seed, task in enumerate(("intent", "slots"), 2):
        tasks.update(registry, task, module(seed=seed))
        releases.compose(registry, base="production", replace=[f"{task}@1.1"], publish=True)
    return registry


@pytest.mark.parametrize("shift", [AHEAD, BEHIND], ids=["ahead", "behind"])
def test_a_stale_release_is_refused_whatever_the_clock_of_who_promoted(
    published: Registry, shift: timedelta
) -> None:
    with clock(shift):
        promote(published, "3", "production")
    with refused(published, StaleReleaseError, "slots is 1.1 there, 1.0 here"):
        promote(published, "2", "production")
    with clock(shift):
        done = promote(published, "2", "production", rebase=True)
    assert releases.show(published, str(done.release)).tasks == {"intent": "1.1", "slots": "1.1"}


@pytest.mark.parametrize("shift", [AHEAD, BEHIND], ids=["ahead", "behind"])
def test_a_stale_release_is_refused_whatever_the_clock_of_who_composed(
    published: Registry, module: Callable[..., Path], shift: timedelta
) -> None:
    with clock(shift):
        tasks.update(published, "slots", module(seed=7))
        made = releases.compose(
            published, base="production", replace=["slots@1.2"], publish=True
        ).release
    promote(published, str(made), "production")
    with refused(published, StaleReleaseError, "slots is 1.2 there, 1.0 here"):
        promote(published, "2", "production")
    with clock(-shift):
        anew = releases.compose(
            published, base="production", replace=["intent@1.1"], publish=True
        ).release
    assert promote(published, str(anew), "production").promoted


def test_what_is_composed_anew_is_made_of_that_whatever_the_clocks(published: Registry) -> None:
    promote(published, "2", "production")
    with clock(BEHIND):
        # Going back, composed onto what is served, by a clock that says: before release 2 was made.
        back = releases.compose(published, base="2", replace=["intent@1.0"], publish=True)
    assert back.release == 1
    assert promote(published, "1", "production").promoted


def test_times_only_grow_along_the_log_and_are_those_of_the_rows(published: Registry) -> None:
    for shift in (AHEAD, BEHIND, timedelta(0)):
        with clock(shift):
            channels.move(published, "staging", "2")
            channels.move(published, "staging", "3")
    events = audit.events(published)
    times = [event.at for event in events[2:]]
    assert times == sorted(times)
    moves = [event.at for event in events if event.subject == "staging"]
    history = channels.history(published, "staging")[::-1]
    assert [move.at for move in history] == moves
    assert channels.show(published, "staging").moved_at == moves[-1]
    with published.read() as uow:
        for table, column in ((TaskVersion, "created_at"), (Release, "created_at")):
            found = uow.session.scalars(select(getattr(table, column)).order_by(table.id)).all()
            assert list(found) == sorted(found)
        assert {*uow.session.scalars(select(ChannelMove.at))} <= {*times}


def test_postgresql_s_clock_dates_what_is_written(published: Registry) -> None:
    if published.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no clock of its own")
    with clock(timedelta(days=3)):
        channels.move(published, "staging", "2")
    assert channels.show(published, "staging").moved_at < datetime.now(UTC) + timedelta(days=1)


def test_so_long_ago_counts_from_the_clock_that_dates_the_rows(published: Registry) -> None:
    hour = timedelta(hours=1)
    with clock(timedelta(days=2)):
        channels.move(published, "staging", "2")
    for shift in (timedelta(0), timedelta(days=-2)):
        with clock(shift):
            assert "staging" in {row.name for row in channels.list(published, since=hour)}
            assert audit.events(published, since=hour)[-1].subject == "staging"
            assert channels.list(published, until=hour, release="2") == []
    if published.engine.dialect.name == "postgresql":
        with clock(timedelta(days=2)):
            assert len(tasks.list(published, since=hour)) == 2
            assert len(releases.list(published, since=hour)) == 3


def test_the_newest_measurement_is_the_one_that_was_written_last(published: Registry) -> None:
    with published.write() as uow:
        version = uow.version("intent", version_number("1.1"))
        for minutes, accuracy in ((5, 0.9), (0, 0.1)):
            uow.session.add(
                Evaluation(
                    release=uow.release("2"),
                    version=version,
                    data="a" * 64,
                    engine="x",
                    examples=3,
                    metrics={"accuracy": accuracy},
                    at=uow.now + timedelta(minutes=minutes),
                    by="nlu/ada",
                )
            )
            uow.session.flush()
        newest, older = evaluations.of_version(uow, version)
    assert (newest.metrics["accuracy"], older.metrics["accuracy"]) == (0.1, 0.9)


def test_no_row_is_dated_by_the_clock_of_who_writes_it() -> None:
    dated = [
        f"{table.name}.{column.name}"
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, UtcTime) and (column.default or column.onupdate)
    ]
    assert dated == []
