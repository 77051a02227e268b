"""The store itself: what lies under which key, and verified local copies of what was read."""

from __future__ import annotations

import io
import logging
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from centra.formats.identities import is_digest
from centra.store import layout
from centra.store.address import cache_folder
from centra.store.caching import fetch_through
from centra.store.local import LocalStore
from centra.store.protocol import StoredBlob
from centra.store.s3.address import S3Address
from centra.store.s3.client import S3Client
from centra.store.s3.transfers import download, read_small, upload, write_small
from centra.system.files import content_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from centra.formats.identities import Digest
    from centra.store.protocol import BlobProblem, Witness

__all__ = ["S3Store"]

_log = logging.getLogger(__name__)


class S3Store:
    """A store in an S3 bucket under a prefix, with verified local copies of what was read."""

    def __init__(self, url: str, *, cache: LocalStore | None = None) -> None:
        """Name it; nothing is asked of it yet.

        Args:
            url: see :func:`centra.store.open_store`.
            cache: of the copies; None for :func:`centra.store.cache_folder`, on each machine that
                this is sent to its own.

        Raises:
            UsageError: see :meth:`S3Address.parse`.
        """
        self.url = url
        self._own_cache = cache is None
        self.cache = cache or LocalStore(cache_folder())
        self.client = S3Client(url, S3Address.parse(url))

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache, where that is each machine's own."""
        return vars(self) | ({"cache": None} if self._own_cache else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As it was made, there."""
        vars(self).update(state)
        if self._own_cache:
            self.cache = LocalStore(cache_folder())

    def has(self, digest: str) -> bool:
        return self.stat(digest) is not None

    def fetch(self, digest: str) -> Path:
        """A verified copy in the cache is used without a request; of several who want it, one asks."""

        def bring(file: BinaryIO) -> str | None:
            with self.client.translated():
                return download(self.client, self._key(digest), digest, file)

        return fetch_through(self.cache, digest, self.client.address.redacted, bring)

    def put(self, source: Path | bytes, digest: Digest | None = None) -> Digest:
        private = digest is not None
        digest = digest or content_digest(source)
        # Each new blob is missing first: that is believed at once, as writing it again does no harm.
        problem = self._find_problem(digest, attempts=1)
        if problem:
            with (
                io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file,
                self.client.translated(writing=True),
            ):
                upload(self.client, self._key(digest), None if private else digest, file)
            _log.debug("stored blob sha256:%s in %s", digest, self.client.address.redacted)
        if problem == "damaged":
            _log.warning("blob sha256:%s was damaged; put back", digest)
        return digest

    def find_problem(self, digest: str) -> BlobProblem | None:
        return self._find_problem(digest, attempts=3)

    def stat(self, digest: str) -> StoredBlob | None:
        key = self._key(digest)
        with self.client.translated():
            found = self.client.unless_missing(lambda: self.client.head(key))
        if found is None:
            return None
        return StoredBlob(
            digest=digest,
            size=found["ContentLength"],
            modified=found["LastModified"].astimezone(UTC),
        )

    def clock(self) -> datetime:
        with self.client.translated():
            try:
                response = self.client.head_bucket()
            except self.client.boto.exceptions.ClientError as error:
                response = error.response  # A refusal has a date, too.
        try:
            date = response["ResponseMetadata"]["HTTPHeaders"]["date"]
            return parsedate_to_datetime(date).astimezone(UTC)
        except (KeyError, ValueError) as error:
            raise self.client.error("its server does not say the time") from error

    def credentials(self) -> str | None:
        return self.client.credentials()

    def blobs(self) -> Iterator[StoredBlob]:
        with self.client.translated():
            for item in self.client.list_keys(self._path(f"{layout.BLOBS}/")):
                digest = item["Key"].rpartition("/")[2]
                if is_digest(digest) and item["Key"] == self._key(digest):
                    yield StoredBlob(
                        digest=digest,
                        size=item["Size"],
                        modified=item["LastModified"].astimezone(UTC),
                    )

    def remove(self, digest: str) -> None:
        with self.client.translated(writing=True):
            self.client.delete(self._key(digest))
        _log.debug("removed blob sha256:%s from %s", digest, self.client.address.redacted)

    def pointers(self) -> list[str]:
        folder = self._path(f"{layout.CHANNELS}/")
        with self.client.translated():
            names = [item["Key"].removeprefix(folder) for item in self.client.list_keys(folder)]
        return sorted(
            name.removesuffix(".json")
            for name in names
            if name.endswith(".json") and name[0] != "." and "/" not in name
        )

    def read_pointer(self, channel: str) -> bytes | None:
        return self._read(layout.pointer_path(channel))

    def write_pointer(self, channel: str, data: bytes) -> None:
        self._write(layout.pointer_path(channel), data)

    def read_document(self) -> bytes | None:
        return self._read(layout.DOCUMENT)

    def write_document(self, data: bytes) -> None:
        self._write(layout.DOCUMENT, data)

    def signatures(self, manifest: str) -> list[bytes]:
        folder = self._path(f"{layout.signatures_folder(manifest)}/")
        with self.client.translated():
            items = [
                item
                for item in self.client.list_keys(folder)
                if layout.is_signature_name(item["Key"].removeprefix(folder))
            ]
            items.sort(key=lambda item: (item["LastModified"], item["Key"]))
            found = [read_small(self.client, item["Key"]) for item in items]
        return [data for data in found if data is not None]

    def write_signature(self, manifest: str, data: bytes) -> None:
        path = f"{layout.signatures_folder(manifest)}/{layout.signature_name(data)}"
        with self.client.translated():
            same = read_small(self.client, self._path(path)) == data
        if not same:  # Its time, and so its place, stays as it is.
            self._write(path, data)

    def witnesses(self) -> list[Witness]:
        folder = self._path(f"{layout.WITNESSES}/")
        with self.client.translated():
            names = [item["Key"].removeprefix(folder) for item in self.client.list_keys(folder)]
        return layout.parse_witnesses(names)

    def write_witness(self, witness: Witness) -> None:
        name, data = layout.witness_file(witness)
        with self.client.translated(writing=True):
            write_small(self.client, self._path(f"{layout.WITNESSES}/{name}"), data)

    def _read(self, path: str) -> bytes | None:
        with self.client.translated():
            return read_small(self.client, self._path(path), attempts=3)

    def _write(self, path: str, data: bytes) -> None:
        """Replace a small document, which no cache on the way may keep."""
        with self.client.translated(writing=True):
            write_small(
                self.client,
                self._path(path),
                data,
                ContentType="application/json",
                CacheControl="no-cache",
            )

    def _find_problem(self, digest: str, *, attempts: int) -> BlobProblem | None:
        with self.client.translated():
            actual = download(self.client, self._key(digest), digest, attempts=attempts)
        if actual is None:
            return "missing"
        return "damaged" if actual != digest else None

    def _key(self, digest: str) -> str:
        return self._path(layout.blob_path(digest))

    def _path(self, path: str) -> str:
        return self.client.address.key(path)
