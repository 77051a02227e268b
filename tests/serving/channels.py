"""A channel of a store that tests move by hand, as a registry would."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from centra.formats.identities import VersionNumber
from centra.formats.manifest import ChannelPointer
from tests import support

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.backbone import BackboneSpec
    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule
    from centra.store import BlobStore

__all__ = ["Channel"]


@dataclass
class Channel:
    """A channel, and the store that it is in."""

    store: BlobStore
    backbone: BackboneSpec
    name: str = "production"
    revision: int = 0
    releases: dict[str, int] = field(default_factory=dict)
    """Numbers, by digest."""

    @property
    def source(self) -> str:
        """As :func:`centra.load_release` takes it."""
        return f"{self.store.url}#{self.name}"

    def publish(self, modules: Mapping[str, TaskModule], *, minor: int = 0) -> ReleaseManifest:
        """Merge modules into the next release, and move the channel to it."""
        manifest = support.put_release(modules, [self.backbone], self.store)
        self.move(manifest, minor=minor)
        return manifest

    def move(
        self, manifest: ReleaseManifest, *, minor: int | None = 0, revision: int | None = None
    ) -> None:
        """Point the channel at a release.

        Args:
            manifest: the release.
            minor: every task is at this version, ``1.minor``; None for an older pointer, which does
                not say.
            revision: default the next one.
        """
        self.revision = self.revision + 1 if revision is None else revision
        number = self.releases.setdefault(manifest.digest, len(self.releases) + 1)
        versions = {} if minor is None else dict.fromkeys(manifest.tasks, VersionNumber(1, minor))
        pointer = ChannelPointer(
            name=self.name,
            revision=self.revision,
            release=number,
            manifest=manifest.digest,
            versions=versions,
        )
        self.store.write_pointer(self.name, pointer.to_bytes())
