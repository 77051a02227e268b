"""Attention of long inputs in a window, block by block: no table of all pairs is ever made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from centra.families.positions import BLOCK, distances

if TYPE_CHECKING:
    from torch import nn

__all__ = ["IN_WINDOW", "attention_in_window", "know_attention_in_window"]

IN_WINDOW = "centra_in_window"
"""What transformers calls :func:`_attention_of_layer`, once it knows it."""


def attention_in_window(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    real: torch.Tensor,
    *,
    window: int,
    scale: float,
    bias: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention of each token to those near it.

    Args:
        query, key, value: ``(batch, heads, seq, size)``.
        real: ``(batch, seq)``, True for tokens and False for padding.
        window: how far a token looks in each direction.
        scale: of the scores.
        bias: what is added to the scores of :data:`BLOCK` tokens with as many and those of the windows
            before and behind, ``(1, 1 or heads, BLOCK, BLOCK + 2 * window)``; the same everywhere.
        dropout: of the weights.

    Returns:
        ``(batch, heads, seq, size)``.
    """
    batch, heads, length, size = query.shape
    blocks, seen = -(-length // BLOCK), BLOCK + 2 * window
    behind = blocks * BLOCK - length
    query = functional.pad(query, (0, 0, 0, behind)).view(batch, heads, blocks, BLOCK, size)
    key, value = (
        functional.pad(part, (0, 0, window, behind + window)).unfold(2, seen, BLOCK)
        for part in (key, value)
    )
    looked_at = functional.pad(real, (window, behind + window)).unfold(1, seen, BLOCK)
    distance = torch.from_numpy(distances(BLOCK, seen, window)).to(query.device)
    # Padding looks at itself: no row without a token to look at.
    mask = (looked_at[:, :, None] & (distance.abs() <= window)) | (distance == 0)
    mask = mask.flatten(0, 1)[:, None]
    if bias is not None:
        mask = bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
    context = functional.scaled_dot_product_attention(
        query.transpose(1, 2).flatten(0, 1),
        key.permute(0, 2, 1, 4, 3).flatten(0, 1),
        value.permute(0, 2, 1, 4, 3).flatten(0, 1),
        attn_mask=mask,
        dropout_p=dropout,
        scale=scale,
    )
    context = context.view(batch, blocks, heads, BLOCK, size).transpose(1, 2)
    return context.flatten(2, 3)[:, :, :length]


def know_attention_in_window() -> str:
    """Make it known to transformers' layers, under the name that is returned.

    They attend as by ``sdpa``, or by :func:`attention_in_window` where they are given ``in_window``: the
    window, and what is real.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(IN_WINDOW, _attention_of_layer)
    return IN_WINDOW


def _attention_of_layer(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    in_window: tuple[int, torch.Tensor] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if in_window is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return found
    window, real = in_window
    context = attention_in_window(
        *(query, key, value, real),
        window=window,
        scale=options["scaling"],
        dropout=options["dropout"],
    )
    return context.transpose(1, 2), None
