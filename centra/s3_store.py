"""A blob store in an S3 bucket, through boto3: any endpoint, path or virtual style."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs

from centra.blobs import (
    StoredBlob,
    is_digest,
    is_signature_name,
    parse_witnesses,
    signature_name,
    witness_file,
)
from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    StoreError,
    StoreNotWritableError,
    UsageError,
)
from centra.files import file_digest, replacing
from centra.forks import in_child
from centra.names import parse_name
from centra.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from botocore.exceptions import ClientError

    from centra.blobs import Witness
    from centra.errors import CentraError
    from centra.local_store import LocalStore

__all__ = ["S3Store"]

_T = TypeVar("_T")


class S3Store:
    """A store in an S3 bucket under a prefix, with verified local copies of what was read."""

    def __init__(self, url: str, *, cache: LocalStore) -> None:
        self.url = url
        self.cache = cache
        self._shown = redacted(url, url)
        # By hand: to a parser of URLs, # and line breaks in a prefix are special, too.
        place, _, query = url[len("s3://") :].partition("?")
        self._bucket, _, prefix = place.partition("/")
        self._prefix = prefix.strip("/")
        options = parse_qs(query, keep_blank_values=True)
        self._options = {key: values[-1] for key, values in options.items()}
        unknown = self._options.keys() - {"endpoint_url", "region", "addressing_style"}
        style = self._options.get("addressing_style", "path")
        valid = not unknown and all(self._options.values()) and style in ("path", "virtual")
        if not self._bucket or "@" in self._bucket or not valid or bool(query) != bool(options):
            raise UsageError(
                f"store {self._shown!r}: expected s3://BUCKET/PREFIX, optionally with "
                "?endpoint_url=, ?region=, ?addressing_style=path|virtual; credentials come from "
                "the AWS settings, and a prefix cannot hold a question mark"
            )
        self._made_client: Any = None
        in_child(self, S3Store.renew)

    def __getstate__(self) -> dict[str, Any]:
        """Without the client, which cannot go to another process."""
        return vars(self) | {"_made_client": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As it was made."""
        vars(self).update(state)
        in_child(self, S3Store.renew)

    def renew(self) -> None:
        """Begin anew in a forked process: two processes on one connection read each other's answers."""
        self._made_client = None

    @property
    def _client(self) -> Any:
        if self._made_client is None:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError

            style: Any = self._options.get("addressing_style")
            # Several S3-compatible servers refuse the newer trailing checksums; every blob is
            # checked against its SHA-256 here anyway.
            config = Config(
                connect_timeout=3,
                retries={"mode": "standard", "total_max_attempts": 3},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": style} if style else None,
            )
            try:
                # Its own session: the shared one is not safe to use from several threads, and keeps
                # the credentials of the first store that was opened.
                self._made_client = boto3.Session().client(
                    "s3",
                    endpoint_url=self._options.get("endpoint_url"),
                    region_name=self._options.get("region"),
                    config=config,
                )
            except (BotoCoreError, ValueError) as error:
                raise StoreError(f"store {self._shown}: {self._told(error)}") from error
        return self._made_client

    def has(self, digest: str) -> bool:
        """See :meth:`BlobStore.has`."""
        with self._translated():
            return self._exists(self._key(digest))

    def fetch(self, digest: str) -> Path:
        """See :meth:`BlobReader.fetch`. A verified copy in the cache is used without a request."""
        try:
            return self.cache.fetch(digest)
        except (BlobNotFoundError, CorruptBlobError):
            pass  # The cache is only a copy: take the original.
        path = self.cache.path(digest)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                self._download(digest, temporary)
        except OSError as error:
            raise StoreError(
                f"cannot write to the cache {self.cache.root}: {error.strerror}. "
                "Check its permissions and free space, or set CENTRA_CACHE to another folder."
            ) from error
        return path

    def put(self, source: Path | bytes) -> str:
        """See :meth:`BlobStore.put`."""
        if isinstance(source, bytes):
            digest = hashlib.sha256(source).hexdigest()
        else:
            digest = file_digest(source)
        key = self._key(digest)
        with self._translated(writing=True):
            if self._exists(key):
                return digest
            if isinstance(source, bytes):
                self._client.put_object(Bucket=self._bucket, Key=key, Body=source)
            else:
                self._client.upload_file(str(source), self._bucket, key)
        return digest

    def stat(self, digest: str) -> StoredBlob | None:
        """See :meth:`BlobStore.stat`."""
        with self._translated():
            found = self._head(self._key(digest))
        if found is None:
            return None
        return StoredBlob(
            digest=digest,
            size=found["ContentLength"],
            modified=found["LastModified"].astimezone(UTC),
        )

    def clock(self) -> datetime:
        """See :meth:`BlobStore.clock`."""
        with self._translated():
            try:
                response = self._client.head_bucket(Bucket=self._bucket)
            except self._client.exceptions.ClientError as error:
                response = error.response  # A refusal has a date, too.
        try:
            date = response["ResponseMetadata"]["HTTPHeaders"]["date"]
            return parsedate_to_datetime(date).astimezone(UTC)
        except (KeyError, ValueError) as error:
            raise StoreError(f"store {self._shown}: its server does not say the time") from error

    def credentials(self) -> str | None:
        """Whose credentials are used and where they come from, for people; None without any.

        Raises:
            StoreError: the AWS settings contradict each other.
        """
        import boto3

        with self._translated():
            found = boto3.Session().get_credentials()
            return f"access key {found.access_key}, from {found.method}" if found else None

    def blobs(self) -> Iterator[StoredBlob]:
        """See :meth:`BlobStore.blobs`."""
        with self._translated():
            for item in self._list(self._path("blobs", "sha256", "")):
                digest = item["Key"].rpartition("/")[2]
                if is_digest(digest) and item["Key"] == self._key(digest):
                    yield StoredBlob(
                        digest=digest,
                        size=item["Size"],
                        modified=item["LastModified"].astimezone(UTC),
                    )

    def remove(self, digest: str) -> None:
        """See :meth:`BlobStore.remove`."""
        with self._translated(writing=True):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(digest))

    def pointers(self) -> list[str]:
        """See :meth:`BlobStore.pointers`."""
        folder = self._path("channels", "")
        with self._translated():
            names = [item["Key"].removeprefix(folder) for item in self._list(folder)]
        return sorted(
            name.removesuffix(".json")
            for name in names
            if name.endswith(".json") and name[0] != "." and "/" not in name
        )

    def read_pointer(self, channel: str) -> bytes | None:
        """See :meth:`BlobStore.read_pointer`."""
        with self._translated():
            return self._read(self._pointer(channel), attempts=3)

    def write_pointer(self, channel: str, data: bytes) -> None:
        """See :meth:`BlobStore.write_pointer`."""
        self._write_document(self._pointer(channel), data)

    def read_document(self) -> bytes | None:
        """See :meth:`BlobStore.read_document`."""
        with self._translated():
            return self._read(self._path("store.json"), attempts=3)

    def write_document(self, data: bytes) -> None:
        """See :meth:`BlobStore.write_document`."""
        self._write_document(self._path("store.json"), data)

    def signatures(self, manifest: str) -> list[bytes]:
        """See :meth:`BlobReader.signatures`."""
        folder = self._path("signatures", manifest, "")
        with self._translated():
            items = [
                item
                for item in self._list(folder)
                if is_signature_name(item["Key"].removeprefix(folder))
            ]
            items.sort(key=lambda item: (item["LastModified"], item["Key"]))
            found = [self._read(item["Key"]) for item in items]
        return [data for data in found if data is not None]

    def write_signature(self, manifest: str, data: bytes) -> None:
        """See :meth:`BlobStore.write_signature`."""
        key = self._path("signatures", manifest, signature_name(data))
        with self._translated(writing=True):
            if self._read(key) != data:  # Its time, and so its place, stays as it is.
                self._client.put_object(
                    Bucket=self._bucket, Key=key, Body=data, ContentType="application/json"
                )

    def _write_document(self, key: str, data: bytes) -> None:
        with self._translated(writing=True):
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=data,
                ContentType="application/json",
                CacheControl="no-cache",
            )

    def witnesses(self) -> list[Witness]:
        """See :meth:`BlobStore.witnesses`."""
        folder = self._path("witnesses", "")
        with self._translated():
            return parse_witnesses(item["Key"].removeprefix(folder) for item in self._list(folder))

    def write_witness(self, witness: Witness) -> None:
        """See :meth:`BlobStore.write_witness`."""
        name, data = witness_file(witness)
        with self._translated(writing=True):
            self._client.put_object(
                Bucket=self._bucket, Key=self._path("witnesses", name), Body=data
            )

    def _read(self, key: str, *, attempts: int = 1) -> bytes | None:
        def read() -> bytes:
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            return body

        return self._unless_missing(read, attempts=attempts)

    def _exists(self, key: str) -> bool:
        return self._head(key) is not None

    def _head(self, key: str) -> Any:
        """What the server says about a key; None where there is none."""
        return self._unless_missing(
            lambda: self._client.head_object(Bucket=self._bucket, Key=key), attempts=1
        )

    def _download(self, digest: str, target: Path) -> None:
        def save() -> bool:
            self._client.download_file(self._bucket, self._key(digest), str(target))
            return True

        with self._translated():
            if not self._unless_missing(save):
                raise BlobNotFoundError(digest, self._shown)
        actual = file_digest(target)
        if actual != digest:
            raise CorruptBlobError(digest, actual, f"{self._shown} blob {digest}")

    def _unless_missing(self, request: Callable[[], _T], *, attempts: int = 3) -> _T | None:
        """Make a request; None where there is no such key.

        It is asked for again before that is believed: OpenStack Swift denies a key for a moment
        while it is being replaced.
        """
        for attempt in range(attempts):
            time.sleep(0.1 * attempt)
            try:
                return request()
            except self._client.exceptions.ClientError as error:
                if not self._is_missing_key(error):
                    raise
        return None

    def _is_missing_key(self, error: ClientError) -> bool:
        code = error.response["Error"]["Code"]
        if code == "404":
            # A missing bucket answers the same; it must not look like a missing blob.
            self._client.head_bucket(Bucket=self._bucket)
        return code in ("404", "NoSuchKey")

    def _list(self, prefix: str) -> Iterator[Any]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
            yield from page.get("Contents", [])

    def _key(self, digest: str) -> str:
        return self._path("blobs", "sha256", digest[:2], digest)

    def _pointer(self, channel: str) -> str:
        return self._path("channels", f"{parse_name(channel, 'channel name')}.json")

    def _path(self, *parts: str) -> str:
        return "/".join([self._prefix, *parts] if self._prefix else parts)

    @contextmanager
    def _translated(self, *, writing: bool = False) -> Iterator[None]:
        """Turn boto3's errors into ours, in this one place."""
        from boto3.exceptions import Boto3Error, S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            # An upload's error hides the server's answer that it was raised for.
            cause = error.__context__ if isinstance(error, S3UploadFailedError) else error
            if isinstance(cause, ClientError):
                raise self._refusal(cause, writing=writing) from error
            raise StoreError(
                f"store {self._shown} cannot be reached: {self._told(error)}. "
                "Check the address, the AWS settings and the network."
            ) from error

    def _refusal(self, error: ClientError, *, writing: bool) -> CentraError:
        """Our error for what the server answered."""
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in (404, 400) and code in ("404", "NoSuchBucket", "InvalidBucketName"):
            return StoreError(
                f"store {self._shown}: there is no bucket {self._bucket!r} at this endpoint"
            )
        if writing and status in (401, 403, 405):
            return StoreNotWritableError(
                f"store {self._shown}: these credentials may not write ({code})"
            )
        return StoreError(f"store {self._shown}: {self._told(error)}")

    def _told(self, error: Exception) -> str:
        """What boto3 says, which may quote the endpoint."""
        return redacted(str(error), self.url)
