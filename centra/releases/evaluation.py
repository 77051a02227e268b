"""Measuring a loaded release on labelled data, by the answers that a caller gets.

A caller sends texts, so its answers are those to the texts of the examples; what they are worth
their kind says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from centra.kinds import kind_named
from centra.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from centra.data.inputs import Example
    from centra.kinds.judgement import Judgement
    from centra.runtime import Release

__all__ = ["Measured", "answers", "measure"]

_STEP = 256
"""Examples between two reports of progress."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a task answers to examples, in their order, and what that is worth."""

    to_texts: list[dict[str, Any]]
    judgements: list[Judgement]
    """Of the answers to texts."""
    outcomes: np.ndarray
    """See :meth:`centra.kinds.base.Kind.outcomes`."""
    metrics: dict[str, float]
    """All of the kind; see :meth:`centra.kinds.base.Kind.metrics_of`."""


def measure(
    release: Release, task: str, examples: Sequence[Example], progress: Progress = silent
) -> Measured:
    """A task's answers to labelled examples, and what they are worth.

    Args:
        release: loaded, with this task.
        task: the task's name.
        examples: of the task's kind and input; see :func:`centra.data.labelling.read_for`.
        progress: told of every few hundred examples.

    Raises:
        NotFoundError: the release does not hold the task.
        DataError: an example of another kind or input, or a label that the task does not know.
    """
    entry = release.manifest.tasks[task]
    kind = kind_named(entry.kind)
    top_k = len(entry.labels) if kind.ranks_labels else None
    to_texts: list[dict[str, Any]] = []
    judgements = []
    for start in range(0, len(examples), _STEP):
        step = examples[start : start + _STEP]
        given = answers(release, task, step, top_k=top_k)
        # First, for it refuses what the judging of single rows takes for granted.
        kind.outcomes(entry.labels, given, step)
        judgements += [kind.judge(*pair) for pair in zip(given, step, strict=True)]
        # All scores of all labels would be too much to keep.
        to_texts += [{key: value for key, value in a.items() if key != "top"} for a in given]
        progress(f"measure {task}", len(to_texts), len(examples))
    to_tokens = None
    if kind.reads_every_token:
        to_tokens = answers(release, task, examples, progress, tokens=True)
    outcomes = kind.outcomes(entry.labels, to_texts, examples, to_tokens)
    return Measured(
        to_texts=to_texts,
        judgements=judgements,
        outcomes=outcomes,
        metrics=kind.metrics_of(entry.labels, outcomes),
    )


def answers(
    release: Release,
    task: str,
    examples: Sequence[Example],
    progress: Progress = silent,
    *,
    tokens: bool = False,
    top_k: int | None = None,
) -> list[dict[str, Any]]:
    """What a task answers to the text of each example; see :func:`measure`.

    Args:
        release, task, examples, progress: as for :func:`measure`.
        tokens: answer its tokens instead.
        top_k: see :meth:`centra.runtime.Release.predict`.

    Raises:
        NotFoundError: the release does not hold the task.
        DataError: an example of another input.
    """
    inputs = [e.input if tokens else replace(e.input, tokens=None) for e in examples]
    found: list[dict[str, Any]] = []
    for start in range(0, len(inputs), _STEP):
        found += [
            a[task] for a in release.predict(inputs[start : start + _STEP], [task], top_k=top_k)
        ]
        progress(f"measure {task}", len(found), len(inputs))
    return found
