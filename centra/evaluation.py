"""Measuring a loaded release on labelled data, by the answers that a caller gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.decoding import tagged_spans
from centra.errors import DataError
from centra.progress import Progress, silent
from centra.tags import bio_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data import Example
    from centra.release import TaskEntry
    from centra.runtime import Release

__all__ = ["answers", "measure", "score", "word_tags"]

_STEP = 256
"""Examples between two reports of progress."""


def measure(
    release: Release, task: str, examples: Sequence[Example], progress: Progress = silent
) -> dict[str, float]:
    """The metrics of a task on labelled examples.

    Args:
        release: loaded, with this task.
        task: the task's name.
        examples: of the task's kind and input; see :func:`centra.labelling.read_for`.
        progress: told of every few hundred examples.

    Returns:
        All metrics of the kind, as :mod:`centra.training.metrics` names them.

    Raises:
        NotFoundError: the release does not hold the task.
        DataError: an example of another kind or input, or a label that the task does not know.
    """
    found = answers(release, task, examples, progress)
    return score(release.manifest.tasks[task], found, examples)


def answers(
    release: Release, task: str, examples: Sequence[Example], progress: Progress = silent
) -> list[dict[str, Any]]:
    """What a task answers to each example; see :func:`measure`.

    Raises:
        NotFoundError: the release does not hold the task.
        DataError: an example of another input.
    """
    found: list[dict[str, Any]] = []
    for start in range(0, len(examples), _STEP):
        part = examples[start : start + _STEP]
        found += [a[task] for a in release.predict([e.input for e in part], [task])]
        progress(f"measure {task}", len(found), len(examples))
    return found


def score(
    entry: TaskEntry, answers: Sequence[dict[str, Any]], examples: Sequence[Example]
) -> dict[str, float]:
    """The metrics of a task's answers to labelled examples; see :func:`measure`.

    Raises:
        DataError: an example of another kind, or a label that the task does not know.
    """
    import numpy as np

    from centra.training import metrics

    index = {label: i for i, label in enumerate(entry.labels)}
    if entry.kind == "regression":
        values = [_number(example) for example in examples]
        return metrics.regression(np.array([a["value"] for a in answers]), np.array(values))
    if entry.kind == "classification":
        expected = [_known(example, index, (example.label,))[0] for example in examples]
        predicted = [index[answer["label"]] for answer in answers]
        return metrics.classification(np.array(predicted), np.array(expected))
    if entry.kind == "multilabel":
        table = np.zeros((2, len(examples), len(index)), dtype=np.int64)
        for i, (example, answer) in enumerate(zip(examples, answers, strict=True)):
            table[0, i, [index[found["label"]] for found in answer["labels"]]] = 1
            table[1, i, _known(example, index, example.label)] = 1
        return metrics.multilabel(*table)
    # A type that is known has all its tags, whichever of them the head tells apart.
    index = {tag: i for i, tag in enumerate(bio_labels(entry.labels))}
    for example in examples:
        _known(example, index, example.label)
    tags = [list(example.label) for example in examples if isinstance(example.label, tuple)]
    return metrics.tagging(
        [word_tags(answer, len(gold)) for answer, gold in zip(answers, tags, strict=True)],
        [_as_tags(tagged_spans(gold), len(gold)) for gold in tags],
    )


def _known(example: Example, index: dict[str, int], labels: object) -> list[int]:
    """The indices of an example's labels."""
    if not isinstance(labels, tuple) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{example.where}: its label is of another kind than the task's")
    unknown = [label for label in labels if label not in index]
    if unknown:
        raise DataError(f"{example.where}: the task has no label {unknown[0]!r}")
    return [index[label] for label in labels]


def _number(example: Example) -> float:
    if not isinstance(example.label, float | int):
        raise DataError(f"{example.where}: expected 'label' to be a number")
    return float(example.label)


def word_tags(answer: dict[str, Any], length: int) -> list[str]:
    """A tagging task's answer as one BIO tag for each of an input's ``length`` words."""
    spans = [(span["label"], *span["words"]) for span in answer["spans"]]
    return _as_tags(spans, length)


def _as_tags(spans: Sequence[tuple[str, int, int]], length: int) -> list[str]:
    tags = ["O"] * length
    for label, first, end in spans:
        tags[first:end] = [f"B-{label}", *[f"I-{label}"] * (end - first - 1)]
    return tags
