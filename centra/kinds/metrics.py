"""Metrics of answers, all better when higher, in numpy: whoever measures a release needs no more.

Where a metric is not defined, as of answers that are all the same, it is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "accuracy",
    "counted_f1",
    "macro_f1",
    "matthews",
    "multilabel_f1",
    "pearson",
    "span_counts",
    "spearman",
]


def accuracy(predicted: np.ndarray, expected: np.ndarray) -> float:
    """The share of equal label indices ``(examples,)``."""
    return float((predicted == expected).mean())


def macro_f1(predicted: np.ndarray, expected: np.ndarray) -> float:
    """The mean F1 of all labels that occur on either side; ``(examples,)`` each.

    A negative index, an answer without a label, is no label.
    """
    right, answered, wanted = _counts(predicted, expected)
    total = answered + wanted
    return float((2 * right[total > 0] / total[total > 0]).mean())


def matthews(predicted: np.ndarray, expected: np.ndarray) -> float:
    """The Matthews correlation of label indices ``(examples,)``, of any number of labels.

    As Gorodkin (2004) has it for more than two.
    """
    # From 0 on, for an answer without a label is one of its own here.
    least = int(min(predicted.min(), expected.min()))
    right, answered, wanted = _counts(predicted - least, expected - least)
    total = float(len(predicted))
    covariance = right.sum() * total - wanted @ answered
    spread = (total**2 - answered @ answered) * (total**2 - wanted @ wanted)
    return float(covariance / np.sqrt(spread)) if spread else 0.0


def multilabel_f1(predicted: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Micro and macro F1 of booleans ``(examples, labels)``; a label that is nowhere has 0."""
    return {
        "micro_f1": float(_f1(predicted.ravel(), expected.ravel())),
        "macro_f1": float(_f1(predicted, expected).mean()),
    }


def pearson(predicted: np.ndarray, expected: np.ndarray) -> float:
    """The Pearson correlation of values ``(examples,)``."""
    first, second = (np.asarray(values, dtype=np.float64) for values in (predicted, expected))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return 0.0
    if len(first) < 2 or (first == first[0]).all() or (second == second[0]).all():
        return 0.0
    with np.errstate(all="ignore"):
        first, second = (_unit_length(values - values.mean()) for values in (first, second))
        found = float(np.clip(first @ second, -1.0, 1.0))
    return 0.0 if np.isnan(found) else found


def spearman(predicted: np.ndarray, expected: np.ndarray) -> float:
    """The Spearman correlation of values ``(examples,)``: Pearson's of their ranks."""
    if np.isnan(predicted).any() or np.isnan(expected).any():
        return 0.0
    return pearson(_ranks(predicted), _ranks(expected))


def span_counts(
    predicted: Sequence[Sequence[tuple[str, int, int]]],
    expected: Sequence[Sequence[tuple[str, int, int]]],
) -> np.ndarray:
    """How many spans of each text are right, answered and wanted, ``(texts, 3)``.

    A span is a label with its first place and the one after its last.
    """
    pairs = [({*answers}, {*wanted}) for answers, wanted in zip(predicted, expected, strict=True)]
    counts = [(len(answers & wanted), len(answers), len(wanted)) for answers, wanted in pairs]
    return np.array(counts, dtype=np.int64).reshape(-1, 3)


def counted_f1(counts: np.ndarray) -> float:
    """The F1 of all spans by :func:`span_counts`."""
    right, answered, wanted = (int(count) for count in counts.sum(axis=0, dtype=np.int64))
    return 2 * right / (answered + wanted) if answered + wanted else 0.0


def _counts(
    predicted: np.ndarray, expected: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each label from 0 on is right, answered and wanted."""
    most = int(max(predicted.max(), expected.max())) + 1
    right, answered, wanted = (
        np.bincount(places[places >= 0], minlength=most).astype(np.float64)
        for places in (predicted[predicted == expected], predicted, expected)
    )
    return right, answered, wanted


def _f1(answered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """F1 over the first axis of booleans; 0 where nothing was answered and nothing wanted."""
    right = (answered & wanted).sum(axis=0)
    total = answered.sum(axis=0) + wanted.sum(axis=0)
    score: np.ndarray = 2 * right / np.maximum(total, 1)
    return score


def _unit_length(values: np.ndarray) -> np.ndarray:
    # By the largest first: the squares of very large or small values leave the range of floats.
    scaled = values / np.abs(values).max()
    unit: np.ndarray = scaled / np.linalg.norm(scaled)
    return unit


def _ranks(values: np.ndarray) -> np.ndarray:
    """The places of values in their order from 1, of equals the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks
