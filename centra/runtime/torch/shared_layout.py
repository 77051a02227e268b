"""What all layers of a backbone share, as tensors in an order of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from centra.families.positions import distance_buckets, distance_rows, distances, rotary_tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.families.description import Attention
    from centra.formats.backbone import BackboneSpec

__all__ = ["SharedLayout"]


class SharedLayout:
    """In which order the tensors come that all layers of a backbone share.

    First the bias of padding, then what positions add: so functions of tensors alone can be captured.
    """

    def __init__(self, spec: BackboneSpec, tables: Mapping[str, torch.Tensor]) -> None:
        """Collect what the layers of a backbone ask for, and those of tasks above it.

        Args:
            spec: the backbone.
            tables: see :attr:`centra.modeling.shared_state.PositionTables.tables`.
        """
        self._tables = tables
        self._distances = spec.description.distances
        layers = [spec.layer(number) for number in range(1, 2 * spec.num_layers + 1)]
        self.rotary = [*dict.fromkeys(r for x in layers if (r := x.attention.rotary))]
        self.biases = [*dict.fromkeys(b for x in layers if (b := x.attention.relative_bias))]

    @property
    def distances(self) -> torch.Tensor:
        """The embeddings of distances, ``(rows, hidden)``."""
        assert self._distances is not None
        return self._tables[self._distances.table]

    def tensors(self, padding: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What layers take beside the states.

        Args:
            padding: ``(b, 1, 1, l)``, what is added to the scores of a token: 0, or very little for
                padding.
        """
        length = padding.shape[-1]
        turns = (torch.from_numpy(t) for r in self.rotary for t in rotary_tables(r, length))
        scores = (
            self._tables[bias.table][
                torch.from_numpy(distance_buckets(bias, distances(length, length))).to(
                    padding.device
                )
            ].permute(2, 0, 1)[None]
            for bias in self.biases
        )
        rows: tuple[torch.Tensor, ...] = ()
        if self._distances is not None:
            # Column c of what content has with distances is for the distance l - c.
            found = distance_rows(self._distances, length - np.arange(2 * length))
            rows = (torch.from_numpy(found).to(padding.device),)
        return padding, *(tensor.to(padding) for tensor in (*turns, *scores)), *rows

    def turns(self, attention: Attention, shared: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Cosines and sines ``(l, head size)``; none where nothing turns."""
        if attention.rotary is None:
            return ()
        first = 1 + 2 * self.rotary.index(attention.rotary)
        return shared[first : first + 2]

    def bias(self, attention: Attention, shared: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """What is added to its scores by distance, ``(1, heads, l, l)``; None where nothing is."""
        if attention.relative_bias is None:
            return None
        return shared[1 + 2 * len(self.rotary) + self.biases.index(attention.relative_bias)]

    def scores(self, attention: Attention, shared: Sequence[torch.Tensor]) -> torch.Tensor:
        """What is added to a layer's scores, ``(b, 1 or heads, 1 or l, l)``."""
        padding, length = shared[0], shared[0].shape[-1]
        added, bias = padding, self.bias(attention, shared)
        if bias is not None:
            added = added + bias
        if attention.window is not None:
            places = torch.arange(length, device=padding.device)
            outside = (places[None] - places[:, None]).abs() > attention.window
            added = added.masked_fill(outside, torch.finfo(padding.dtype).min)
        return added.clamp(min=torch.finfo(padding.dtype).min) if added is not padding else added

    def first_scores(
        self, attention: Attention, shared: Sequence[torch.Tensor], seen: int
    ) -> torch.Tensor:
        """What is added to those of first tokens with so many, ``(b, 1 or heads, seen)``."""
        padding, bias = shared[0][:, :, 0, :seen], self.bias(attention, shared)
        if bias is None:
            return padding
        return (padding + bias[:, :, 0, :seen]).clamp(min=torch.finfo(padding.dtype).min)
