"""A branch: a task's own layers and head, on the hidden states of a tap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from centra.families import family_named
from centra.modeling.heads import TaskHead
from centra.modeling.layers import empty_layer
from centra.modeling.shards import backbone_layer, copied_under, load_shard

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskSpec
    from centra.modeling.crf import LinearChain
    from centra.modeling.shared_state import SharedState
    from centra.store import BlobReader

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
        self.layers = nn.ModuleList(
            empty_layer(backbone, spec.tap_layer + i) for i in range(1, spec.depth + 1)
        )
        self.head = TaskHead(backbone, spec, dropout)
        self._tap = spec.tap_layer

    @property
    def chain(self) -> LinearChain | None:
        """The head's CRF, where it has one."""
        return self.head.crf

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

    def start_from(self, backbone: BackboneSpec, reader: BlobReader) -> None:
        """Take the weights of the backbone's layers above the tap, and of the norm behind its last.

        What else the head has is left as it is.

        Args:
            backbone: must have so many layers.
            reader: where its blobs are.
        """
        for i, layer in enumerate(self.layers, 1):
            weights = backbone_layer(backbone, reader, self._tap + i)
            layer.load_state_dict(weights, assign=True)
        family = family_named(backbone.family)
        if self.head.norm is not None and family.final_norm is not None:
            name = family.final_norm(backbone.config).name
            last = load_shard(backbone, reader, backbone.num_layers)
            self.head.norm.load_state_dict(copied_under(last, f"{name}."))

    def forward(self, hidden_states: torch.Tensor, shared: SharedState) -> torch.Tensor:
        """From the tap's hidden states to logits.

        Args:
            hidden_states: ``(batch, seq, hidden)`` at the tap.
            shared: what all layers share of the batch; the trunk's ``shared_state`` makes it.

        Returns:
            ``(batch, outputs)``, or ``(batch, seq, outputs)`` for tagging.
        """
        for layer in self.layers:
            hidden_states = layer(hidden_states, shared)
        logits: torch.Tensor = self.head(hidden_states, shared.attention_mask)
        return logits
