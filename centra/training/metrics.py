"""Dev metrics per kind, by scikit-learn, SciPy and seqeval."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

from centra.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = [
    "METRICS",
    "ON_TOKENS",
    "check_metric",
    "classification",
    "multilabel",
    "regression",
    "tagging",
]

METRICS = {
    "classification": ("accuracy", "macro_f1", "matthews"),
    "multilabel": ("micro_f1", "macro_f1"),
    "regression": ("pearson", "spearman"),
    "tagging": ("entity_f1",),
}
"""The metrics of each kind, all better when higher; the first is the default for early stopping."""

ON_TOKENS = "entity_f1_on_tokens"
"""Entity F1 of the answers to given tokens, beside that of the answers to texts where they differ."""


def check_metric(kind: str, metric: str | None) -> str:
    """The metric to select by.

    Raises:
        UsageError: the kind has no such metric.
    """
    if metric is None:
        return METRICS[kind][0]
    if metric not in METRICS[kind]:
        raise UsageError(
            f"a {kind} task has no metric {metric!r}; expected one of {', '.join(METRICS[kind])}"
        )
    return metric


def classification(predicted: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews correlation of label indices ``(examples,)``."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a single label in a small dev set
        return {
            "accuracy": float(accuracy_score(expected, predicted)),
            "macro_f1": float(f1_score(expected, predicted, average="macro", zero_division=0)),
            "matthews": float(matthews_corrcoef(expected, predicted)),
        }


def multilabel(predicted: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Micro and macro F1 of 0/1 arrays ``(examples, labels)``."""
    from sklearn.metrics import f1_score

    if expected.shape[1] == 1:
        # scikit-learn takes a single column for two classes and would count the absent one too.
        only = float(f1_score(expected[:, 0] > 0, predicted[:, 0] > 0, zero_division=0))
        return {"micro_f1": only, "macro_f1": only}
    return {
        f"{average}_f1": float(f1_score(expected, predicted, average=average, zero_division=0))
        for average in ("micro", "macro")
    }


def regression(predicted: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman correlation of values ``(examples,)``; 0 where one side is constant."""
    from scipy.stats import pearsonr, spearmanr

    if len(expected) < 2:
        return {"pearson": 0.0, "spearman": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant predictions, met in the first steps
        found = {
            "pearson": float(pearsonr(predicted, expected).statistic),
            "spearman": float(spearmanr(predicted, expected).statistic),
        }
    return {name: 0.0 if math.isnan(value) else value for name, value in found.items()}


def tagging(
    predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Entity F1 of BIO tags per word, per sentence."""
    from seqeval.metrics import f1_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no entity predicted yet
        return {"entity_f1": float(f1_score([*expected], [*predicted], zero_division=0))}
