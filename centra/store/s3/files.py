"""Files under a prefix of a bucket, with the settings, the patience and the errors of the S3 store."""

from __future__ import annotations

import io
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from centra.errors import DataError, NotFoundError
from centra.store.files import FileStat
from centra.store.s3.address import S3Address
from centra.store.s3.client import S3Client
from centra.store.s3.transfers import upload

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["S3Folder"]

_AHEAD = 4 << 20
"""Bytes that one request reads."""


class S3Folder:
    """All objects of a bucket, or those under a prefix and a ``/``."""

    def __init__(self, address: str) -> None:
        """Make no request yet.

        Raises:
            UsageError: see :meth:`S3Address.parse`.
        """
        self.address = address
        self.client = S3Client(address, S3Address.parse(address))

    def shown(self, name: str) -> str:
        return f"s3://{self.client.address.bucket}/{self._key(name)}"

    def names(self, below: str = "") -> list[str]:
        start = self._key("")
        with self.client.translated():
            keys = [item["Key"] for item in self.client.list_keys(start + below)]
        # A key that ends with a slash is how some tools make a folder.
        return sorted(key.removeprefix(start) for key in keys if not key.endswith("/"))

    def stat(self, name: str) -> FileStat | None:
        with self.client.translated():
            # Most files that are asked for in vain are those that are about to be written.
            found = self.client.unless_missing(
                lambda: self.client.head(self._key(name)), attempts=1
            )
        if found is None:
            return None
        return FileStat(size=found["ContentLength"], version=found["ETag"].strip('"'))

    def open(self, name: str) -> BinaryIO:
        """It is read part by part as it is asked for, and refused once it is another."""
        found = self.stat(name)
        if found is None:
            shown = self.shown(name)
            raise NotFoundError(
                f"{shown}: there is no such file", code="no-such-file", address=shown
            )
        raw = _Object(self.client, self._key(name), found, self.shown(name))
        return io.BufferedReader(raw, _AHEAD)

    @contextmanager
    def replacing(self, name: str) -> Iterator[BinaryIO]:
        # What is sent must be whole: an upload that a block's error ends would be taken for it.
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with self.client.translated(writing=True):
                upload(self.client, self._key(name), None, file)

    def remove(self, name: str) -> None:
        with self.client.translated(writing=True):
            self.client.delete(self._key(name))

    def _key(self, name: str) -> str:
        return self.client.address.key(name)


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
