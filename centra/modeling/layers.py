"""Layers of an encoder as torch modules: transformers' own classes, or made from a description.

transformers' classes are the reference (``docs/adr/0005``); a family that transformers does not have
is computed from its description by :class:`DescribedLayer`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from centra.families import family_named
from centra.families.positions import distance_rows
from centra.modeling.windows import know_attention_in_window

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.families.base import TransformersClasses
    from centra.families.description import (
        Attention,
        Disentangled,
        Embeddings,
        Layer,
        Linear,
        Norm,
    )
    from centra.formats.backbone import BackboneSpec
    from centra.modeling.shared_state import SharedState

__all__ = [
    "DescribedEmbeddings",
    "DescribedLayer",
    "activation",
    "empty_layer",
    "for_all_heads",
    "norm_module",
    "transformers_config",
    "turned",
]


def transformers_config(spec: BackboneSpec, classes: TransformersClasses) -> Any:
    """Transformers' config of a backbone's layers."""
    # transformers writes into the settings that it is given.
    settings = deepcopy(spec.config)
    return classes.named(classes.config)(**settings, attn_implementation=know_attention_in_window())


def empty_layer(spec: BackboneSpec, number: int) -> nn.Module:
    """The layer of a number, counted from 1, without weights and in evaluation mode."""
    classes, described = family_named(spec.family).transformers, spec.layer(number)
    with torch.device("meta"):
        if classes is None:
            layer: nn.Module = DescribedLayer(described)
        else:
            config = transformers_config(spec, classes)
            layer = _told(classes, described)(*classes.layer_arguments(config, number))
    return layer.eval()


def _told(classes: TransformersClasses, described: Layer) -> Any:
    """Transformers' class of a layer, told what all layers share as :class:`DescribedLayer` is."""
    kind: Any = classes.named(classes.layer)

    convolution = described.convolution is not None
    name, class_name = classes.convolution

    class Told(kind):  # type: ignore[misc]  # Only known now.
        def __init__(self, config: Any, *more: Any) -> None:
            super().__init__(config, *more)
            if convolution:
                self.add_module(name, classes.named(class_name)(config))

        def forward(self, hidden_states: torch.Tensor, shared: SharedState) -> torch.Tensor:
            found = super().forward(hidden_states, **classes.layer_inputs(shared, described))
            # Beside the states some layers give their attention.
            states: torch.Tensor = found[0] if isinstance(found, tuple) else found
            if convolution:
                # Padding is 0 in the embeddings that transformers' encoder is given.
                real = shared.attention_mask
                below = hidden_states * real[:, :, None]
                states = self.get_submodule(name)(below, states, real)
            return states

    return Told


