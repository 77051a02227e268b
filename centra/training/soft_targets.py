"""What a student takes from its teacher: vanilla distillation of logits (Hinton et al. 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from centra.training.targets import IGNORED, gather_words

if TYPE_CHECKING:
    from centra.formats.task_module import TaskSpec
    from centra.modeling.crf import LinearChain

__all__ = ["soft_logits", "soft_loss"]


def soft_logits(
    logits: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    chain: LinearChain | None = None,
) -> torch.Tensor:
    """A teacher's logits as a student without its chain can follow them.

    Args:
        logits: the teacher's, ``(batch, outputs)`` or ``(batch, seq, outputs)``.
        targets: as :func:`centra.training.targets.target`, stacked; they tell which tokens carry
            tags.
        temperature: the student's.
        chain: of a teacher with a CRF.

    Returns:
        The logits themselves; of a CRF such logits of each token that their softmax at this
        temperature is the token's marginal distribution.
    """
    if chain is None:
        return logits
    return temperature * _marginals(logits, targets, temperature, chain)


def soft_loss(
    spec: TaskSpec,
    student: torch.Tensor,
    teacher: torch.Tensor,
    targets: torch.Tensor,
    *,
    temperature: float,
    chain: LinearChain | None = None,
) -> torch.Tensor:
    """How far a student's answers are from its teacher's.

    The Kullback-Leibler divergence from teacher to student at the temperature, times the
    temperature squared, so that its gradient keeps its size (Hinton et al. 2015, section 2): over
    labels, over each label's yes and no for multilabel, over the tags of each word for tagging (the
    marginals of a CRF). For regression the mean squared difference.

    Args:
        spec: the kind.
        student: logits, ``(batch, outputs)`` or ``(batch, seq, outputs)``.
        teacher: likewise, through :func:`soft_logits`.
        targets: as :func:`centra.training.targets.target`, stacked.
        temperature: divides both.
        chain: of a student with a CRF.
    """
    student, teacher = student.float(), teacher.float()
    if spec.kind == "regression":
        return functional.mse_loss(student, teacher)
    if spec.kind == "multilabel":
        # As two logits per label, yes and no, the labels are so many small classifications.
        student, teacher = (torch.stack([x, -x], dim=-1) / 2 for x in (student, teacher))
    expected = (teacher / temperature).log_softmax(-1)
    if chain is None:
        found = (student / temperature).log_softmax(-1)
    else:
        found = _marginals(student, targets, temperature, chain)
    divergence = (expected.exp() * (expected - found)).sum(-1)
    if spec.kind == "tagging":
        divergence = divergence[targets != IGNORED]
    return temperature**2 * divergence.sum() / max(divergence.numel(), 1)


def _marginals(
    logits: torch.Tensor, targets: torch.Tensor, temperature: float, chain: LinearChain
) -> torch.Tensor:
    """Log marginals of each token that carries a tag, ``(batch, seq, labels)``; 0 elsewhere."""
    emissions, _, words = gather_words(logits.float(), targets)
    marginals = chain.log_marginals(emissions, words, temperature)
    placed = torch.zeros_like(logits, dtype=marginals.dtype)
    placed[targets != IGNORED] = marginals[words]
    return placed
