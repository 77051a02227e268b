"""From logits to answers, per kind; plain numpy, so that serving needs no torch for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from centra.data.tags import to_bio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data.inputs import Input
    from centra.formats.task_module import TaskSpec
    from centra.kinds.chain import Chain
    from centra.tokenization.text_encoder import Row

__all__ = ["decode", "tagged_spans"]


def decode(
    spec: TaskSpec,
    logits: np.ndarray,
    inputs: Sequence[Input],
    rows: Sequence[Row],
    chain: Chain | None = None,
) -> list[dict[str, Any]]:
    """The answers of a batch, one per input.

    Args:
        spec: kind, labels and threshold.
        logits: ``(batch, outputs)``, or ``(batch, seq, outputs)`` for tagging.
        inputs: the inputs, for their words.
        rows: the same inputs encoded, for where each word's first token is.
        chain: what decodes, for a tagging head with a CRF.

    Returns:
        Per input, by kind: ``{"label", "score"}``; ``{"labels": [{"label", "score"}]}``, best
        first; ``{"value"}``; ``{"spans": [{"label", "text", "start", "end", "words", "score"}]}``.
        A span's ``start`` and ``end`` count the characters of the text, or the tokens where the
        caller gave tokens; ``text`` is what lies between; ``words`` are the first word and the one
        after the last. Scores are probabilities, a span's the mean over its words; with a chain, of
        the marginals of their tags.
    """
    if spec.kind == "regression":
        return [{"value": float(row[0])} for row in logits]
    if spec.kind == "multilabel":
        return [_several(spec, row) for row in _sigmoid(logits)]
    if spec.kind == "classification":
        scores = _softmax(logits)
        best = scores.argmax(axis=-1)
        return [
            {"label": spec.labels[i], "score": float(row[i])}
            for i, row in zip(best, scores, strict=True)
        ]
    return [
        {"spans": _spans(spec, emissions, item, row, chain)}
        for emissions, item, row in zip(logits, inputs, rows, strict=True)
    ]


def tagged_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Read BIO tags, one per word, as ``(label, first word, word after the last)``.

    An ``I-`` tag that continues nothing starts a span, as the CoNLL scorer reads it.
    """
    spans: list[tuple[str, int, int]] = []
    for i, tag in enumerate(tags):
        if tag == "O":
            continue
        label = tag[2:]
        continues = spans and spans[-1][0] == label and spans[-1][2] == i
        if tag.startswith("I-") and continues:
            spans[-1] = (label, spans[-1][1], i + 1)
        else:
            spans.append((label, i, i + 1))
    return spans


def _several(spec: TaskSpec, scores: np.ndarray) -> dict[str, Any]:
    order = np.argsort(-scores, kind="stable")
    return {
        "labels": [
            {"label": spec.labels[i], "score": float(scores[i])}
            for i in order
            if scores[i] >= spec.head.threshold
        ]
    }


def _spans(
    spec: TaskSpec, logits: np.ndarray, item: Input, row: Row, chain: Chain | None
) -> list[dict[str, Any]]:
    words = item.words(spec.head.words)
    # Tokens are words already, whatever the tokenizer makes of them.
    by = spec.head.words if item.tokens is None else "unicode"
    groups = row.word_groups(words, by)
    emissions = logits[np.array([token for token, _, _ in groups], dtype=np.int64)]
    best = emissions.argmax(axis=-1) if chain is None else chain.best(emissions)
    tags = [spec.logit_names[i] for i in best]
    tagged = tagged_spans(to_bio(tags) if spec.head.tags else tags)
    if not tagged:
        return []
    scores = _softmax(emissions) if chain is None else chain.marginals(emissions)
    own = scores[np.arange(len(best)), best]
    found = []
    for label, first, end in tagged:
        inside = [groups[first][1], groups[end - 1][2]]
        start, stop = words[inside[0]][0], words[inside[1] - 1][1]
        given = inside if item.tokens is not None else (start, stop)
        found.append(
            {
                "label": label,
                "text": item.text[start:stop],
                "start": given[0],
                "end": given[1],
                "words": inside,
                "score": float(np.mean(own[first:end])),
            }
        )
    return found


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return scores


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    scores: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(logits, -60, 60)))
    return scores
