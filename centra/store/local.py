"""A blob store in a local folder."""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    StoreError,
    StoreNotWritableError,
)
from centra.formats.identities import is_digest
from centra.formats.strict_json import LARGEST
from centra.store import layout
from centra.store.protocol import StoredBlob
from centra.system.files import (
    check_utf8,
    content_digest,
    file_digest,
    make_folder,
    replacing,
    sync_folder,
)
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from centra.formats.identities import Digest
    from centra.store.protocol import BlobProblem, Witness

__all__ = ["Leftover", "LocalStore"]

_log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\.([0-9a-f]{64}|[a-z0-9][a-z0-9_.-]*\.(json|txt))\.[a-z0-9_]{8}")


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file that a write made beside a blob or a pointer, and left there when it was killed.

    A write that still runs has one, too.
    """

    name: str
    """Its path inside the store."""
    size: int
    """Bytes."""
    modified: datetime
    """When it was last written, in UTC by the store's clock."""


class LocalStore:
    """A store in a folder. The folder is made at the first write.

    Raises:
        UsageError: the folder's path is not UTF-8.
    """

    def __init__(self, root: Path) -> None:
        check_utf8(root.absolute())
        self.root = root.absolute()
        self.url = str(self.root)

    def has(self, digest: str) -> bool:
        path = self.path(digest)
        try:
            return path.is_file()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error

    def fetch(self, digest: str) -> Path:
        path = self.path(digest)
        try:
            actual = file_digest(path)
        except FileNotFoundError as error:
            raise BlobNotFoundError(digest, self.url) from error
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        if actual != digest:
            raise CorruptBlobError(digest, actual, str(path))
        return path

    def put(self, source: Path | bytes, digest: Digest | None = None) -> Digest:
        private = digest is not None
        digest = digest or content_digest(source)
        path = self.path(digest)
        try:
            problem = self.find_problem(digest)
        except StoreError:  # Writing tells more of what is wrong with the place.
            problem = "missing"
        if problem:
            self._write(path, source, private=private)
            _log.debug("stored blob sha256:%s in %s", digest, self.url)
        else:
            # Whoever wrote it may have been killed before it was sure to stay.
            self._sync_folders(path)
        if problem == "damaged":
            _log.warning("blob sha256:%s was damaged; put back", digest)
        return digest

    def find_problem(self, digest: str) -> BlobProblem | None:
        try:
            self.fetch(digest)
        except BlobNotFoundError:
            return "missing"
        except CorruptBlobError:
            return "damaged"
        return None

    def stat(self, digest: str) -> StoredBlob | None:
        path = self.path(digest)
        try:
            return _stored_blob(path)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error

    def clock(self) -> datetime:
        try:
            # The folder may lie on another machine, whose clock dates what is written. Where the
            # file system can, this file never has a name.
            with tempfile.TemporaryFile(dir=self.root) as file:
                return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
        except OSError:
            return datetime.now(UTC)

    def blobs(self) -> Iterator[StoredBlob]:
        with self._listing():
            for path in self._beside_blobs():
                if is_digest(path.name) and (found := _stored_blob(path)):
                    yield found

    def remove(self, digest: str) -> None:
        path = self.path(digest)
        try:
            path.unlink()
            sync_folder(path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._not_writable(error) from error

    def leftovers(self) -> Iterator[Leftover]:
        """The temporary files of writes that were killed, or that still run.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._listing():
            signed = (path for path in _entries(self.root / layout.SIGNATURES) if path.is_dir())
            folders = (
                self.root,
                self.root / layout.CHANNELS,
                self.root / layout.WITNESSES,
                *signed,
            )
            beside = (path for folder in folders for path in _entries(folder))
            for path in (*self._beside_blobs(), *beside):
                if _TEMPORARY.fullmatch(path.name) and (found := _stat(path)):
                    yield Leftover(
                        name=str(path.relative_to(self.root)),
                        size=found.st_size,
                        modified=_modified(found),
                    )

    def remove_leftover(self, name: str) -> None:
        """Remove a temporary file, if it is there; only garbage collection does.

        Raises:
            StoreNotWritableError: the folder is read-only.
        """
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._not_writable(error) from error

    def pointers(self) -> list[str]:
        with self._listing():
            files = _entries(self.root / layout.CHANNELS)
        return sorted(path.stem for path in files if path.suffix == ".json" and path.name[0] != ".")

    def read_pointer(self, channel: str) -> bytes | None:
        try:
            return read_regular(self._pointer(channel), LARGEST)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {self._pointer(channel)}: {error.strerror}") from error

    def write_pointer(self, channel: str, data: bytes) -> None:
        self._write(self._pointer(channel), data)

    def read_document(self) -> bytes | None:
        try:
            return read_regular(self._document, LARGEST)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {self._document}: {error.strerror}") from error

    def write_document(self, data: bytes) -> None:
        self._write(self._document, data)

    def signatures(self, manifest: str) -> list[bytes]:
        folder = self._signatures(manifest)
        try:
            files = [path for path in _entries(folder) if layout.is_signature_name(path.name)]
            files.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
            return [read_regular(path, LARGEST) for path in files]
        except OSError as error:
            raise StoreError(f"cannot read {folder}: {error.strerror}") from error

    def write_signature(self, manifest: str, data: bytes) -> None:
        path = self._signatures(manifest) / layout.signature_name(data)
        if data not in self.signatures(manifest):  # Its time, and so its place, stays as it is.
            self._write(path, data)

    def witnesses(self) -> list[Witness]:
        with self._listing():
            return layout.parse_witnesses(
                path.name for path in _entries(self.root / layout.WITNESSES)
            )

    def write_witness(self, witness: Witness) -> None:
        name, data = layout.witness_file(witness)
        path = self.root / layout.WITNESSES / name
        if not path.exists():
            self._write(path, data)

    def path(self, digest: str) -> Path:
        """Where a blob lies, or would lie; not checked."""
        return self.root / layout.blob_path(digest)

    def _beside_blobs(self) -> Iterator[Path]:
        """Every entry of the folders that blobs lie in."""
        for folder in _entries(self.root / layout.BLOBS):
            if len(folder.name) == 2 and folder.is_dir():
                yield from _entries(folder)

    @contextmanager
    def _listing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"cannot list the store {self.url}: {error.strerror}") from error

    @property
    def _document(self) -> Path:
        return self.root / layout.DOCUMENT

    def _pointer(self, channel: str) -> Path:
        return self.root / layout.pointer_path(channel)

    def _signatures(self, manifest: str) -> Path:
        return self.root / layout.signatures_folder(manifest)

    def _write(self, path: Path, source: Path | bytes, *, private: bool = True) -> None:
        """Write a file in one step; one that is not private may change while it is copied."""
        try:
            make_folder(path.parent)
            with replacing(path) as temporary:
                if isinstance(source, bytes):
                    temporary.write_bytes(source)
                else:
                    shutil.copyfile(source, temporary)
                    if not private and file_digest(temporary) != path.name:
                        raise StoreError(f"{source}: was changed while it was stored; try again")
        except OSError as error:
            raise self._not_writable(error) from error
        self._sync_folders(path)

    def _sync_folders(self, path: Path) -> None:
        """Make a file's place outlast a power cut: others may have made its folders just before."""
        try:
            for folder in path.relative_to(self.root.parent).parents:
                sync_folder(self.root.parent / folder)
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> StoreNotWritableError:
        return StoreNotWritableError(
            f"cannot write to the store {self.url}: {error.strerror}. "
            "Check the folder's permissions and free space."
        )


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _stored_blob(path: Path) -> StoredBlob | None:
    """What a listing shows of a blob; None for what is not at its own place, or no longer there."""
    found = _stat(path)
    if found is None or not path.name.startswith(path.parent.name):
        return None
    return StoredBlob(digest=path.name, size=found.st_size, modified=_modified(found))


def _stat(path: Path) -> os.stat_result | None:
    """A file's size and time; None for a folder, or where it has been removed."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _modified(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, UTC)
