"""Tokens of texts that have a template around them.

Offsets are those of the caller's own text, and the template's tokens cover nothing of it. Of an input
with too many tokens the texts are cut, at their ends, and never a template.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from centra.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tokenizers import Encoding

    from centra.data.words import Span
    from centra.formats.template import Template

__all__ = ["Templated", "Tokens", "cut_texts"]

_NOTHING = (0, 0)

Tokens = tuple[list[int], "list[Span]", list[int]]
"""Ids, offsets and token types."""


@dataclass(frozen=True)
class Templated:
    """One text of an input, in its template."""

    template: Template
    length: int
    """Characters of the caller's text."""

    def own_span(self, span: Span) -> Span:
        """What a token covers of the caller's text."""
        first = len(self.template.before)
        start, end = (min(max(place - first, 0), self.length) for place in span)
        return (start, end) if start < end else _NOTHING

    def count_template(self, spans: Sequence[Span]) -> tuple[int, int]:
        """How many of all its tokens begin with the template, and how many end with it."""
        first, last = len(self.template.before), len(self.template.before) + self.length
        before = next((i for i, (start, _) in enumerate(spans) if start >= first), len(spans))
        if not self.template.after:
            return before, 0
        behind = (i for i, (start, end) in enumerate(reversed(spans)) if max(start, end - 1) < last)
        return before, min(next(behind, len(spans)), len(spans) - before)


def cut_texts(
    encoding: Encoding, texts: Sequence[Templated], pieces: Sequence[Iterable[Encoding]], room: int
) -> Tokens:
    """Tokens of an input that is too long.

    Args:
        encoding: the input as the tokenizer cut it; gives the special tokens.
        texts: its texts.
        pieces: of each all its tokens.
        room: how many tokens are kept beside the special ones.

    Raises:
        FormatError: the templates alone take more; with this text they have other tokens than by
            themselves.
    """
    wholes = [[*_own_tokens(of)] for of in pieces]
    fixed = [
        text.count_template([span for _, span in whole])
        for text, whole in zip(texts, wholes, strict=True)
    ]
    room -= sum(map(sum, fixed))
    if room < 0:
        raise FormatError("its template leaves no room for this text")
    lengths = [len(whole) - sum(both) for whole, both in zip(wholes, fixed, strict=True)]
    kept: list[list[tuple[int, Span]]] = []
    for text, whole, (before, after), share in zip(
        texts, wholes, fixed, _shares(lengths, room), strict=True
    ):
        read = [(token, text.own_span(span)) for token, span in whole[: before + share]]
        kept.append([*read, *((token, _NOTHING) for token, _ in whole[len(whole) - after :])])
    ids: list[int] = []
    types: list[int] = []
    spans: list[Span] = []
    for sequence, group in groupby(range(len(encoding)), encoding.sequence_ids.__getitem__):
        places = [*group]
        tokens = (
            [(encoding.ids[i], _NOTHING) for i in places] if sequence is None else kept[sequence]
        )
        ids += [token for token, _ in tokens]
        spans += [span for _, span in tokens]
        types += [encoding.type_ids[places[0]]] * len(tokens)
    return ids, spans, types


def _own_tokens(pieces: Iterable[Encoding]) -> Iterable[tuple[int, Span]]:
    """All tokens of a text, without special ones."""
    for piece in pieces:
        for token, span, sequence in zip(piece.ids, piece.offsets, piece.sequence_ids, strict=True):
            if sequence is not None:
                yield token, span


def _shares(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens are kept of each text, the longest being cut first, as tokenizers do."""
    if len(lengths) == 1:
        return [room]
    shorter = min(*lengths, room // 2)
    return [shorter, room - shorter] if lengths[0] <= lengths[1] else [room - shorter, shorter]
