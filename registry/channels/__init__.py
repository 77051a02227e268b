"""Channels: movable names for releases, and their published pointers in the store.

The database decides; the pointer is its copy, written after the transaction. A pointer that a crash
or a slower writer left behind is put right by the next move, or by :func:`sync`.

A change may say which revision of the channel it expects. Then it is carried out once, however often
it is repeated: at that revision it is made, at the next one, which it has led to, it is found to be
made, and anywhere else it is refused.
"""

from __future__ import annotations

from registry.channels.moving import move
from registry.channels.pointers import SyncRow, pointer_fault, publish_pointer, sync
from registry.channels.reading import ChannelRow, MoveRow, default, history, show
from registry.channels.reading import list_channels as list  # noqa: A004 - channels.list reads well
from registry.channels.rolling_back import Rollback, rollback

__all__ = [
    "ChannelRow",
    "MoveRow",
    "Rollback",
    "SyncRow",
    "default",
    "history",
    "list",
    "move",
    "pointer_fault",
    "publish_pointer",
    "rollback",
    "show",
    "sync",
]
