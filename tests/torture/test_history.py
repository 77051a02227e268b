"""What commands cost stays with the change, and not with the registry's history.

Run as ``python -m tests.torture.test_history`` for the long form: 200 tasks with 2,000 versions and
5,000 releases beside a tenth of that, on SQLite and PostgreSQL, with the time of each command.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.tools.postgres import running_server
from centra.store import LocalStore
from registry import Registry, audit, backbones
from registry.database.engine import make_engine
from registry.database.migrations import upgrade
from registry.rules.lifecycle import Actor
from tests import support
from tests.registry.helpers import fresh_postgres
from tests.torture.history import Cost, History, commands, counted, grow
from tests.torture.losses import lose

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = History(tasks=3, versions=6, releases=6)
LARGE = History(tasks=3, versions=24, releases=40)
LINEAR = {"promote": 1, "rollback": 1, "gc": 2, "doctor": 6}
"""So many rows at most for each thing that there is: `gc` and `doctor` look at everything, and what a
channel has served and what each release was composed onto is a few numbers each."""
_WHOLE_S = 300
"""Seconds that the long form takes, about."""

Place = Callable[[], AbstractContextManager[tuple[str, Path]]]
"""Gives the address of an empty database, and a folder."""


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Databases of either kind."""
    server = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    return partial(_place, server, tmp_path)


@contextmanager
def _place(server: str | None, folder: Path) -> Iterator[tuple[str, Path]]:
    folder = Path(tempfile.mkdtemp(dir=folder))
    if server is None:
        yield f"sqlite:///{folder}/registry.db", folder
    else:
        with fresh_postgres(server, "template0") as url:
            yield url, folder


def test_what_commands_cost_does_not_grow_with_the_history(
    place: Place, make_encoder: Callable[[str], Path]
) -> None:
    small, large = (_measured(place, make_encoder("bert"), history) for history in (SMALL, LARGE))
    grown = [_grown(name, small[name], cost, LARGE) for name, cost in large.items()]
    assert [text for text in grown if text] == []


def _grown(name: str, before: Cost, cost: Cost, history: History) -> str:
    """How the cost of a command has grown with the history; nothing where it has not."""
    things = history.versions + history.releases * (history.tasks + 3)
    rows = LINEAR[name] * things if name in LINEAR else before.rows + 5
    calls = before.calls if name not in LINEAR else 2 * things
    if cost.rows <= rows and cost.calls <= calls and cost.statements <= before.statements + 2:
        return ""
    return f"{name}: {before}, with a longer history {cost}"


def run(seconds: float, seed: int) -> dict[str, int]:
    """The long form, once; smaller where there is less time than it takes.

    Args:
        seconds: how long, about.
        seed: as for every part of the harness; nothing here depends on it.

    Returns:
        How many versions and releases there were, how many commands were measured, and ``losses``:
        how many of them cost more where the history was longer.
    """
    del seed
    size = min(1.0, max(0.05, seconds / _WHOLE_S))
    tasks = max(5, int(200 * size))
    short = History(tasks=tasks, versions=2 * tasks, releases=int(500 * size))
    long = History(tasks=tasks, versions=10 * tasks, releases=int(5_000 * size))
    counts = {"tasks": tasks, "versions": 0, "releases": 0, "commands": 0, "losses": 0}
    with running_server() as server, tempfile.TemporaryDirectory() as folder:
        encoder = support.make_encoder("bert", Path(folder) / "encoder")
        for kind, address in (("SQLite", None), ("PostgreSQL", server)):
            place = partial(_place, address, Path(folder))
            found = [_measured(place, encoder, history) for history in (short, long)]
            for name, cost in found[1].items():
                grown = _grown(name, found[0][name], cost, long)
                counts["losses"] += bool(grown)
                if grown:
                    lose(f"{kind}: {grown}", "python -m tests.torture.test_history")
                counts["commands"] += 1
                print(_line(f"{kind}: {name}", found[0][name], cost), grown and "GROWS", flush=True)
            counts["versions"] += short.versions + long.versions
            counts["releases"] += short.releases + long.releases
    return counts


def _measured(place: Place, encoder: Path, history: History) -> dict[str, Cost]:
    """What each command costs in a registry with this history."""
    with place() as (url, folder):
        engine = make_engine(url)
        try:
            upgrade(engine)
            registry = Registry(
                engine=engine, store=LocalStore(folder / "store"), actor=Actor.parse("nlu/ada")
            )
            row = backbones.register(registry, "tiny", encoder).backbone
            spec = backbones.spec(registry, row.reference)
            paths = [folder / f"{number}.safetensors" for number in range(6)]
            for number, path in enumerate(paths):
                module = support.make_module("classification", spec, registry.store, seed=number)
                module.write(path)
            grow(registry, paths[:5], history)
            assert audit.verify(registry).partly == 0
            found = {}
            for name, run in commands(registry, paths[5], folder):
                with counted(registry) as found[name]:
                    run()
            return found
        finally:
            engine.dispose()


def _line(name: str, short: Cost, long: Cost) -> str:
    return (
        f"{name:<36}{short.seconds:8.2f} s {long.seconds:8.2f} s, "
        f"x{long.seconds / short.seconds:.1f}; statements {short.statements} {long.statements}, "
        f"rows {short.rows} {long.rows}, calls {short.calls} {long.calls}"
    )


if __name__ == "__main__":
    sys.exit(min(1, run(_WHOLE_S, 0)["losses"]))
