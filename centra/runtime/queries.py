"""What a release is asked, and what it answers: the records of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.data.inputs import Input
    from centra.tokenization.text_encoder import Reading, Row

__all__ = ["EncodedQuery", "Query", "TaskResult"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """One input and what is asked of it, as a caller gives it; nothing is checked yet."""

    input: object
    """As :meth:`centra.data.inputs.Input.parse` takes it."""
    tasks: tuple[str, ...] | None = None
    """The tasks to answer; None for every loaded task that takes such an input."""
    top_k: int | None = None
    """So many best labels besides, of tasks whose kind ranks labels."""
    logits: bool = False
    """Whether the raw logits are given besides."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedQuery:
    """A query that was checked and tokenised, for the loaded release that did so."""

    query: Query
    input: Input
    tasks: tuple[str, ...]
    """The tasks to answer, each once; at least one."""
    rows: Mapping[Reading, Row]
    """The input as its tasks read it; those that read alike share a row."""
    encoded_by: object
    """What the release that encoded it is made of; no other answers it."""

    @property
    def tokens(self) -> int:
        """How many tokens are computed for it, over all ways to read it."""
        return sum(len(row.input_ids) for row in self.rows.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskResult:
    """What one task says to those queries of a batch that ask for it."""

    task: str
    places: tuple[int, ...]
    """The places of these queries in the batch, from 0, ascending."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """One for each place; none where there is an error.

    See :meth:`centra.kinds.base.Kind.decode`. Besides what it gives there is ``"truncated"``,
    ``{"tokens", "kept"}``, where the input is longer than the backbone reads; ``"top"``, a list of
    ``{"label", "score"}``, the best first, where the query has ``top_k`` and the kind ranks labels;
    and ``"logits"``, ``[outputs]``, or for tagging ``[tokens][outputs]``, where it asks for them.
    """
    error: Exception | None = None
    """Why the task has no answers; other tasks have theirs all the same."""
    trunk_seconds: float
    """From the batch's start until the hidden states that the task reads were there."""
    branch_seconds: float
    """From then until the answers were there. Waiting for a thread counts."""