class DescribedEmbeddings(nn.Module):
    """Layer 0 of a family that transformers does not have."""

    def __init__(self, description: Embeddings) -> None:
        """Make it without weights; they are named as in the encoder."""
        super().__init__()
        self._description = description
        for table in description.tables:
            _put(self, table.name, nn.Embedding(table.rows, table.width))
        if description.norm is not None:
            _put(self, description.norm.name, norm_module(description.norm))
        if description.projection is not None:
            _put(self, description.projection.name, _linear_module(description.projection))

    def forward(
        self, input_ids: torch.Tensor, token_type_ids: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """From ``(batch, seq)`` each to hidden states ``(batch, seq, hidden)``."""
        given = {
            "input_ids": input_ids,
            "token_type_ids": token_type_ids,
            "positions": positions,
            "zeros": torch.zeros_like(input_ids),
        }
        tables = self._description.tables
        states: torch.Tensor = sum(
            self.get_submodule(table.name)(given[table.ids]) for table in tables
        )
        for part in self._description.norm_and_projection:
            states = self.get_submodule(part.name)(states)
        return states


class DescribedLayer(nn.Module):
    """A layer made from its description, with plain operators."""

    def __init__(self, description: Layer) -> None:
        """Make it; its weights are named as in the family's checkpoints."""
        super().__init__()
        self.description = description
        for linear in description.linears:
            if linear.first_row == 0:
                _put(self, linear.name, _linear_module(linear))
        for norm in (description.attention_norm, description.feed_forward_norm):
            if norm is not None:
                _put(self, norm.name, norm_module(norm))
        beside = description.convolution
        if beside is not None:
            size = beside.hidden
            _put(self, beside.name, nn.Conv1d(size, size, beside.kernel, padding="same"))
            _put(self, beside.norm.name, norm_module(beside.norm))
        self._activation = activation(description.feed_forward.activation)

    def forward(self, hidden_states: torch.Tensor, shared: SharedState) -> torch.Tensor:
        """From hidden states ``(batch, seq, hidden)`` to the next."""
        states, beside = self._layer(hidden_states, shared), self.description.convolution
        if beside is None:
            return states
        real = hidden_states * shared.attention_mask[:, :, None]
        convolved = self.get_submodule(beside.name)(real.mT).mT
        return self._normed(beside.norm, states + activation(beside.activation)(convolved))

    def _layer(self, hidden_states: torch.Tensor, shared: SharedState) -> torch.Tensor:
        layer = self.description
        if layer.norm_first:
            states = hidden_states + self._attend(
                self._normed(layer.attention_norm, hidden_states), shared
            )
            return states + self._feed_forward(self._normed(layer.feed_forward_norm, states))
        states = self._normed(
            layer.attention_norm, self._attend(hidden_states, shared) + hidden_states
        )
        return self._normed(layer.feed_forward_norm, self._feed_forward(states) + states)

    def _attend(self, states: torch.Tensor, shared: SharedState) -> torch.Tensor:
        attention = self.description.attention
        batch, length, _ = states.shape

        def by_head(linear: Linear) -> torch.Tensor:
            split = self._linear(linear, states).view(batch, length, -1, attention.head_size)
            return split.transpose(1, 2)

        query, key, value = (
            by_head(linear) for linear in (attention.query, attention.key, attention.value)
        )
        if attention.rotary is not None:
            tables = shared.rotary(attention.rotary)
            query, key = turned(query, *tables), turned(key, *tables)
        key, value = (for_all_heads(part, attention) for part in (key, value))
        added = shared.scores(attention)
        if attention.disentangled is not None:
            added = added + self._distance_scores(query, key, attention.disentangled, shared)
        context = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=added, scale=attention.scale
        )
        return self._linear(attention.output, context.transpose(1, 2).flatten(2))

    def _distance_scores(
        self, query: torch.Tensor, key: torch.Tensor, parts: Disentangled, shared: SharedState
    ) -> torch.Tensor:
        """What positions add, from ``(batch, heads, seq, size)`` each to ``(batch, heads, seq, seq)``."""
        attention, places = self.description.attention, np.arange(query.shape[2])
        rows = distance_rows(parts.distances, places[:, None] - places)
        chosen = torch.from_numpy(rows).to(query.device).expand(*query.shape[:2], -1, -1)
        embeddings = shared.distances(attention)

        def met(content: torch.Tensor, linear: Linear) -> torch.Tensor:
            table = self._linear(linear, embeddings).view(-1, attention.heads, attention.head_size)
            return content @ table.permute(1, 2, 0)

        found = torch.zeros_like(chosen, dtype=query.dtype)
        if parts.key is not None:
            found = found + met(query, parts.key).gather(-1, chosen)
        if parts.query is not None:
            found = found + met(key, parts.query).gather(-1, chosen.mT).mT
        return found * attention.scale

    def _feed_forward(self, states: torch.Tensor) -> torch.Tensor:
        parts = self.description.feed_forward
        inner: torch.Tensor = self._activation(self._linear(parts.inner, states))
        if parts.gate is not None:
            inner = inner * self._linear(parts.gate, states)
        return self._linear(parts.outer, inner)

    def _linear(self, linear: Linear, rows: torch.Tensor) -> torch.Tensor:
        stored = self.get_submodule(linear.name)
        bias = stored.get_parameter("bias")[linear.rows] if linear.bias else None
        return functional.linear(rows, stored.get_parameter("weight")[linear.rows], bias)

    def _normed(self, norm: Norm | None, states: torch.Tensor) -> torch.Tensor:
        if norm is None:
            return states
        normed: torch.Tensor = self.get_submodule(norm.name)(states)
        return normed


def activation(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Transformers' activation of a name."""
    from transformers.activations import get_activation

    found: Callable[[torch.Tensor], torch.Tensor] = get_activation(name)
    return found


def turned(states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Queries or keys ``(…, seq, size)`` turned by their positions, with tables ``(seq, size)``."""
    first, second = states.chunk(2, dim=-1)
    return states * cosines + torch.cat([-second, first], dim=-1) * sines


def for_all_heads(states: torch.Tensor, attention: Attention) -> torch.Tensor:
    """Keys or values ``(…, key heads, seq, size)``, each head as often as heads of queries look at it."""
    count = attention.queries_per_key
    return states if count == 1 else states.repeat_interleave(count, dim=-3)


def norm_module(norm: Norm) -> nn.Module:
    """A norm as a module."""
    if norm.kind == "rms":
        return nn.RMSNorm(norm.size, eps=norm.epsilon)
    return nn.LayerNorm(norm.size, eps=norm.epsilon, bias=norm.bias)


def _linear_module(linear: Linear) -> nn.Linear:
    """What a linear layer is stored as."""
    outputs, inputs = linear.stored_shape
    return nn.Linear(inputs, outputs, bias=linear.bias)


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module under a dotted name, so that its tensors have that name in the state dict."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)
