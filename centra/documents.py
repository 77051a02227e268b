"""JSON documents with a format name and version, written canonically.

Canonical means: sorted keys, no white space, UTF-8 as it is, finite numbers. The same content gives
the same bytes and so the same digest on every machine.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, StringConstraints, ValidationError

from centra.errors import FormatError, UnsupportedFormatError
from centra.validation import explain

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Digest", "Document", "FormattedDocument", "canonical_json", "sha256"]

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest as 64 lower-case hexadecimal digits."""


def sha256(data: bytes) -> str:
    """The SHA-256 digest of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Encode plain values (dicts, lists, strings, finite numbers) as canonical JSON.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


class Document(BaseModel):
    """A part of a document: immutable, with no field that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FormattedDocument(Document):
    """A whole document: ``format`` names what it is, ``format_version`` is ``MAJOR.MINOR``.

    Another major is refused. A newer minor of the same major may add fields; they are ignored.
    """

    FORMAT: ClassVar[str]
    MAJOR: ClassVar[int] = 1
    MINOR: ClassVar[int] = 0

    _read: bytes | None = PrivateAttr(default=None)

    def to_bytes(self) -> bytes:
        """The canonical bytes of this document; of one that was read, the very bytes read.

        So a document written by an older minor version keeps its digest.
        """
        return self._read or canonical_json(
            {
                "format": self.FORMAT,
                "format_version": f"{self.MAJOR}.{self.MINOR}",
                **self.model_dump(mode="json"),
            }
        )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields replaced, which is then no longer the document that was read."""
        copy = super().model_copy(update=update, deep=deep)
        copy._read = None if update else self._read  # noqa: SLF001 - its own class
        return copy

    @property
    def digest(self) -> str:
        """The SHA-256 digest of the canonical bytes."""
        return sha256(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Read a document back.

        Args:
            data: the JSON text in UTF-8.
            where: what to call it in errors, usually its path.

        Raises:
            UnsupportedFormatError: the format is of another major version.
            FormatError: it is not JSON, not this kind of document, or a field is wrong (named).
        """
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{where}: not a JSON document ({error})") from error
        if not isinstance(fields, dict) or fields.get("format") != cls.FORMAT:
            found = fields.get("format") if isinstance(fields, dict) else type(fields).__name__
            raise FormatError(f"{where}: expected a {cls.FORMAT} document, found {found!r}")
        newer = cls._check_version(str(fields.get("format_version")), where)
        content = {k: v for k, v in fields.items() if k not in ("format", "format_version")}
        try:
            document = cls.model_validate(content, extra="ignore" if newer else "forbid")
        except ValidationError as error:
            raise FormatError(f"{where}: {explain(error, cls)[0]}") from error
        document._read = data  # noqa: SLF001 - its own class
        return document

    @classmethod
    def _check_version(cls, version: str, where: str) -> bool:
        """Whether a version is a newer minor of the supported major."""
        major, dot, minor = version.partition(".")
        if not (dot and major.isdecimal() and minor.isdecimal()) or int(major) != cls.MAJOR:
            raise UnsupportedFormatError(
                where,
                found=f"{cls.FORMAT} {version}",
                supported=f"{cls.FORMAT} {cls.MAJOR}.x",
            )
        return int(minor) > cls.MINOR
