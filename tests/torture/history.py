"""Registries with a long history, and what commands cost there: statements, rows, calls to the store."""

from __future__ import annotations

import dataclasses
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine.cursor import CursorFetchStrategy

from centra.formats.task_module import check_module
from centra.releases.compose import merge
from centra.store import LocalStore
from registry import backbones, channels, doctor, promotion, releases, tasks
from registry.channels.moving import record_move
from registry.releases import Composition
from registry.releases.publishing import record_composition
from registry.rules.lineage import MoveKind
from registry.storage import gc
from registry.tasks.versioning import VersionRequest, add_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from registry import Registry

__all__ = ["Cost", "History", "commands", "counted", "grow"]


@dataclass(frozen=True, kw_only=True)
class History:
    """How much has happened."""

    tasks: int
    versions: int
    """Of all tasks together."""
    releases: int


@dataclass
class Cost:
    """What a command took."""

    statements: int = 0
    rows: int = 0
    """That the database gave back."""
    calls: int = 0
    """To the store."""
    seconds: float = 0.0


def grow(registry: Registry, modules: Sequence[Path], history: History) -> None:
    """Give a registry its past, through the registry's own functions, in one transaction.

    Old versions are files of a few bytes, which nobody runs. The last version of each task is a real
    module, and all of them were released, so that their parity is known.

    Args:
        registry: holds the modules' backbone and no task.
        modules: of the tasks' last versions, taken in turn.
        history: how much.
    """
    checked = [check_module(path) for path in modules]
    for path in modules:
        registry.store.put(path)
    names = [f"task-{number:03}" for number in range(history.tasks)]
    last = {name: checked[number % len(checked)] for number, name in enumerate(names)}
    held: dict[str, tuple[int, int]] = {}
    with registry.write() as uow:
        digests = {}
        spare = max(0, history.versions - history.tasks)
        for number in range(spare + history.tasks):
            name = names[number % history.tasks]
            module = last[name]
            if number < spare:
                data = f"{name}, version {number}".encode()
                old = registry.store.put(data)
                module = dataclasses.replace(module, digest=old, size=len(data))
            request = VersionRequest(task=name, team="nlu")
            version = add_version(uow, request, module).version
            held[name] = (version.task_id, version.id)
            digests[version.id] = module.digest
            uow.session.flush()
        steps = _sets(uow, names, history.releases)
        template = merge({n: m.digest for n, m in last.items()}, registry.store)
        base: int | None = None
        for versions in steps:
            entries = {
                name: entry.model_copy(update={"digest": digests[versions[name][1]]})
                for name, entry in template.tasks.items()
            }
            manifest = template.model_copy(update={"tasks": entries})
            found = Composition(
                release=None,
                digest=manifest.digest,
                published=False,
                base=base,
                changes=[],
                layers=manifest.account,
                tasks={},
                manifest=manifest,
                parity={},
                int8=[],
                live=True,
                ids=versions,
            )
            registry.store.put(manifest.to_bytes())
            release, _ = record_composition(uow, found)
            record_move(uow, "latest", release, MoveKind.PUBLISH)
            if release.number % 2:
                record_move(uow, "production", release, MoveKind.PROMOTE)
            base = release.number
            uow.session.flush()
    channels.sync(registry)


def _sets(uow: Any, names: Sequence[str], count: int) -> Iterator[dict[str, tuple[int, int]]]:
    """The versions of all tasks, release by release; the last ones are the current ones."""
    every = {name: [(v.task_id, v.id) for v in uow.task(name).versions] for name in names}
    for step in range(count):
        left = count - 1 - step
        # The tasks take turns in going on, so that no two releases are the same.
        yield {
            name: own[max(0, len(own) - 1 - (left + place) // len(names) % len(own))]
            if left
            else own[-1]
            for place, (name, own) in enumerate(every.items())
        }


def commands(
    registry: Registry, change: Path, folder: Path
) -> list[tuple[str, Callable[[], object]]]:
    """What people do every day, in an order that works, after the task ``task-000`` was changed."""
    return [
        ("task update", lambda: tasks.update(registry, "task-000", change)),
        ("task list", lambda: tasks.list(registry)),
        ("task show", lambda: tasks.show(registry, "task-000@1.0")),
        ("release list --limit 10", lambda: releases.list(registry, limit=10)),
        ("release show", lambda: releases.show(registry, "latest")),
        ("channel list", lambda: channels.list(registry)),
        ("backbone status", lambda: backbones.status(registry)),
        ("compose", lambda: releases.compose(registry)),
        ("compose --release", lambda: releases.compose(registry, publish=True)),
        ("promote", lambda: promotion.promote(registry, "latest", "production")),
        ("rollback", lambda: channels.rollback(registry, "production")),
        ("release pull", lambda: releases.pull(registry, "latest", folder / "pulled")),
        ("gc", lambda: gc.collect(registry)),
        ("doctor", lambda: list(_examined(registry))),
    ]


def _examined(registry: Registry) -> Iterator[object]:
    url = registry.engine.url.render_as_string(hide_password=False)
    store = registry.store.url
    for check in doctor.examine(database=url, store=store, actor=str(registry.actor)):
        assert check.state != "problem", check
        yield check


_CALLS = ("fetch", "has", "put", "stat", "read_pointer", "write_pointer", "write_witness", "remove")


@contextmanager
def counted(registry: Registry) -> Iterator[Cost]:
    """Count what a block takes of the database and of local stores."""
    cost = Cost()
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, count: Callable[[Any], None]) -> None:
        original = getattr(owner, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            found = original(*arguments, **options)
            count(found)
            return found

        setattr(owner, name, counting)
        undo.append((owner, name, original))

    def statement(*_: Any) -> None:
        cost.statements += 1

    def rows(found: Any) -> None:
        cost.rows += len(found) if isinstance(found, list) else found is not None

    def call(_: Any) -> None:
        cost.calls += 1

    for name in ("fetchone", "fetchmany", "fetchall"):
        patch(CursorFetchStrategy, name, rows)
    for name in _CALLS:
        patch(LocalStore, name, call)
    event.listen(registry.engine, "before_cursor_execute", statement)
    began = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - began
        event.remove(registry.engine, "before_cursor_execute", statement)
        for owner, name, original in undo:
            setattr(owner, name, original)
