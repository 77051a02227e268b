"""The words of a batch of tokens, as a linear chain over words needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from centra.modeling.crf import LinearChain

__all__ = ["gather_words", "log_marginals"]


def gather_words(
    logits: torch.Tensor, targets: torch.Tensor, words: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take the tokens that stand for words out of a batch.

    Args:
        logits: ``(batch, seq, labels)``.
        targets: ``(batch, seq)``.
        words: ``(batch, seq)`` of booleans, the tokens that stand for words.

    Returns:
        Emissions ``(batch, words, labels)``, tags ``(batch, words)`` and a mask ``(batch, words)``
        of booleans, as :class:`centra.modeling.crf.LinearChain` takes them: right-padded (with
        zeros) to the longest row, and to one word where no row has any.
    """
    counts = words.sum(dim=1, keepdim=True)
    width = max(int(counts.max()), 1)
    places = (~words).to(dtype=counts.dtype).argsort(dim=1, stable=True)[:, :width]
    mask = words.gather(1, places)
    emissions = logits.take_along_dim(places[..., None], dim=1)
    return emissions.where(mask[..., None], 0.0), targets.gather(1, places).where(mask, 0), mask


def log_marginals(
    logits: torch.Tensor,
    targets: torch.Tensor,
    words: torch.Tensor,
    temperature: float,
    chain: LinearChain,
) -> torch.Tensor:
    """Log marginals of each token that stands for a word, ``(batch, seq, labels)``; 0 elsewhere.

    Args:
        logits, targets, words: see :func:`gather_words`.
        temperature: divides the logits and the chain's scores.
        chain: the CRF.
    """
    emissions, _, mask = gather_words(logits.float(), targets, words)
    marginals = chain.log_marginals(emissions, mask, temperature)
    placed = torch.zeros_like(logits, dtype=marginals.dtype)
    placed[words] = marginals[mask]
    return placed
