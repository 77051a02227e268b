"""The file in which tasks or a release travel between two registries: one tar, as long as it is.

::

    export.json       what the file holds, by digest
    blobs/<digest>    every blob of it, in the order of their digests

It holds no time and no person: the same content gives the same bytes. Reading it trusts nothing: no
name in it becomes a path, each member must be the one that ``export.json`` says comes next, and each
blob must have its digest.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Self

from centra.errors import (
    CorruptBlobError,
    FormatError,
    StoreError,
    StoreNotWritableError,
)
from centra.formats.documents import (
    Count,
    DigestField,
    Document,
    FormattedDocument,
    Text,
    canonical_json,
    sha256,
)
from centra.formats.identities import Digest
from centra.formats.manifest import FileName  # noqa: TC001 - pydantic reads the annotations
from centra.formats.strict_json import LARGEST, parse_document
from centra.progress import Progress, silent
from centra.system.files import make_folder, replacing
from centra.system.snapshot import opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from centra.store import BlobReader, LocalStore

__all__ = ["Export", "ExportedBackbone", "ExportedRelease", "ExportedTask", "unpack", "write"]

_DOCUMENT = "export.json"
_CHUNK = 1 << 20


class ExportedBackbone(Document):
    """A backbone as the exporting registry calls it."""

    name: FileName
    source: Text
    """Where its weights came from."""


class ExportedTask(Document):
    """One version of a task."""

    team: FileName
    module: DigestField


class ExportedRelease(Document):
    """A release of the exported tasks."""

    manifest: DigestField
    signatures: tuple[DigestField, ...]
    """The oldest first."""


class Export(FormattedDocument):
    """What ``export.json`` says."""

    FORMAT: ClassVar[str] = "centra/export"

    backbones: dict[DigestField, ExportedBackbone]
    tasks: dict[FileName, ExportedTask]
    release: ExportedRelease | None = None
    blobs: dict[DigestField, Count]
    """The size of each blob in bytes."""
    checksum: DigestField
    """Over all the rest of the document, so that a flipped bit shows in a name too."""

    @classmethod
    def sealed(cls, **fields: Any) -> Self:
        """The document with these fields and their checksum."""
        draft = cls(**fields, checksum=Digest("0" * 64))
        return draft.model_copy(update={"checksum": _checksum(draft.to_bytes())})

    def check(self, where: str) -> None:
        """Check that a document that was read is as it was written.

        Raises:
            FormatError: it is not.
        """
        if self.checksum != _checksum(self.to_bytes()):
            raise FormatError(f"{where}: is corrupt: its checksum is another")

    def named(self) -> set[Digest]:
        """The digests that it names besides; each must be that of a blob."""
        digests = {*self.backbones, *(task.module for task in self.tasks.values())}
        if self.release is not None:
            digests |= {self.release.manifest, *self.release.signatures}
        return digests


def write(
    file: Path,
    export: Export,
    reader: BlobReader,
    *,
    signatures: Mapping[Digest, bytes],
    progress: Progress = silent,
) -> None:
    """Write an export in one step: there is never half of it.

    Args:
        file: where to; replaced if it exists.
        export: what goes in.
        reader: has its blobs.
        signatures: those blobs that are signatures, by their digests.
        progress: told of each blob.

    Raises:
        StoreNotWritableError: the file cannot be written.
        BlobNotFoundError, CorruptBlobError, StoreError: a blob cannot be had.
    """
    try:
        make_folder(file.parent)
        with (
            replacing(file) as temporary,
            # GNU's headers hold any size, and need no second one for it.
            tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as archive,
        ):
            _add(archive, _DOCUMENT, export.to_bytes())
            for done, digest in enumerate(sorted(export.blobs), 1):
                source = signatures.get(digest) or reader.fetch(digest)
                _add(archive, _member(digest), source)
                progress("write blobs", done, len(export.blobs))
    except OSError as error:
        raise StoreNotWritableError(f"cannot write {file}: {error.strerror}") from error


def unpack(file: Path, target: LocalStore, progress: Progress = silent) -> tuple[Export, Digest]:
    """Check an export from its first byte to its last, and put its blobs into a store.

    Args:
        file: what :func:`write` wrote.
        target: an empty store of the caller's own: where the file is damaged, it is left half full.
        progress: told of each blob.

    Returns:
        What it holds, and the digest of the bytes that were read.

    Raises:
        NotFoundError: there is no such file.
        UnsupportedFormatError: an export of another major version.
        CorruptBlobError: a blob does not have its digest.
        FormatError: the file is no export, is cut off, or has something in it that it should not.
        StoreError: there is no room to unpack it.
    """
    where = str(file)
    try:
        with opened(file) as raw:
            stream = _Hashed(raw)
            size = _next(stream, _DOCUMENT, where)
            if size > LARGEST:
                raise FormatError(f"{where}: its {_DOCUMENT} claims to be {size:,} bytes long")
            export = Export.from_bytes(_read(stream, size, where), f"{where}: {_DOCUMENT}")
            export.check(f"{where}: {_DOCUMENT}")
            _skip_padding(stream, size, where)
            for done, digest in enumerate(sorted(export.blobs), 1):
                size = _next(stream, _member(digest), where)
                if size != export.blobs[digest]:
                    raise FormatError(
                        f"{where}: {_member(digest)} has {size:,} bytes, "
                        f"{_DOCUMENT} says {export.blobs[digest]:,}"
                    )
                _copy(stream, size, target.path(digest), where)
                _skip_padding(stream, size, where)
                progress("read blobs", done, len(export.blobs))
            _check_end(stream, where)
    except OSError as error:
        raise FormatError(f"{file}: cannot be read ({error.strerror})") from error
    return export, stream.digest


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hasher = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        self._hasher.update(data)
        return data

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._file.tell()

    @property
    def digest(self) -> Digest:
        """The SHA-256 digest of what has been read."""
        return Digest(self._hasher.hexdigest())


def _checksum(data: bytes) -> Digest | None:
    """The checksum of a document; None where its bytes are not those that its content has."""
    try:
        fields = parse_document(data)
        if canonical_json(fields) != data:
            return None
        del fields["checksum"]
        return sha256(canonical_json(fields))
    except ValueError:
        return None


def _member(digest: str) -> str:
    return f"blobs/{digest}"


def _add(archive: tarfile.TarFile, name: str, source: Path | bytes) -> None:
    # Whatever else a header has stays at its default: no time, no owner.
    header = tarfile.TarInfo(name)
    if isinstance(source, bytes):
        header.size = len(source)
        archive.addfile(header, io.BytesIO(source))
        return
    with source.open("rb") as file:
        header.size = source.stat().st_size
        archive.addfile(header, file)


def _next(stream: _Hashed, name: str, where: str) -> int:
    """Read the header of the next member, which must be this regular file; returns its size."""
    data = _read(stream, tarfile.BLOCKSIZE, where)
    try:
        header = tarfile.TarInfo.frombuf(data, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise FormatError(
            f"{where}: expected {name} in a tar, found no header ({error})"
        ) from error
    # The header's checksum covers all but itself, and blanks could take the place of its zeros.
    if data[148:156] != b"%06o\0 " % header.chksum:
        raise FormatError(f"{where}: the header of {name} is damaged")
    if header.name != name or header.type != tarfile.REGTYPE or header.size < 0:
        raise FormatError(
            f"{where}: expected the file {name}, found {header.name!r}; "
            "only a file that was exported can be imported"
        )
    return header.size


def _copy(stream: _Hashed, size: int, path: Path, where: str) -> None:
    """Copy a blob of the archive to its place in a store, which tells its digest."""
    hasher = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        out = path.open("wb")
    except OSError as error:
        raise _no_room(path, error) from error
    with out:
        for start in range(0, size, _CHUNK):
            data = _read(stream, min(_CHUNK, size - start), where)
            hasher.update(data)
            try:
                out.write(data)
            except OSError as error:
                raise _no_room(path, error) from error
    if hasher.hexdigest() != path.name:
        raise CorruptBlobError(path.name, hasher.hexdigest(), f"{where}: {_member(path.name)}")


def _no_room(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot unpack to {path.parent}: {error.strerror}. "
        "Set TMPDIR to a folder with room for the whole file."
    )


def _read(stream: _Hashed, size: int, where: str) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise FormatError(f"{where}: is cut off after {stream.tell():,} bytes")
    return data


def _skip_padding(stream: _Hashed, size: int, where: str) -> None:
    if any(_read(stream, -size % tarfile.BLOCKSIZE, where)):
        raise FormatError(f"{where}: is corrupt: something lies between its files")


def _check_end(stream: _Hashed, where: str) -> None:
    """Two empty blocks, and more of them until the last record is full."""
    missing = -(stream.tell() + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE
    if any(_read(stream, 2 * tarfile.BLOCKSIZE + missing, where)) or stream.read(1):
        raise FormatError(f"{where}: is corrupt: something lies behind its last file")
