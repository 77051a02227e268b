"""What a promotion sees of the channel and the release at one moment, and what it would undo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.channels.reading import last_move, moves_of
from registry.rules import lineage

if TYPE_CHECKING:
    from centra.formats.identities import Digest
    from registry.database.models import Channel, Release
    from registry.database.unit_of_work import UnitOfWork
    from registry.rules.lineage import StaleTask
    from registry.rules.released_version import ReleasedVersion

__all__ = ["Situation", "look"]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A channel, and a release that it is to serve."""

    release: int
    digest: Digest
    serving: int | None
    serving_digest: Digest | None
    revision: int | None
    stale: list[StaleTask]
    """What serving the release would undo."""
    related: bool
    """Whether the release and what is served stand on a common one."""


def look(uow: UnitOfWork, reference: str, name: str, *, overwrite: bool) -> Situation:
    """The channel and the release as they are now.

    Args:
        uow: the transaction to look in.
        reference: a release's number, another channel's name, or the start of a digest.
        name: the channel.
        overwrite: whether it does not matter there what is undone.

    Raises:
        NotFoundError: there is no such release.
    """
    release, channel = uow.release(reference), uow.channel(name)
    stale: list[StaleTask] = []
    related = True
    if channel is not None and not overwrite and channel.release is not release:
        stale, related = _stale_tasks(uow, channel, release)
    return Situation(
        release=release.number,
        digest=release.digest,
        serving=channel.release.number if channel else None,
        serving_digest=channel.release.digest if channel else None,
        revision=channel.revision if channel else None,
        stale=stale,
        related=related,
    )


def _stale_tasks(
    uow: UnitOfWork, channel: Channel, candidate: Release
) -> tuple[list[StaleTask], bool]:
    """The tasks that a candidate would undo, and whether both stand on a common release."""
    compositions = uow.compositions()
    withdrawn = lineage.withdrawn_releases(moves_of(uow, channel.name))
    mine = lineage.ancestry(candidate.number, compositions)
    # As it was when it was moved there; it may have been composed anew since.
    arrived = last_move(uow, channel).composition
    theirs = lineage.ancestry(channel.release.number, compositions, arrived)
    shared = lineage.common_ancestor(mine, theirs)

    def tasks_of(ancestor: lineage.Ancestor) -> dict[str, ReleasedVersion]:
        return uow.released_versions(uow.release(str(ancestor.release)))

    stale = lineage.stale_tasks(
        uow.released_versions(candidate),
        uow.released_versions(channel.release),
        None if shared is None else tasks_of(mine[shared]),
        [tasks_of(ancestor) for ancestor in mine[1:shared] if ancestor.release in withdrawn],
    )
    return stale, shared is not None
