"""What all documents have in common: the vocabulary, the schema's name and version, how they are written.

- ``task``, ``channel``: a name. ``backbone``: ``NAME@VERSION``. ``release``: a release's number.
- ``version``: which version of what the document is about: ``MAJOR.MINOR`` of a task, a number of a
  backbone or of the policy.
- ``digest``: the SHA-256 digest, 64 hexadecimal digits, of what the document is about: a version's
  module, a release's manifest, a backbone's description, a file.
- ``created_at``, ``created_by``: when, in UTC, and by whom, ``TEAM/PERSON``, what the document is about
  was made, or done: a version, a release, a measurement, a move of a channel, an event.
  ``updated_at``, ``updated_by``: likewise the last change of what changes, a channel.
- ``from`` and ``to``: what was there before a change, and what is there after it. A pair is
  ``[from, to]``.
- ``changed``: whether a command has changed anything; false where it was so already.
- ``size``: bytes. Times that pass are seconds.
- ``tasks``: per task its version, where nothing else is said.
- ``layers``: the layers that are computed for all tasks together, where nothing else is said.

A field is always there; what is not known, or does not apply, is null. The few that are left out
instead say so.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

if TYPE_CHECKING:
    from centra.formats.manifest import LayerAccount

__all__ = ["SCHEMA_VERSION", "Document", "Layers", "Moment", "from_field", "schema"]

SCHEMA_VERSION = 1
"""Of the whole set. It grows when a field is renamed, leaves or means something else; new fields and new
documents do not change it."""

Moment = Annotated[
    datetime,
    PlainSerializer(datetime.isoformat, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time in UTC, in JSON as ISO 8601."""


class Document(BaseModel):
    """A document, or a part of one."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        defer_build=True,  # Most commands print one of the documents of a module.
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    def to_json(self) -> dict[str, Any]:
        """The document as plain values that JSON can hold."""
        return self.model_dump(mode="json", by_alias=True)


def schema(name: str) -> Any:
    """The field ``schema`` of a whole document: ``centra/NAME/VERSION``."""
    value = f"centra/{name}/{SCHEMA_VERSION}"
    return Field(
        default=value,
        validation_alias="schema",
        serialization_alias="schema",
        pattern=f"^{value}$",
        description=f"What this document is: ``{value}``.",
    )


def from_field() -> Any:
    """The field ``from``, which Python cannot name so."""
    return Field(validation_alias="from", serialization_alias="from")


class Layers(Document):
    """The transformer layers that are computed to answer all tasks: the paper's "Layers" and "Overhead"."""

    shared: int
    """Of the trunk; of both trunks of a release with two backbones, and once for each precision."""
    task: int
    """The tasks' own, all together."""
    total: int
    """``shared`` + ``task``."""
    single_task: int
    """What a full model per task would compute."""
    overhead: float
    """``total`` / ``single_task``."""

    @classmethod
    def of(cls, account: LayerAccount) -> Layers:
        """The document of a layer account."""
        return cls(
            shared=account.shared,
            task=account.task,
            total=account.total,
            single_task=account.single_task,
            overhead=account.overhead,
        )
