"""The trunk: embeddings and frozen layers, whose hidden states branches read at their taps.

Layers run in a plain loop, so that hidden states equal those of the model they came from; a tap is an
index into the list of hidden states (paper section 3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from centra.families import family_named
from centra.modeling.layers import (
    DescribedEmbeddings,
    empty_layer,
    transformers_config,
)
from centra.modeling.shards import backbone_layer, copied_under, load_shard
from centra.modeling.shared_state import PositionTables

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from centra.formats.backbone import BackboneSpec
    from centra.modeling.shared_state import SharedState
    from centra.store import BlobReader

__all__ = ["Trunk", "frozen_layer"]


def frozen_layer(weights: Mapping[str, torch.Tensor], spec: BackboneSpec, number: int) -> nn.Module:
    """A layer of a backbone, from 1, that has these weights."""
    layer = empty_layer(spec, number)
    layer.load_state_dict(weights, assign=True)
    return layer.requires_grad_(requires_grad=False)


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
        family = family_named(spec.family)
        self._offset = spec.pad_token_id if family.position_offset else None
        # First: nothing is made of a size that they do not have.
        weights = load_shard(spec, reader, 0)
        self.projection: nn.Module | None = None
        self.embeddings: nn.Module
        if family.transformers is None:
            self._ids: tuple[str, ...] = ("input_ids", "token_type_ids", "positions")
            self.embeddings = DescribedEmbeddings(spec.description)
            names = self.embeddings.state_dict()
            self.embeddings.load_state_dict({name: weights[name].clone() for name in names})
        else:
            classes, tables = family.transformers, spec.description.tables
            # transformers counts positions by itself.
            self._ids = tuple(t.ids for t in tables if t.ids not in ("positions", "zeros"))
            config = transformers_config(spec, classes)
            self.embeddings = classes.named(classes.embeddings)(config)
            self.embeddings.load_state_dict(copied_under(weights, "embeddings."))
            projection = spec.description.projection
            if projection is not None and not projection.name.startswith("embeddings."):
                self.projection = nn.Linear(projection.inputs, projection.outputs)
                self.projection.load_state_dict(copied_under(weights, f"{projection.name}."))
        self.shared_state = PositionTables(spec, weights)
        self.layers = nn.ModuleList()
        # Layers that are one set of weights are one blob, and one module.
        known: dict[str, nn.Module] = {}
        for number, digest in enumerate(spec.layers[:depth], 1):
            if digest not in known:
                known[digest] = frozen_layer(backbone_layer(spec, reader, number), spec, number)
            self.layers.append(known[digest])
        self.requires_grad_(requires_grad=False)
        self.eval()

    def embed(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        """Layer 0: from ``(batch, seq)`` of int64 to hidden states ``(batch, seq, hidden)``."""
        given = {"input_ids": input_ids, "token_type_ids": token_type_ids}
        if "positions" in self._ids:
            given["positions"] = self._positions(input_ids)
        hidden: torch.Tensor = self.embeddings(**{name: given[name] for name in self._ids})
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
        shared: SharedState = self.shared_state(attention_mask)
        states = {0: hidden}
        for number, layer in enumerate(self.layers[: max(taps)], 1):
            hidden = layer(hidden, shared)
            states[number] = hidden
        return {tap: states[tap] for tap in taps}

    def _positions(self, input_ids: torch.Tensor) -> torch.Tensor:
        if self._offset is None:
            return torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        real = (input_ids != self._offset).long()
        return self._offset + real.cumsum(dim=1) * real
