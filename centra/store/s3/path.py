"""Plain files in a bucket, named as a path names those of a disk."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, BinaryIO, Self

from centra.errors import DataError, NotFoundError
from centra.store.files import FileStat
from centra.store.s3.address import S3Address
from centra.store.s3.client import S3Client
from centra.store.s3.transfers import download, read_small, upload, write_small
from centra.system.files import file_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from centra.formats.identities import Digest

__all__ = ["S3Path"]

_log = logging.getLogger(__name__)

_AHEAD = 4 << 20
"""Bytes that one request reads of a file that is open."""


class S3Path:
    """``s3://BUCKET/KEY``: a file, or a folder of those whose keys begin with it and a slash.

    As of the paths of a disk, ``/`` makes the path of what lies inside. It can be sent to other
    processes and machines, which reach it with their own AWS settings.
    """

    def __init__(self, url: str) -> None:
        """Name it; nothing is asked of it yet.

        Args:
            url: as of a store; see :func:`centra.store.open_store`.

        Raises:
            UsageError: see :meth:`S3Address.parse`.
        """
        address = S3Address.parse(url)
        self._client = S3Client(url, address)
        self._key = address.prefix
        self._options = url.partition("?")[2]

    def __truediv__(self, name: str) -> Self:
        """What lies inside, under a name that may have slashes."""
        return self._at(f"{self._key}/{name}" if self._key else name)

    def __str__(self) -> str:
        """The address without options."""
        return f"s3://{self._client.address.bucket}/{self._key}"

    def __repr__(self) -> str:
        """For people who look into a program."""
        return f"S3Path({str(self)!r})"

    @property
    def url(self) -> str:
        """The address with its options, e.g. for :func:`centra.store.open_store`."""
        return f"{self}?{self._options}" if self._options else str(self)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self._key.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The folder that it lies in."""
        return self._at(self._key.rpartition("/")[0])

    def stat(self) -> FileStat | None:
        """Size and version of the file; None where there is none.

        Raises:
            StoreError: it cannot be reached.
        """
        with self._client.translated():
            # Most files that are asked for in vain are those that are about to be written.
            found = self._client.unless_missing(lambda: self._client.head(self._key), attempts=1)
        if found is None:
            return None
        return FileStat(size=found["ContentLength"], version=found["ETag"].strip('"'))

    def open(self) -> BinaryIO:
        """Open the file to read part by part, as it is asked for; it is refused once it is another.

        Raises:
            NotFoundError: there is none.
            DataError: it was changed or removed while it was read.
            StoreError: it cannot be reached; while it is read, too.
        """
        found = self.stat()
        if found is None:
            raise NotFoundError(
                f"{self}: there is no such file", code="no-such-file", address=str(self)
            )
        return io.BufferedReader(_Object(self._client, self._key, found, str(self)), _AHEAD)

    def read_bytes(self) -> bytes | None:
        """What is in the file; None where there is none.

        Raises:
            StoreError: it cannot be reached, or reads as something else each time.
        """
        with self._client.translated():
            return read_small(self._client, self._key, attempts=3)

    def write_bytes(self, data: bytes) -> None:
        """Write the file, or replace it, in one step.

        Raises:
            StoreNotWritableError: the credentials may not write.
            StoreError: it cannot be reached.
        """
        with self._client.translated(writing=True):
            write_small(self._client, self._key, data)
        _log.debug("wrote %s", self)

    def write_from(self, source: BinaryIO) -> None:
        """Write what is left of an open file, in one step.

        Raises:
            StoreNotWritableError: the credentials may not write.
            StoreError: it cannot be reached.
        """
        with self._client.translated(writing=True):
            upload(self._client, self._key, None, source)

    def upload(self, file: Path) -> Digest:
        """Write what is in a file of this machine, in one step.

        Returns:
            The digest of what was written.

        Raises:
            StoreNotWritableError: the credentials may not write.
            StoreError: it cannot be reached, or the file was changed meanwhile.
            OSError: the file cannot be read.
        """
        digest = file_digest(file)
        with file.open("rb") as source, self._client.translated(writing=True):
            upload(self._client, self._key, digest, source)
        _log.debug("wrote %s", self)
        return digest

    def download(self, file: Path, digest: str) -> bool:
        """Bring it to a file of this machine.

        Args:
            file: is written.
            digest: that it should have.

        Returns:
            Whether it has; it may also be missing.

        Raises:
            StoreError: it cannot be reached, or reads as something else each time.
            OSError: the file cannot be written.
        """
        with file.open("wb") as target, self._client.translated():
            return download(self._client, self._key, digest, target) == digest

    def names(self, below: str = "") -> Iterator[str]:
        """The files inside, also inside of what is inside, by their paths from here.

        Args:
            below: only those whose paths begin with this.

        Raises:
            StoreError: it cannot be reached.
        """
        folder = f"{self._key}/" if self._key else ""
        with self._client.translated():
            for item in self._client.list_keys(folder + below):
                # A key that ends with a slash is how some tools make a folder.
                if not item["Key"].endswith("/"):
                    yield item["Key"].removeprefix(folder)

    def unlink(self) -> None:
        """Remove the file, if it is there.

        Raises:
            StoreNotWritableError: the credentials may not write.
            StoreError: it cannot be reached.
        """
        with self._client.translated(writing=True):
            self._client.delete(self._key)

    def _at(self, key: str) -> Self:
        """Another key of the bucket, reached in the same way."""
        other = object.__new__(type(self))
        other._client, other._key, other._options = self._client, key, self._options
        return other


class _Object(io.RawIOBase):
    """The bytes of one object."""

    def __init__(self, client: S3Client, key: str, stat: FileStat, shown: str) -> None:
        self._client = client
        self._key = key
        self._stat = stat
        self._shown = shown
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._stat.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self._place + len(buffer), self._stat.size)
        if end <= self._place:
            return 0
        client = self._client
        with client.translated():
            try:
                data, _ = client.get(
                    self._key, Range=f"bytes={self._place}-{end - 1}", IfMatch=self._stat.version
                )
            except client.boto.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 412, 416):
                    raise DataError(
                        f"{self._shown}: was changed or removed while it was read; repeat it",
                        code="changed-meanwhile",
                    ) from error
                raise
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
