"""A branch: a task's own layers and head, on the hidden states of a tap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from centra.modeling.heads import TokenHead, build_head
from centra.modeling.layers import attention_bias, copied_under, empty_layer, transformers_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskSpec
    from centra.modeling.crf import LinearChain

__all__ = ["Branch"]


class Branch(nn.Module):
    """A task's own layers and head."""

    def __init__(self, backbone: BackboneSpec, spec: TaskSpec, *, dropout: float = 0.0) -> None:
        """Make a branch without weights; fill it with :meth:`load`.

        Args:
            backbone: whose family and settings the layers share.
            spec: depth, labels and head.
            dropout: the head's, while training.
        """
        super().__init__()
        config = transformers_config(backbone)
        self.layers = nn.ModuleList(empty_layer(backbone, config) for _ in range(spec.depth))
        self.head = build_head(backbone.hidden_size, spec.outputs, spec.head, dropout)

    @property
    def chain(self) -> LinearChain | None:
        """The head's CRF, where it has one."""
        return self.head.crf if isinstance(self.head, TokenHead) else None

    def load(self, tensors: Mapping[str, torch.Tensor]) -> Branch:
        """Take the tensors of a task module (``layers.<i>.…`` counted from 1, ``head.…``)."""
        for i, layer in enumerate(self.layers, 1):
            layer.load_state_dict(copied_under(tensors, f"layers.{i}."), assign=True)
        self.head.load_state_dict(copied_under(tensors, "head."), assign=True)
        return self

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights under the names of a task module; the opposite of :meth:`load`."""
        state = {f"head.{name}": t for name, t in self.head.state_dict().items()}
        for i, layer in enumerate(self.layers, 1):
            state |= {f"layers.{i}.{name}": t for name, t in layer.state_dict().items()}
        return {name: t.detach().cpu().contiguous() for name, t in sorted(state.items())}

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """From the tap's hidden states to logits.

        Args:
            hidden_states: ``(batch, seq, hidden)`` at the tap.
            attention_mask: ``(batch, seq)``, 1 for tokens and 0 for padding.

        Returns:
            ``(batch, outputs)``, or ``(batch, seq, outputs)`` for tagging.
        """
        bias = attention_bias(attention_mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, bias)
        logits: torch.Tensor = self.head(hidden_states)
        return logits
