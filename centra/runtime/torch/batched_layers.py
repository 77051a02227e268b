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

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from centra.families.table import LayerNames, family_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from centra.formats.backbone import BackboneSpec

__all__ = ["BranchWeights", "Branches", "FirstTokenLayer", "Layer", "LayerSettings"]


@dataclass(frozen=True, kw_only=True)
class LayerSettings:
    """What the layers of a backbone, and of the tasks on it, have in common."""

    names: LayerNames
    heads: int
    activation: Callable[[torch.Tensor], torch.Tensor]
    epsilon: float

    @classmethod
    def of(cls, spec: BackboneSpec) -> LayerSettings:
        """The settings of a backbone."""
        from transformers.activations import get_activation

        names = family_of(spec.family).names
        epsilon = names.epsilon if names.epsilon is not None else spec.config["layer_norm_eps"]
        return cls(
            names=names,
            heads=int(spec.config[names.heads_key]),
            activation=get_activation(spec.config[names.activation_key]),
            epsilon=float(epsilon),
        )


class Layer:
    """A transformer layer of each of some tasks, on all tokens."""

    def __init__(
        self, stack: Sequence[Mapping[str, torch.Tensor]], settings: LayerSettings
    ) -> None:
        """Stack the layers' weights.

        Args:
            stack: for each task the tensors of its layer, by their names within it.
            settings: of the layers.
        """
        names = settings.names
        self._heads = settings.heads
        self._project = _Linear(stack, names.query, names.key, names.value)
        self._rest = _AfterAttention(stack, settings)

    def __call__(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Compute it.

        Args:
            states: ``(1 or t, b, l, hidden)``.
            bias: ``(b, 1, 1, l)``, what is added to the scores of a token: 0, or very little for
                padding.

        Returns:
            ``(t, b, l, hidden)``.
        """
        _, batch, length, hidden = states.shape
        projected = self._project(states.flatten(1, 2))
        stack = len(projected)
        split = projected.view(stack * batch, length, 3, self._heads, hidden // self._heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()
        context = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.repeat(stack, 1, 1, 1)
        )
        context = context.transpose(1, 2).reshape(stack, batch * length, hidden)
        return self._rest(context, states.flatten(1, 2)).view(stack, batch, length, hidden)


class FirstTokenLayer:
    """A transformer layer of each of some tasks, for the first token of each input alone.

    The key projection moves onto the query and the value projection behind the average, as in
    :mod:`centra.runtime.onnx.layers`, so no key or value is computed for any other token.
    """

    def __init__(
        self, stack: Sequence[Mapping[str, torch.Tensor]], settings: LayerSettings
    ) -> None:
        """Stack the layers' weights; see :class:`Layer`."""
        names, self._heads = settings.names, settings.heads
        self._query = _Linear(stack, names.query)
        # Head by head, (t * heads, size, hidden). A bias of the keys falls out of the softmax.
        key, value = (_Linear(stack, name) for name in (names.key, names.value))
        self._key, self._value = (_by_head(part.weight, self._heads) for part in (key, value))
        self._value_bias = _by_head(value.bias.mT, self._heads).mT
        self._rest = _AfterAttention(stack, settings)

    def __call__(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """As :meth:`Layer.__call__`, but gives ``(t, b, hidden)``."""
        shared, batch, _, hidden = states.shape
        heads, size = self._heads, hidden // self._heads
        firsts = states[:, :, 0]
        query = self._query(firsts) * size**-0.5
        stack = len(query)
        query = query.view(stack, batch, heads, size).transpose(1, 2)
        rows = torch.bmm(query.reshape(-1, batch, size), self._key)
        # To (stack of the states, b, rows, hidden): tasks that read the same states do so together.
        rows = rows.view(shared, -1, batch, hidden).transpose(1, 2)
        scores = torch.matmul(rows, states.mT) + bias.transpose(0, 1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(states.dtype)
        average = torch.matmul(weights, states).transpose(1, 2).reshape(-1, batch, hidden)
        context = torch.baddbmm(self._value_bias, average, self._value.mT)
        context = context.view(stack, heads, batch, size).transpose(1, 2)
        return self._rest(context.reshape(stack, batch, hidden), firsts)


@dataclass(frozen=True, kw_only=True)
class BranchWeights:
    """One task's tensors, where they are computed."""

    layers: Sequence[Mapping[str, torch.Tensor]]
    """By their names within each layer, from the lowest."""
    head: Mapping[str, torch.Tensor]
    """In float32."""


class Branches:
    """Branches that read the same tap and have as many layers and the same sort of head."""

    def __init__(
        self,
        branches: Sequence[BranchWeights],
        activation: Callable[[torch.Tensor], torch.Tensor] | None,
        settings: LayerSettings,
    ) -> None:
        """Stack the branches' weights.

        Args:
            branches: at least one; heads may have different numbers of outputs.
            activation: of heads on the first token; None for heads on every token.
            settings: of the layers.
        """
        layers = [*zip(*(branch.layers for branch in branches), strict=True)]
        heads = [branch.head for branch in branches]
        self._activation = activation
        self._dense = None if activation is None else _Linear(heads, "dense")
        first = layers.pop() if activation is not None and layers else None
        self._layers = [Layer(layer, settings) for layer in layers]
        self._first = None if first is None else FirstTokenLayer(first, settings)
        # Zeros for outputs that only others have.
        out = {
            name: pad_sequence([head[name] for head in heads], batch_first=True)
            for name in ("out.weight", "out.bias")
        }
        self._out = _Linear([{n: t[i] for n, t in out.items()} for i in range(len(heads))], "out")

    def __call__(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """From the tap's states to logits.

        Args:
            states: ``(1, b, l, hidden)``.
            bias: see :meth:`Layer.__call__`.

        Returns:
            ``(t, b, most outputs)``, or ``(t, b, l, most outputs)`` for heads on every token, in
            float32.
        """
        for layer in self._layers:
            states = layer(states, bias)
        if self._activation is None or self._dense is None:
            logits = self._out(states.flatten(1, 2).float())
            return logits.view(len(logits), *states.shape[1:3], -1)
        firsts = states[:, :, 0] if self._first is None else self._first(states, bias)
        return self._out(self._activation(self._dense(firsts.float())))


class _Linear:
    """A linear layer of each task, or some that read the same, side by side."""

    def __init__(self, stack: Sequence[Mapping[str, torch.Tensor]], *names: str) -> None:
        def stacked(kind: str) -> torch.Tensor:
            return torch.stack([torch.cat([w[f"{n}.{kind}"] for n in names]) for w in stack])

        self.weight = stacked("weight")
        """``(t, out, in)``"""
        self.bias = stacked("bias")[:, None]
        """``(t, 1, out)``"""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """From ``(1 or t, rows, in)`` to ``(t, rows, out)``."""
        if len(self.weight) == 1:
            return functional.linear(rows, self.weight[0], self.bias[0, 0])
        return torch.baddbmm(self.bias, rows.expand(len(self.weight), -1, -1), self.weight.mT)


class _Norm:
    """A layer norm of each task."""

    def __init__(
        self, stack: Sequence[Mapping[str, torch.Tensor]], name: str, epsilon: float
    ) -> None:
        self._scale, self._shift = (
            torch.stack([weights[f"{name}.{kind}"] for weights in stack])[:, None]
            for kind in ("weight", "bias")
        )
        self._epsilon = epsilon

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """From ``(t, rows, hidden)`` to the same."""
        shape = rows.shape[-1:]
        if len(self._scale) == 1:
            scale, shift = self._scale[0, 0], self._shift[0, 0]
            return functional.layer_norm(rows, shape, scale, shift, self._epsilon)
        normal = functional.layer_norm(rows, shape, eps=self._epsilon)
        return torch.addcmul(self._shift, normal, self._scale)


class _AfterAttention:
    """What follows attention in a layer, row by row."""

    def __init__(
        self, stack: Sequence[Mapping[str, torch.Tensor]], settings: LayerSettings
    ) -> None:
        names, self._activation = settings.names, settings.activation
        self._output, self._inner, self._outer = (
            _Linear(stack, name) for name in (names.attention_output, names.inner, names.outer)
        )
        self._attention_norm, self._norm = (
            _Norm(stack, name, settings.epsilon) for name in (names.attention_norm, names.norm)
        )

    def __call__(self, context: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """From attention's averages ``(t, rows, hidden)`` and the layer's input to its output."""
        states = self._attention_norm(self._output(context) + states)
        return self._norm(self._outer(self._activation(self._inner(states))) + states)


def _by_head(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """``(t, heads * size, in)`` to ``(t * heads, size, in)``."""
    stack, rows, columns = weight.shape
    return weight.reshape(stack * heads, rows // heads, columns)
