from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from centra.errors import (
    CentraError,
    FormatError,
    InvalidNameError,
    NotFoundError,
    StoreNotWritableError,
    UsageError,
)
from centra.formats.documents import canonical_json
from centra.formats.identities import VersionNumber
from centra.formats.manifest import ChannelPointer
from centra.releases.find import find_release
from centra.store import LocalStore
from registry import audit, channels, releases, tasks
from registry.errors import UnpublishedError
from tests.registry.helpers import (
    BOB,
    acting,
    actions,
    nothing_changes,
    refused,
    root_of,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry import Registry
    from registry.channels import ChannelRow


@pytest.fixture
def published(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """A registry with the releases 1 and 2."""

    def build() -> None:
        tasks.register(registry, "intent", module())
        releases.compose(registry, publish=True)
        tasks.update(registry, "intent", module(seed=1))
        releases.compose(registry, publish=True)

    return bring("channels", build)


def pointer_file(registry: Registry, name: str) -> Path:
    return root_of(registry) / "channels" / f"{name}.json"


def pointer(registry: Registry, name: str) -> bytes:
    return pointer_file(registry, name).read_bytes()


VERSIONS = {1: {"intent": VersionNumber(1, 0)}, 2: {"intent": VersionNumber(1, 1)}}
"""Of the releases of :func:`published`."""


def copy_of(row: ChannelRow) -> bytes:
    return ChannelPointer(
        name=row.name,
        revision=row.revision,
        release=row.release,
        manifest=row.digest,
        versions=VERSIONS[row.release],
    ).to_bytes()


def older_copy_of(row: ChannelRow) -> bytes:
    """As Centra wrote it before it published versions."""
    document = json.loads(copy_of(row))
    del document["versions"]
    return canonical_json({**document, "format_version": "1.0"})


# Moving.


def test_a_new_name_makes_a_channel_whose_pointer_says_the_same(published: Registry) -> None:
    row, moved = channels.move(published, "staging", "1")
    assert moved
    assert (row.name, row.release, row.revision) == ("staging", 1, 1)
    assert row.digest == releases.show(published, "1").digest
    assert row.moved_by == "nlu/ada"
    assert channels.show(published, "staging") == row
    assert pointer(published, "staging") == copy_of(row)


def test_a_channel_moves_forth_and_back_and_its_revision_only_grows(published: Registry) -> None:
    seen = [channels.move(published, "production", str(number))[0] for number in (1, 2, 1, 2)]
    assert [(row.release, row.revision) for row in seen] == [(1, 1), (2, 2), (1, 3), (2, 4)]
    assert pointer(published, "production") == copy_of(seen[-1])
    assert [row.moved_at for row in seen] == sorted(row.moved_at for row in seen)


def test_moving_to_where_it_is_changes_nothing(published: Registry) -> None:
    row, _ = channels.move(published, "staging", "1")
    with nothing_changes(published):
        again, moved = channels.move(acting(published, BOB), "staging", "1")
    assert (again, moved) == (row, False)


def test_a_pointer_that_is_right_is_not_written_again(published: Registry) -> None:
    channels.move(published, "staging", "1")
    before = pointer_file(published, "staging").stat().st_ino
    channels.move(published, "staging", "1")
    assert pointer_file(published, "staging").stat().st_ino == before


def test_a_move_is_logged_with_where_from_and_who(published: Registry) -> None:
    channels.move(published, "staging", "1")
    channels.move(acting(published, BOB), "staging", "2", force=True)
    first, second = audit.events(published)[-2:]
    assert first.details == {"from": None, "to": 1, "revision": 1}
    over = {"forced_over": {"intent": "nlu"}}
    assert second.details == {"from": 1, "to": 2, "revision": 2, **over}
    assert (first.forced, second.forced) == (False, True)
    assert (second.actor, second.action, second.subject) == (BOB, "channel:move", "staging")
    assert channels.show(published, "staging").moved_by == BOB


def test_a_release_goes_by_number_channel_or_digest(published: Registry) -> None:
    digest = releases.show(published, "1").digest
    channels.move(published, "staging", digest[:8])
    assert channels.show(published, "staging").release == 1
    channels.move(published, "production", "staging")
    assert channels.show(published, "production").digest == digest
    channels.move(published, "production", "latest")
    assert channels.show(published, "production").release == 2


def test_a_channel_is_found_before_a_digest_that_begins_like_its_name(published: Registry) -> None:
    name = releases.show(published, "1").digest[:63]
    channels.move(published, name, "2")
    assert releases.show(published, name).number == 2


def test_channels_are_listed_by_name(published: Registry) -> None:
    for name in ("staging", "canary"):
        channels.move(published, name, "1")
    assert [(row.name, row.release, row.revision) for row in channels.list(published)] == [
        ("canary", 1, 1),
        ("latest", 2, 2),
        ("staging", 1, 1),
    ]


def test_an_empty_registry_lists_no_channel(registry: Registry) -> None:
    assert channels.list(registry) == []


def test_a_server_finds_the_release_by_the_store_alone(published: Registry) -> None:
    channels.move(published, "production", "1")
    for channel in ("production", "latest"):
        manifest = find_release(f"{published.store.url}#{channel}").manifest
        assert manifest.digest == channels.show(published, channel).digest


# What is refused.


@pytest.mark.parametrize(
    ("name", "release", "error", "mention"),
    [
        ("latest", "1", UsageError, "follows the releases of the live set by itself"),
        ("7", "1", UsageError, "release number"),
        ("12345678901234567890", "1", UsageError, "release number"),
        ("../production", "1", InvalidNameError, "../production"),
        ("", "1", InvalidNameError, "channel name"),
        ("Production", "1", InvalidNameError, "Production"),
        ("a/b", "1", InvalidNameError, "a/b"),
        ("x" * 64, "1", InvalidNameError, "channel name"),
        ("staging", "3", NotFoundError, "'3'"),
        ("staging", "staging", NotFoundError, "'staging'"),
        ("staging", "abcdefab", NotFoundError, "at least 8 digits"),
        ("staging", "", NotFoundError, "expected a number"),
    ],
)
def test_a_move_that_cannot_be_is_refused(
    registry: Registry,
    module: Callable[..., Path],
    name: str,
    release: str,
    error: type[CentraError],
    mention: str,
) -> None:
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    with refused(registry, error, mention):
        channels.move(registry, name, release)


def test_a_channel_that_is_not_there_is_refused(registry: Registry) -> None:
    with refused(registry, NotFoundError, "'production'"):
        channels.show(registry, "production")


# A pointer that names another channel.


def test_a_pointer_of_another_channel_is_refused_by_who_reads_the_store_alone(
    published: Registry,
) -> None:
    channels.move(published, "production", "1")
    published.store.write_pointer("production", pointer(published, "latest"))
    says = "is a pointer of the channel 'latest', expected one of 'production'"
    for address in (f"{published.store.url}#production", published.store.url):
        with pytest.raises(FormatError, match=says):
            find_release(address)


def test_sync_names_the_other_channel_and_publishes_the_right_pointer(published: Registry) -> None:
    row, _ = channels.move(published, "production", "1")
    published.store.write_pointer("production", pointer(published, "latest"))
    (synced,) = channels.sync(published, "production")
    assert synced.found == "is not as the database has it: it names the channel 'latest'"
    assert pointer(published, "production") == copy_of(row)


# Numbers, which the manifest does not hold.


def test_who_reads_the_store_alone_learns_the_numbers_of_release_and_versions(
    published: Registry,
) -> None:
    channels.move(published, "production", "2")
    channels.move(published, "production", "1")
    location = find_release(f"{published.store.url}#production")
    assert (location.release, location.versions) == (1, {"intent": "1.0"})
    location = find_release(f"{published.store.url}#latest")
    assert (location.release, location.versions) == (2, {"intent": "1.1"})
    location = find_release(f"{published.store.url}#{location.digest}")
    assert (location.release, location.versions) == (None, {})


def test_an_older_pointer_leads_to_its_release_and_is_no_fault_but_gains_the_versions(
    published: Registry,
) -> None:
    row, _ = channels.move(published, "production", "1")
    published.store.write_pointer("production", older_copy_of(row))
    location = find_release(f"{published.store.url}#production")
    assert (location.release, location.revision, location.versions) == (1, 1, {})
    assert channels.pointer_fault(published, row) is None
    (synced,) = channels.sync(published, "production")
    assert not synced.stale
    assert pointer(published, "production") == copy_of(row)


def test_a_rollback_is_made_although_the_pointer_is_an_older_one(published: Registry) -> None:
    channels.move(published, "production", "1")
    row, _ = channels.move(published, "production", "2")
    published.store.write_pointer("production", older_copy_of(row))
    back = channels.rollback(published, "production")
    assert (back.moved, back.channel.release) == (True, 1)
    assert pointer(published, "production") == copy_of(back.channel)


def test_a_pointer_with_other_versions_is_a_fault(published: Registry) -> None:
    row, _ = channels.move(published, "production", "1")
    other = pointer(published, "production").replace(b'"1.0"}', b'"1.7"}')
    published.store.write_pointer("production", other)
    (synced,) = channels.sync(published, "production")
    assert synced.found == ("is not as the database has it: it says other versions of the tasks")
    assert pointer(published, "production") == copy_of(row)


# The pointer is mended.


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\0")


def another_document(path: Path) -> None:
    path.write_text('{"format": "centra/release", "format_version": "1.0"}')


def stale(path: Path) -> None:
    path.write_text(path.read_text().replace('"revision":2', '"revision":1'))


@pytest.mark.parametrize("damage", [gone, emptied, cut, no_text, another_document, stale])
def test_repeating_the_move_mends_the_pointer(
    published: Registry, damage: Callable[[Path], None]
) -> None:
    channels.move(published, "staging", "1")
    channels.move(published, "staging", "2")
    right = pointer_file(published, "staging").read_bytes()
    before = rows(published)
    damage(pointer_file(published, "staging"))
    assert pointer_file(published, "staging").exists() is (damage is not gone)
    _, moved = channels.move(published, "staging", "2")
    assert not moved
    assert pointer_file(published, "staging").read_bytes() == right
    assert rows(published) == before


def test_composing_again_mends_the_pointer_of_latest(published: Registry) -> None:
    right = pointer_file(published, "latest").read_bytes()
    pointer_file(published, "latest").unlink()
    assert not releases.compose(published, publish=True).published
    assert pointer_file(published, "latest").read_bytes() == right


def test_a_pointer_that_could_not_be_written_is_written_by_the_repetition(
    published: Registry,
) -> None:
    class ReadOnly(LocalStore):
        def write_pointer(self, channel: str, data: bytes) -> None:
            raise StoreNotWritableError("read-only")

    locked = dataclasses.replace(published, store=ReadOnly(root_of(published)))
    with pytest.raises(UnpublishedError):
        channels.move(locked, "staging", "1")
    assert published.store.read_pointer("staging") is None
    row, moved = channels.move(published, "staging", "1")
    assert (moved, row.revision) == (False, 1)
    assert pointer(published, "staging") == copy_of(row)


def test_a_slow_writer_does_not_leave_its_older_pointer_behind(published: Registry) -> None:
    moves = ["2", "1"]

    class Slow(LocalStore):
        """Before a write arrives here, somebody else has moved the channel and published."""

        def write_pointer(self, channel: str, data: bytes) -> None:
            if moves:
                channels.move(published, channel, moves.pop(0))
            super().write_pointer(channel, data)

    slow = dataclasses.replace(published, store=Slow(root_of(published)))
    channels.move(slow, "staging", "1")
    row = channels.show(published, "staging")
    assert (row.release, row.revision) == (1, 3)
    assert pointer(published, "staging") == copy_of(row)


def test_without_a_name_production_is_meant_or_else_latest(published: Registry) -> None:
    assert channels.default(published).name == "latest"
    channels.move(published, "staging", "1")
    assert channels.default(published).name == "latest"
    channels.move(published, "production", "1")
    assert channels.default(published) == channels.show(published, "production")


def test_without_a_channel_nothing_is_meant(registry: Registry) -> None:
    with refused(
        registry, NotFoundError, "no channel production or latest", code="no-default-channel"
    ):
        channels.default(registry)


def test_latest_is_moved_by_publishing_alone(published: Registry) -> None:
    moves = [action for action in actions(published) if action.startswith("channel:")]
    assert moves == ["channel:move latest"] * 2
    assert pointer(published, "latest") == copy_of(channels.show(published, "latest"))
