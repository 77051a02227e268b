"""Files of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, schema

if TYPE_CHECKING:
    from centra import scoring

__all__ = ["ScoredFile"]


class ScoredFile(Document):
    """A file of answers to a file of inputs."""

    schema_: str = schema("scored-file")
    input: str
    """The file of inputs: its path, or its address in S3."""
    output: str
    """The file of answers, likewise."""
    digest: str
    """Of the file of answers."""
    size: int
    rows: int
    failed: int
    """Rows that have an error instead of answers."""
    truncated: int
    """Rows of which a task did not read all."""
    resumed: int
    """Rows that earlier runs of the command had answered."""
    changed: bool
    seconds: float
    """What this run took."""

    @classmethod
    def of(cls, scored: scoring.ScoredFile) -> ScoredFile:
        """The document of a file that is done."""
        return cls(
            input=scored.input,
            output=scored.output,
            digest=scored.digest,
            size=scored.size,
            rows=scored.rows,
            failed=scored.failed,
            truncated=scored.truncated,
            resumed=scored.resumed,
            changed=scored.changed,
            seconds=scored.seconds,
        )
