"""What composing comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from centra.formats.identities import Digest
    from centra.formats.manifest import LayerAccount, ReleaseManifest
    from centra.releases.int8 import Int8Comparison
    from registry.releases.changes import Change

__all__ = ["Composition"]


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A set of versions that has been merged and checked, and perhaps published."""

    release: int | None
    """The number of the release that holds exactly this; None before it is published."""
    digest: Digest
    published: bool
    """Whether a new release was made."""
    base: int | None
    changes: list[Change]
    layers: LayerAccount
    tasks: dict[str, str]
    """Per task the version."""
    manifest: ReleaseManifest
    parity: dict[str, float]
    """Per task whose parity was checked now, the largest difference of logits."""
    int8: list[Int8Comparison]
    """Of the tasks whose answers in int8 were held against those in fp32 now."""
    live: bool
    """Whether this is the live set, whose releases ``latest`` follows."""
    ids: dict[str, tuple[int, int]] = field(repr=False)
    """Per task the database's ids of the task and of its version."""
