"""Heads: from a branch's last hidden states to logits.

A sentence head reads the first token, as BERT's pooler does; a token head reads every token. Both
end in a linear layer with one output per label; over layers that end without a norm, both begin
with one. Pooler and classifier of the supported
transformers families differ only in the activation between the two linear layers, so one class
serves them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from centra.families import family_named
from centra.modeling.crf import LinearChain
from centra.modeling.layers import norm_module

if TYPE_CHECKING:
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskSpec

__all__ = ["FirstTokenHead", "TokenHead", "build_head"]

_ACTIVATIONS = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}


class FirstTokenHead(nn.Module):
    """Logits of a whole input from its first token."""

    def __init__(
        self,
        hidden_size: int,
        outputs: int,
        activation: str,
        dropout: float,
        norm: nn.Module | None = None,
    ) -> None:
        """Make a head with random weights.

        Args:
            hidden_size: the width of the hidden states.
            outputs: how many logits.
            activation: ``"tanh"``, ``"gelu"`` or ``"relu"``, after the dense layer.
            dropout: probability before the output layer while training.
            norm: before all else, where layers end without one.
        """
        super().__init__()
        self.norm = norm
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = _ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden_size, outputs)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From hidden states ``(batch, seq, hidden)`` to logits ``(batch, outputs)``."""
        first = hidden_states[:, 0]
        if self.norm is not None:
            first = self.norm(first)
        first = self.activation(self.dense(first))
        logits: torch.Tensor = self.out(self.dropout(first))
        return logits


class TokenHead(nn.Module):
    """Logits of every token, and perhaps the CRF that reads those of the words as emissions."""

    def __init__(
        self,
        hidden_size: int,
        outputs: int,
        dropout: float,
        *,
        crf: bool,
        norm: nn.Module | None = None,
    ) -> None:
        """Make a head with random weights, its CRF with zeros; see :class:`FirstTokenHead`."""
        super().__init__()
        self.norm = norm
        self.crf = LinearChain(outputs) if crf else None
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden_size, outputs)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From hidden states ``(batch, seq, hidden)`` to logits ``(batch, seq, outputs)``."""
        if self.norm is not None:
            hidden_states = self.norm(hidden_states)
        logits: torch.Tensor = self.out(self.dropout(hidden_states))
        return logits


def build_head(
    backbone: BackboneSpec, spec: TaskSpec, dropout: float = 0.0
) -> FirstTokenHead | TokenHead:
    """The head that a spec names; without an activation it is the one that reads every token."""
    norm = family_named(backbone.family).head_norm(backbone.config)
    module = None if norm is None else norm_module(norm)
    hidden, head = backbone.hidden_size, spec.head
    if head.activation is None:
        return TokenHead(hidden, spec.outputs, dropout, crf=head.crf, norm=module)
    return FirstTokenHead(hidden, spec.outputs, head.activation, dropout, module)
