"""JSON documents with a format name and version, written canonically.

Canonical means: sorted keys, no white space, UTF-8 as it is, finite numbers. The same content gives
the same bytes and so the same digest on every machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, ValidationError

from centra.errors import FormatError, UnsupportedFormatError
from centra.formats.identities import Digest
from centra.formats.strict_json import LARGEST, parse_document
from centra.formats.validation import explain

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Count",
    "DigestField",
    "Document",
    "FormattedDocument",
    "Text",
    "canonical_json",
    "sha256",
]

DigestField = Annotated[Digest, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A digest in a document."""

Count = Annotated[int, Field(ge=0)]
"""A number of something."""

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""A text that databases can hold and search: one without NUL."""

_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")


def sha256(data: bytes) -> Digest:
    """The SHA-256 digest of some bytes, in hexadecimal."""
    return Digest(hashlib.sha256(data).hexdigest())


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

        Raises:
            FormatError: it is longer than any that is read.
        """
        if self._read:
            return self._read
        data = canonical_json(
            {
                "format": self.FORMAT,
                "format_version": f"{self.MAJOR}.{self.MINOR}",
                **self.model_dump(mode="json"),
            }
        )
        if len(data) > LARGEST:
            raise FormatError(
                f"a {self.FORMAT} document would have {len(data):,} bytes; at most {LARGEST:,} are "
                "read"
            )
        return data

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields replaced, which is then no longer the document that was read."""
        copy = super().model_copy(update=update, deep=deep)
        copy._read = None if update else self._read  # noqa: SLF001 - its own class
        return copy

    @property
    def digest(self) -> Digest:
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
            fields = parse_document(data)
        except ValueError as error:
            raise FormatError(f"{where}: not a JSON document ({error})") from error
        if not isinstance(fields, dict) or fields.get("format") != cls.FORMAT:
            found = fields.get("format") if isinstance(fields, dict) else type(fields).__name__
            raise FormatError(f"{where}: expected a {cls.FORMAT} document, found {found!r:.60}")
        newer = cls._check_version(fields.get("format_version"), where)
        content = {k: v for k, v in fields.items() if k not in ("format", "format_version")}
        try:
            # As JSON: there a list is a tuple, but "1", true and 1.0 are no whole numbers.
            document = cls.model_validate_json(
                canonical_json(content), strict=True, extra="ignore" if newer else "forbid"
            )
        except ValidationError as error:
            raise FormatError(f"{where}: {explain(error, cls)[0]}") from error
        document._read = data  # noqa: SLF001 - its own class
        return document

    @classmethod
    def _check_version(cls, version: object, where: str) -> bool:
        """Whether a version is a newer minor of the supported major."""
        found = _VERSION.fullmatch(version) if isinstance(version, str) else None
        if found is None or int(found[1]) != cls.MAJOR:
            raise UnsupportedFormatError(
                where,
                found=f"{cls.FORMAT} {str(version)[:20]}",
                supported=f"{cls.FORMAT} {cls.MAJOR}.x",
            )
        return int(found[2]) > cls.MINOR
