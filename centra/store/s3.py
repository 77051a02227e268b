"""A blob store in an S3 bucket, through boto3: any endpoint, path or virtual style."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import parse_qs

from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    StoreError,
    StoreNotWritableError,
    StoreUnreachableError,
    UsageError,
)
from centra.formats.names import parse_name
from centra.store.blobs import (
    StoredBlob,
    is_digest,
    is_signature_name,
    parse_witnesses,
    signature_name,
    witness_file,
)
from centra.store.retries import CONNECT_TIMEOUT, READ_TIMEOUT, GaveUpError, patiently
from centra.system.files import file_digest, make_folder, replacing
from centra.system.forks import in_child
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from botocore.exceptions import ClientError

    from centra.errors import CentraError
    from centra.store.blobs import Fault, Witness
    from centra.store.local import LocalStore

__all__ = ["S3Store"]

_log = logging.getLogger(__name__)

_PART = 8 << 20
"""Bytes of a large blob that go in one request: what fails is a part, and is made again alone."""
_STREAMS = 4
"""How many parts are on the way at once."""
_READINGS = 5
"""How often a blob is read that is another one each time."""

_T = TypeVar("_T")
_Item = TypeVar("_Item")


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
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT,
                # Its own attempts are counted, not timed, and end where the answer's body begins.
                retries={"mode": "standard", "total_max_attempts": 1},
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
        return self.stat(digest) is not None

    def fetch(self, digest: str) -> Path:
        """See :meth:`BlobReader.fetch`. A verified copy in the cache is used without a request."""
        try:
            return self.cache.fetch(digest)
        except (BlobNotFoundError, CorruptBlobError):
            pass  # The cache is only a copy: take the original.
        path = self.cache.path(digest)
        try:
            make_folder(path.parent)
            with replacing(path) as temporary, temporary.open("wb") as file:
                actual = self._actual(digest, file)
                if actual is None:
                    raise BlobNotFoundError(digest, self._shown)
                if actual != digest:
                    raise CorruptBlobError(digest, actual, f"{self._shown} blob {digest}")
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
        # Each new blob is missing first: that is believed at once, as writing it again does no harm.
        fault = self._fault(digest, attempts=1)
        if fault:
            with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
                self._upload(digest, file)
        if fault == "damaged":
            _log.warning("blob sha256:%s was damaged; put back", digest)
        return digest

    def fault(self, digest: str) -> Fault | None:
        """See :meth:`BlobStore.fault`."""
        return self._fault(digest, attempts=3)

    def stat(self, digest: str) -> StoredBlob | None:
        """See :meth:`BlobStore.stat`."""
        key = self._key(digest)
        with self._translated():
            found = self._unless_missing(lambda: self._head(key))
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
                response = self._head_bucket()
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
            self._ask("DELETE", self._key(digest), self._client.delete_object)

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
        with self._translated():
            same = self._read(key) == data
        if not same:  # Its time, and so its place, stays as it is.
            self._write_document(key, data)

    def witnesses(self) -> list[Witness]:
        """See :meth:`BlobStore.witnesses`."""
        folder = self._path("witnesses", "")
        with self._translated():
            return parse_witnesses(item["Key"].removeprefix(folder) for item in self._list(folder))

    def write_witness(self, witness: Witness) -> None:
        """See :meth:`BlobStore.write_witness`."""
        name, data = witness_file(witness)
        with self._translated(writing=True):
            self._put(self._path("witnesses", name), data)

    def _ask(self, method: str, key: str, operation: Callable[..., _T], **options: Any) -> _T:
        """Let the client do something to a key; see :func:`centra.store.retries.patiently`."""
        return patiently(
            f"{method} {key}",
            lambda: operation(Bucket=self._bucket, Key=key, **options),
        )

    def _read(self, key: str, *, attempts: int = 1) -> bytes | None:
        """A small file, whose ETag is the MD5 of what was written, or else two readings agree."""
        seen: set[bytes] = set()
        for _ in range(_READINGS):
            found = self._unless_missing(
                lambda: self._ask("GET", key, self._answer), attempts=attempts
            )
            if found is None:
                return None
            data, response = found
            if response.get("ETag") == f'"{_md5(data).hex()}"' or data in seen:
                return data
            seen.add(data)
        raise self._differing(key)

    def _write_document(self, key: str, data: bytes) -> None:
        """Replace a small file, which no cache on the way may keep."""
        kind = {"ContentType": "application/json", "CacheControl": "no-cache"}
        with self._translated(writing=True):
            self._put(key, data, **kind)

    def _put(self, key: str, data: bytes, **options: Any) -> None:
        sums = {"ContentMD5": base64.b64encode(_md5(data)).decode()}
        self._ask("PUT", key, self._client.put_object, Body=data, **sums, **options)

    def _head(self, key: str) -> Any:
        """What the server says about a key."""
        return self._ask("HEAD", key, self._client.head_object)

    def _head_bucket(self) -> Any:
        bucket = self._bucket
        return patiently(f"HEAD {bucket}", lambda: self._client.head_bucket(Bucket=bucket))

    def _answer(self, **request: Any) -> tuple[bytes, Any]:
        """A body, read to its end, and all that was said beside it."""
        response = self._client.get_object(**request)
        return response["Body"].read(), response

    def _fault(self, digest: str, *, attempts: int) -> Fault | None:
        actual = self._actual(digest, attempts=attempts)
        if actual is None:
            return "missing"
        return "damaged" if actual != digest else None

    def _actual(
        self, digest: str, file: BinaryIO | None = None, *, attempts: int = 3
    ) -> str | None:
        """The SHA-256 of what lies in a blob's place; None where nothing does.

        Another one than its name is believed when it was read twice: bits flip on the way, too.

        Args:
            digest: the blob's.
            file: where its bytes go.
            attempts: how often it is asked for before it is missing.
        """
        seen: set[str] = set()
        with self._translated():
            for _ in range(_READINGS):
                actual = self._hash(self._key(digest), file, attempts)
                if actual in (None, digest, *seen):
                    return actual
                seen.add(str(actual))
        raise self._differing(self._key(digest))

    def _hash(self, key: str, file: BinaryIO | None, attempts: int) -> str | None:
        first = self._unless_missing(lambda: self._part(key, 0), attempts=attempts)
        if first is None:
            return None
        if file:
            file.seek(0)
            file.truncate()
        data, size = first
        rest = _ahead(lambda start: self._part(key, start)[0], range(_PART, size, _PART))
        hasher = hashlib.sha256()
        for part in chain([data], rest):
            hasher.update(part)
            if file:
                file.write(part)
        return hasher.hexdigest()

    def _part(self, key: str, start: int) -> tuple[bytes, int]:
        """The bytes of a part, and the size of the whole."""
        span = f"bytes={start}-{start + _PART - 1}"
        try:
            data, response = self._ask("GET", key, self._answer, Range=span)
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "InvalidRange":
                raise
            return b"", start  # It ends before: an empty file has no first byte.
        whole = response.get("ContentRange", f"/{len(data)}")
        return data, int(whole.rpartition("/")[2])

    def _upload(self, digest: str, file: BinaryIO) -> None:
        """Store what is in a file; nothing of it stays where that fails.

        Raises:
            StoreError: the file has changed, or the server did not store what it was sent.
        """
        key, data = self._key(digest), file.read(_PART)
        with self._translated(writing=True):
            if len(data) < _PART:
                self._check_unchanged(digest, hashlib.sha256(data).hexdigest())
                self._put(key, data)
                return
            made = self._ask("POST", key, self._client.create_multipart_upload)
            upload = {"UploadId": made["UploadId"]}
            try:
                self._send(digest, data, file, upload)
            except BaseException:
                with suppress(Exception):  # What went wrong first is told.
                    self._ask("DELETE", key, self._client.abort_multipart_upload, **upload)
                raise

    def _send(self, digest: str, data: bytes, file: BinaryIO, upload: dict[str, str]) -> None:
        """Store a file part by part, of which the first has been read."""
        key, hasher, size = self._key(digest), hashlib.sha256(), 0

        def parts() -> Iterator[tuple[int, bytes]]:
            nonlocal data, size
            number = 0
            while data:
                hasher.update(data)
                number, size = number + 1, size + len(data)
                yield number, data
                data = file.read(_PART)

        def send(part: tuple[int, bytes]) -> dict[str, Any]:
            number, data = part
            options = {
                "PartNumber": number,
                "Body": data,
                "ContentMD5": base64.b64encode(_md5(data)).decode(),
            }
            sent = self._ask("PUT", key, self._client.upload_part, **options, **upload)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        sent = {"Parts": list(_ahead(send, parts()))}
        self._check_unchanged(digest, hasher.hexdigest())
        complete = self._client.complete_multipart_upload
        try:
            self._ask("POST", key, complete, MultipartUpload=sent, **upload)
        except self._client.exceptions.ClientError as error:
            # An attempt whose answer was lost may have done it: what is there decides.
            if error.response["Error"]["Code"] not in ("NoSuchUpload", "404"):
                raise
        if self._head(key)["ContentLength"] != size:
            raise StoreError(f"store {self._shown}: did not store {key} whole; try again")

    def _check_unchanged(self, digest: str, actual: str) -> None:
        if actual != digest:
            raise StoreError(f"blob sha256:{digest}: was changed while it was stored; try again")

    def _differing(self, key: str) -> StoreError:
        return StoreError(
            f"store {self._shown}: {key} was another file each of {_READINGS} times that it was "
            "read. Check the network, and whatever lies between here and the server."
        )

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
            self._head_bucket()
        return code in ("404", "NoSuchKey")

    def _list(self, prefix: str) -> Iterator[Any]:
        after: dict[str, str] = {}
        while True:
            page = patiently(f"GET the list of {prefix}", partial(self._page, prefix, after))
            yield from page.get("Contents", [])
            if "NextContinuationToken" not in page:
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, prefix: str, after: dict[str, str]) -> Any:
        return self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **after)

    def _key(self, digest: str) -> str:
        return self._path("blobs", "sha256", digest[:2], digest)

    def _pointer(self, channel: str) -> str:
        return self._path("channels", f"{parse_name(channel, 'channel name')}.json")

    def _path(self, *parts: str) -> str:
        return "/".join([self._prefix, *parts] if self._prefix else parts)

    @contextmanager
    def _translated(self, *, writing: bool = False) -> Iterator[None]:
        """Turn boto3's errors into ours, in this one place."""
        from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

        try:
            yield
        except ClientError as error:
            raise self._refusal(error, writing=writing) from error
        except (BotoCoreError, GaveUpError) as error:
            told = self._told(error)
            if isinstance(error, GaveUpError):
                cause = error.__cause__
                tries = f"{error.attempts} attempts in {error.seconds:.0f} s"
                told = f"{self._told(cause)} ({error.what}, {tries})"
                if isinstance(cause, ReadTimeoutError):
                    tries = f"within {READ_TIMEOUT} s, {error.attempts} attempts"
                    told = f"no answer to {error.what} {tries}"
                if isinstance(cause, ClientError):
                    raise StoreError(f"store {self._shown}: {told}; try again later") from error
            raise StoreUnreachableError(
                f"store {self._shown} cannot be reached: {told}. "
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

    def _told(self, error: object) -> str:
        """What boto3 says, which may quote the endpoint."""
        return redacted(str(error), self.url).replace(" (reached max retries: 0)", "")


def _ahead(function: Callable[[_Item], _T], items: Iterable[_Item]) -> Iterator[_T]:
    """What a function makes of each item, in order; a few are made at once, in threads."""
    with ThreadPoolExecutor(_STREAMS) as pool:
        coming: deque[Future[_T]] = deque()
        try:
            for item in items:
                coming.append(pool.submit(function, item))
                if len(coming) == _STREAMS:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for one in coming:
                one.cancel()


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
