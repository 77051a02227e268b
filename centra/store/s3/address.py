"""Addresses of S3 stores: ``s3://BUCKET/PREFIX?OPTION=VALUE&…``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import parse_qs

from centra.errors import UsageError
from centra.system.redaction import redacted

__all__ = ["S3Address"]

_STYLES: dict[str, Literal["path", "virtual"]] = {"path": "path", "virtual": "virtual"}


@dataclass(frozen=True, kw_only=True)
class S3Address:
    """Where an S3 store is; credentials, and what is None here, come from the AWS settings."""

    redacted: str
    """The address for people, without its secrets."""
    bucket: str
    prefix: str
    """Without slashes around it; empty for none."""
    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: Literal["path", "virtual"] | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address.

        Raises:
            UsageError: it has no bucket, or options that mean nothing.
        """
        shown = redacted(url, url)
        # By hand: to a parser of URLs, # and line breaks in a prefix are special, too.
        place, _, query = url[len("s3://") :].partition("?")
        bucket, _, prefix = place.partition("/")
        options = {
            key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()
        }
        unknown = options.keys() - {"endpoint_url", "region", "addressing_style"}
        style = options.get("addressing_style", "path")
        valid = not unknown and all(options.values()) and style in _STYLES
        if not bucket or "@" in bucket or not valid or bool(query) != bool(options):
            raise UsageError(
                f"store {shown!r}: expected s3://BUCKET/PREFIX, optionally with "
                "?endpoint_url=, ?region=, ?addressing_style=path|virtual; credentials come from "
                "the AWS settings, and a prefix cannot hold a question mark",
                code="invalid-store-address",
                address=shown,
            )
        return cls(
            redacted=shown,
            bucket=bucket,
            prefix=prefix.strip("/"),
            endpoint_url=options.get("endpoint_url"),
            region=options.get("region"),
            addressing_style=_STYLES[style] if "addressing_style" in options else None,
        )

    def key(self, path: str) -> str:
        """The key of what lies at a path of the store."""
        return f"{self.prefix}/{path}" if self.prefix else path
