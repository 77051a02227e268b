"""Changes that expect a revision of a channel, so that each is made once however often repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.errors import ConflictError
from registry.channels.reading import last_move

if TYPE_CHECKING:
    from registry.database.models import Channel
    from registry.database.unit_of_work import UnitOfWork
    from registry.rules.lineage import MoveKind

__all__ = ["already_made", "revision_conflict"]


def already_made(uow: UnitOfWork, name: str, kind: MoveKind, expect: int | None) -> bool:
    """Whether a change that expects a revision seems to have been made already.

    Args:
        uow: the transaction that the change is, or would be, part of.
        name: the channel.
        kind: what would be done to it.
        expect: the revision that it must be at, 0 for a new one; None for any.

    Returns:
        False at that revision, and True at the next one where the last move was of this kind. The
        caller then knows whether it went to where the change would have gone.

    Raises:
        ConflictError: the channel is at another revision, or was moved in another way.
    """
    channel = uow.channel(name)
    revision = channel.revision if channel else 0
    if expect is None or revision == expect:
        return False
    if channel is None or revision != expect + 1 or last_move(uow, channel).kind != kind:
        raise revision_conflict(channel, name, expect)
    return True


def revision_conflict(channel: Channel | None, name: str, expect: int | None) -> ConflictError:
    """The refusal of a change that expects another revision."""
    state = (
        f"{name} is at revision {channel.revision} and serves release {channel.release.number}"
        if channel
        else f"there is no channel {name!r} yet, which is revision 0"
    )
    return ConflictError(
        f"{state}; expected revision {expect}. Nothing was done",
        code="channel-moved",
        channel=name,
    )
