"""From logits to scores, and what distillation compares; plain numpy, and torch where it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from centra.formats.decision import Activation

__all__ = ["activate", "divergence", "sigmoid", "softmax"]


def activate(logits: np.ndarray, activation: Activation | None) -> np.ndarray:
    """The scores of logits ``(…, outputs)``; without an activation the logits themselves."""
    match activation:
        case "softmax":
            return softmax(logits)
        case "sigmoid":
            return sigmoid(logits)
        case _:
            return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities that add up to 1 over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return scores


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """A probability for each logit by itself."""
    scores: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(logits, -60, 60)))
    return scores


def divergence(
    student: torch.Tensor,
    teacher: torch.Tensor,
    temperature: float,
    *,
    logs: bool = False,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mean Kullback-Leibler divergence from teacher to student over the last axis.

    At a temperature, times the temperature squared, so that its gradient keeps its size (Hinton et
    al. 2015, section 2).

    Args:
        student: logits ``(…, outputs)``.
        teacher: likewise.
        temperature: divides both.
        logs: the student's are logarithms of its probabilities at this temperature.
        mask: ``(…)``, what counts; by default all. Without anything that counts it is 0.
    """
    expected = (teacher / temperature).log_softmax(-1)
    found = student if logs else (student / temperature).log_softmax(-1)
    apart = (expected.exp() * (expected - found)).sum(-1)
    if mask is not None:
        apart = apart[mask]
    return temperature**2 * apart.sum() / max(apart.numel(), 1)
