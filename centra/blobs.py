"""Immutable blobs named by their SHA-256 digest, and the few movable pointers beside them.

A store is a local folder or an S3 bucket with a prefix::

    blobs/sha256/ab/abcd...   immutable, written once
    channels/NAME.json        a pointer with a revision that only grows
    signatures/abcd.../*.json the signatures of a release, under its manifest's digest

Whatever is read is checked against its digest first. No store needs conditional writes: a blob's
name is its content, so writing it twice is harmless.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    StoreError,
    StoreNotWritableError,
    UsageError,
)
from centra.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.exceptions import ClientError

    from centra.errors import CentraError

__all__ = [
    "BlobReader",
    "BlobStore",
    "Leftover",
    "LocalStore",
    "S3Store",
    "StoredBlob",
    "file_digest",
    "open_store",
    "replacing",
]

_T = TypeVar("_T")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}\.json")
_TEMPORARY = re.compile(r"\.([0-9a-f]{64}|[a-z0-9][a-z0-9_.-]*\.json)\.[a-z0-9_]{8}")
"""What :func:`replacing` calls its files beside a blob or a pointer."""


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """A blob as a listing shows it, not checked."""

    digest: str
    size: int
    """Bytes."""
    modified: datetime
    """When it was last written, in UTC by the store's clock."""


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


class BlobReader(Protocol):
    """Anything that can hand out verified files by digest: a store, or a release on disk."""

    def fetch(self, digest: str) -> Path:
        """A local file whose bytes have just been checked against this digest.

        Raises:
            BlobNotFoundError: there is no such blob.
            CorruptBlobError: its bytes do not hash to the digest.
            StoreError: the store cannot be reached.
        """
        ...

    def signatures(self, manifest: str) -> list[bytes]:
        """The signatures of a release, the oldest first; none of them has been verified.

        Args:
            manifest: the digest of the release's manifest.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...


class BlobStore(BlobReader, Protocol):
    """Where a registry keeps its bytes."""

    url: str
    """How to open this store again with :func:`open_store`."""

    def has(self, digest: str) -> bool:
        """Whether the blob is there, without reading it.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def put(self, source: Path | bytes) -> str:
        """Store a file or bytes, once, and return the digest.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...

    def stat(self, digest: str) -> StoredBlob | None:
        """A blob's size and time, without reading it; None where it is not there.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def clock(self) -> datetime:
        """What time it is now, in UTC by the clock that also dates the blobs.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def blobs(self) -> Iterator[StoredBlob]:
        """Every blob that is there, in no particular order.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def remove(self, digest: str) -> None:
        """Remove a blob, if it is there; only garbage collection does.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...

    def pointers(self) -> list[str]:
        """The channels that have a pointer document, sorted.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def read_pointer(self, channel: str) -> bytes | None:
        """The pointer document of a channel, or None where there is none yet.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def write_pointer(self, channel: str, data: bytes) -> None:
        """Replace the pointer document of a channel.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...

    def write_signature(self, manifest: str, data: bytes) -> None:
        """Add a signature to those of a release; one that is there already is not added twice.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...


def open_store(url: str, *, cache: Path | None = None) -> BlobStore:
    """Open a store from its address.

    Args:
        url: a folder's path, ``file:///folder``, or ``s3://bucket/prefix``. Credentials, region and
            endpoint come from the standard AWS settings; ``?endpoint_url=``, ``?region=`` and
            ``?addressing_style=path|virtual`` after the S3 address override them.
        cache: where an S3 store keeps verified local copies; default ``$CENTRA_CACHE`` or
            ``~/.cache/centra``.

    Raises:
        UsageError: another scheme or machine, an S3 address without a bucket, or options after it
            that mean nothing.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return S3Store(url, cache=LocalStore(cache or _default_cache()))
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return LocalStore(Path(unquote(parts.path)))
    if not url or "://" in url:
        raise UsageError(f"store {url!r}: expected a folder or s3://BUCKET/PREFIX")
    return LocalStore(Path(url))


