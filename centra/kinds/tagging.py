"""Spans of a text: a BIO tag for each of its words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from centra.data.reading import all_labels, read_as_bio
from centra.data.tags import TagError, bio_labels, detect_scheme, tagged_spans, to_bio
from centra.errors import DataError
from centra.kinds.base import Kind, label_index, label_indices, largest_difference
from centra.kinds.judgement import Judgement
from centra.kinds.spans import match_spans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from centra.data.inputs import Example, Input
    from centra.data.reading import Reading
    from centra.data.tags import Scheme
    from centra.formats.task_module import TaskSpec
    from centra.kinds.base import ColumnType
    from centra.kinds.chain import Chain
    from centra.modeling.crf import LinearChain
    from centra.tokenization.text_encoder import Row

__all__ = ["IGNORED", "ON_TOKENS", "Tagging"]

IGNORED = -100
"""The target of tokens that carry no tag."""
ON_TOKENS = "entity_f1_on_tokens"
"""Entity F1 of the answers to given tokens, beside that of the answers to texts where they differ."""

_TAG = re.compile("[BIES]-.+", re.DOTALL)
_SHOWN = 5


class Tagging(Kind):
    """Answers ``{"spans": [{"label", "text", "start", "end", "words", "score"}]}``.

    A caller sends texts, so the answers that are measured are those to the texts of the examples,
    and a span counts where it begins and ends at the right characters. Examples are tagged token by
    token; if the score on their tokens is another one, it is given beside that.
    """

    name = "tagging"
    head_reads = "every token"
    inputs = ("single",)
    least_labels = 1
    label_form = "tags"
    expected_label = "'tokens' with 'labels', a tag for each"
    answer_fields = ("spans",)
    metrics = ("entity_f1",)
    further_metrics = (ON_TOKENS,)
    activations = ("softmax",)
    color = "#4d7c0f"

    def check(self, spec: TaskSpec) -> None:
        """Refuse labels that are no BIO tags, and tags of the head's own that contradict them."""
        odd = [
            tag
            for tag in spec.labels
            if tag != "O" and (tag[:2] not in ("B-", "I-") or not tag[2:])
        ]
        if odd or "O" not in spec.labels:
            raise ValueError(
                "tagging labels must be BIO tags with 'O' among them; "
                f"found {', '.join(odd[:_SHOWN]) or 'no O'}"
            )
        tags = spec.head.tags
        if not tags:
            return
        if spec.head.crf:
            raise ValueError("head.tags is for tagging tasks without a CRF")
        odd = [tag for tag in tags if tag != "O" and not _TAG.fullmatch(tag)]
        if odd or len({*tags}) != len(tags):
            raise ValueError(
                "head.tags must be distinct, O or B-x, I-x, E-x, S-x; "
                f"found {', '.join(odd[:_SHOWN]) or 'one twice'}"
            )
        if missing := {*bio_labels(tags)} - {*spec.labels}:
            raise ValueError(f"head.tags has a type without the label {min(missing)}")

    def suits(self, example: Example) -> bool:
        """Whether it has a tag for each token."""
        return example.label_form == self.label_form

    def read_labels(
        self, examples: Sequence[Example], labels: Sequence[str], scheme: Scheme | None
    ) -> Reading:
        """BIO tags."""
        return read_as_bio(examples, labels, scheme)

    def find_labels(
        self,
        written: Sequence[Example],
        read: Sequence[Example],
    ) -> tuple[str, ...]:
        """The BIO tags of all types that occur, sorted by type."""
        types = {tag[2:] for example in read for tag in all_labels(example) if tag != "O"}
        return bio_labels(f"B-{name}" for name in sorted(types))

    def given_labels(
        self, examples: Sequence[Example], labels: tuple[str, ...], scheme: Scheme | None
    ) -> tuple[str, ...]:
        """The BIO tags of a set of tags: as they are, or those of its types."""
        try:
            notation = detect_scheme([*labels, "O"], scheme)
        except TagError as error:
            raise DataError(f"the labels given: {error}") from error
        if notation.is_bio:
            return labels
        for example in examples:
            if example.numbers:
                raise DataError(
                    f"{example.where}: tags are numbers, which the labels given name as "
                    f"{notation.scheme.upper()} tags; a number must name a BIO tag, or measurements "
                    "of the task could not tell what it means. Write the tags' names into the data"
                )
        return bio_labels(notation.plain(tag) for tag in labels)

    def names(self, labels: Sequence[str]) -> list[str]:
        """The types of the tags."""
        return [*dict.fromkeys(tag[2:] for tag in labels if tag != "O")]

    def target(self, spec: TaskSpec, example: Example, row: Row) -> np.ndarray:
        """Per token the index of its word's tag, ``(seq,)``.

        :data:`IGNORED` for all but each word's first token; see
        :meth:`centra.data.inputs.Example.tagged_words`.
        """
        import numpy as np

        if not isinstance(example.label, tuple):
            raise DataError(f"{example.where}: expected 'labels', a list of strings")
        for tag in example.label:
            label_index(spec.labels, tag, example)
        words = example.tagged_words(spec.head.words)
        tags = np.full(len(row.input_ids), IGNORED)
        # Words that share their first token are one, and the first has its tag: the others come first.
        first = row.first_tokens([span for span, _ in words])
        for token, (_, tag) in reversed([*zip(first, words, strict=True)]):
            # A label set may have no I-x for a word that goes on with its token's B-x.
            if token >= 0 and tag in spec.labels:
                tags[token] = spec.labels.index(tag)
        return tags

    def loss(
        self, logits: torch.Tensor, targets: torch.Tensor, chain: LinearChain | None = None
    ) -> torch.Tensor:
        """Cross-entropy per word; of a CRF the negative log-likelihood, per word, too.

        So the gradients of the logits are of one size.
        """
        from torch.nn import functional

        from centra.modeling.words import gather_words

        logits = logits.float()
        if chain is not None:
            emissions, tags, mask = gather_words(logits, targets, targets != IGNORED)
            total = chain.log_likelihood(emissions, tags, mask).sum()
            return -total / mask.sum().clamp(min=1)
        # A batch may be without any word: a mean over none is not a number.
        total = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total / (targets != IGNORED).sum().clamp(min=1)

    def soft_loss(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        targets: torch.Tensor,
        *,
        temperature: float,
        chain: LinearChain | None = None,
    ) -> torch.Tensor:
        """The divergence over the tags of each word, of a CRF over their marginals."""
        from centra.kinds.probabilities import divergence
        from centra.modeling.words import log_marginals

        words = targets != IGNORED
        student, teacher = student.float(), teacher.float()
        if chain is not None:
            student = log_marginals(student, targets, words, temperature, chain)
        return divergence(student, teacher, temperature, logs=chain is not None, mask=words)

    def told_label(self, labels: Sequence[str], logits: np.ndarray) -> tuple[str, ...]:
        """The best tag of each word."""
        return tuple(to_bio([labels[int(place)] for place in logits.argmax(axis=-1)]))

    def decode(
        self,
        spec: TaskSpec,
        logits: np.ndarray,
        inputs: Sequence[Input],
        rows: Sequence[Row],
        chain: Chain | None = None,
    ) -> list[dict[str, Any]]:
        """``{"spans": […]}``, in the order of the text.

        A span's ``start`` and ``end`` count the characters of the text, or the tokens where the
        caller gave tokens; ``text`` is what lies between; ``words`` are the first word and the one
        after the last. Its score is the mean probability over its words; with a chain, of the
        marginals of their tags.
        """
        return [
            {"spans": _spans(spec, emissions, item, row, chain)}
            for emissions, item, row in zip(logits, inputs, rows, strict=True)
        ]

    def outcomes(
        self,
        labels: Sequence[str],
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
        answers_to_tokens: Sequence[Mapping[str, Any]] | None = None,
    ) -> np.ndarray:
        """How many spans are right, answered and wanted; where F1 is another on tokens, there, too."""
        import numpy as np

        from centra.kinds.metrics import counted_f1

        # A type that is known has all its tags, whichever of them the head tells apart.
        index = {tag: i for i, tag in enumerate(bio_labels(labels))}
        for example in examples:
            label_indices(example, index, example.label)
        on_texts = _count_spans(answers, examples)
        if answers_to_tokens is None:
            return on_texts
        on_tokens = _count_spans(answers_to_tokens, examples, tokens=True)
        if counted_f1(on_tokens) == counted_f1(on_texts):
            return on_texts
        return np.hstack([on_texts, on_tokens])

    def metrics_of(self, labels: Sequence[str], outcomes: np.ndarray) -> dict[str, float]:
        """Entity F1 of the answers to texts, and to tokens where that is another."""
        from centra.kinds.metrics import counted_f1

        names = ("entity_f1", ON_TOKENS)
        sides = (outcomes[:, place : place + 3] for place in range(0, outcomes.shape[1], 3))
        return {name: counted_f1(counts) for name, counts in zip(names, sides, strict=False)}

    def judge(self, answer: Mapping[str, Any], example: Example) -> Judgement:
        """Span by span: what is not right is wrong in its label, its bounds or both, or alone."""
        assert isinstance(example.label, tuple)
        wanted = _gold_spans(example)
        answered = [(span["label"], span["start"], span["end"]) for span in answer["spans"]]
        pairs = match_spans(wanted, answered)
        text, right = example.input.text, {*wanted}
        faults = [pair.fault for pair in pairs if pair.fault is not None]
        decisions = [
            (span["score"], (span["label"], span["start"], span["end"]) in right)
            for span in answer["spans"]
        ]
        return Judgement(
            right=not faults,
            # Where as many are wrong, the one whose wrong spans have high scores is worse.
            cost=len(faults) + sum(score for score, is_right in decisions if not is_right) / 1000,
            wanted=", ".join(f"{label}: {text[a:b]}" for label, a, b in wanted) or "-",
            answered=self.answer_text(answer)[0],
            pairs=pairs,
            claims=tuple(decisions),
            decisions=tuple(decisions),
        )

    def comparable(
        self, answers: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        """Per token the label and the start of the span that covers its first character."""
        pairs = zip(answers, examples, strict=True)
        return [_span_at(answer, start) for answer, e in pairs for start, _ in e.input.token_spans]

    def distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
        """By the scores of the spans, which are the same where label, start and end are."""
        first, second = (
            {(x["label"], x["start"], x["end"]): x["score"] for x in answer["spans"]}
            for answer in (one, other)
        )
        return largest_difference(first, second)

    def columns(self) -> dict[str, ColumnType]:
        """``spans``."""
        return {"spans": "spans"}

    def answer_text(self, answer: Mapping[str, Any]) -> tuple[str, str]:
        """The spans with their labels; ``-`` for none."""
        spans = answer["spans"]
        text = ", ".join(f"{span['label']}: {span['text']}" for span in spans)
        return text or "-", ", ".join(f"{span['score']:.3f}" for span in spans)

    def describe(
        self,
        labels: int,
        *,
        threshold: float | tuple[float, ...] | None = None,
        rejection: float | None = None,
        crf: bool = False,
    ) -> str:
        """``spans, by 5 BIO tags``."""
        return f"spans, by {labels} BIO tags{' with a CRF' if crf else ''}"


def _spans(
    spec: TaskSpec, logits: np.ndarray, item: Input, row: Row, chain: Chain | None
) -> list[dict[str, Any]]:
    import numpy as np

    from centra.kinds.probabilities import softmax

    # Of a text that was cut, what no token stands for is no word of an answer.
    until = max(end for _, end in row.offsets) if row.given else None
    words = item.words(spec.head.words, until=until)
    # Tokens are words already, whatever the tokenizer makes of them.
    by = spec.head.words if item.tokens is None else "unicode"
    groups = row.word_groups(words, by)
    emissions = logits[np.array([token for token, _, _ in groups], dtype=np.int64)]
    best = emissions.argmax(axis=-1) if chain is None else chain.best(emissions)
    tags = [spec.logit_names[i] for i in best]
    spans = tagged_spans(to_bio(tags) if spec.head.tags else tags)
    if not spans:
        return []
    scores = softmax(emissions) if chain is None else chain.marginals(emissions)
    scores_of_best = scores[np.arange(len(best)), best]
    answers = []
    for label, first, end in spans:
        inside = [groups[first][1], groups[end - 1][2]]
        start, stop = words[inside[0]][0], words[inside[1] - 1][1]
        given = inside if item.tokens is not None else (start, stop)
        answers.append(
            {
                "label": label,
                "text": item.text[start:stop],
                "start": given[0],
                "end": given[1],
                "words": inside,
                "score": float(np.mean(scores_of_best[first:end])),
            }
        )
    return answers


def _count_spans(
    answers: Sequence[Mapping[str, Any]], examples: Sequence[Example], *, tokens: bool = False
) -> np.ndarray:
    """The spans of each example by their first and last characters, or tokens, counted."""
    from centra.kinds.metrics import span_counts

    predicted, expected = [], []
    for answer, example in zip(answers, examples, strict=True):
        assert isinstance(example.label, tuple)
        gold = tagged_spans(example.label) if tokens else _gold_spans(example)
        predicted.append([(span["label"], span["start"], span["end"]) for span in answer["spans"]])
        expected.append(gold)
    return span_counts(predicted, expected)


def _gold_spans(example: Example) -> list[tuple[str, int, int]]:
    """The labelled spans of an example by their first and last characters."""
    assert isinstance(example.label, tuple)
    places = example.input.token_spans
    return [(label, places[a][0], places[b - 1][1]) for label, a, b in tagged_spans(example.label)]


def _span_at(answer: Mapping[str, Any], place: int) -> tuple[str, int] | None:
    """The label and the start of the span that covers a character."""
    spans = (span for span in answer["spans"] if span["start"] <= place < span["end"])
    return next(((span["label"], span["start"]) for span in spans), None)
