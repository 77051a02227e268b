from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import pytest

from centra.errors import CentraError
from centra.formats.identities import VersionNumber
from centra.formats.manifest import ChannelPointer
from centra.store import LocalStore
from centra.system.files import file_digest
from registry import audit, channels, releases, tasks
from registry.database.unit_of_work import UnitOfWork
from registry.errors import TaskExistsError
from registry.releases import publishing
from tests.registry.helpers import (
    actions,
    die,
    finish,
    in_child,
    nothing_changes,
    reopened,
    start_children,
    unclaimed,
)
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry import Registry

WRITERS = 16
KILLED = -9
T = TypeVar("T")


def at_once(registry: Registry, uses: list[Callable[[Registry], T]], *actors: str) -> list[T]:
    """Run uses at the same moment, each in a thread with connections of its own."""
    ready = threading.Barrier(len(uses))

    def run(use: Callable[[Registry], T], actor: str | None) -> T:
        with reopened(registry, actor) as own:
            with own.read():
                ready.wait(30)
            return use(own)

    given = actors or (None,) * len(uses)
    with ThreadPoolExecutor(len(uses)) as pool:
        return list(pool.map(run, uses, given))


def pointed_at(registry: Registry, channel: str) -> tuple[int, int]:
    """The release and revision of a channel, which its pointer must agree with."""
    row = channels.show(registry, channel)
    pointer = ChannelPointer.from_bytes(registry.store.read_pointer(channel) or b"", channel)
    assert (pointer.release, pointer.revision, pointer.manifest) == (
        row.release,
        row.revision,
        row.digest,
    )
    return row.release, row.revision


def raised(use: Callable[[Registry], object]) -> Callable[[Registry], object]:
    """The same use, whose refusal is its result."""

    def run(registry: Registry) -> object:
        try:
            return use(registry)
        except CentraError as error:
            return error

    return run


# Many writers.


