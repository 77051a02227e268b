"""Rows of the same text: repeated inside a split, shared by splits, or with different answers.

Texts are the same where they differ only by case, white space or Unicode form: so little difference
tells a model nothing new. Of a pair both texts must be the same.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.data.tags import tagged_spans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.data.inputs import Example, Input

__all__ = ["Repeats", "SplitRow", "answer_key", "find_repeats", "text_key"]


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """A labelled row of a split."""

    split: str
    example: Example


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Groups of rows with the same text, each in the order of splits and rows."""

    duplicates: tuple[tuple[SplitRow, ...], ...]
    """Of one split, with the same answer."""
    leaks: tuple[tuple[SplitRow, ...], ...]
    """Of several splits, whatever they answer."""
    contradictions: tuple[tuple[SplitRow, ...], ...]
    """With different answers, in one split or in several."""

    def leaked(self, into: str, of: str) -> list[SplitRow]:
        """The rows of a split whose text is in another one, too."""
        return [
            row
            for group in self.leaks
            if any(row.split == of for row in group)
            for row in group
            if row.split == into
        ]


def find_repeats(splits: Mapping[str, Sequence[Example]]) -> Repeats:
    """Find the rows of the same text.

    Args:
        splits: by name, their examples as :func:`centra.data.labelling.read_as` gives them.
    """
    groups: dict[tuple[str, str | None], list[SplitRow]] = {}
    for split, examples in splits.items():
        for example in examples:
            row = SplitRow(split=split, example=example)
            groups.setdefault(text_key(example.input), []).append(row)
    duplicates, leaks, contradictions = [], [], []
    for group in groups.values():
        if len(group) < 2:
            continue
        alike: dict[tuple[str, object], list[SplitRow]] = {}
        for row in group:
            alike.setdefault((row.split, answer_key(row.example)), []).append(row)
        duplicates += [tuple(rows) for rows in alike.values() if len(rows) > 1]
        if len({split for split, _ in alike}) > 1:
            leaks.append(tuple(group))
        if len({answer for _, answer in alike}) > 1:
            contradictions.append(tuple(group))
    return Repeats(
        duplicates=tuple(duplicates), leaks=tuple(leaks), contradictions=tuple(contradictions)
    )


def text_key(item: Input) -> tuple[str, str | None]:
    """What inputs of the same text have in common."""
    return _folded(item.text), None if item.text_pair is None else _folded(item.text_pair)


def answer_key(example: Example) -> object:
    """What examples with the same answer have in common; of tags the spans, however they are cut."""
    if not isinstance(example.label, tuple):
        return example.label
    if example.input.tokens is None:
        return frozenset(example.label)
    places = example.input.token_spans
    return tuple(
        (name, _folded(example.input.text[places[first][0] : places[end - 1][1]]))
        for name, first, end in tagged_spans(example.label)
    )


def _folded(text: str) -> str:
    """A text without the differences of case, white space and Unicode form."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.lower().split())
