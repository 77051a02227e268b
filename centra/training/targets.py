"""From labelled examples to what a kind of task learns: labels, target arrays, loss, dev metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from torch.nn import functional

from centra.errors import DataError
from centra.training import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from centra.data import Example, Row
    from centra.task_module import Kind, TaskSpec

__all__ = ["IGNORED", "dev_metrics", "infer_contract", "loss", "target"]

IGNORED = -100
"""The target of tokens that carry no tag."""


def infer_contract(
    examples: Sequence[Example],
) -> tuple[Kind, Literal["single", "pair"], tuple[str, ...]]:
    """Kind, input and labels of a task, read off its training examples.

    Labels are sorted, so that two runs on the same label set agree in their order.

    Raises:
        DataError: examples of different kinds or forms are mixed; the first odd one is named.
    """
    kind, form = _kind(examples[0]), _form(examples[0])
    for example in examples:
        if (_kind(example), _form(example)) != (kind, form):
            raise DataError(
                f"{example.where}: a {_kind(example)} example with a {_form(example)} input; "
                f"{examples[0].where} is {kind} with a {form} input, and a task takes one kind"
            )
    if kind == "regression":
        return kind, form, ()
    if kind == "classification":
        return kind, form, tuple(sorted({str(example.label) for example in examples}))
    found = {label for example in examples for label in _labels(example)}
    if kind == "multilabel":
        return kind, form, tuple(sorted(found))
    for example in examples:
        for tag in _labels(example):
            if tag != "O" and (tag[:2] not in ("B-", "I-") or not tag[2:]):
                raise DataError(f"{example.where}: {tag!r} is not a BIO tag (O, B-x or I-x)")
    types = sorted({tag[2:] for tag in found - {"O"}})
    return kind, form, ("O", *(f"{mark}-{label}" for label in types for mark in "BI"))


def target(spec: TaskSpec, example: Example, row: Row) -> np.ndarray:
    """What the head should say for one example.

    Returns:
        A label index ``()``, 0/1 per label ``(labels,)``, a value ``()``, or per token ``(seq,)``
        the index of its word's tag, :data:`IGNORED` for all but each word's first token.

    Raises:
        DataError: a label that the task does not know, i.e. that is not in the training data.
    """
    match spec.kind:
        case "classification":
            return np.array(_index(spec, str(example.label), example))
        case "multilabel":
            values = np.zeros(len(spec.labels), dtype=np.float32)
            values[[_index(spec, label, example) for label in _labels(example)]] = 1.0
            return values
        case "regression":
            return np.array(example.label, dtype=np.float32)
    tags = np.full(len(row.input_ids), IGNORED)
    first = row.first_tokens(example.input.words)
    for token, tag in zip(first, _labels(example), strict=True):
        index = _index(spec, tag, example)
        if token >= 0:
            tags[token] = index
    return tags


def loss(kind: Kind, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The training loss of a batch, in float32.

    Args:
        kind: the task's kind.
        logits: ``(batch, outputs)``, or ``(batch, seq, outputs)`` for tagging.
        targets: as :func:`target`, stacked; tagging padded with :data:`IGNORED`.
    """
    logits = logits.float()
    match kind:
        case "classification":
            return functional.cross_entropy(logits, targets)
        case "multilabel":
            return functional.binary_cross_entropy_with_logits(logits, targets)
        case "regression":
            return functional.mse_loss(logits[:, 0], targets)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def dev_metrics(spec: TaskSpec, logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """All metrics of the task's kind on the dev set.

    Args:
        spec: kind, labels and threshold.
        logits: ``(examples, outputs)``, or ``(examples, seq, outputs)`` for tagging.
        targets: as :func:`target`, stacked.
    """
    match spec.kind:
        case "classification":
            return metrics.classification(logits.argmax(axis=-1), targets)
        case "multilabel":
            cut = np.log(spec.head.threshold / (1 - spec.head.threshold))
            return metrics.multilabel(logits >= cut, targets)
        case "regression":
            return metrics.regression(logits[:, 0], targets)
    known = targets != IGNORED
    names = np.array(spec.labels, dtype=object)
    best = names[logits.argmax(axis=-1)]
    return metrics.tagging(
        [[*row[mask]] for row, mask in zip(best, known, strict=True)],
        [[*names[row[mask]]] for row, mask in zip(targets, known, strict=True)],
    )


def _kind(example: Example) -> Kind:
    if isinstance(example.label, str):
        return "classification"
    if isinstance(example.label, float):
        return "regression"
    return "multilabel" if example.input.tokens is None else "tagging"


def _form(example: Example) -> Literal["single", "pair"]:
    return "single" if example.input.text_pair is None else "pair"


def _labels(example: Example) -> tuple[str, ...]:
    if not isinstance(example.label, tuple):
        raise DataError(f"{example.where}: expected 'labels', a list of strings")
    return example.label


def _index(spec: TaskSpec, label: str, example: Example) -> int:
    if label not in spec.labels:
        raise DataError(
            f"{example.where}: label {label!r} does not occur in the training data; "
            f"known are {', '.join(spec.labels[:10])}{' …' if len(spec.labels) > 10 else ''}"
        )
    return spec.labels.index(label)
