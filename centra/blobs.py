"""Immutable blobs named by their SHA-256 digest, and the few movable pointers beside them.

A store is a local folder or an S3 bucket with a prefix::

    blobs/sha256/ab/abcd...   immutable, written once
    channels/NAME.json        a pointer with a revision that only grows

Whatever is read is checked against its digest first. No store needs conditional writes: a blob's
name is its content, so writing it twice is harmless.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, urlsplit

from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    StoreError,
    StoreNotWritableError,
    UsageError,
)
from centra.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BlobReader", "BlobStore", "LocalStore", "S3Store", "file_digest", "open_store"]


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


def open_store(url: str, *, cache: Path | None = None) -> BlobStore:
    """Open a store from its address.

    Args:
        url: a folder's path, ``file:///folder``, or ``s3://bucket/prefix``. Credentials, region and
            endpoint come from the standard AWS settings; ``?endpoint_url=``, ``?region=`` and
            ``?addressing_style=path|virtual`` after the S3 address override them.
        cache: where an S3 store keeps verified local copies; default ``$CENTRA_CACHE`` or
            ``~/.cache/centra``.

    Raises:
        UsageError: another scheme, or an S3 address without a bucket.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return S3Store(url, cache=LocalStore(cache or _default_cache()))
    if parts.scheme == "file":
        return LocalStore(Path(parts.path))
    if "://" in url:
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
        return self._path(digest).is_file()

    def fetch(self, digest: str) -> Path:
        """See :meth:`BlobReader.fetch`."""
        path = self._path(digest)
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
        path = self._path(digest)
        # A blob that is there but damaged is replaced: putting the original again is the mend.
        if not path.is_file() or file_digest(path) != digest:
            self._write(path, source)
        return digest

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

    def _path(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / digest[:2] / digest

    def _pointer(self, channel: str) -> Path:
        return self.root / "channels" / f"{parse_name(channel, 'channel name')}.json"

    def _write(self, path: Path, source: Path | bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                if isinstance(source, bytes):
                    temporary.write_bytes(source)
                else:
                    shutil.copyfile(source, temporary)
        except OSError as error:
            raise StoreNotWritableError(
                f"cannot write to the store {self.url}: {error.strerror}. "
                "Check the folder's permissions and free space."
            ) from error


class S3Store:
    """A store in an S3 bucket under a prefix, with verified local copies of what was read."""

    def __init__(self, url: str, *, cache: LocalStore) -> None:
        parts = urlsplit(url)
        self.url = url
        self.cache = cache
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        unknown = self._options.keys() - {"endpoint_url", "region", "addressing_style"}
        if not self._bucket or unknown:
            raise UsageError(
                f"store {url!r}: expected s3://BUCKET/PREFIX, "
                "optionally with ?endpoint_url=, ?region=, ?addressing_style="
            )
        self._made_client: Any = None

    @property
    def _client(self) -> Any:
        if self._made_client is None:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError

            style = self._options.get("addressing_style")
            # Several S3-compatible servers refuse the newer trailing checksums; every blob is
            # checked against its SHA-256 here anyway.
            config = Config(
                connect_timeout=5,
                retries={"mode": "standard", "max_attempts": 4},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": style} if style else None,
            )
            try:
                self._made_client = boto3.client(
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
        if self.cache.has(digest):
            try:
                return self.cache.fetch(digest)
            except CorruptBlobError:
                pass  # The cache is only a copy: take the original again.
        path = self.cache._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            with self._translated(digest):
                self._client.download_file(self._bucket, self._key(digest), str(temporary))
            actual = file_digest(temporary)
            if actual != digest:
                raise CorruptBlobError(digest, actual, f"{self.url} blob {digest}")
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

    def read_pointer(self, channel: str) -> bytes | None:
        """See :meth:`BlobStore.read_pointer`."""
        key = self._pointer(channel)
        with self._translated():
            if not self._exists(key):
                return None
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            return body

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

    def _exists(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                # A missing bucket answers the same; it must not look like a missing blob.
                self._client.head_bucket(Bucket=self._bucket)
                return False
            raise
        return True

    def _key(self, digest: str) -> str:
        return "/".join(filter(None, [self._prefix, "blobs", "sha256", digest[:2], digest]))

    def _pointer(self, channel: str) -> str:
        name = parse_name(channel, "channel name")
        return "/".join(filter(None, [self._prefix, "channels", f"{name}.json"]))

    @contextmanager
    def _translated(self, digest: str = "", *, writing: bool = False) -> Iterator[None]:
        """Turn boto3's errors into ours, in this one place."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if digest and code in ("404", "NoSuchKey"):
                raise BlobNotFoundError(digest, self.url) from error
            if status in (404, 400) and code in ("404", "NoSuchBucket", "InvalidBucketName"):
                raise StoreError(
                    f"store {self.url}: there is no bucket {self._bucket!r} at this endpoint"
                ) from error
            if writing and status in (401, 403, 405):
                raise StoreNotWritableError(
                    f"store {self.url}: these credentials may not write ({code})"
                ) from error
            raise StoreError(f"store {self.url}: {error}") from error
        except S3UploadFailedError as error:
            if "AccessDenied" in str(error) or "403" in str(error):
                raise StoreNotWritableError(
                    f"store {self.url}: these credentials may not write ({error})"
                ) from error
            raise StoreError(f"store {self.url}: {error}") from error
        except BotoCoreError as error:
            raise StoreError(
                f"store {self.url} cannot be reached: {error}. "
                "Check the address, the AWS settings and the network."
            ) from error


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


def _default_cache() -> Path:
    folder = os.environ.get("CENTRA_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "centra"
