"""Requests to one bucket: made again while that may help, and answered by errors of ours."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from centra.errors import StoreError, StoreNotWritableError, StoreUnreachableError
from centra.store.s3.retries import CONNECT_TIMEOUT, READ_TIMEOUT, GaveUpError, with_retries
from centra.system.forks import after_fork_in_child
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.exceptions import ClientError

    from centra.errors import CentraError
    from centra.store.s3.address import S3Address

__all__ = ["S3Client"]

_T = TypeVar("_T")


class S3Client:
    """One bucket. It can be sent to other processes, and begins anew in forked ones."""

    def __init__(self, url: str, address: S3Address) -> None:
        self.address = address
        self._url = url
        self._boto: Any = None
        after_fork_in_child(self, S3Client.disconnect)

    def __getstate__(self) -> dict[str, Any]:
        """Without the connections, which cannot go to another process."""
        return vars(self) | {"_boto": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As it was made."""
        vars(self).update(state)
        after_fork_in_child(self, S3Client.disconnect)

    def disconnect(self) -> None:
        """Begin anew, as a forked process must: two on one connection read each other's answers."""
        self._boto = None

    @property
    def boto(self) -> Any:
        """boto3's own client, which is made at its first use.

        Raises:
            StoreError: the AWS settings do not allow for one.
        """
        if self._boto is None:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError

            style: Any = self.address.addressing_style
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
                self._boto = boto3.Session().client(
                    "s3",
                    endpoint_url=self.address.endpoint_url,
                    region_name=self.address.region,
                    config=config,
                )
            except (BotoCoreError, ValueError) as error:
                raise self.error(self._message(error)) from error
        return self._boto

    def credentials(self) -> str | None:
        """Whose credentials are used and where they come from, for people; None without any.

        Raises:
            StoreError: the AWS settings contradict each other.
        """
        import boto3

        with self.translated():
            found = boto3.Session().get_credentials()
            return f"access key {found.access_key}, from {found.method}" if found else None

    def request(self, method: str, key: str, operation: Callable[..., _T], **options: Any) -> _T:
        """Let boto3 do something to a key; again while that may help.

        Args:
            method, key: what is done, for people, and to what.
            operation: a method of :attr:`boto`.
            options: its arguments besides bucket and key.

        Raises:
            GaveUpError: it took too long.
            ClientError, BotoCoreError: of botocore; see :meth:`translated`.
        """
        bucket = self.address.bucket
        return with_retries(f"{method} {key}", lambda: operation(Bucket=bucket, Key=key, **options))

    def get(self, key: str, **options: Any) -> tuple[bytes, Any]:
        """A body, read to its end, and all that came beside it."""
        return self.request("GET", key, self._get_object, **options)

    def put(self, key: str, data: bytes, **options: Any) -> None:
        """Write a key in one request."""
        self.request("PUT", key, self.boto.put_object, Body=data, **options)

    def delete(self, key: str) -> None:
        """Remove a key, if it is there."""
        self.request("DELETE", key, self.boto.delete_object)

    def head(self, key: str) -> Any:
        """Size and time of a key."""
        return self.request("HEAD", key, self.boto.head_object)

    def head_bucket(self) -> Any:
        """Ask whether the bucket is there."""
        bucket = self.address.bucket
        return with_retries(f"HEAD {bucket}", lambda: self.boto.head_bucket(Bucket=bucket))

    def list_keys(self, prefix: str) -> Iterator[Any]:
        """What lies under a prefix: mappings with ``Key``, ``Size`` and ``LastModified``."""
        after: dict[str, str] = {}
        while True:
            page = with_retries(
                f"GET the list of {prefix}", partial(self._list_page, prefix, after)
            )
            yield from page.get("Contents", [])
            if "NextContinuationToken" not in page:
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def unless_missing(self, request: Callable[[], _T], *, attempts: int = 3) -> _T | None:
        """Make a request; None where there is no such key.

        It is asked for again before that is believed: OpenStack Swift denies a key for a moment
        while it is being replaced.
        """
        for attempt in range(attempts):
            time.sleep(0.1 * attempt)
            try:
                return request()
            except self.boto.exceptions.ClientError as error:
                if not self._is_missing_key(error):
                    raise
        return None

    @contextmanager
    def translated(self, *, writing: bool = False) -> Iterator[None]:
        """Turn boto3's errors into ours, in this one place.

        Args:
            writing: what a refusal means.

        Raises:
            StoreError, StoreUnreachableError, StoreNotWritableError: instead of theirs.
        """
        from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

        try:
            yield
        except ClientError as error:
            raise self._refusal(error, writing=writing) from error
        except (BotoCoreError, GaveUpError) as error:
            message = self._message(error)
            if isinstance(error, GaveUpError):
                cause = error.__cause__
                tries = f"{error.attempts} attempts in {error.seconds:.0f} s"
                message = f"{self._message(cause)} ({error.request}, {tries})"
                if isinstance(cause, ReadTimeoutError):
                    tries = f"within {READ_TIMEOUT} s, {error.attempts} attempts"
                    message = f"no answer to {error.request} {tries}"
                if isinstance(cause, ClientError):
                    raise self.error(f"{message}; try again later") from error
            raise StoreUnreachableError(
                f"store {self.address.redacted} cannot be reached: {message}. "
                "Check the address, the AWS settings and the network.",
                store=self.address.redacted,
            ) from error

    def error(self, message: str) -> StoreError:
        """An error about this store."""
        shown = self.address.redacted
        return StoreError(f"store {shown}: {message}", store=shown)

    def _refusal(self, error: ClientError, *, writing: bool) -> CentraError:
        """Our error for what the server answered."""
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in (404, 400) and code in ("404", "NoSuchBucket", "InvalidBucketName"):
            return self.error(f"there is no bucket {self.address.bucket!r} at this endpoint")
        if writing and status in (401, 403, 405):
            shown = self.address.redacted
            return StoreNotWritableError(
                f"store {shown}: these credentials may not write ({code})", store=shown
            )
        return self.error(self._message(error))

    def _message(self, error: object) -> str:
        """What boto3 says, which may quote the endpoint."""
        return redacted(str(error), self._url).replace(" (reached max retries: 0)", "")

    def _is_missing_key(self, error: ClientError) -> bool:
        code = error.response["Error"]["Code"]
        if code == "404":
            # A missing bucket answers the same; it must not look like a missing blob.
            self.head_bucket()
        return code in ("404", "NoSuchKey")

    def _get_object(self, **request: Any) -> tuple[bytes, Any]:
        response = self.boto.get_object(**request)
        return response["Body"].read(), response

    def _list_page(self, prefix: str, after: dict[str, str]) -> Any:
        return self.boto.list_objects_v2(Bucket=self.address.bucket, Prefix=prefix, **after)
