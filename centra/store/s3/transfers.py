"""Moving files to and from a bucket, so that what arrives is what was sent.

Large files go in parts, a few at once. Bits flip on the way, too: whatever reads as something else
than it should be is believed only when it was read twice.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

from centra.errors import StoreError
from centra.system.parallel import in_parallel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from centra.formats.identities import Digest
    from centra.store.s3.client import S3Client

__all__ = ["download", "read_small", "upload", "write_small"]

_PART = 8 << 20
"""Bytes of a large blob that go in one request: what fails is a part, and is made again alone."""
_STREAMS = 4
"""How many parts are on the way at once."""
_READINGS = 5
"""How often a file is read that is another one each time."""


def read_small(client: S3Client, key: str, *, attempts: int = 1) -> bytes | None:
    """A small file, whose ETag is the MD5 of what was written, or else two readings agree.

    Args:
        client: of the bucket.
        key: its name there.
        attempts: how often it is asked for before it is missing.

    Returns:
        Its bytes; None where there is none.

    Raises:
        StoreError: it reads as something else each time.
        GaveUpError, ClientError, BotoCoreError: see :meth:`S3Client.request`.
    """
    seen: set[bytes] = set()
    for _ in range(_READINGS):
        found = client.unless_missing(lambda: client.get(key), attempts=attempts)
        if found is None:
            return None
        data, response = found
        if response.get("ETag") == f'"{_md5(data).hex()}"' or data in seen:
            return data
        seen.add(data)
    raise _unstable(client, key)


def write_small(client: S3Client, key: str, data: bytes, **options: Any) -> None:
    """Write a file in one request, which the server checks.

    Raises:
        GaveUpError, ClientError, BotoCoreError: see :meth:`S3Client.request`.
    """
    client.put(key, data, ContentMD5=base64.b64encode(_md5(data)).decode(), **options)


def download(
    client: S3Client, key: str, digest: str, file: BinaryIO | None = None, *, attempts: int = 3
) -> str | None:
    """The SHA-256 of what lies at a key; None where nothing does.

    Args:
        client: of the bucket.
        key: its name there.
        digest: what it should be; another one is believed when it was read twice.
        file: where its bytes go.
        attempts: how often it is asked for before it is missing.

    Raises:
        StoreError: it reads as something else each time.
        GaveUpError, ClientError, BotoCoreError: see :meth:`S3Client.request`.
    """
    seen: set[str] = set()
    for _ in range(_READINGS):
        actual = _download_once(client, key, file, attempts)
        if actual in (None, digest, *seen):
            return actual
        seen.add(str(actual))
    raise _unstable(client, key)


def upload(client: S3Client, key: str, digest: Digest | None, file: BinaryIO) -> None:
    """Write what is in a file; nothing of it stays where that fails.

    Args:
        client: of the bucket.
        key: its name there.
        digest: what is sent must have it; None for a file that nobody else can change.
        file: open at its beginning.

    Raises:
        StoreError: the file has changed, or the server did not store what it was sent.
        GaveUpError, ClientError, BotoCoreError: see :meth:`S3Client.request`.
    """
    data = file.read(_PART)
    if len(data) < _PART:
        if digest is not None:
            _check_unchanged(digest, hashlib.sha256(data).hexdigest())
        write_small(client, key, data)
        return
    made = client.request("POST", key, client.boto.create_multipart_upload)
    upload = {"UploadId": made["UploadId"]}
    try:
        size, parts = _upload_parts(client, key, chain([data], _read_parts(file)), upload, digest)
        _complete(client, key, parts, upload)
        if client.head(key)["ContentLength"] != size:
            raise client.error(f"did not store {key} whole; try again")
    except BaseException:
        with suppress(Exception):  # What went wrong first is told.
            client.request("DELETE", key, client.boto.abort_multipart_upload, **upload)
        raise


def _download_once(client: S3Client, key: str, file: BinaryIO | None, attempts: int) -> str | None:
    first = client.unless_missing(lambda: _download_part(client, key, 0), attempts=attempts)
    if first is None:
        return None
    if file:
        file.seek(0)
        file.truncate()
    data, size = first
    starts = range(_PART, size, _PART)
    rest = in_parallel(lambda start: _download_part(client, key, start)[0], starts, _STREAMS)
    hasher = hashlib.sha256()
    for part in chain([data], rest):
        hasher.update(part)
        if file:
            file.write(part)
    return hasher.hexdigest()


def _download_part(client: S3Client, key: str, start: int) -> tuple[bytes, int]:
    """The bytes of a part, and the size of the whole."""
    span = f"bytes={start}-{start + _PART - 1}"
    try:
        data, response = client.get(key, Range=span)
    except client.boto.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "InvalidRange":
            raise
        return b"", start  # It ends before: an empty file has no first byte.
    whole = response.get("ContentRange", f"/{len(data)}")
    return data, int(whole.rpartition("/")[2])


def _upload_parts(
    client: S3Client,
    key: str,
    parts: Iterator[bytes],
    upload: Mapping[str, str],
    digest: Digest | None,
) -> tuple[int, list[dict[str, Any]]]:
    """Send the parts of a file; its size, and what completes it."""
    hasher, size = hashlib.sha256(), 0

    def numbered() -> Iterator[tuple[int, bytes]]:
        nonlocal size
        for number, data in enumerate(parts, 1):
            if digest is not None:
                hasher.update(data)
            size += len(data)
            yield number, data

    def send(part: tuple[int, bytes]) -> dict[str, Any]:
        number, data = part
        options = {
            "PartNumber": number,
            "Body": data,
            "ContentMD5": base64.b64encode(_md5(data)).decode(),
        }
        sent = client.request("PUT", key, client.boto.upload_part, **options, **upload)
        return {"PartNumber": number, "ETag": sent["ETag"]}

    sent = list(in_parallel(send, numbered(), _STREAMS))
    if digest is not None:
        _check_unchanged(digest, hasher.hexdigest())
    return size, sent


def _complete(
    client: S3Client, key: str, parts: list[dict[str, Any]], upload: Mapping[str, str]
) -> None:
    complete = client.boto.complete_multipart_upload
    try:
        client.request("POST", key, complete, MultipartUpload={"Parts": parts}, **upload)
    except client.boto.exceptions.ClientError as error:
        # An attempt whose answer was lost may have done it: what is there decides.
        if error.response["Error"]["Code"] not in ("NoSuchUpload", "404"):
            raise


def _read_parts(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(_PART):
        yield data


def _check_unchanged(digest: str, actual: str) -> None:
    if actual != digest:
        raise StoreError(
            f"blob sha256:{digest}: was changed while it was stored; try again",
            code="changed-meanwhile",
            digest=digest,
        )


def _unstable(client: S3Client, key: str) -> StoreError:
    return client.error(
        f"{key} was another file each of {_READINGS} times that it was read. Check the network, "
        "and whatever lies between here and the server."
    )


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
