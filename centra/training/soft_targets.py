"""What a student takes from its teacher: vanilla distillation of logits (Hinton et al. 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.kinds.tagging import IGNORED
from centra.modeling.words import log_marginals

if TYPE_CHECKING:
    import torch

    from centra.modeling.crf import LinearChain

__all__ = ["soft_logits"]


def soft_logits(
    logits: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    chain: LinearChain | None = None,
) -> torch.Tensor:
    """A teacher's logits as a student without its chain can follow them.

    Args:
        logits: the teacher's, ``(batch, outputs)`` or ``(batch, seq, outputs)``.
        targets: as :meth:`centra.kinds.base.Kind.target`, stacked; they tell which tokens carry
            tags.
        temperature: the student's.
        chain: of a teacher with a CRF.

    Returns:
        The logits themselves; of a CRF such logits of each token that their softmax at this
        temperature is the token's marginal distribution.
    """
    if chain is None:
        return logits
    return temperature * log_marginals(logits, targets, targets != IGNORED, temperature, chain)
