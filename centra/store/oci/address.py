"""Addresses of artifacts in OCI registries: ``oci://HOST/REPOSITORY:TAG``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs

from centra.errors import UsageError
from centra.system.redaction import redacted

__all__ = ["OciAddress", "is_oci"]

_SCHEME = "oci://"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_ADDRESS = re.compile(
    r"(?P<host>(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?)"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@sha256:(?P<digest>[0-9a-f]{64}))?",
    re.IGNORECASE,
)
_THIS_MACHINE = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")
_DOCKER_HUB = ("docker.io", "index.docker.io")
_YES, _NO = "true", "false"


def is_oci(address: str) -> bool:
    """Whether an address leads to an OCI registry."""
    return address[: len(_SCHEME)].lower() == _SCHEME


@dataclass(frozen=True, kw_only=True)
class OciAddress:
    """Where an artifact is, or is to be."""

    host: str
    """With its port, where one is named."""
    repository: str
    tag: str | None
    digest: str | None
    """Of the artifact's manifest, in hexadecimal; where it is named, the tag says nothing."""
    plain_http: bool
    """Whether the registry speaks HTTP without TLS."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address; without tag and digest it means the tag ``latest``.

        Args:
            url: ``oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]``. A registry of this machine is
                asked without TLS, any other with it; ``?plain_http=true`` or ``false`` says otherwise.

        Raises:
            UsageError: it is malformed, or has options that mean nothing.
        """
        place, _, query = url[len(_SCHEME) :].partition("?")
        found = _ADDRESS.fullmatch(place)
        if not is_oci(url) or found is None or found["repository"] != found["repository"].lower():
            raise UsageError(
                f"{redacted(url, url)!r}: expected oci://HOST/REPOSITORY:TAG or "
                "oci://HOST/REPOSITORY@sha256:DIGEST, the repository in lower case",
                code="oci-address",
                address=redacted(url, url),
            )
        options = {key: values[-1] for key, values in parse_qs(query).items()}
        plain = options.pop("plain_http", None)
        if options or (query and plain not in (_YES, _NO)):
            raise UsageError(
                f"{redacted(url, url)!r}: after ? expected plain_http=true or plain_http=false",
                code="oci-address",
                address=redacted(url, url),
            )
        digest = found["digest"]
        return cls(
            host=found["host"].lower(),
            repository=found["repository"],
            tag=found["tag"] or (None if digest else "latest"),
            digest=digest and digest.lower(),
            plain_http=bool(_THIS_MACHINE.fullmatch(found["host"]))
            if plain is None
            else plain == _YES,
        )

    @property
    def reference(self) -> str:
        """What a registry calls the artifact: a digest, or a tag."""
        return f"sha256:{self.digest}" if self.digest else str(self.tag)

    @property
    def api(self) -> str:
        """Where the registry answers for the repository; Docker Hub's is not where its name says."""
        scheme = "http" if self.plain_http else "https"
        if self.host in _DOCKER_HUB:
            name = self.repository if "/" in self.repository else f"library/{self.repository}"
            return f"{scheme}://registry-1.docker.io/v2/{name}"
        return f"{scheme}://{self.host}/v2/{self.repository}"

    @property
    def login_names(self) -> tuple[str, ...]:
        """Under which names a login to the registry may be kept."""
        if self.host in _DOCKER_HUB:
            return "https://index.docker.io/v1/", *_DOCKER_HUB
        return self.host, f"https://{self.host}", f"http://{self.host}"

    def __str__(self) -> str:
        """The address without options."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@sha256:{self.digest}" if self.digest else ""
        return f"{_SCHEME}{self.host}/{self.repository}{tag}{digest}"
