"""The metric that a training selects by, and all metrics on the dev set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.kinds import kind_named

if TYPE_CHECKING:
    import numpy as np

    from centra.formats.task_module import TaskSpec
    from centra.kinds.chain import Chain
    from centra.training.task_data import Split

__all__ = ["AGREEMENT", "check_metric", "dev_metrics"]

AGREEMENT = "agreement_"
"""Begins the names of metrics against a teacher's answers: ``agreement_accuracy``."""


def check_metric(kind: str, metric: str | None, *, agreement: bool = False) -> str:
    """The metric to select by; None for the kind's first.

    Args:
        kind: the task's.
        metric: its name.
        agreement: whether the dev set's labels are a teacher's answers, which the name then tells.

    Raises:
        UsageError: the kind has no such metric.
    """
    known = kind_named(kind).metrics
    prefix = AGREEMENT if agreement else ""
    if metric is None:
        return prefix + known[0]
    if metric not in known:
        raise UsageError(
            f"a {kind} task has no metric {metric!r}; expected one of {', '.join(known)}",
            code="unknown-metric",
            metric=metric,
            known=list(known),
        )
    return prefix + metric


def dev_metrics(
    spec: TaskSpec, logits: np.ndarray, split: Split, chain: Chain | None = None
) -> dict[str, float]:
    """All metrics of a task on the dev set.

    Args:
        spec: kind, labels, head and decision.
        logits: ``(examples, outputs)``, or ``(examples, seq, outputs)``, in the order of the
            examples.
        split: the dev set.
        chain: what decodes, for a head with a CRF; see
            :meth:`centra.modeling.crf.LinearChain.numpy`.

    Returns:
        As :func:`centra.releases.evaluation.measure` of a release gives them: the metrics of what
        callers get who send the texts. What truncation cuts off counts as missed. Where the labels
        are a teacher's answers, their names say so: :data:`AGREEMENT`.
    """
    kind = kind_named(spec.kind)
    given = [example.input for example in split.examples]
    texts = [replace(item, tokens=None) for item in given]
    to_texts = kind.decode(spec, logits, texts, split.rows, chain)
    to_tokens = None
    if kind.reads_every_token:
        to_tokens = kind.decode(spec, logits, given, split.rows, chain)
    found = kind.score(spec.labels, to_texts, split.examples, to_tokens)
    if split.agreement:
        return {f"{AGREEMENT}{name}": value for name, value in found.items()}
    return found
