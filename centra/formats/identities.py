"""What things are called by: text and numbers that have been checked, each with a type of its own.

Where a value has one of these types, nobody checks it again. Only what has looked at the value makes
one: the functions that hash bytes, those of :mod:`centra.formats.names`, and a document's own checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NewType, Self, TypeGuard

from centra.errors import InvalidNameError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Digest", "Name", "ReleaseNumber", "TaskName", "VersionNumber", "is_digest"]

Digest = NewType("Digest", str)
"""A SHA-256 digest as 64 lower-case hexadecimal digits."""

Name = NewType("Name", str)
"""A name that is safe in a path, a URL and a shell."""

TaskName = NewType("TaskName", Name)
"""The name of a task."""

ReleaseNumber = NewType("ReleaseNumber", int)
"""The number of a release, from 1."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True, order=True, slots=True)
class VersionNumber:
    """The number of a task's version, ``2.1``; ordered as numbers are.

    In JSON, and wherever pydantic reads or writes it, it is the text.
    """

    major: int
    """Grows when the task is redefined; from 1."""
    minor: int
    """Grows when it is updated; from 0."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"2.1"``.

        Raises:
            InvalidNameError: the text is not two whole numbers with a dot between them.
        """
        match = _VERSION.fullmatch(text)
        if match is None:
            raise InvalidNameError("version", text, "MAJOR.MINOR, for example 2.1")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema

        text = core_schema.no_info_after_validator_function(
            _parse_for_pydantic, core_schema.str_schema()
        )
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=core_schema.to_string_ser_schema(),
        )


def is_digest(text: str) -> TypeGuard[Digest]:
    """Whether a text is a digest."""
    return _DIGEST.fullmatch(text) is not None


def _parse_for_pydantic(text: str) -> VersionNumber:
    try:
        return VersionNumber.parse(text)
    except InvalidNameError as error:
        raise ValueError(str(error)) from error
