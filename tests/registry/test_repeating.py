"""Changes of channels that were killed, or whose pointer the store refused, and their repetition.

A change is made once, however often it is repeated; and where it cannot be published, nothing moves.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from centra.errors import (
    CentraError,
    ConflictError,
    NotFoundError,
    StoreError,
    StoreNotWritableError,
)
from centra.store import LocalStore
from cli.errors import exit_code
from registry import Registry, audit, backbones, channels, releases, signatures, tasks, transfer
from registry.channels import pointers, rolling_back
from registry.database.engine import make_engine
from registry.database.migrations import upgrade
from registry.database.models import AuditHead
from registry.errors import DatabaseError, UnpublishedError
from registry.promotion import promote
from registry.storage import gc
from tests import support
from tests.registry.helpers import (
    die,
    in_child,
    nothing_changes,
    opened,
    refused,
    reopened,
    root_of,
    rows,
    unclaimed,
)

if TYPE_CHECKING:
    from registry.database.unit_of_work import UnitOfWork

Change = Callable[[Registry], object]


@pytest.fixture(autouse=True)
def without_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is composed is not run: that takes the most time, and is no matter here."""
    monkeypatch.setattr(
        "centra.releases.parity.check_parity", lambda *told, **_: dict.fromkeys(told[2], 0.0)
    )


