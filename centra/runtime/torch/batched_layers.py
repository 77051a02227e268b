"""Layers of several tasks at once: their weights stacked, their products batched.

States are ``(stack, batch, seq, hidden)``. A stack of one task is a plain layer, such as the trunk's;
states with a stack of one before a layer with a larger one are read by all of its tasks. Names in
shapes below: ``t`` tasks, ``b`` inputs, ``l`` tokens.

Written out with plain operators because ``torch.func.vmap`` over transformers' own layers has no
batching rule for the CPU's attention and spoils attention's mask on others
(https://github.com/pytorch/pytorch/issues/151558). Sums of products and softmax are kept in float32 by
torch; heads are float32 altogether.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from centra.families.positions import BLOCK, in_blocks
from centra.modeling.layers import for_all_heads, turned
from centra.modeling.windows import attention_in_window
from centra.runtime.torch.stacked import (
    AfterAttention,
    DistanceTerms,
    StackedConvolution,
    StackedLinear,
    StackedNorm,
    affine,
    by_head,
    unchanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from centra.families.description import Layer as LayerDescription
    from centra.runtime.torch.shared_layout import SharedLayout

__all__ = ["FirstTokenLayer", "Layer"]


class Layer:
    """A transformer layer of each of some tasks, on all tokens."""

    def __init__(
        self,
        stack: Sequence[Mapping[str, torch.Tensor]],
        layer: LayerDescription,
        layout: SharedLayout,
    ) -> None:
        """Stack the layers' weights.

        Args:
            stack: for each task the tensors of its layer, by their names within it.
            layer: how it looks, which is the same for all of them.
            layout: of what all layers share.
        """
        parts = layer.attention
        self._parts, self._layout = parts, layout
        self._before = _norm_before(stack, layer)
        self._project = StackedLinear(stack, parts.query, parts.key, parts.value)
        self._rest = AfterAttention(stack, layer)
        self._beside = _beside(stack, layer)
        self._terms = None
        if parts.disentangled is not None:
            self._terms = DistanceTerms(stack, parts, parts.disentangled, layout)

    def __call__(self, states: torch.Tensor, *shared: torch.Tensor) -> torch.Tensor:
        """Compute it.

        Args:
            states: ``(1 or t, b, l, hidden)``.
            shared: see :meth:`SharedLayout.tensors`.

        Returns:
            ``(t, b, l, hidden)``.
        """
        _, batch, length, hidden = states.shape
        rows = states.flatten(1, 2)
        projected = self._project(self._before(rows))
        stack, parts = len(projected), self._parts
        widths = [part.outputs for part in (parts.query, parts.key, parts.value)]
        query, key, value = (
            part.view(stack * batch, length, -1, parts.head_size).transpose(1, 2)
            for part in projected.split_with_sizes(widths, dim=-1)
        )
        if tables := self._layout.turns(self._parts, shared):
            query, key = (turned(part, tables[0], tables[1]) for part in (query, key))
        key, value = (for_all_heads(part, parts) for part in (key, value))
        context = self._attend(query, key, value, shared)
        context = context.transpose(1, 2).reshape(stack, batch * length, -1)
        found = self._rest(context, rows)
        if self._beside is not None:
            found = self._beside(found, states, shared[0], length)
        return found.view(stack, batch, length, hidden)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        shared: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """From ``(t * b, heads, l, size)`` each to the same."""
        parts, padding = self._parts, shared[0]
        stack, window = len(query) // len(padding), parts.window
        if window is not None and self._terms is None and in_blocks(window, query.shape[2]):
            bias = self._layout.bias(parts, shared)
            if bias is not None:  # By distance alone, so that any place is as good as another.
                bias = bias[:, :, window : window + BLOCK, : BLOCK + 2 * window]
            real = (padding[:, 0, 0] == 0).repeat(stack, 1)
            return attention_in_window(
                query, key, value, real, window=window, scale=parts.scale, bias=bias
            )
        added = self._layout.scores(parts, shared).repeat(stack, 1, 1, 1)
        if self._terms is not None:
            added = added + self._terms(query, key, shared[-1])
            added = added.clamp(min=torch.finfo(added.dtype).min)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=added, scale=parts.scale
        )


class FirstTokenLayer:
    """A transformer layer of each of some tasks, for the first token of each input alone.

    The key projection moves onto the query and the value projection behind the average, as in
    :mod:`centra.runtime.onnx.layer_graphs`, so no key or value is computed for any other token, but for
    keys that turn with their positions or meet distances.
    """

    def __init__(
        self,
        stack: Sequence[Mapping[str, torch.Tensor]],
        layer: LayerDescription,
        layout: SharedLayout,
    ) -> None:
        """Stack the layers' weights; see :class:`Layer`."""
        self._parts, self._layout = layer.attention, layout
        self._heads = layer.attention.heads
        self._before = _norm_before(stack, layer)
        self._query = StackedLinear(stack, layer.attention.query)
        key, value = (StackedLinear(stack, p) for p in (layer.attention.key, layer.attention.value))
        # Head by head, (t * heads, size, hidden). A bias of the keys falls out of the softmax.
        parts = layer.attention
        self._key, self._value = (by_head(part.weight, parts) for part in (key, value))
        self._keys = None if parts.rotary is None and parts.disentangled is None else key
        self._terms = None
        if parts.disentangled is not None:
            self._terms = DistanceTerms(stack, parts, parts.disentangled, layout)
        self._value_bias = None if value.bias is None else by_head(value.bias.mT, parts).mT
        self._rest = AfterAttention(stack, layer)
        self._beside = _beside(stack, layer)

    def __call__(self, states: torch.Tensor, *shared: torch.Tensor) -> torch.Tensor:
        """As :meth:`Layer.__call__`, but gives ``(t, b, hidden)``."""
        firsts, given = states[:, :, 0], states
        if self._parts.window is not None:
            # Behind these there is nothing in the window of the first.
            states = states[:, :, : self._parts.window + 1]
        read = self._before(states.flatten(1, 2)).view(-1, *states.shape[1:])
        _, batch, seen, _ = read.shape
        heads, size = self._heads, self._parts.head_size
        query = self._query(read[:, :, 0]) * self._parts.scale
        stack = len(query)
        query = query.view(stack, batch, heads, size)
        scores = self._scores(query, read, shared)
        added = self._layout.first_scores(self._parts, shared, seen)
        if added.shape[1] > 1:
            added = added.repeat(1, scores.shape[2] // heads, 1)
        scores = scores + added
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(states.dtype)
        average = torch.matmul(weights, read).transpose(1, 2).reshape(-1, batch, read.shape[-1])
        context = affine(self._value_bias, average, self._value.mT)
        context = context.view(stack, heads, batch, size).transpose(1, 2)
        found = self._rest(context.reshape(stack, batch, -1), firsts)
        return found if self._beside is None else self._beside(found, given, shared[0], 1)

    def _scores(
        self, query: torch.Tensor, read: torch.Tensor, shared: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """From queries ``(t, b, heads, size)`` to ``(stack of what is read, b, rows, l)``.

        Rows are the heads of all tasks that read the same, which do so together.
        """
        (stack, batch, heads, size), (groups, _, length, hidden) = query.shape, read.shape
        if self._keys is None:
            rows = torch.bmm(query.transpose(1, 2).reshape(-1, batch, size), self._key)
            rows = rows.view(groups, -1, batch, hidden).transpose(1, 2)
            return torch.matmul(rows, read.mT)
        keys = self._keys(read.flatten(1, 2)).view(stack, batch, length, -1, size)
        keys = keys.transpose(2, 3)
        # A first token's position is 0, which turns nothing.
        if tables := self._layout.turns(self._parts, shared):
            keys = turned(keys, tables[0][:length], tables[1][:length])
        keys = for_all_heads(keys, self._parts)
        met = torch.matmul(keys, query[..., None]).squeeze(-1)
        if self._terms is not None:
            met = met + self._terms.of_first(query, keys, shared[-1])
        return met.view(groups, -1, batch, heads, length).transpose(1, 2).flatten(2, 3)


def _beside(
    stack: Sequence[Mapping[str, torch.Tensor]], layer: LayerDescription
) -> StackedConvolution | None:
    return None if layer.convolution is None else StackedConvolution(stack, layer.convolution)


def _norm_before(
    stack: Sequence[Mapping[str, torch.Tensor]], layer: LayerDescription
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What attention reads of a layer's input."""
    if not layer.norm_first or layer.attention_norm is None:
        return unchanged
    return StackedNorm(stack, layer.attention_norm)
