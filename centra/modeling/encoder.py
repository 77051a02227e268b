"""The network: a trunk of frozen layers, and branches that read it at their taps.

Layers are transformers' own classes, run in a plain loop, so that hidden states equal those of the
model they came from; a tap is an index into the list of hidden states (paper section 3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn

from centra.families.table import family_of, transformers_class
from centra.formats.backbone import check_shard
from centra.formats.tensors import under
from centra.modeling.heads import TokenHead, build_head
from centra.system.processors import bound_torch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskSpec
    from centra.modeling.crf import LinearChain
    from centra.store import BlobReader

__all__ = ["Branch", "Trunk", "attention_bias"]

# Here, because all that computes with torch comes by, and before it computes.
bound_torch()


def attention_bias(attention_mask: torch.Tensor) -> torch.Tensor | None:
    """The mask that every layer takes.

    Args:
        attention_mask: ``(batch, seq)``, 1 for tokens and 0 for padding.

    Returns:
        Booleans ``(batch, 1, seq, seq)``, True where a token may look; None where there is no
        padding. These are the masks that transformers itself makes, so results equal its own.
    """
    if bool(attention_mask.all()):
        return None
    batch, length = attention_mask.shape
    return attention_mask.bool()[:, None, None, :].expand(batch, 1, length, length)


class Trunk(nn.Module):
    """Embeddings and the first layers of a backbone."""

    def __init__(self, spec: BackboneSpec, reader: BlobReader, *, depth: int) -> None:
        """Load a trunk, frozen.

        Args:
            spec: the backbone.
            reader: where its blobs are.
            depth: how many layers to load; 0 is the embeddings alone.
        """
        super().__init__()
        family, config = family_of(spec.family), _config(spec)
        self._token_types = spec.family != "distilbert"
        weights = _shard(spec, reader, 0)  # First: nothing is made of a size that they do not have.
        self.embeddings = transformers_class(family, family.embeddings)(config)
        self.projection: nn.Module | None = None
        projection = _part(weights, "embeddings_project.")
        if projection:
            out_features, in_features = projection["weight"].shape
            self.projection = nn.Linear(in_features, out_features)
            self.projection.load_state_dict(projection)
        self.embeddings.load_state_dict(_part(weights, "embeddings."))
        self.layers = nn.ModuleList()
        for i in range(depth):
            layer = _empty_layer(spec, config)
            weights = _shard(spec, reader, i + 1)
            layer.load_state_dict(_part(weights, f"{family.layer_prefix}{i}."), assign=True)
            self.layers.append(layer)
        self.requires_grad_(requires_grad=False)
        self.eval()

    def embed(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        """Layer 0: from ``(batch, seq)`` of int64 to hidden states ``(batch, seq, hidden)``."""
        kinds = {"token_type_ids": token_type_ids} if self._token_types else {}
        hidden: torch.Tensor = self.embeddings(input_ids, **kinds)
        return hidden if self.projection is None else self.projection(hidden)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        taps: Collection[int],
    ) -> dict[int, torch.Tensor]:
        """Hidden states at the taps; layers above the deepest of them are not computed.

        Args:
            input_ids, attention_mask, token_type_ids: ``(batch, seq)`` of int64.
            taps: layer numbers, 0 for the embedding output.

        Returns:
            For each tap the hidden states ``(batch, seq, hidden)`` after that layer.
        """
        hidden = self.embed(input_ids, token_type_ids)
        bias = attention_bias(attention_mask)
        states = {0: hidden}
        for number, layer in enumerate(self.layers[: max(taps)], 1):
            hidden = layer(hidden, bias)
            states[number] = hidden
        return {tap: states[tap] for tap in taps}


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
        config = _config(backbone)
        self.layers = nn.ModuleList(_empty_layer(backbone, config) for _ in range(spec.depth))
        self.head = build_head(backbone.hidden_size, spec.outputs, spec.head, dropout)

    @property
    def chain(self) -> LinearChain | None:
        """The head's CRF, where it has one."""
        return self.head.crf if isinstance(self.head, TokenHead) else None

    def load(self, tensors: Mapping[str, torch.Tensor]) -> Branch:
        """Take the tensors of a task module (``layers.<i>.…`` counted from 1, ``head.…``)."""
        for i, layer in enumerate(self.layers, 1):
            layer.load_state_dict(_part(tensors, f"layers.{i}."), assign=True)
        self.head.load_state_dict(_part(tensors, "head."), assign=True)
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


def backbone_layer(spec: BackboneSpec, reader: BlobReader, number: int) -> dict[str, torch.Tensor]:
    """The tensors of one backbone layer under their names within the layer.

    Args:
        spec: the backbone.
        reader: where its blobs are.
        number: the layer, from 1.
    """
    prefix = f"{family_of(spec.family).layer_prefix}{number - 1}."
    return _part(_shard(spec, reader, number), prefix)


def _shard(spec: BackboneSpec, reader: BlobReader, number: int) -> dict[str, torch.Tensor]:
    """The tensors of a backbone's layer, or of its embeddings (0), that are what its spec says."""
    path = reader.fetch((spec.embeddings, *spec.layers)[number])
    check_shard(spec, number, path)
    tensors: dict[str, torch.Tensor] = load_file(path)
    return tensors


def _config(spec: BackboneSpec) -> Any:
    family = family_of(spec.family)
    return transformers_class(family, family.config)(**spec.config, attn_implementation="sdpa")


def _empty_layer(spec: BackboneSpec, config: Any) -> nn.Module:
    family = family_of(spec.family)
    with torch.device("meta"):
        layer: nn.Module = transformers_class(family, family.layer)(config)
    return layer.eval()


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under a prefix, copied out of the mapped file.

    Copies begin at aligned addresses. Products with one output add up in an order that depends on
    the alignment, so without copies a value could depend on where in its file a weight lies.
    """
    return {name: tensor.clone() for name, tensor in under(tensors, prefix).items()}
