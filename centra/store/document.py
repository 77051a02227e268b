"""Whose a store is: the small document at a store's root."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import StringConstraints

from centra.formats.documents import FormattedDocument

__all__ = ["Identity", "StoreDocument"]

Identity = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""128 random bits in lower-case hexadecimal."""


class StoreDocument(FormattedDocument):
    """What ``store.json`` at a store's root says.

    Of all the stores that name a registry, its database says which one it writes to; the others are
    copies, or what it was moved away from.
    """

    FORMAT: ClassVar[str] = "centra/store"

    registry: Identity
    store: Identity
    moved_to: str | None = None
    """The address of the store that took this one's place, for people."""
