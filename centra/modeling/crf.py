"""A linear-chain CRF over the words of a sentence: what a tagging head learns beside its logits.

A sequence of tags scores ``start[first] + end[last]``, plus the transition between each two
neighbours, plus each word's own logit for its tag (its emission). The paper's published code has a
CRF for tagging too. Decoding is in :mod:`centra.kinds.chain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from centra.kinds.chain import Chain

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LinearChain"]


class LinearChain(nn.Module):
    """The scores of tags that follow each other.

    Sentences are right-padded: ``mask`` is ``(batch, words)`` of booleans, True for words, then
    False. A row may have no word; there must be room for one. What stands in the padding does not
    matter. Scores are brought back to a small range at every word, so that float32 is enough for
    long sentences.
    """

    def __init__(self, labels: int) -> None:
        """Make a chain in which every sequence is as good as any other: all zeros.

        Args:
            labels: how many.
        """
        super().__init__()
        self.start = nn.Parameter(torch.zeros(labels))
        self.end = nn.Parameter(torch.zeros(labels))
        self.transitions = nn.Parameter(torch.zeros(labels, labels))

    def log_likelihood(
        self, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """The log-probability of sequences of tags.

        Args:
            emissions: ``(batch, words, labels)``.
            tags: label indices ``(batch, words)``.
            mask: see the class.

        Returns:
            ``(batch,)``; 0 for a row without words.
        """
        tags = tags.where(mask, 0)
        own = emissions.gather(2, tags[..., None])[..., 0]
        forward = self.start + emissions[:, 0]
        norm = forward.logsumexp(dim=1)
        # The gain of each word is added up, not the two long sums whose difference it is.
        total = (self.start[tags[:, 0]] + own[:, 0] - norm).where(mask[:, 0], 0.0)
        forward = forward - norm[:, None]
        for i in range(1, emissions.shape[1]):
            live = mask[:, i]
            step = (forward[:, :, None] + self.transitions).logsumexp(dim=1) + emissions[:, i]
            norm = step.logsumexp(dim=1)
            gain = self.transitions[tags[:, i - 1], tags[:, i]] + own[:, i] - norm
            total = total + gain.where(live, 0.0)
            forward = (step - norm[:, None]).where(live[:, None], forward)
        last = tags.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0))[:, 0]
        gain = self.end[last] - (forward + self.end).logsumexp(dim=1)
        return total + gain.where(mask[:, 0], 0.0)

    def log_marginals(
        self, emissions: torch.Tensor, mask: torch.Tensor, temperature: float = 1.0
    ) -> torch.Tensor:
        """The log-probability of each tag at each word, over all sequences (forward-backward).

        Args:
            emissions: ``(batch, words, labels)``.
            mask: see the class.
            temperature: divides every score, emissions and chain alike; greater is softer.

        Returns:
            ``(batch, words, labels)``; 0 in the padding, so that the difference of two chains'
            marginals vanishes there.
        """
        emissions = emissions / temperature
        end, transitions = self.end / temperature, self.transitions / temperature
        words = emissions.shape[1]
        forward = [(self.start / temperature + emissions[:, 0]).log_softmax(dim=1)]
        for i in range(1, words):
            step = (forward[-1][:, :, None] + transitions).logsumexp(dim=1) + emissions[:, i]
            forward.append(step.log_softmax(dim=1))
        # A word whose next is padding is its sentence's last: the recursion starts there anew.
        backward = [end.expand_as(forward[0])]
        for i in range(words - 1, 0, -1):
            following = (backward[-1] + emissions[:, i])[:, None, :]
            step = (transitions + following).logsumexp(dim=2).log_softmax(dim=1)
            backward.append(step.where(mask[:, i, None], end))
        scores = torch.stack(forward, dim=1) + torch.stack(backward[::-1], dim=1)
        return scores.log_softmax(dim=2).where(mask[..., None], 0.0)

    def numpy(self, labels: Sequence[str]) -> Chain:
        """The chain that decodes, with what BIO forbids left out.

        Args:
            labels: the BIO tags.
        """
        scores = {name: value.detach().cpu().numpy() for name, value in self.named_parameters()}
        return Chain.bio(labels, **scores)
