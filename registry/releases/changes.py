"""What changes from one release to another, task by task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.formats.identities import VersionNumber
from centra.formats.manifest import changes
from registry.rules.released_version import ReleasedVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.manifest import ChangeKind, ReleaseManifest, Versioned
    from centra.formats.precision import Precision

__all__ = ["Change", "list_changes", "precision_change", "released_versions"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens to one task between two releases."""

    task: str
    change: ChangeKind
    before: str | None
    after: str | None
    precision: tuple[Precision, Precision] | None = None
    """Before and after, where it differs."""


def list_changes(
    before: Mapping[str, ReleasedVersion], after: Mapping[str, ReleasedVersion]
) -> list[Change]:
    """The tasks that two releases do not hold alike, by name."""
    listed = []
    for change in changes(before, after):
        old, new = before.get(change.task), after.get(change.task)
        listed.append(
            Change(
                task=change.task,
                change=change.change,
                before=str(old.number) if old else None,
                after=str(new.number) if new else None,
                precision=precision_change(old, new) if old and new else None,
            )
        )
    return listed


def precision_change(old: Versioned, new: Versioned) -> tuple[Precision, Precision] | None:
    """Before and after, where it differs."""
    return (old.precision, new.precision) if old.precision != new.precision else None


def released_versions(
    numbers: Mapping[str, str], manifest: ReleaseManifest
) -> dict[str, ReleasedVersion]:
    """The tasks of a manifest, with the numbers of their versions."""
    return {
        name: ReleasedVersion(
            number=VersionNumber.parse(numbers[name]),
            digest=entry.digest,
            contract=entry.contract,
            precision=entry.precision,
        )
        for name, entry in manifest.tasks.items()
    }
