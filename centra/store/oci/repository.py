"""A repository of an OCI registry: blobs by digest, and manifests by digest or tag."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin

from centra.errors import (
    CorruptBlobError,
    NotAllowedError,
    NotFoundError,
    StoreError,
    StoreUnreachableError,
    first_line,
)
from centra.store.oci.authorization import Authorization, authorize
from centra.store.oci.transport import Transport, pause, retry_after, same_origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from urllib3 import BaseHTTPResponse

    from centra.errors import CentraError
    from centra.store.oci.address import OciAddress

__all__ = ["OciRepository"]

_log = logging.getLogger(__name__)

_TRIES = 4
"""How often a blob is sent, or asked for again where it broke off."""
_PART = 1 << 20
_STREAM = "application/octet-stream"


class OciRepository:
    """A repository. It can be sent to other processes, which log in on their own."""

    def __init__(self, address: OciAddress) -> None:
        self.address = address
        self._http = Transport()
        self._authorization = Authorization()

    def __getstate__(self) -> dict[str, Any]:
        """Without the token."""
        return vars(self) | {"_authorization": Authorization()}

    def read_manifest(self, reference: str, media_type: str) -> bytes:
        """A manifest's bytes, which are checked where it is named by digest.

        Args:
            reference: a tag, or ``sha256:`` and a digest.
            media_type: what it must be.

        Raises:
            NotFoundError: there is none.
            CorruptBlobError: the registry gives another one.
            FormatError: it is larger than any.
            NotAllowedError, StoreError: it cannot be had.
        """
        headers = {"Accept": media_type}
        with self._translated():
            response = self._ask("GET", f"/manifests/{reference}", headers=headers)
            data = self._http.read(response)
        if response.status == 404:
            raise NotFoundError(
                f"{self.address}: there is no such artifact{_told(data)}",
                code="no-artifact",
                address=str(self.address),
            )
        self._require(response, data, 200)
        actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if ":" in reference and actual != reference:
            raise CorruptBlobError(reference[7:], actual[7:], f"{self.address}: its manifest")
        return data

    def write_manifest(self, reference: str, media_type: str, data: bytes) -> None:
        """Publish a manifest, whose blobs are there; a tag moves to it.

        Raises:
            NotAllowedError: the login may not write.
            StoreError: the registry cannot be reached, or does not take it.
        """
        headers = {"Content-Type": media_type}
        with self._translated():
            response = self._ask("PUT", f"/manifests/{reference}", headers=headers, body=data)
            self._require(response, self._http.read(response), 201)

    def has(self, digest: str) -> bool:
        """Whether a blob is there.

        Raises:
            NotAllowedError, StoreError: it cannot be asked for.
        """
        with self._translated():
            response = self._ask("HEAD", f"/blobs/sha256:{digest}")
            data = self._http.read(response)
            if response.status == 404:
                return False
            self._require(response, data, 200)
        return True

    def upload(self, digest: str, source: Path | bytes) -> None:
        """Send a blob; the registry checks it against its digest.

        Raises:
            NotAllowedError: the login may not write.
            StoreError: the registry cannot be reached, or does not take it.
        """
        from urllib3.exceptions import HTTPError

        with self._translated():
            for attempt in range(_TRIES):
                last, response = attempt == _TRIES - 1, None
                try:
                    response = self._send_blob(digest, source)
                    data = self._http.read(response)
                except HTTPError as error:
                    if last:
                        raise
                    _log.debug("blob sha256:%s: %s; again", digest, first_line(error))
                else:
                    # A token may have run out while a large blob was on its way.
                    again = response.status in (401, 404, 429) or response.status >= 500
                    if last or not again:
                        break
                if not pause(attempt, response):
                    break
            assert response is not None, "who gets no answer to the last attempt has raised"
            self._require(response, data, 201)

    def download(self, digest: str, size: int, file: BinaryIO) -> str | None:
        """Bring a blob; where it breaks off, the rest of it is asked for.

        Args:
            digest: the blob's.
            size: how many bytes it has; no more are taken.
            file: is written, from its beginning.

        Returns:
            The digest of what came; None where there is no such blob.

        Raises:
            NotAllowedError, StoreError: it cannot be had.
        """
        from urllib3.exceptions import HTTPError

        hashed = hashlib.sha256()
        with self._translated():
            for attempt in range(_TRIES):
                have = file.tell()
                headers = {"Range": f"bytes={have}-"} if have else {}
                try:
                    response = self._ask("GET", f"/blobs/sha256:{digest}", headers=headers)
                    if response.status == 404:
                        self._http.read(response)
                        return None
                    if response.status not in (200, 206):
                        self._require(response, self._http.read(response), 200)
                    if have and response.status == 200:  # It does not know how to go on.
                        file.seek(0)
                        file.truncate()
                        hashed = hashlib.sha256()
                    self._take(response, size, file, hashed)
                    break
                except HTTPError as error:
                    if attempt == _TRIES - 1:
                        raise
                    _log.debug("blob sha256:%s: %s; going on", digest, first_line(error))
                    pause(attempt)
        return hashed.hexdigest()

    def _take(self, response: BaseHTTPResponse, size: int, file: BinaryIO, hashed: Any) -> None:
        try:
            for part in response.stream(_PART):
                if file.tell() + len(part) > size:
                    response.close()
                    raise StoreError(
                        f"{self.address}: a blob has more than the {size:,} bytes that its manifest "
                        "says",
                        code="oci-blob-size",
                    )
                file.write(part)
                hashed.update(part)
        finally:
            response.release_conn()

    def _send_blob(self, digest: str, source: Path | bytes) -> BaseHTTPResponse:
        response = self._ask("POST", "/blobs/uploads/", body=b"")
        data = self._http.read(response)
        self._require(response, data, 202)
        place = urljoin(f"{self.address.api}/blobs/uploads/", response.headers.get("Location", ""))
        mark = "&" if "?" in place else "?"
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        headers = {"Content-Type": _STREAM, "Content-Length": str(size)}
        if same_origin(place, self.address.api):
            headers |= self._authorization.headers
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            url = f"{place}{mark}digest=sha256:{digest}"
            return self._http.send("PUT", url, headers=headers, body=file, once=True)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> BaseHTTPResponse:
        """Make a request, and again as whoever the login says where the registry asks for one."""
        for answered in (False, True):
            sent = {**(headers or {}), **self._authorization.headers}
            url = self.address.api + path
            response = self._http.send(method, url, headers=sent, body=body)
            if response.status != 401 or answered:
                break
            try:
                self._authorization = authorize(response, self.address, self._http)
            except Exception:
                response.close()
                raise
            if self._authorization.header is None:
                break
            self._http.read(response)
        return response

    def _require(self, response: BaseHTTPResponse, data: bytes, expected: int) -> None:
        if response.status == expected:
            return
        raise self._refusal(response, data)

    def _refusal(self, response: BaseHTTPResponse, data: bytes) -> CentraError:
        told = _told(data)
        where = str(self.address)
        if response.status in (401, 403):
            return NotAllowedError(
                f"{where}: its registry does not allow this to {self._who()}{told}",
                code="oci-not-allowed",
                address=where,
                host=self.address.host,
            )
        if response.status == 407:
            return StoreError(
                f"{where}: the proxy before its registry wants another login; it is written into the "
                "proxy's address, http://USER:PASSWORD@HOST",
                code="oci-proxy",
                address=where,
            )
        wait = retry_after(response)
        later = "" if wait is None else f". It wants to be asked again in {wait:,.0f} seconds"
        return StoreError(
            f"{where}: its registry answered with status {response.status}{told}{later}",
            code="oci-refused",
            address=where,
        )

    def _who(self) -> str:
        logged_in = self._authorization.logged_in
        return "this login" if logged_in else "somebody who is not logged in"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn urllib3's errors into ours, in this one place.

        Raises:
            StoreUnreachableError: instead of theirs.
        """
        from urllib3.exceptions import HTTPError, ProxyError, SSLError

        try:
            yield
        except HTTPError as error:
            way = ""
            cause: BaseException = error
            if isinstance(error, ProxyError):
                way, cause = " through the proxy", error.original_error
            mend = "Check the address and the network."
            if isinstance(cause, SSLError) and not self.address.plain_http:
                mend = "If it speaks HTTP without TLS, write ?plain_http=true after its address."
            raise StoreUnreachableError(
                f"{self.address}: its registry cannot be reached{way}: {first_line(cause)}. {mend}",
                store=str(self.address),
            ) from error


def _told(data: bytes) -> str:
    """What a registry says of an error, for people."""
    try:
        errors = json.loads(data)["errors"]
        texts = [f"{one['code']}: {one['message']}" for one in errors]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" ({first_line(Exception('; '.join(texts)))})" if texts else ""
