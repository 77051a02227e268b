"""What was verified of a store's blobs, so that composing several times in a row reads what is new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.errors import BlobNotFoundError
from centra.formats.backbone import BackboneSpec
from centra.formats.task_module import read_spec
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from centra.formats.task_module import TaskSpec
    from centra.store import BlobStore

__all__ = ["VerifiedBlobs"]


class VerifiedBlobs:
    """The blobs that a store was found to hold undamaged, and the specs that were read from them.

    Whoever merges several sets in a row, because others were faster, reads only what is new.
    """

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.parity: dict[str, float] = {}
        """Per module whose parity was proven, the largest difference of logits."""
        self._present: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._tasks: dict[str, TaskSpec] = {}
        self._backbones: dict[str, BackboneSpec] = {}

    def require(self, digest: str) -> None:
        """Refuse a blob that the store itself does not hold, even where a cache still has a copy.

        Raises:
            BlobNotFoundError, CorruptBlobError, StoreError: see :meth:`BlobStore.fetch`.
        """
        if digest in self._present:
            return
        if not self.store.has(digest):
            raise BlobNotFoundError(digest, redacted(self.store.url, self.store.url))
        self.size(digest)
        self._present.add(digest)

    def size(self, digest: str) -> int:
        """The bytes of a blob, which was hashed; errors as :meth:`require`."""
        if digest not in self._sizes:
            self._sizes[digest] = self.store.fetch(digest).stat().st_size
        return self._sizes[digest]

    def task(self, digest: str) -> TaskSpec:
        """What a module says; errors as :meth:`require`, and those of :func:`read_spec`."""
        if digest not in self._tasks:
            self.require(digest)
            self._tasks[digest] = read_spec(self.store.fetch(digest))
        return self._tasks[digest]

    def backbone(self, digest: str) -> BackboneSpec:
        """What a ``backbone.json`` says; errors as :meth:`require`, and those of its reading."""
        if digest not in self._backbones:
            self.require(digest)
            self._backbones[digest] = BackboneSpec.fetch(digest, self.store)
        return self._backbones[digest]
