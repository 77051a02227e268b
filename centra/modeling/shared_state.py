"""What all layers of a batch share, the trunk's and the branches': the mask, and positions.

The trunk makes it once for a batch (:meth:`centra.modeling.trunk.Trunk.shared_state`), and hands it to
each layer and each branch. Tables of weights that it is made from lie among the backbone's embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from centra.families.positions import distance_buckets, distances, in_blocks, rotary_tables
from centra.modeling.shards import load_shard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.description import Attention, RelativeBias, Rotary
    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader

__all__ = ["PositionTables", "SharedState", "attention_bias"]


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


class SharedState:
    """What the layers of one batch share."""

    def __init__(self, attention_mask: torch.Tensor, tables: Mapping[str, torch.Tensor]) -> None:
        """Make it; what no layer asks for is not computed.

        Args:
            attention_mask: ``(batch, seq)``, 1 for tokens and 0 for padding.
            tables: the backbone's; see :attr:`PositionTables.tables`.
        """
        self.attention_mask = attention_mask
        self.mask = attention_bias(attention_mask)
        """What transformers' layers take."""
        self._tables = tables
        self._rotary: dict[Rotary, tuple[torch.Tensor, torch.Tensor]] = {}
        self._windows: dict[int, torch.Tensor] = {}
        self._scores: dict[tuple[RelativeBias | None, int | None], torch.Tensor] = {}

    def only(self, inputs: torch.Tensor) -> SharedState:
        """The same for some inputs, by their places."""
        return SharedState(self.attention_mask[inputs], self._tables)

    def looked_at(self, window: int | None) -> torch.Tensor | None:
        """Where a token may look; as :func:`attention_bias`, with a window around each token."""
        length, device = self.attention_mask.shape[1], self.attention_mask.device
        if window is None or length <= window + 1:
            return self.mask
        if window not in self._windows:
            far = np.abs(distances(length, length)) > window
            near = torch.from_numpy(~far).to(device)[None, None]
            self._windows[window] = near if self.mask is None else near & self.mask
        return self._windows[window]

    def in_window(self, window: int | None) -> tuple[int, torch.Tensor] | None:
        """The window and what is real of long inputs, whose attention is computed block by block.

        See :func:`centra.modeling.windows.attention_in_window`.
        """
        if window is None or not in_blocks(window, self.attention_mask.shape[1]):
            return None
        return window, self.attention_mask.bool()

    def rotary(self, rotary: Rotary) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines ``(seq, size)``."""
        if rotary not in self._rotary:
            tables = rotary_tables(rotary, self.attention_mask.shape[1])
            cosines, sines = (torch.from_numpy(t).to(self.attention_mask.device) for t in tables)
            self._rotary[rotary] = cosines, sines
        return self._rotary[rotary]

    def scores(self, attention: Attention) -> torch.Tensor:
        """What is added to a layer's scores, ``(batch, 1 or heads, seq, seq)``."""
        key = attention.relative_bias, attention.window
        if key not in self._scores:
            self._scores[key] = self._added(*key)
        return self._scores[key]

    def distances(self, attention: Attention) -> torch.Tensor:
        """The embeddings of distances ``(rows, hidden)`` that a layer projects."""
        assert attention.disentangled is not None
        return self._tables[attention.disentangled.distances.table]

    def _added(self, relative_bias: RelativeBias | None, window: int | None) -> torch.Tensor:
        length, device = self.attention_mask.shape[1], self.attention_mask.device
        hidden = ~self.attention_mask.bool()[:, None, None, :]
        distance = distances(length, length)
        if window is not None:
            hidden = hidden | torch.from_numpy(np.abs(distance) > window).to(device)
        added = torch.zeros(hidden.shape, device=device)
        if relative_bias is not None:
            buckets = torch.from_numpy(distance_buckets(relative_bias, distance)).to(device)
            added = added + self._tables[relative_bias.table][buckets].permute(2, 0, 1)
        return added.masked_fill(hidden, torch.finfo(added.dtype).min)


class PositionTables(nn.Module):
    """A backbone's tables by distance, which no layer owns; none for most families."""

    def __init__(self, spec: BackboneSpec, embeddings: Mapping[str, torch.Tensor]) -> None:
        """Take them from among the tensors of the backbone's embeddings."""
        super().__init__()
        self._names = [bias.table for bias in spec.description.relative_biases]
        for place, name in enumerate(self._names):
            self.register_buffer(f"table{place}", embeddings[name].clone(), persistent=False)
        distances = spec.description.distances
        if distances is not None:
            rows, norm = embeddings[distances.table].clone(), distances.norm
            if norm is not None:
                weight, bias = (
                    embeddings[f"{norm.name}.{end}"].clone() for end in ("weight", "bias")
                )
                rows = functional.layer_norm(rows, (norm.size,), weight, bias, norm.epsilon)
            self.register_buffer(f"table{len(self._names)}", rows, persistent=False)
            self._names.append(distances.table)

    @classmethod
    def load(cls, spec: BackboneSpec, reader: BlobReader) -> PositionTables:
        """Read them from a store; where there are none, nothing is read."""
        needed = spec.description.relative_biases or spec.description.distances
        return cls(spec, load_shard(spec, reader, 0) if needed else {})

    def forward(self, attention_mask: torch.Tensor) -> SharedState:
        """What all layers share of a batch with such a mask ``(batch, seq)``."""
        return SharedState(attention_mask, self.tables)

    @property
    def tables(self) -> dict[str, torch.Tensor]:
        """Biases by distance ``(buckets, heads)`` each, and embeddings of distances, by name.

        The latter are ``(rows, hidden)``, behind their norm.
        """
        return {name: self.get_buffer(f"table{i}") for i, name in enumerate(self._names)}
