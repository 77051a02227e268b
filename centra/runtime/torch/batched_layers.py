"""Layers and branches of several tasks at once: their weights stacked, their products batched.

States are ``(stack, batch, seq, hidden)``. A stack of one task is a plain layer, such as the trunk's;
states with a stack of one before a layer with a larger one are read by all of its tasks. Names in
shapes below: ``t`` tasks, ``b`` inputs, ``l`` tokens.

Written out with plain operators because ``torch.func.vmap`` over transformers' own layers has no
batching rule for the CPU's attention and spoils attention's mask on others
(https://github.com/pytorch/pytorch/issues/151558). Sums of products and softmax are kept in float32 by
torch; heads are float32 altogether.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from centra.families.positions import (
    BLOCK,
    distance_buckets,
    distance_rows,
    distances,
    in_blocks,
    rotary_tables,
)
from centra.modeling.heads import head_activation, pooled
from centra.modeling.layers import activation, for_all_heads, turned
from centra.modeling.windows import attention_in_window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from centra.families.description import Attention, Convolution, Disentangled, Linear, Norm
    from centra.families.description import Layer as LayerDescription
    from centra.formats.backbone import BackboneSpec
    from centra.formats.head import Head, HeadSteps

__all__ = ["BranchWeights", "Branches", "FirstTokenLayer", "Layer", "SharedLayout"]


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
        self._project = _Linear(stack, parts.query, parts.key, parts.value)
        self._rest = _AfterAttention(stack, layer)
        self._beside = _beside(stack, layer)
        self._terms = None
        if parts.disentangled is not None:
            self._terms = _DistanceTerms(stack, parts, parts.disentangled, layout)

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
        self._query = _Linear(stack, layer.attention.query)
        key, value = (_Linear(stack, p) for p in (layer.attention.key, layer.attention.value))
        # Head by head, (t * heads, size, hidden). A bias of the keys falls out of the softmax.
        parts = layer.attention
        self._key, self._value = (_by_head(part.weight, parts) for part in (key, value))
        self._keys = None if parts.rotary is None and parts.disentangled is None else key
        self._terms = None
        if parts.disentangled is not None:
            self._terms = _DistanceTerms(stack, parts, parts.disentangled, layout)
        self._value_bias = None if value.bias is None else _by_head(value.bias.mT, parts).mT
        self._rest = _AfterAttention(stack, layer)
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
        context = _affine(self._value_bias, average, self._value.mT)
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


@dataclass(frozen=True, kw_only=True)
class BranchWeights:
    """One task's tensors, where they are computed."""

    layers: Sequence[Mapping[str, torch.Tensor]]
    """By their names within each layer, from the lowest."""
    head: Mapping[str, torch.Tensor]
    """In float32, by their names in a task module."""


class Branches:
    """Branches that read the same tap and have as many layers and the same sort of head."""

    def __init__(
        self,
        branches: Sequence[BranchWeights],
        head: Head,
        described: Sequence[LayerDescription],
        layout: SharedLayout,
    ) -> None:
        """Stack the branches' weights.

        Args:
            branches: at least one; heads may have different numbers of outputs.
            head: of any of them, outputs aside.
            described: how their layers look.
            layout: of what all layers share.
        """
        layers = [*zip(*(branch.layers for branch in branches), strict=True)]
        heads = [branch.head for branch in branches]
        self._pooling = head.pooling
        self._on_tokens, self._on_rows = _Steps(heads, head.on_tokens), _Steps(heads, head.on_rows)
        pairs = [*zip(layers, described, strict=True)]
        self._first = None
        if head.reads_first and pairs:
            self._first = FirstTokenLayer(*pairs.pop(), layout)
        self._layers = [Layer(*pair, layout) for pair in pairs]

    def __call__(self, states: torch.Tensor, *shared: torch.Tensor) -> torch.Tensor:
        """From the tap's states to logits.

        Args:
            states: ``(1, b, l, hidden)``.
            shared: see :meth:`SharedLayout.tensors`.

        Returns:
            ``(t, b, most outputs)``, or ``(t, b, l, most outputs)`` for heads on every token, in
            float32.
        """
        for layer in self._layers:
            states = layer(states, *shared)
        if self._first is not None:
            return self._on_rows(self._first(states, *shared).float())
        batch, length = states.shape[1:3]
        if self._pooling == "first":
            states = states[:, :, :1]
        rows = self._on_tokens(states.flatten(1, 2).float())
        states = rows.view(len(rows), batch, -1, rows.shape[-1])
        if self._pooling is None:
            return states
        real = (shared[0].view(batch, length) == 0).to(states)
        return self._on_rows(pooled(states, self._pooling, real))


