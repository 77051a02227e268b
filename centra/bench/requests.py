"""Inputs of an exact length in tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.data.inputs import Input
from centra.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.tokenization.text_encoder import TextEncoder

__all__ = ["make_input"]

_WORDS = ("the", "a", "1", "的")
"""Most vocabularies hold one of them whole."""


def make_input(encoders: Sequence[TextEncoder], length: int, *, pair: bool) -> Input:
    """An input that each of some backbones reads as exactly so many tokens: one word repeated.

    Args:
        encoders: at least one.
        length: in tokens, special ones included.
        pair: a pair of texts, the second of them a single word.

    Raises:
        UsageError: there is none, since the length is below that of a single word, or since these
            tokenizers cut all words that were tried into pieces.
    """
    shortest = []
    for word in _WORDS:
        second = word if pair else None
        shortest.append(_length(encoders[0], Input(word, second)))
        repeats = 1 + length - shortest[-1]
        found = Input(" ".join([word] * repeats), second)
        if repeats > 0 and all(_length(encoder, found) == length for encoder in encoders):
            return found
    raise UsageError(
        f"found no input of exactly {length} tokens for these tasks; the shortest has "
        f"{min(shortest)}. Give another length"
        + (", or tasks of one backbone" if len(encoders) > 1 else "")
    )


def _length(encoder: TextEncoder, item: Input) -> int:
    (row,) = encoder.encode([item])
    return len(row.input_ids)
