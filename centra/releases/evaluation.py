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

    from centra.data.inputs import Example
    from centra.runtime import Release

__all__ = ["Answers", "answers", "answers_of", "measure"]

_STEP = 256
"""Examples between two reports of progress."""


def measure(
    release: Release, task: str, examples: Sequence[Example], progress: Progress = silent
) -> dict[str, float]:
    """The metrics of a task on labelled examples.

    Args:
        release: loaded, with this task.
        task: the task's name.
        examples: of the task's kind and input; see :func:`centra.data.labelling.read_for`.
        progress: told of every few hundred examples.

    Returns:
        All metrics of the kind; see :meth:`centra.kinds.base.Kind.score`.

    Raises:
        NotFoundError: the release does not hold the task.
        DataError: an example of another kind or input, or a label that the task does not know.
    """
    entry = release.manifest.tasks[task]
    given = answers_of(release, task, examples, progress)
    return kind_named(entry.kind).score(entry.labels, given.to_texts, examples, given.to_tokens)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a task answers to examples, in their order."""

    to_texts: list[dict[str, Any]]
    to_tokens: list[dict[str, Any]] | None
    """None of a kind that does not read every token."""


def answers_of(
    release: Release,
    task: str,
    examples: Sequence[Example],
    progress: Progress = silent,
    *,
    every_label: bool = False,
) -> Answers:
    """What a task answers to examples, as a report takes it; see :func:`measure`.

    Args:
        release, task, examples, progress: as for :func:`measure`.
        every_label: with all labels and their scores, of a kind that ranks labels.

    Raises:
        NotFoundError, DataError: see :func:`measure`.
    """
    entry = release.manifest.tasks[task]
    kind = kind_named(entry.kind)
    top_k = len(entry.labels) if every_label and kind.ranks_labels else None
    to_texts = answers(release, task, examples, progress, top_k=top_k)
    to_tokens = None
    if kind.reads_every_token:
        to_tokens = answers(release, task, examples, progress, tokens=True)
    return Answers(to_texts=to_texts, to_tokens=to_tokens)


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
