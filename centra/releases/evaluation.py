"""Measuring a loaded release on labelled data, by the answers that a caller gets.

A caller of a tagging task sends texts, so its answers are those to the texts of the examples, and a
span counts where it begins and ends at the right characters. Examples are tagged token by token; if
the score on their tokens is another one, it is given beside that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from centra.data.tags import bio_labels
from centra.errors import DataError
from centra.kinds.decoding import tagged_spans
from centra.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data.inputs import Example
    from centra.formats.manifest import TaskEntry
    from centra.runtime import Release

__all__ = ["answers", "measure", "score", "tagging_metrics"]

_STEP = 256
"""Examples between two reports of progress."""
_SHOWN = 10
"""So many labels are named."""


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
        All metrics of the kind, as :mod:`centra.training.metrics` names them.

    Raises:
        NotFoundError: the release does not hold the task.
        DataError: an example of another kind or input, or a label that the task does not know.
    """
    found = answers(release, task, examples, progress)
    entry = release.manifest.tasks[task]
    if entry.kind != "tagging":
        return score(entry, found, examples)
    _check_tags(entry, examples)
    on_tokens = answers(release, task, examples, progress, tokens=True)
    return tagging_metrics(found, on_tokens, examples)


def answers(
    release: Release,
    task: str,
    examples: Sequence[Example],
    progress: Progress = silent,
    *,
    tokens: bool = False,
) -> list[dict[str, Any]]:
    """What a task answers to the text of each example; see :func:`measure`.

    Args:
        release, task, examples, progress: as for :func:`measure`.
        tokens: answer its tokens instead.

    Raises:
        NotFoundError: the release does not hold the task.
        DataError: an example of another input.
    """
    inputs = [e.input if tokens else replace(e.input, tokens=None) for e in examples]
    found: list[dict[str, Any]] = []
    for start in range(0, len(inputs), _STEP):
        found += [a[task] for a in release.predict(inputs[start : start + _STEP], [task])]
        progress(f"measure {task}", len(found), len(inputs))
    return found


def score(
    entry: TaskEntry, answers: Sequence[dict[str, Any]], examples: Sequence[Example]
) -> dict[str, float]:
    """The metrics of a task's answers to the texts of labelled examples; see :func:`measure`.

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
    _check_tags(entry, examples)
    return _entity_f1(answers, examples)


def tagging_metrics(
    on_texts: Sequence[dict[str, Any]],
    on_tokens: Sequence[dict[str, Any]],
    examples: Sequence[Example],
) -> dict[str, float]:
    """The metrics of a tagging task.

    Args:
        on_texts: its answers to the texts of the examples.
        on_tokens: its answers to their tokens.
        examples: with a tag per token.

    Returns:
        ``entity_f1`` of the answers to texts, and ``entity_f1_on_tokens`` where that is another.
    """
    from centra.training.metrics import ON_TOKENS

    found = _entity_f1(on_texts, examples)
    given = _entity_f1(on_tokens, examples, tokens=True)["entity_f1"]
    return found if given == found["entity_f1"] else found | {ON_TOKENS: given}


def _entity_f1(
    answers: Sequence[dict[str, Any]], examples: Sequence[Example], *, tokens: bool = False
) -> dict[str, float]:
    """The score of spans by their first and last characters, or tokens."""
    from centra.training import metrics

    predicted, expected = [], []
    for answer, example in zip(answers, examples, strict=True):
        assert isinstance(example.label, tuple)
        gold, places = tagged_spans(example.label), example.input.token_spans
        if not tokens:
            gold = [(label, places[a][0], places[b - 1][1]) for label, a, b in gold]
        length = len(places) if tokens else len(example.input.text)
        spans = [(span["label"], span["start"], span["end"]) for span in answer["spans"]]
        predicted.append(_as_tags(spans, length))
        expected.append(_as_tags(gold, length))
    return metrics.tagging(predicted, expected)


def _check_tags(entry: TaskEntry, examples: Sequence[Example]) -> None:
    # A type that is known has all its tags, whichever of them the head tells apart.
    index = {tag: i for i, tag in enumerate(bio_labels(entry.labels))}
    for example in examples:
        _known(example, index, example.label)


def _known(example: Example, index: dict[str, int], labels: object) -> list[int]:
    """The indices of an example's labels."""
    if not isinstance(labels, tuple) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{example.where}: its label is of another kind than the task's")
    unknown = [label for label in labels if label not in index]
    if unknown:
        known = ", ".join(repr(label) for label in [*index][:_SHOWN])
        more = ", …" if len(index) > _SHOWN else ""
        raise DataError(
            f"{example.where}: the task has no label {unknown[0]!r}; it has {known}{more}"
        )
    return [index[label] for label in labels]


def _number(example: Example) -> float:
    if not isinstance(example.label, float | int):
        raise DataError(f"{example.where}: expected 'label' to be a number")
    return float(example.label)


def _as_tags(spans: Sequence[tuple[str, int, int]], length: int) -> list[str]:
    tags = ["O"] * length
    for label, first, end in spans:
        tags[first:end] = [f"B-{label}", *[f"I-{label}"] * (end - first - 1)]
    return tags
