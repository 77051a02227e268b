"""From labelled examples to what a kind of task learns: labels, target arrays, loss, dev metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch.nn import functional

from centra.errors import DataError
from centra.kinds.decoding import decode
from centra.releases.evaluation import tagging_metrics
from centra.training import metrics

if TYPE_CHECKING:
    import torch

    from centra.data.inputs import Example
    from centra.formats.task_module import TaskSpec
    from centra.kinds.chain import Chain
    from centra.modeling.crf import LinearChain
    from centra.tokenization.text_encoder import Row
    from centra.training.task_data import Split

__all__ = ["IGNORED", "dev_metrics", "gather_words", "loss", "target"]

IGNORED = -100
"""The target of tokens that carry no tag."""


def target(spec: TaskSpec, example: Example, row: Row) -> np.ndarray:
    """What the head should say for one example.

    Returns:
        A label index ``()``, 0/1 per label ``(labels,)``, a value ``()``, or per token ``(seq,)``
        the index of its word's tag, :data:`IGNORED` for all but each word's first token; see
        :meth:`centra.data.inputs.Example.tagged_words`.

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
    for tag in _labels(example):
        _index(spec, tag, example)
    words = example.tagged_words(spec.head.words)
    tags = np.full(len(row.input_ids), IGNORED)
    # Words that share their first token are one, and the first has its tag: the others come first.
    first = row.first_tokens([span for span, _ in words])
    for token, (_, tag) in reversed([*zip(first, words, strict=True)]):
        # A label set may have no I-x for a word that goes on with its token's B-x.
        if token >= 0 and tag in spec.labels:
            tags[token] = spec.labels.index(tag)
    return tags


def gather_words(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take the words out of a tagging batch: the tokens whose target is not :data:`IGNORED`.

    Args:
        logits: ``(batch, seq, labels)``.
        targets: ``(batch, seq)``.

    Returns:
        Emissions ``(batch, words, labels)``, tags ``(batch, words)`` and a mask ``(batch, words)``
        of booleans, as :class:`centra.modeling.crf.LinearChain` takes them: right-padded (with zeros) to the
        longest row, and to one word where no row has any.
    """
    known = targets != IGNORED
    counts = known.sum(dim=1, keepdim=True)
    width = max(int(counts.max()), 1)
    places = (~known).to(dtype=counts.dtype).argsort(dim=1, stable=True)[:, :width]
    mask = known.gather(1, places)
    emissions = logits.take_along_dim(places[..., None], dim=1)
    return emissions.where(mask[..., None], 0.0), targets.gather(1, places).where(mask, 0), mask


def loss(
    spec: TaskSpec,
    logits: torch.Tensor,
    targets: torch.Tensor,
    chain: LinearChain | None = None,
) -> torch.Tensor:
    """The training loss of a batch, in float32.

    Args:
        spec: for the kind.
        logits: ``(batch, outputs)``, or ``(batch, seq, outputs)`` for tagging.
        targets: as :func:`target`, stacked; tagging padded with :data:`IGNORED`.
        chain: the CRF of a tagging head that has one. Its loss is per word, as the cross-entropy
            without it is, so that the gradients of the logits are of one size.
    """
    logits = logits.float()
    match spec.kind:
        case "classification":
            return functional.cross_entropy(logits, targets)
        case "multilabel":
            return functional.binary_cross_entropy_with_logits(logits, targets)
        case "regression":
            return functional.mse_loss(logits[:, 0], targets)
    if chain is not None:
        emissions, tags, mask = gather_words(logits, targets)
        total = chain.log_likelihood(emissions, tags, mask).sum()
        return -total / mask.sum().clamp(min=1)
    # A batch may be without any word: a mean over none is not a number.
    total = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / (targets != IGNORED).sum().clamp(min=1)


def dev_metrics(
    spec: TaskSpec, logits: np.ndarray, split: Split, chain: Chain | None = None
) -> dict[str, float]:
    """All metrics of the task's kind on the dev set.

    Args:
        spec: kind, labels and head.
        logits: ``(examples, outputs)``, or ``(examples, seq, outputs)`` for tagging, in the order
            of the examples.
        split: the dev set.
        chain: what decodes, for a tagging head with a CRF; see
            :meth:`centra.modeling.crf.LinearChain.numpy`.

    Returns:
        As :func:`centra.releases.evaluation.measure` of a release gives them: of tagging, the metrics of
        what callers get who send the texts. What truncation cuts off counts as missed.
    """
    if spec.kind == "tagging":
        given = [example.input for example in split.examples]
        texts = [replace(item, tokens=None) for item in given]
        return tagging_metrics(
            decode(spec, logits, texts, split.rows, chain),
            decode(spec, logits, given, split.rows, chain),
            split.examples,
        )
    expected = np.stack(split.targets)
    match spec.kind:
        case "classification":
            return metrics.classification(logits.argmax(axis=-1), expected)
        case "multilabel":
            cut = np.log(spec.head.threshold / (1 - spec.head.threshold))
            return metrics.multilabel(logits >= cut, expected)
    return metrics.regression(logits[:, 0], expected)


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
