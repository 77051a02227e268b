"""What was written in the format of another engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, schema

if TYPE_CHECKING:
    import centra.exports

__all__ = ["EngineExport"]


class EngineExport(Document):
    """A release or a task in the files of another engine."""

    schema_: str = schema("engine-export")
    format: str
    output: str
    """The folder, or the address."""
    precision: str
    """``fp32``, ``fp16`` or ``int8``."""
    release: int | None
    """Null for a task that was exported by itself, and where no registry says it."""
    tasks: dict[str, str | None]
    """Null where nobody says the version."""
    files: dict[str, int]
    """Bytes of each file, by its path."""
    parity: dict[str, float]
    """Per task the largest difference between what the engine made of the task's probe and the logits
    that its module recorded; none of a task that the format does not compute."""
    notes: list[str]
    """What the format could not take over."""

    @classmethod
    def of(cls, export: centra.exports.Export) -> EngineExport:
        """The document of an export."""
        return cls(
            format=export.format,
            output=export.output,
            precision=export.precision,
            release=export.release,
            tasks=export.tasks,
            files=export.files,
            parity=export.parity,
            notes=list(export.notes),
        )
