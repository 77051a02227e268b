"""A blob store that keeps everything in memory, and really works."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from centra.errors import BlobNotFoundError, CorruptBlobError, StoreNotWritableError
from centra.formats.identities import Digest
from centra.formats.names import parse_name
from centra.store import StoredBlob
from centra.system.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from centra.formats.identities import Name
    from centra.store import BlobProblem, Witness

__all__ = ["MemoryStore"]


class MemoryStore:
    """A :class:`centra.store.BlobStore` in memory, which a test may look into, damage or lock."""

    def __init__(self, folder: Path) -> None:
        """Open an empty store.

        Args:
            folder: where :meth:`fetch` writes verified files. Not made before that.
        """
        self.url = "memory:"
        self.content: dict[str, bytes] = {}
        self.documents: dict[Name, bytes] = {}
        self.document: bytes | None = None
        self.signed: dict[str, list[bytes]] = {}
        """The signatures of each manifest."""
        self.seen: set[Witness] = set()
        """The witnesses."""
        self.writes: list[str] = []
        """The digest or channel of every write, in order."""
        self.writable = True
        self.modified: dict[str, datetime] = {}
        """When each blob was last written; a test may set it back."""
        self._folder = folder

    def has(self, digest: str) -> bool:
        return digest in self.content

    def fetch(self, digest: str) -> Path:
        if digest not in self.content:
            raise BlobNotFoundError(digest, self.url)
        data = self.content[digest]
        actual = hashlib.sha256(data).hexdigest()
        if actual != digest:
            raise CorruptBlobError(digest, actual, f"{self.url} blob {digest}")
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / digest
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        return path

    def put(self, source: Path | bytes, digest: Digest | None = None) -> Digest:
        """See :meth:`centra.store.BlobStore.put`. Putting a damaged blob again mends it."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        digest = digest or Digest(hashlib.sha256(data).hexdigest())
        if self.find_problem(digest):
            self._check_writable()
            self.content[digest] = data
            self.modified[digest] = datetime.now(UTC)
            self.writes.append(digest)
        return digest

    def find_problem(self, digest: str) -> BlobProblem | None:
        if digest not in self.content:
            return "missing"
        found = hashlib.sha256(self.content[digest]).hexdigest()
        return None if found == digest else "damaged"

    def stat(self, digest: str) -> StoredBlob | None:
        return next((blob for blob in self.blobs() if blob.digest == digest), None)

    def clock(self) -> datetime:
        return datetime.now(UTC)

    def blobs(self) -> Iterator[StoredBlob]:
        for digest, data in list(self.content.items()):
            yield StoredBlob(digest=digest, size=len(data), modified=self.modified[digest])

    def remove(self, digest: str) -> None:
        self._check_writable()
        self.content.pop(digest, None)

    def pointers(self) -> list[str]:
        return sorted(self.documents)

    def read_pointer(self, channel: str) -> bytes | None:
        return self.documents.get(parse_name(channel, "channel name"))

    def write_pointer(self, channel: str, data: bytes) -> None:
        name = parse_name(channel, "channel name")
        self._check_writable()
        self.documents[name] = data
        self.writes.append(name)

    def read_document(self) -> bytes | None:
        return self.document

    def write_document(self, data: bytes) -> None:
        self._check_writable()
        self.document = data

    def signatures(self, manifest: str) -> list[bytes]:
        return list(self.signed.get(manifest, []))

    def write_signature(self, manifest: str, data: bytes) -> None:
        self._check_writable()
        if data not in self.signatures(manifest):
            self.signed.setdefault(manifest, []).append(data)

    def witnesses(self) -> list[Witness]:
        return sorted(self.seen)

    def write_witness(self, witness: Witness) -> None:
        self._check_writable()
        self.seen.add(witness)

    def _check_writable(self) -> None:
        if not self.writable:
            raise StoreNotWritableError(f"store {self.url}: it was made read-only")
