"""A loaded release together with what callers are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.releases.find import ReleaseLocation
    from centra.runtime.release import Release

__all__ = ["ServedRelease"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedRelease:
    """A loaded release, and its names: every answer names the release that it is from."""

    release: Release
    number: int | None
    """What the registry calls it; None where it was named by its digest, or is a folder."""
    versions: Mapping[str, str]
    """The numbers of its tasks' versions, ``2.1``, by name: empty where no pointer says them."""
    channel: str | None
    """Whose pointer named it; None for a folder or a digest, which never move."""
    revision: int | None
    """Of that pointer."""
    since: datetime
    """When it was ready to answer, in UTC."""

    @classmethod
    def of(cls, location: ReleaseLocation, release: Release) -> Self:
        """A release that has just been loaded from a place.

        Args:
            location: where a reference led.
            release: the release of that place.
        """
        return cls(
            release=release,
            number=location.release,
            versions={
                name: version
                for name, version in location.versions.items()
                if name in release.tasks
            },
            channel=location.channel,
            revision=location.revision,
            since=datetime.now(UTC),
        )

    @property
    def digest(self) -> str:
        """The release's identity: the digest of its manifest."""
        return self.release.digest

    @property
    def tasks(self) -> list[str]:
        """The loaded tasks, sorted."""
        return self.release.tasks

    def module(self, task: str) -> str:
        """The first 12 hexadecimal digits of the digest of a task's module."""
        return self.release.manifest.tasks[task].digest[:12]
