"""Looking at the clocks: whether this machine's agrees with the database's and the store's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from centra.errors import StoreError
from registry.doctor.findings import Finding, Setup, well

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

__all__ = ["check_clock"]

_SKEW = timedelta(seconds=5)


def check_clock(setup: Setup) -> list[Finding]:
    """Whether the clocks agree to a few seconds."""
    asked, wrong = [], []
    for name, ask in _clocks(setup):
        before = datetime.now(UTC)
        try:
            theirs = ask()
        except StoreError:
            continue
        here = before + (datetime.now(UTC) - before) / 2
        asked.append(name)
        if abs(theirs - here) > _SKEW:
            seconds = (here - theirs).total_seconds()
            side = "ahead of" if seconds > 0 else "behind"
            wrong.append(
                Finding(
                    state="warning",
                    code="clock-skewed",
                    text=f"this machine's is {abs(seconds):.0f} s {side} {name}'s",
                    data={"other": name, "seconds": seconds},
                )
            )
    if not asked:
        return [Finding(state="skipped", text="neither database nor store tells the time")]
    return wrong or well(f"agrees with {' and '.join(asked)}'s to {_SKEW.seconds} s")


def _clocks(setup: Setup) -> Iterator[tuple[str, Callable[[], datetime]]]:
    engine = setup.registry.engine
    if setup.usable("database") and engine.name == "postgresql":
        yield "the database", lambda: _database_time(engine)
    if not setup.store_unreachable:  # It would be waited for once more.
        yield "the store", setup.registry.store.clock


def _database_time(engine: Engine) -> datetime:
    with engine.connect() as connection:
        found: datetime = connection.scalar(text("SELECT clock_timestamp()"))
        return found.astimezone(UTC)