class _Steps:
    """Parts of the heads of some tasks, row by row."""

    def __init__(self, heads: Sequence[Mapping[str, torch.Tensor]], steps: HeadSteps) -> None:
        self._norm = _no_norm if steps.norm is None else _Norm(heads, steps.norm)
        self._dense = None if steps.dense is None else _Linear(heads, steps.dense)
        self._activation = head_activation(steps.activation) if steps.dense else None
        self._dense_norm = _no_norm if steps.dense_norm is None else _Norm(heads, steps.dense_norm)
        self._out = None if steps.out is None else _outputs(heads, steps.out)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """From ``(1 or t, rows, hidden)`` to ``(1 or t, rows, …)``."""
        rows = self._norm(rows)
        if self._dense is not None and self._activation is not None:
            rows = self._activation(self._dense(rows))
        rows = self._dense_norm(rows)
        return rows if self._out is None else self._out(rows)


def _outputs(heads: Sequence[Mapping[str, torch.Tensor]], out: Linear) -> _Linear:
    """The output layers, with zeros for outputs that only others have."""
    stacked = {
        end: pad_sequence([head[f"{out.name}.{end}"] for head in heads], batch_first=True)
        for end in ("weight", "bias")
    }
    most = replace(out, outputs=stacked["bias"].shape[1])
    return _Linear(
        [{f"{out.name}.{end}": t[i] for end, t in stacked.items()} for i in range(len(heads))], most
    )


class _DistanceTerms:
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
            found = _Linear(stack, part)(layout.distances[None])
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


class _Linear:
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
        return _affine(self.bias, rows.expand(len(self.weight), -1, -1), self.weight.mT)


class _Norm:
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


class _AfterAttention:
    """What follows attention in a layer, row by row."""

    def __init__(
        self, stack: Sequence[Mapping[str, torch.Tensor]], layer: LayerDescription
    ) -> None:
        parts = layer.feed_forward
        self._norm_first = layer.norm_first
        self._activation = activation(parts.activation)
        self._output = _Linear(stack, layer.attention.output)
        self._inner, self._outer = _Linear(stack, parts.inner), _Linear(stack, parts.outer)
        self._gate = None if parts.gate is None else _Linear(stack, parts.gate)
        self._attention_norm, self._norm = (
            _no_norm if norm is None else _Norm(stack, norm)
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


class _Convolution:
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
        self._linear, self._norm = _Linear(flat, linear), _Norm(stack, part.norm)
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


def _beside(
    stack: Sequence[Mapping[str, torch.Tensor]], layer: LayerDescription
) -> _Convolution | None:
    return None if layer.convolution is None else _Convolution(stack, layer.convolution)


def _norm_before(
    stack: Sequence[Mapping[str, torch.Tensor]], layer: LayerDescription
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What attention reads of a layer's input."""
    if not layer.norm_first or layer.attention_norm is None:
        return _no_norm
    return _Norm(stack, layer.attention_norm)


def _no_norm(rows: torch.Tensor) -> torch.Tensor:
    return rows


def _affine(bias: torch.Tensor | None, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Batched products, with a bias where there is one."""
    return torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias, rows, weight)


def _by_head(weight: torch.Tensor, parts: Attention) -> torch.Tensor:
    """``(t, key heads * size, in)`` to ``(t * heads, size, in)``: what each head of queries looks at."""
    stack, _, columns = weight.shape
    split = weight.reshape(stack, parts.key_heads, -1, columns)
    return for_all_heads(split, parts).flatten(0, 1)