def file_digest(path: Path) -> str:
    """The SHA-256 digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LocalStore:
    """A store in a folder. The folder is made at the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(self.root)

    def has(self, digest: str) -> bool:
        """See :meth:`BlobStore.has`."""
        path = self.path(digest)
        try:
            return path.is_file()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error

    def fetch(self, digest: str) -> Path:
        """See :meth:`BlobReader.fetch`."""
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

    def put(self, source: Path | bytes) -> str:
        """See :meth:`BlobStore.put`."""
        digest = (
            hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else file_digest(source)
        )
        try:
            self.fetch(digest)
        except (BlobNotFoundError, CorruptBlobError, StoreError):
            # A blob that is there but damaged is replaced: putting the original again is the mend.
            self._write(self.path(digest), source)
        return digest

    def stat(self, digest: str) -> StoredBlob | None:
        """See :meth:`BlobStore.stat`."""
        path = self.path(digest)
        try:
            return _stored_blob(path)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error

    def clock(self) -> datetime:
        """See :meth:`BlobStore.clock`."""
        try:
            # The folder may lie on another machine, whose clock dates what is written. Where the
            # file system can, this file never has a name.
            with tempfile.TemporaryFile(dir=self.root) as file:
                return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
        except OSError:
            return datetime.now(UTC)

    def blobs(self) -> Iterator[StoredBlob]:
        """See :meth:`BlobStore.blobs`."""
        with self._listing():
            for path in self._beside_blobs():
                if _DIGEST.fullmatch(path.name) and (found := _stored_blob(path)):
                    yield found

    def remove(self, digest: str) -> None:
        """See :meth:`BlobStore.remove`."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise self._not_writable(error) from error

    def leftovers(self) -> Iterator[Leftover]:
        """The temporary files of writes that were killed, or that still run.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._listing():
            signed = (path for path in _entries(self.root / "signatures") if path.is_dir())
            folders = (self.root / "channels", *signed)
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
        """See :meth:`BlobStore.pointers`."""
        with self._listing():
            files = _entries(self.root / "channels")
        return sorted(path.stem for path in files if path.suffix == ".json" and path.name[0] != ".")

    def read_pointer(self, channel: str) -> bytes | None:
        """See :meth:`BlobStore.read_pointer`."""
        try:
            return self._pointer(channel).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {self._pointer(channel)}: {error.strerror}") from error

    def write_pointer(self, channel: str, data: bytes) -> None:
        """See :meth:`BlobStore.write_pointer`."""
        self._write(self._pointer(channel), data)

    def signatures(self, manifest: str) -> list[bytes]:
        """See :meth:`BlobReader.signatures`."""
        folder = self._signatures(manifest)
        try:
            files = [path for path in _entries(folder) if _SIGNATURE.fullmatch(path.name)]
            files.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
            return [path.read_bytes() for path in files]
        except OSError as error:
            raise StoreError(f"cannot read {folder}: {error.strerror}") from error

    def write_signature(self, manifest: str, data: bytes) -> None:
        """See :meth:`BlobStore.write_signature`."""
        path = self._signatures(manifest) / _signature_name(data)
        if data not in self.signatures(manifest):  # Its time, and so its place, stays as it is.
            self._write(path, data)

    def path(self, digest: str) -> Path:
        """Where a blob lies, or would lie; not checked."""
        return self.root / "blobs" / "sha256" / digest[:2] / digest

    def _beside_blobs(self) -> Iterator[Path]:
        """Every entry of the folders that blobs lie in."""
        for folder in _entries(self.root / "blobs" / "sha256"):
            if len(folder.name) == 2 and folder.is_dir():
                yield from _entries(folder)

    @contextmanager
    def _listing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"cannot list the store {self.url}: {error.strerror}") from error

    def _pointer(self, channel: str) -> Path:
        return self.root / "channels" / f"{parse_name(channel, 'channel name')}.json"

    def _signatures(self, manifest: str) -> Path:
        return self.root / "signatures" / manifest

    def _write(self, path: Path, source: Path | bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                if isinstance(source, bytes):
                    temporary.write_bytes(source)
                else:
                    shutil.copyfile(source, temporary)
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> StoreNotWritableError:
        return StoreNotWritableError(
            f"cannot write to the store {self.url}: {error.strerror}. "
            "Check the folder's permissions and free space."
        )


class S3Store:
    """A store in an S3 bucket under a prefix, with verified local copies of what was read."""

    def __init__(self, url: str, *, cache: LocalStore) -> None:
        parts = urlsplit(url)
        self.url = url
        self.cache = cache
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        options = parse_qs(parts.query, keep_blank_values=True)
        self._options = {key: values[-1] for key, values in options.items()}
        unknown = self._options.keys() - {"endpoint_url", "region", "addressing_style"}
        style = self._options.get("addressing_style", "path")
        valid = not unknown and all(self._options.values()) and style in ("path", "virtual")
        if not self._bucket or not valid:
            raise UsageError(
                f"store {url!r}: expected s3://BUCKET/PREFIX, "
                "optionally with ?endpoint_url=, ?region=, ?addressing_style=path|virtual"
            )
        self._made_client: Any = None

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
                raise StoreError(f"store {self.url}: {error}") from error
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
            raise StoreError(f"store {self.url}: its server does not say the time") from error

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
                if _DIGEST.fullmatch(digest) and item["Key"] == self._key(digest):
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
        with self._translated(writing=True):
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._pointer(channel),
                Body=data,
                ContentType="application/json",
                CacheControl="no-cache",
            )

    def signatures(self, manifest: str) -> list[bytes]:
        """See :meth:`BlobReader.signatures`."""
        folder = self._path("signatures", manifest, "")
        with self._translated():
            items = [
                item
                for item in self._list(folder)
                if _SIGNATURE.fullmatch(item["Key"].removeprefix(folder))
            ]
            items.sort(key=lambda item: (item["LastModified"], item["Key"]))
            found = [self._read(item["Key"]) for item in items]
        return [data for data in found if data is not None]

    def write_signature(self, manifest: str, data: bytes) -> None:
        """See :meth:`BlobStore.write_signature`."""
        key = self._path("signatures", manifest, _signature_name(data))
        with self._translated(writing=True):
            if self._read(key) != data:  # Its time, and so its place, stays as it is.
                self._client.put_object(
                    Bucket=self._bucket, Key=key, Body=data, ContentType="application/json"
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
                raise BlobNotFoundError(digest, self.url)
        actual = file_digest(target)
        if actual != digest:
            raise CorruptBlobError(digest, actual, f"{self.url} blob {digest}")

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
                f"store {self.url} cannot be reached: {error}. "
                "Check the address, the AWS settings and the network."
            ) from error

    def _refusal(self, error: ClientError, *, writing: bool) -> CentraError:
        """Our error for what the server answered."""
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in (404, 400) and code in ("404", "NoSuchBucket", "InvalidBucketName"):
            return StoreError(
                f"store {self.url}: there is no bucket {self._bucket!r} at this endpoint"
            )
        if writing and status in (401, 403, 405):
            return StoreNotWritableError(
                f"store {self.url}: these credentials may not write ({code})"
            )
        return StoreError(f"store {self.url}: {error}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without error.

    Readers see the old file or the whole new one, also after a crash.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _signature_name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()}.json"


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


def _default_cache() -> Path:
    folder = os.environ.get("CENTRA_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "centra"
