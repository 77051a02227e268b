"""Parts of layers of several tasks at once: their weights stacked, their products batched.

Names in shapes are those of :mod:`centra.runtime.torch.batched_layers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from centra.modeling.layers import activation, for_all_heads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.families.description import Attention, Convolution, Disentangled, Linear, Norm
    from centra.families.description import Layer as LayerDescription
    from centra.runtime.torch.shared_layout import SharedLayout

__all__ = [
    "AfterAttention",
    "DistanceTerms",
    "StackedConvolution",
    "StackedLinear",
    "StackedNorm",
    "affine",
    "by_head",
    "unchanged",
]


class StackedLinear:
    """A linear layer of each task, or some that read the same, side by side."""

    def __init__(self, stack: Sequence[Mapping[str, torch.Tensor]], *parts: Linear) -> None:
        def stacked(end: str) -> torch.Tensor:
            return torch.stack(
                [torch.cat([w[f"{p.name}.{end}"][p.rows] for p in parts]) for w in stack]
            )

        self.weight = stacked("weight")
        """``(t, out, in)``"""
        self.bias = stacked("bias")[:, None] if parts[0].bias else None
        """``(t, 1, out)``"""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """From ``(1 or t, rows, in)`` to ``(t, rows, out)``."""
        if len(self.weight) == 1:
            bias = None if self.bias is None else self.bias[0, 0]
            return functional.linear(rows, self.weight[0], bias)
        return affine(self.bias, rows.expand(len(self.weight), -1, -1), self.weight.mT)


class StackedNorm:
    """A norm of each task."""

    def __init__(self, stack: Sequence[Mapping[str, torch.Tensor]], norm: Norm) -> None:
        def stacked(end: str) -> torch.Tensor:
            return torch.stack([weights[f"{norm.name}.{end}"] for weights in stack])[:, None]

        self._scale = stacked("weight")
        self._shift = stacked("bias") if norm.bias else None
        self._kind, self._epsilon = norm.kind, norm.epsilon

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """From ``(1 or t, rows, hidden)`` to ``(t, rows, hidden)``."""
        shape = rows.shape[-1:]
        if self._kind == "rms":
            return functional.rms_norm(rows, shape, eps=self._epsilon) * self._scale
        if len(self._scale) == 1:
            scale, shift = self._scale[0, 0], None if self._shift is None else self._shift[0, 0]
            return functional.layer_norm(rows, shape, scale, shift, self._epsilon)
        normal = functional.layer_norm(rows, shape, eps=self._epsilon)
        if self._shift is None:
            return normal * self._scale
        return torch.addcmul(self._shift, normal, self._scale)


class AfterAttention:
    """What follows attention in a layer, row by row."""

    def __init__(
        self, stack: Sequence[Mapping[str, torch.Tensor]], layer: LayerDescription
    ) -> None:
        parts = layer.feed_forward
        self._norm_first = layer.norm_first
        self._activation = activation(parts.activation)
        self._output = StackedLinear(stack, layer.attention.output)
        self._inner, self._outer = (
            StackedLinear(stack, parts.inner),
            StackedLinear(stack, parts.outer),
        )
        self._gate = None if parts.gate is None else StackedLinear(stack, parts.gate)
        self._attention_norm, self._norm = (
            unchanged if norm is None else StackedNorm(stack, norm)
            for norm in (layer.attention_norm, layer.feed_forward_norm)
        )

    def __call__(self, context: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """From attention's averages ``(t, rows, hidden)`` and the layer's input to its output."""
        states = self._output(context) + states
        if self._norm_first:
            return self._feed_forward(self._norm(states)) + states
        states = self._attention_norm(states)
        return self._norm(self._feed_forward(states) + states)

    def _feed_forward(self, states: torch.Tensor) -> torch.Tensor:
        inner = self._activation(self._inner(states))
        return self._outer(inner if self._gate is None else inner * self._gate(states))


class StackedConvolution:
    """The convolution beside a layer of each task."""

    def __init__(self, stack: Sequence[Mapping[str, torch.Tensor]], part: Convolution) -> None:
        name, linear = part.name, part.linear
        flat = [
            {
                f"{name}.weight": weights[f"{name}.weight"].mT.reshape(linear.stored_shape),
                f"{name}.bias": weights[f"{name}.bias"],
            }
            for weights in stack
        ]
        self._kernel = part.kernel
        self._linear, self._norm = StackedLinear(flat, linear), StackedNorm(stack, part.norm)
        self._activation = activation(part.activation)

    def __call__(
        self, found: torch.Tensor, states: torch.Tensor, padding: torch.Tensor, count: int
    ) -> torch.Tensor:
        """The layer's output with it.

        Args:
            found: without it, of the first tokens of each input, ``(t, b * count, hidden)``.
            states: the layer's input ``(1 or t, b, l, hidden)``.
            padding: what is added to the scores of a token, ``(b, 1, 1, l)``.
            count: how many tokens of each input.
        """
        real = (padding == 0).view(*padding.shape[::3], 1)
        reach = self._kernel // 2
        padded = functional.pad(states * real, (0, 0, reach, reach))
        read = torch.cat([padded[:, :, i : i + count] for i in range(self._kernel)], dim=-1)
        return self._norm(found + self._activation(self._linear(read.flatten(1, 2))))


class DistanceTerms:
    """The scores that positions have with content, of each task."""

    def __init__(
        self,
        stack: Sequence[Mapping[str, torch.Tensor]],
        attention: Attention,
        parts: Disentangled,
        layout: SharedLayout,
    ) -> None:
        self._scale = attention.scale

        def of(part: Linear | None) -> torch.Tensor | None:
            """``(t, 1, heads, rows, size)``."""
            if part is None:
                return None
            found = StackedLinear(stack, part)(layout.distances[None])
            split = found.view(*found.shape[:2], attention.heads, attention.head_size)
            return split.transpose(1, 2)[:, None].contiguous()

        with torch.inference_mode():
            self._keys, self._queries = of(parts.key), of(parts.query)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """From ``(t * b, heads, l, size)`` each to ``(t * b, heads, l, l)``.

        Args:
            query, key: of the content.
            rows: of distances, ``(2 * l,)``; see :meth:`SharedLayout.tensors`.
        """
        length = query.shape[2]
        places = torch.arange(length, device=query.device)
        columns = length - places[:, None] + places
        found = torch.zeros((), dtype=query.dtype, device=query.device)
        if self._keys is not None:
            found = found + self._met(query, self._keys, rows, columns)
        if self._queries is not None:
            found = found + self._met(key, self._queries, rows, columns.mT).mT
        return found * self._scale

    def of_first(self, query: torch.Tensor, keys: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Those of first tokens, ``(t, b, heads, l)``.

        Args:
            query: of the content, times the scale, ``(t, b, heads, size)``.
            keys: likewise without it, ``(t, b, heads, l, size)``.
            rows: of distances; see :meth:`__call__`.
        """
        behind = rows[keys.shape[3] :]
        found = torch.zeros((), dtype=query.dtype, device=query.device)
        if self._keys is not None:
            found = found + torch.matmul(self._keys[:, :, :, behind], query[..., None]).squeeze(-1)
        if self._queries is not None:
            found = found + (keys * self._queries[:, :, :, behind]).sum(dim=-1) * self._scale
        return found

    @staticmethod
    def _met(
        content: torch.Tensor, table: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        split = content.view(len(table), -1, *content.shape[1:])
        met = torch.matmul(split, table[:, :, :, rows].mT).flatten(0, 1)
        return met.gather(-1, columns.expand(*met.shape[:2], -1, -1))


def affine(bias: torch.Tensor | None, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Batched products, with a bias where there is one."""
    return torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias, rows, weight)


def unchanged(rows: torch.Tensor) -> torch.Tensor:
    """Where there is no norm."""
    return rows


def by_head(weight: torch.Tensor, parts: Attention) -> torch.Tensor:
    """``(t, key heads * size, in)`` to ``(t * heads, size, in)``: what each head of queries looks at."""
    stack, _, columns = weight.shape
    split = weight.reshape(stack, parts.key_heads, -1, columns)
    return for_all_heads(split, parts).flatten(0, 1)
