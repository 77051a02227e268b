"""Decoding a linear-chain CRF over a sentence's words; plain numpy, as serving needs it.

Where the labels have a ``B-x``, an ``I-x`` may only follow ``B-x`` or ``I-x``. Training leaves the
other sequences in, so that data which breaks this rule still gives a finite loss; decoding leaves
them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Chain"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chain:
    """How well tags follow each other, in the order of the labels; -inf is never."""

    start: np.ndarray
    """``(labels,)``: the score of a sentence's first tag."""
    end: np.ndarray
    """``(labels,)``: the score of a sentence's last tag."""
    transitions: np.ndarray
    """``(labels, labels)``: from the tag of a row to that of a column."""

    @classmethod
    def bio(
        cls, labels: Sequence[str], *, start: np.ndarray, end: np.ndarray, transitions: np.ndarray
    ) -> Chain:
        """A module's scores, with what BIO forbids at -inf.

        Args:
            labels: the BIO tags.
            start, end, transitions: as learnt; left as they are.
        """
        start, end, transitions = (np.array(x, dtype=np.float64) for x in (start, end, transitions))
        index = {label: i for i, label in enumerate(labels)}
        for label, to in index.items():
            begin = index.get(f"B-{label[2:]}")
            # Labels without their B-x must let I-x begin, or it could never be found.
            if label.startswith("I-") and begin is not None:
                start[to] = -np.inf
                column = transitions[[begin, to], to]
                transitions[:, to] = -np.inf
                transitions[[begin, to], to] = column
        return cls(start=start, end=end, transitions=transitions)

    def best(self, emissions: np.ndarray) -> np.ndarray:
        """The likeliest tags of one sentence (Viterbi); of equals the first label.

        Args:
            emissions: ``(words, labels)``; may have no words.

        Returns:
            Label indices ``(words,)``.
        """
        tags = np.zeros(len(emissions), dtype=np.int64)
        if not len(emissions):
            return tags
        emissions = emissions.astype(np.float64)
        score = self.start + emissions[0]
        came_from = []
        for emission in emissions[1:]:
            scores = score[:, None] + self.transitions
            came_from.append(scores.argmax(axis=0))
            score = scores.max(axis=0) + emission
        tags[-1] = (score + self.end).argmax()
        for i, back in reversed([*enumerate(came_from)]):
            tags[i] = back[tags[i + 1]]
        return tags

    def marginals(self, emissions: np.ndarray) -> np.ndarray:
        """The probability of each tag at each word of one sentence, over all sequences.

        Args:
            emissions: ``(words, labels)``; may have no words.

        Returns:
            ``(words, labels)``; each row adds up to 1.
        """
        if not len(emissions):
            return np.zeros(emissions.shape)
        emissions = emissions.astype(np.float64)
        forward, backward = np.empty_like(emissions), np.empty_like(emissions)
        forward[0], backward[-1] = self.start + emissions[0], self.end
        for i in range(1, len(emissions)):
            forward[i] = _log_sum(forward[i - 1][:, None] + self.transitions) + emissions[i]
            following = backward[-i] + emissions[-i]
            backward[-i - 1] = _log_sum((self.transitions + following).T)
        scores = forward + backward
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        found: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
        return found


def _log_sum(scores: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials over the first axis, where -inf counts nothing."""
    top = scores.max(axis=0)
    top[np.isneginf(top)] = 0.0
    with np.errstate(divide="ignore"):
        total: np.ndarray = top + np.log(np.exp(scores - top).sum(axis=0))
    return total