@pytest.fixture
def shipped(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """``intent`` and ``slots``; production has served 1, 2 and 3, at revision 3.

    Release 4 changes ``slots`` and was composed onto 1, which staging serves; the live set holds
    what no release holds yet.
    """
    return bring("repeating", lambda: ship(registry, module))


def ship(registry: Registry, module: Callable[..., Path]) -> Registry:
    tasks.register(registry, "intent", module())
    tasks.register(registry, "slots", module("tagging", tap=2))
    releases.compose(registry, publish=True)
    channels.move(registry, "staging", "1")
    promote(registry, "1", "production")
    for seed in (1, 2):
        version = tasks.update(registry, "intent", module(seed=seed)).version
        set_ = [f"intent@{version}"]
        made = releases.compose(registry, base="production", replace=set_, publish=True)
        promote(registry, str(made.release), "production")
    tasks.update(registry, "slots", module("tagging", tap=2, seed=3))
    releases.compose(registry, base="1", replace=["slots@1.1"], publish=True)
    return registry


CHANGES: dict[str, Change] = {
    "promote": lambda own: promote(own, "3", "staging"),
    "promote to a new channel": lambda own: promote(own, "3", "canary"),
    "promote at a revision": lambda own: promote(own, "3", "staging", expect=1),
    "promote --rebase": lambda own: promote(own, "4", "production", rebase=True),
    "promote --rebase at a revision": lambda own: promote(
        own, "4", "production", rebase=True, expect=3
    ),
    "promote --force": lambda own: promote(own, "4", "production", force=True),
    "move": lambda own: channels.move(own, "staging", "2"),
    "move to a new channel": lambda own: channels.move(own, "canary", "2", expect=0),
    "move at a revision": lambda own: channels.move(own, "staging", "2", expect=1),
    "rollback": lambda own: channels.rollback(own, "production"),
    "rollback --to": lambda own: channels.rollback(own, "production", to="1"),
    "rollback --from": lambda own: channels.rollback(own, "production", serving="3"),
    "rollback at a revision": lambda own: channels.rollback(own, "production", expect=3),
    "compose": lambda own: releases.compose(own, publish=True),
}


@pytest.fixture(params=list(CHANGES))
def change(request: pytest.FixtureRequest) -> Change:
    """Each change of a channel."""
    return CHANGES[request.param]


class Unwilling(LocalStore):
    """Takes everything but a pointer that says something new."""

    error: CentraError = StoreError("answered 503")

    def write_pointer(self, channel: str, data: bytes) -> None:
        if data != self.read_pointer(channel):
            raise self.error
        super().write_pointer(channel, data)


def unwilling(registry: Registry) -> Registry:
    return dataclasses.replace(registry, store=Unwilling(root_of(registry)))


def published(registry: Registry) -> bool:
    """Whether every pointer is as the database says."""
    return not any(channels.pointer_fault(registry, row) for row in channels.list(registry))


def test_a_change_whose_pointer_was_refused_is_finished_by_repeating_it_and_goes_no_further(
    shipped: Registry, change: Change
) -> None:
    before = channels.list(shipped)
    with pytest.raises(UnpublishedError) as caught:
        change(unwilling(shipped))
    assert exit_code(caught.value) == 1
    moved, revision = caught.value.channel, caught.value.revision
    assert revision == 1 + next((row.revision for row in before if row.name == moved), 0)
    text = str(caught.value)
    assert f"(revision {revision}), but its pointer could not be published: answered 503" in text
    sees = f"still see revision {revision - 1}" if revision > 1 else "see none yet"
    assert sees in text
    assert (caught.value.code, caught.value.data["channel"]) == ("unpublished", moved)
    assert not published(shipped)
    after = rows(shipped)
    change(shipped)
    assert rows(shipped) == after
    assert published(shipped)


@pytest.mark.parametrize("name", [*CHANGES])
def test_a_change_that_was_made_is_not_made_again(shipped: Registry, name: str) -> None:
    CHANGES[name](shipped)
    if name == "rollback":  # Twice goes back two steps, where nothing says from where.
        assert channels.rollback(shipped, "production").channel.release == 1
        return
    with nothing_changes(shipped):
        CHANGES[name](shipped)


@pytest.mark.parametrize("name", ["rollback", "rollback --from", "promote --rebase", "compose"])
def test_a_change_that_was_killed_before_its_pointer_is_finished_by_repeating_it(
    shipped: Registry, name: str
) -> None:
    before = rows(shipped)
    shipped.engine.dispose()

    def run() -> None:
        def write_pointer(store: LocalStore, channel: str, data: bytes) -> None:
            if data != store.read_pointer(channel):
                die()

        pytest.MonkeyPatch().setattr(LocalStore, "write_pointer", write_pointer)
        with reopened(shipped) as own:
            CHANGES[name](own)

    assert in_child(run) == -9
    after = rows(shipped)
    assert after != before
    assert not published(shipped)
    CHANGES[name](shipped)
    assert rows(shipped) == after
    assert published(shipped)


def test_a_rollback_that_finds_the_pointer_behind_says_so_and_stops(shipped: Registry) -> None:
    with pytest.raises(UnpublishedError) as caught:
        channels.rollback(unwilling(shipped), "production")
    assert caught.value.data["repeat_expecting"] == 3
    done = channels.rollback(shipped, "production")
    assert (done.published, done.moved, done.channel.release) == (True, False, 2)
    assert channels.rollback(shipped, "production").channel.release == 1


def test_the_last_step_down_is_repeated_too(shipped: Registry) -> None:
    channels.rollback(shipped, "production")
    with pytest.raises(UnpublishedError):
        channels.rollback(unwilling(shipped), "production")
    done = channels.rollback(shipped, "production")
    assert (done.published, done.channel.release) == (True, 1)
    with refused(shipped, NotFoundError, "served nothing before release 1"):
        channels.rollback(shipped, "production")


def test_what_says_from_where_rolls_back_though_the_pointer_is_behind(shipped: Registry) -> None:
    shipped.store.write_pointer("production", b"stale")
    done = channels.rollback(shipped, "production", serving="3")
    assert (done.moved, done.channel.release) == (True, 2)
    shipped.store.write_pointer("production", b"stale")
    assert channels.rollback(shipped, "production", to="1").channel.release == 1
    assert published(shipped)


def test_a_pointer_whose_answer_was_lost_is_published(shipped: Registry) -> None:
    class Mute(LocalStore):
        def write_pointer(self, channel: str, data: bytes) -> None:
            new = data != self.read_pointer(channel)
            super().write_pointer(channel, data)
            if new:
                raise StoreError("timed out")

    mute = dataclasses.replace(shipped, store=Mute(root_of(shipped)))
    assert channels.rollback(mute, "production").channel.release == 2
    assert published(shipped)


def test_a_database_that_goes_away_after_the_commit_does_not_hide_it(
    shipped: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise DatabaseError("restarting")

    with monkeypatch.context() as patch:
        real, commits = rolling_back.record_move, []

        def record_move(*args: object, **options: object) -> object:
            commits.append(True)
            patch.setattr(pointers, "show", gone)
            return real(*args, **options)  # type: ignore[arg-type]

        patch.setattr(rolling_back, "record_move", record_move)
        with pytest.raises(UnpublishedError, match="restarting"):
            channels.rollback(shipped, "production")
    after = rows(shipped)
    assert channels.rollback(shipped, "production").published
    assert rows(shipped) == after


# Expecting a revision.


def test_a_channel_at_another_revision_is_left_alone(shipped: Registry) -> None:
    for expect in (0, 1, 4, 9):
        uses: list[Change] = [
            lambda own, n=expect: promote(own, "4", "production", rebase=True, expect=n),  # type: ignore[misc]
            lambda own, n=expect: promote(own, "2", "production", expect=n),  # type: ignore[misc]
            lambda own, n=expect: channels.move(own, "production", "1", expect=n),  # type: ignore[misc]
            lambda own, n=expect: channels.rollback(own, "production", expect=n),  # type: ignore[misc]
        ]
        says = ("production is at revision 3 and serves release 3", f"expected revision {expect}")
        for use in uses:
            with refused(shipped, ConflictError, *says):
                use(shipped)


def test_a_channel_that_is_not_there_is_at_revision_0(shipped: Registry) -> None:
    with refused(shipped, ConflictError, "no channel 'canary' yet, which is revision 0"):
        promote(shipped, "1", "canary", expect=1)
    assert promote(shipped, "1", "canary", expect=0).revision == 1


def test_what_led_to_the_next_revision_must_be_this_very_change(shipped: Registry) -> None:
    uses: list[Change] = [
        lambda own: promote(own, "2", "production", expect=2),
        lambda own: promote(own, "4", "production", rebase=True, expect=2),
        lambda own: promote(own, "3", "staging", expect=0),
        lambda own: channels.move(own, "staging", "2", expect=0),
        lambda own: channels.move(own, "production", "3", expect=2),
        lambda own: channels.rollback(own, "production", expect=2),
        lambda own: channels.rollback(own, "production", to="1", expect=2),
    ]
    for use in uses:
        with refused(shipped, ConflictError, "expected revision "):
            use(shipped)


def test_a_rollback_that_goes_elsewhere_than_the_one_that_was_made_is_refused(
    shipped: Registry,
) -> None:
    channels.rollback(shipped, "production", expect=3)
    with refused(shipped, ConflictError, "is at revision 4", "expected revision 3"):
        channels.rollback(shipped, "production", to="1", expect=3)


def test_a_rollback_from_a_release_to_another_than_was_gone_back_to_is_refused(
    shipped: Registry,
) -> None:
    channels.rollback(shipped, "production", serving="3")
    with refused(shipped, ConflictError, "serves release 2, not 3; nothing was done"):
        channels.rollback(shipped, "production", serving="3", to="1")


def test_a_rollback_from_a_release_is_done_only_if_it_was_rolled_back(shipped: Registry) -> None:
    channels.move(shipped, "production", "2")
    with refused(shipped, ConflictError, "serves release 2, not 3; nothing was done"):
        channels.rollback(shipped, "production", serving="3")


def test_an_expectation_does_not_make_a_channel(shipped: Registry) -> None:
    with refused(shipped, NotFoundError, "'canary'"):
        channels.rollback(shipped, "canary", expect=0)


# A store that cannot be written.


class Reader(LocalStore):
    """A folder that this user may not write."""

    def _write(self, path: Path, source: Path | bytes) -> None:
        if os.geteuid() != 0:
            pytest.skip("the folder would have to belong to somebody else")
        os.seteuid(65534)
        try:
            super()._write(path, source)
        finally:
            os.seteuid(0)


def test_a_folder_that_cannot_be_written_is_found_before_anything_moves(
    shipped: Registry,
) -> None:
    reader = dataclasses.replace(shipped, store=Reader(root_of(shipped)))
    for use in CHANGES.values():
        with refused(shipped, StoreNotWritableError, "cannot write to the store"):
            use(reader)


@pytest.fixture
def on_s3(
    s3_url: str, encoders: dict[str, object], module: Callable[..., Path], tmp_path: Path
) -> Iterator[Registry]:
    """What ``shipped`` is, with its blobs in a bucket."""
    from centra.store import open_store

    database = f"sqlite:///{tmp_path}/registry.db"
    engine = make_engine(database)
    upgrade(engine)
    engine.dispose()
    with opened(database, tmp_path / "unused") as local:
        registry = dataclasses.replace(local, store=open_store(s3_url))
        backbones.register(registry, "tiny", str(encoders["tiny"].folder))  # type: ignore[attr-defined]
        yield ship(registry, module)


def test_credentials_that_may_only_read_are_found_before_anything_moves(
    on_s3: Registry, become_s3_reader: Callable[[], None], s3_url: str
) -> None:
    from centra.store import open_store

    become_s3_reader()
    reader = dataclasses.replace(on_s3, store=open_store(s3_url))
    before = rows(on_s3)
    for use in CHANGES.values():
        with pytest.raises(StoreNotWritableError) as caught:
            use(reader)
        assert exit_code(caught.value) == 4
    assert rows(on_s3) == before


def test_the_probe_of_a_new_channel_leaves_nothing_behind(shipped: Registry) -> None:
    before = {blob.digest for blob in shipped.store.blobs()}
    channels.move(shipped, "canary", "1")
    assert {blob.digest for blob in shipped.store.blobs()} == before


# Composing again.


def test_composing_one_change_again_changes_nothing(shipped: Registry) -> None:
    use = lambda: releases.compose(shipped, base="3", replace=["slots@1.1"], publish=True)  # noqa: E731
    assert use().published
    with nothing_changes(shipped):
        assert not use().published


def test_forcing_is_logged_where_it_made_the_difference(shipped: Registry) -> None:
    assert promote(shipped, "3", "staging", force=True).promoted
    assert not audit.events(shipped)[-1].forced
    assert promote(shipped, "4", "production", force=True).promoted
    event = audit.events(shipped)[-1]
    assert (event.action, event.subject, event.forced) == ("channel:promote", "production", True)


# Whatever else changes something.


COMMANDS: dict[str, Callable[[Registry, Callable[..., Path], Path], object]] = {
    "task register": lambda own, module, _: tasks.register(own, "mood", module(seed=9)),
    "task update": lambda own, module, _: tasks.update(own, "intent", module(seed=9)),
    "task redefine": lambda own, module, _: tasks.redefine(
        own, "intent", module(labels=("alarm", "music"))
    ),
    "task pin": lambda own, *_: tasks.pin(own, "intent@1.0"),
    "task retire": lambda own, *_: tasks.retire(own, "intent"),
    "backbone retire": lambda own, *_: backbones.retire(own, "other@1"),
    "backbone register": lambda own, _, folder: backbones.register(
        own, "third", str(folder / "encoder")
    ),
    "compose --base": lambda own, *_: releases.compose(
        own, base="3", replace=["slots@1.1"], publish=True
    ),
    "release sign": lambda own, _, folder: signatures.sign(own, "3", folder / "key.pem"),
    "import": lambda own, _, folder: transfer.import_file(own, folder / "export.tar"),
    "gc --delete": lambda own, *_: gc.collect(own, grace=timedelta(0), delete=True),
}


@pytest.mark.parametrize("name", [*COMMANDS])
def test_a_command_that_was_killed_after_its_commit_is_repeated_without_doing_more(
    shipped: Registry,
    name: str,
    module: Callable[..., Path],
    make_encoder: Callable[[str], Path],
    make_registry: Callable[[], Registry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    support.make_key(tmp_path / "key.pem")
    (tmp_path / "encoder").symlink_to(make_encoder("distilbert"))
    abroad = make_registry()
    tasks.register(abroad, "news", module(seed=30))
    releases.compose(abroad, publish=True)
    transfer.export_file(abroad, tmp_path / "export.tar", release="1")
    shipped.store.put(b"litter")
    before = unclaimed(shipped)
    with monkeypatch.context() as patch:
        real = Registry.write

        @contextmanager
        def write(self: Registry, **options: bool) -> Iterator[UnitOfWork]:
            with real(self, **options) as uow:
                said = uow.session.get_one(AuditHead, 1).count
                yield uow
                done = uow.session.get_one(AuditHead, 1).count > said
            if done:
                raise KeyboardInterrupt

        patch.setattr(Registry, "write", write)
        with pytest.raises(KeyboardInterrupt):
            COMMANDS[name](shipped, module, tmp_path)
    after = unclaimed(shipped)
    assert after != before
    for _ in range(2):
        COMMANDS[name](shipped, module, tmp_path)
        assert unclaimed(shipped) == after
    assert published(shipped)
