"""Releases: composing and publishing them, listing, comparing, verifying and loading them.

As in::

from registry import releases

releases.compose(registry, publish=True)
releases.diff(registry, "1", "2")
"""

from __future__ import annotations

from registry.releases.changes import Change
from registry.releases.comparing import ModuleDifference, ReleaseDifference, Unchanged, diff
from registry.releases.composing import compose
from registry.releases.composition import Composition
from registry.releases.reading import ReleaseDetail, ReleaseRow, show
from registry.releases.reading import list_releases as list  # noqa: A004 - releases.list reads well
from registry.releases.using import Verification, address, is_address, load, pull, verify

__all__ = [
    "Change",
    "Composition",
    "ModuleDifference",
    "ReleaseDetail",
    "ReleaseDifference",
    "ReleaseRow",
    "Unchanged",
    "Verification",
    "address",
    "compose",
    "diff",
    "is_address",
    "list",
    "load",
    "pull",
    "show",
    "verify",
]
