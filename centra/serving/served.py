"""A loaded release together with what callers are told of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.manifest import ChannelPointer
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

    def named_by(self, pointer: ChannelPointer) -> Self:
        """The same loaded release under the names that another pointer gives it.

        Args:
            pointer: that names it; of this or another channel.
        """
        return replace(
            self,
            number=pointer.release,
            versions={
                task: str(version)
                for task, version in pointer.versions.items()
                if task in self.tasks
            },
            channel=pointer.name,
            revision=pointer.revision,
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
