"""Heads: from a branch's last hidden states to logits; see :mod:`centra.formats.head`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from centra.formats.head import Head
from centra.modeling.crf import LinearChain
from centra.modeling.layers import norm_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.families.heads import Pooling
    from centra.formats.backbone import BackboneSpec
    from centra.formats.head import HeadSteps
    from centra.formats.task_module import TaskSpec

__all__ = ["TaskHead", "head_activation", "pooled"]

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
    "silu": nn.functional.silu,
    "gelu_pytorch_tanh": nn.GELU(approximate="tanh"),
}


def head_activation(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activation of a head's dense layer."""
    return _ACTIVATIONS[name]


def pooled(states: torch.Tensor, pooling: Pooling, real: torch.Tensor) -> torch.Tensor:
    """One row of the tokens of each input.

    Args:
        states: ``(…, batch, seq, hidden)``.
        pooling: how.
        real: ``(batch, seq)``, 1 for tokens and 0 for padding, each row with a token.

    Returns:
        ``(…, batch, hidden)``.
    """
    match pooling:
        case "first":
            return states[..., 0, :]
        case "max":
            least = torch.finfo(states.dtype).min
            return states.masked_fill(real[..., None] == 0, least).amax(dim=-2)
        case "mean" | "late":
            return (states * real[..., None]).sum(dim=-2) / real.sum(dim=-1, keepdim=True)


class TaskHead(nn.Module):
    """Logits of inputs or of every token, and perhaps the CRF that reads those of the words."""

    def __init__(self, backbone: BackboneSpec, spec: TaskSpec, dropout: float = 0.0) -> None:
        """Make a head with random weights, its CRF with zeros.

        Args:
            backbone: what the task stands on.
            spec: labels, head and pooling.
            dropout: probability before the output layer while training.
        """
        super().__init__()
        self.description = Head.of(spec, backbone)
        self.norm: nn.Module | None = None
        self.dense: nn.Module | None = None
        self.dense_norm: nn.Module | None = None
        for steps in (self.description.on_tokens, self.description.on_rows):
            if steps.norm is not None:
                self.norm = norm_module(steps.norm)
            if steps.dense is not None:
                dense = steps.dense
                self.dense = nn.Linear(dense.inputs, dense.outputs, bias=dense.bias)
            if steps.dense_norm is not None:
                self.dense_norm = norm_module(steps.dense_norm)
        self.crf = LinearChain(spec.outputs) if spec.head.crf else None
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(backbone.hidden_size, spec.outputs)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """From hidden states to logits.

        Args:
            hidden_states: ``(batch, seq, hidden)``.
            attention_mask: ``(batch, seq)``, 1 for tokens and 0 for padding; None for no padding.

        Returns:
            ``(batch, outputs)``, or ``(batch, seq, outputs)`` of a head on every token.
        """
        states = self._run(self.description.on_tokens, hidden_states)
        if self.description.pooling is None:
            return states
        if attention_mask is None:
            attention_mask = torch.ones(states.shape[:2], device=states.device, dtype=torch.int64)
        rows = pooled(states, self.description.pooling, attention_mask)
        return self._run(self.description.on_rows, rows)

    def _run(self, steps: HeadSteps, states: torch.Tensor) -> torch.Tensor:
        if steps.norm is not None and self.norm is not None:
            states = self.norm(states)
        if steps.dense is not None and self.dense is not None:
            states = head_activation(steps.activation)(self.dense(states))
        if steps.dense_norm is not None and self.dense_norm is not None:
            states = self.dense_norm(states)
        if steps.out is not None:
            states = self.out(self.dropout(states))
        return states
