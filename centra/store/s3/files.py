"""Files under a prefix of a bucket, as a folder."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from centra.store.s3.path import S3Path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.store.files import FileStat

__all__ = ["S3Folder"]


class S3Folder:
    """All objects of a bucket, or those under a prefix and a ``/``."""

    def __init__(self, address: str) -> None:
        """Make no request yet.

        Raises:
            UsageError: see :meth:`S3Address.parse`.
        """
        self.address = address
        self.root = S3Path(address)

    def shown(self, name: str) -> str:
        return str(self.root / name)

    def names(self, below: str = "") -> list[str]:
        return sorted(self.root.names(below))

    def stat(self, name: str) -> FileStat | None:
        return (self.root / name).stat()

    def open(self, name: str) -> BinaryIO:
        return (self.root / name).open()

    @contextmanager
    def replacing(self, name: str) -> Iterator[BinaryIO]:
        # What is sent must be whole: an upload that a block's error ends would be taken for it.
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            (self.root / name).write_from(file)

    def remove(self, name: str) -> None:
        (self.root / name).unlink()
