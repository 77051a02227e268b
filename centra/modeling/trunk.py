"""The trunk: embeddings and frozen layers, whose hidden states branches read at their taps.

Layers are transformers' own classes, run in a plain loop, so that hidden states equal those of the
model they came from; a tap is an index into the list of hidden states (paper section 3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from centra.families.table import family_of, transformers_class
from centra.modeling.layers import (
    attention_bias,
    copied_under,
    empty_layer,
    load_shard,
    transformers_config,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader

__all__ = ["Trunk"]


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
        family, config = family_of(spec.family), transformers_config(spec)
        self._token_types = spec.family != "distilbert"
        weights = load_shard(
            spec, reader, 0
        )  # First: nothing is made of a size that they do not have.
        self.embeddings = transformers_class(family, family.embeddings)(config)
        self.projection: nn.Module | None = None
        projection = copied_under(weights, "embeddings_project.")
        if projection:
            out_features, in_features = projection["weight"].shape
            self.projection = nn.Linear(in_features, out_features)
            self.projection.load_state_dict(projection)
        self.embeddings.load_state_dict(copied_under(weights, "embeddings."))
        self.layers = nn.ModuleList()
        for i in range(depth):
            layer = empty_layer(spec, config)
            weights = load_shard(spec, reader, i + 1)
            layer.load_state_dict(copied_under(weights, f"{family.layer_prefix}{i}."), assign=True)
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