def test_no_update_of_many_at_once_is_lost_or_counted_twice(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    files = [module(seed=seed) for seed in range(1, WRITERS + 1)]
    outcomes = at_once(
        registry, [lambda own, file=file: tasks.update(own, "intent", file) for file in files]
    )
    assert sorted(outcome.version.minor for outcome in outcomes) == list(range(1, WRITERS + 1))
    detail = tasks.show(registry, "intent")
    assert [version.version for version in detail.versions] == [
        VersionNumber(1, minor) for minor in range(WRITERS + 1)
    ]
    assert detail.current == VersionNumber(1, WRITERS)
    by_version = {version.version: version.digest for version in detail.versions}
    for outcome, file in zip(outcomes, files, strict=True):
        assert by_version[outcome.version] == file_digest(file)
        registry.store.fetch(file_digest(file))
    with registry.read() as uow:
        assert [v.current_of is not None for v in uow.task("intent").versions].count(True) == 1
    steps = [(event.details["from"], event.details["version"]) for event in updates(registry)]
    assert steps == [(f"1.{minor}", f"1.{minor + 1}") for minor in range(WRITERS)]


def updates(registry: Registry) -> list[audit.Event]:
    return [event for event in audit.events(registry) if event.action == "task:update"]


def test_the_same_update_from_many_at_once_is_one_version(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    file = module(seed=1)
    outcomes = at_once(registry, [lambda own: tasks.update(own, "intent", file)] * 6)
    assert {outcome.version for outcome in outcomes} == {version_number("1.1")}
    assert [outcome.changed for outcome in outcomes].count(True) == 1
    assert actions(registry) == ["task:register intent", "task:update intent"]


def test_updates_and_redefinitions_at_once_never_break_a_contract(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    more = ("alarm", "music", "weather", "news")
    files = [module(seed=seed) for seed in range(1, 5)]
    uses = [raised(lambda own, file=file: tasks.update(own, "intent", file)) for file in files]
    uses.append(raised(lambda own: tasks.redefine(own, "intent", module(labels=more))))
    at_once(registry, uses)
    detail = tasks.show(registry, "intent")
    assert detail.current == version_number("2.0")
    for version in detail.versions:
        assert len(version.labels) == (4 if version.version == version_number("2.0") else 3)


def test_of_two_teams_that_register_one_name_at_once_one_gets_it(
    registry: Registry, module: Callable[..., Path]
) -> None:
    files = [module(seed=1), module(seed=2)]
    teams = ["nlu", "vision"]
    outcomes = at_once(
        registry,
        [raised(lambda own, file=file: tasks.register(own, "intent", file)) for file in files],
        *(f"{team}/ada" for team in teams),
    )
    (loser,) = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, CentraError)]
    winner = 1 - loser
    assert isinstance(outcomes[loser], TaskExistsError)
    assert f"team {teams[winner]}" in str(outcomes[loser])
    detail = tasks.show(registry, "intent")
    assert detail.team == teams[winner]
    assert [version.digest for version in detail.versions] == [file_digest(files[winner])]
    assert actions(registry) == ["task:register intent"]


def test_tasks_registered_at_once_all_arrive(
    registry: Registry, module: Callable[..., Path]
) -> None:
    names = [f"task-{number}" for number in range(8)]
    at_once(
        registry,
        [lambda own, name=name: tasks.register(own, name, module()) for name in names],
    )
    assert [row.name for row in tasks.list(registry)] == names


def test_a_set_published_by_several_at_once_is_one_release(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.register(registry, "slots", module("tagging", tap=2))
    done = at_once(registry, [lambda own: releases.compose(own, publish=True)] * 4)
    assert {(composition.release, composition.digest) for composition in done} == {
        (1, done[0].digest)
    }
    assert [composition.published for composition in done].count(True) == 1
    assert [row.number for row in releases.list(registry)] == [1]
    assert pointed_at(registry, "latest") == (1, 1)
    assert actions(registry)[2:] == ["release:publish 1", "channel:move latest"]


def test_different_sets_published_at_once_get_numbers_without_gaps(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    for seed in range(1, 5):
        tasks.update(registry, "intent", module(seed=seed))
    versions = [f"intent@1.{minor}" for minor in range(5)]
    done = at_once(
        registry,
        [
            lambda own, version=version: releases.compose(own, replace=[version], publish=True)
            for version in versions
        ],
    )
    assert sorted(composition.release or 0 for composition in done) == [1, 2, 3, 4, 5]
    for composition in done:
        shown = releases.show(registry, str(composition.release))
        assert (shown.digest, shown.tasks) == (composition.digest, composition.tasks)
    # One of them is the live set, which alone moves it.
    live = done[-1]
    assert (live.live, pointed_at(registry, "latest")) == (True, (live.release, 1))


def test_a_channel_that_many_move_at_once_ends_where_its_pointer_says(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    tasks.update(registry, "intent", module(seed=1))
    releases.compose(registry, publish=True)

    def back_and_forth(own: Registry) -> int:
        moves = [channels.move(own, "production", number) for number in ("1", "2", "1")]
        return [moved for _, moved in moves].count(True)

    moved = sum(at_once(registry, [back_and_forth] * 4))
    _, revision = pointed_at(registry, "production")
    assert revision == moved
    events = [e for e in audit.events(registry) if e.subject == "production"]
    assert [event.details["revision"] for event in events] == list(range(1, moved + 1))
    for before, after in pairwise(events):
        assert after.details["from"] == before.details["to"]


def test_several_processes_write_at_once(registry: Registry, module: Callable[..., Path]) -> None:
    tasks.register(registry, "intent", module())
    files = [[module(seed=10 * i + j) for j in range(1, 5)] for i in range(3)]
    registry.engine.dispose()

    def run(own_files: list[Path]) -> None:
        with reopened(registry) as own:
            for file in own_files:
                tasks.update(own, "intent", file)

    children = start_children([lambda own=own: run(own) for own in files])
    assert finish(children) == [0, 0, 0]
    detail = tasks.show(registry, "intent")
    assert [version.version for version in detail.versions] == [
        VersionNumber(1, n) for n in range(13)
    ]
    assert len({version.digest for version in detail.versions}) == 13
    assert detail.current == version_number("1.12")


# A process that is killed.


def after(method: Callable[..., object]) -> Callable[..., None]:
    """A method that does its work and then kills its process."""

    def run(*arguments: object, **options: object) -> None:
        method(*arguments, **options)
        die()

    return run


def after_the_blob(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalStore, "put", after(LocalStore.put))


def inside_the_transaction(patch: pytest.MonkeyPatch) -> None:
    def record(uow: UnitOfWork, *arguments: object, **options: object) -> None:
        real(uow, *arguments, **options)
        uow.session.flush()
        die()

    real = UnitOfWork.record
    patch.setattr(UnitOfWork, "record", record)


def before_the_blob_is_whole(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("os.fsync", lambda _: die())


@pytest.mark.parametrize(
    "moment", [before_the_blob_is_whole, after_the_blob, inside_the_transaction]
)
def test_a_process_killed_while_it_updates_changed_nothing_and_its_rerun_finishes(
    registry: Registry, module: Callable[..., Path], moment: Callable[[pytest.MonkeyPatch], None]
) -> None:
    tasks.register(registry, "intent", module())
    file = module(seed=1)
    before = unclaimed(registry)
    registry.engine.dispose()

    def run() -> None:
        moment(pytest.MonkeyPatch())
        with reopened(registry) as own:
            tasks.update(own, "intent", file)

    assert in_child(run) == KILLED
    assert unclaimed(registry) == before
    outcome = tasks.update(registry, "intent", file)
    assert (outcome.version, outcome.changed) == (version_number("1.1"), True)
    registry.store.fetch(file_digest(file))
    assert actions(registry) == ["task:register intent", "task:update intent"]
    assert releases.compose(registry, publish=True).published


def before_the_pointer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(publishing, "publish_move", lambda *_: die())


def inside_the_pointer(patch: pytest.MonkeyPatch) -> None:
    def write_pointer(store: LocalStore, channel: str, data: bytes) -> None:
        if data != store.read_pointer(channel):  # Not the probe, which writes what is there.
            patch.setattr("os.fsync", lambda _: die())
        real(store, channel, data)

    real = LocalStore.write_pointer
    patch.setattr(LocalStore, "write_pointer", write_pointer)


@pytest.mark.parametrize(
    ("moment", "committed"),
    [
        (before_the_blob_is_whole, False),
        (after_the_blob, False),
        (inside_the_transaction, False),
        (before_the_pointer, True),
        (inside_the_pointer, True),
    ],
)
def test_a_process_killed_while_it_publishes_leaves_a_release_or_none_and_its_rerun_finishes(
    registry: Registry,
    module: Callable[..., Path],
    moment: Callable[[pytest.MonkeyPatch], None],
    committed: bool,
) -> None:
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    tasks.update(registry, "intent", module(seed=1))
    before = unclaimed(registry)
    registry.engine.dispose()

    def run() -> None:
        moment(pytest.MonkeyPatch())
        with reopened(registry) as own:
            releases.compose(own, publish=True)

    assert in_child(run) == KILLED
    assert (unclaimed(registry) != before) is committed
    # Whoever reads the store alone still finds a whole release.
    pointer = ChannelPointer.from_bytes(registry.store.read_pointer("latest") or b"", "latest")
    assert (pointer.release, pointer.revision) == (1, 1)
    registry.store.fetch(pointer.manifest)
    done = releases.compose(registry, publish=True)
    assert (done.release, done.published) == (2, not committed)
    assert pointed_at(registry, "latest") == (2, 2)
    assert releases.verify(registry, "latest").parity == {"intent": 0.0}
    with nothing_changes(registry):
        releases.compose(registry, publish=True)
