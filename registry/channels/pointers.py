"""The published copies of channels in the store: writing them, and finding and mending faults."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import CentraError, FormatError
from centra.formats.manifest import ChannelPointer
from registry.channels.reading import list_channels, show
from registry.errors import UnpublishedError

if TYPE_CHECKING:
    from registry.channels.reading import ChannelRow
    from registry.connection import Registry

__all__ = [
    "SyncRow",
    "check_publishable",
    "pointer_fault",
    "publish_move",
    "publish_pointer",
    "sync",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SyncRow:
    """A channel whose pointer was published again."""

    name: str
    release: int
    revision: int
    stale: bool
    """Whether the pointer was missing, or said something else."""
    found: str | None
    """What was wrong with it."""


def check_publishable(registry: Registry, name: str) -> None:
    """Find out whether a channel's pointer can be written, before the channel moves.

    It is written as it stands, which also mends it; where there is none yet, the document that says
    whose store it is stands in for it.

    Raises:
        WrongStoreError, StoreError, StoreNotWritableError, DatabaseError: it cannot.
    """
    registry.check_store()
    with registry.read() as uow:
        there = uow.channel(name) is not None
    if there:
        publish_pointer(registry, name, anew=True)
    elif document := registry.store.read_document():
        registry.store.write_document(document)


def publish_move(
    registry: Registry, row: ChannelRow, *, repeat_expecting: int | None = None
) -> None:
    """Write the pointer of a channel that has just moved in the database.

    Args:
        registry: where.
        row: the channel as it moved.
        repeat_expecting: the revision that the move must be repeated with, if that fails.

    Raises:
        UnpublishedError: it could not be written, nor was it.
    """
    try:
        publish_pointer(registry, row.name)
    except CentraError as error:
        try:
            data = registry.store.read_pointer(row.name)
            if data == _pointer(registry, row).to_bytes():
                return  # It was the answer that was lost.
            seen = f"still see revision {_revision(data, row.name)}" if data else "see none yet"
        except CentraError:
            seen = "may still see an earlier one"
        raise UnpublishedError(
            row.name,
            row.release,
            row.revision,
            cause=error,
            followers=seen,
            repeat_expecting=repeat_expecting,
        ) from error


def publish_pointer(registry: Registry, name: str, *, anew: bool = False) -> None:
    """Write a channel's pointer as the database has it, until it holds the newest revision.

    One of an older Centra, which does not say the versions, is written again with them.

    Args:
        registry: where.
        name: the channel.
        anew: write it also where it is right.

    Raises:
        NotFoundError: there is no such channel.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    registry.check_store()
    while True:
        row = show(registry, name)
        pointer = _pointer(registry, row).to_bytes()
        if anew or registry.store.read_pointer(name) != pointer:
            registry.store.write_pointer(name, pointer)
            _log.debug("wrote the pointer of %s at revision %d", name, row.revision)
        # Another mover may have published between our look and our write: look again.
        if show(registry, name).revision == row.revision:
            return


def pointer_fault(registry: Registry, row: ChannelRow) -> str | None:
    """What is wrong with a channel's pointer in the store; None where it is as this row says.

    That it leaves out the versions, as those of an older Centra do, is no fault: it leads whoever
    follows it where it should.

    Raises:
        StoreError: the store cannot be reached.
    """
    data = registry.store.read_pointer(row.name)
    if data is None:
        return "is missing"
    expected = _pointer(registry, row)
    if data == expected.to_bytes():
        return None
    differs = "is not as the database has it"
    try:
        pointer = ChannelPointer.from_bytes(data, "it")
    except FormatError:
        return f"{differs}: it cannot be read"
    if pointer.name != row.name:
        return f"{differs}: it names the channel {pointer.name!r}"
    if _without_versions(pointer) == _without_versions(expected):
        return f"{differs}: it says other versions of the tasks" if pointer.versions else None
    return f"{differs}: it says release {pointer.release}, revision {pointer.revision}"


def sync(registry: Registry, name: str | None = None) -> list[SyncRow]:
    """Publish the pointer of a channel, or of all, as the database has it; harmless to repeat.

    Args:
        registry: where.
        name: the channel; default all.

    Raises:
        NotFoundError: there is no such channel.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    synced = []
    for row in list_channels(registry) if name is None else [show(registry, name)]:
        fault = pointer_fault(registry, row)
        publish_pointer(registry, row.name)
        now = show(registry, row.name)
        synced.append(
            SyncRow(
                name=now.name,
                release=now.release,
                revision=now.revision,
                stale=fault is not None,
                found=fault,
            )
        )
    return synced


def _pointer(registry: Registry, row: ChannelRow) -> ChannelPointer:
    with registry.read() as uow:
        versions = uow.versions_of(uow.release(str(row.release)))
        return ChannelPointer(
            name=row.name,
            revision=row.revision,
            release=row.release,
            manifest=row.digest,
            versions={task: version.number for task, version in versions.items()},
        )


def _without_versions(pointer: ChannelPointer) -> ChannelPointer:
    return pointer.model_copy(update={"versions": {}})


def _revision(data: bytes, name: str) -> int:
    return ChannelPointer.of_channel(data, name, f"{name}.json").revision
