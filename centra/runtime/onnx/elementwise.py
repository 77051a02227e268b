"""What follows products in the onnx engine's graphs: activations, norms and residual connections.

All are float32, and of each row alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.errors import IncompatibleError
from centra.runtime.onnx.graph import MICROSOFT, Graph
from centra.runtime.onnx.products import Rows, bias_of, linear, name_of, product

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from centra.families.description import Layer, Linear, Norm

__all__ = ["activated", "add_and_norm", "check_layer", "normed", "unknown_activation"]

_GELU = {"gelu", "gelu_python"}
_TANH_GELU = {"gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate"}
_PLAIN = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
_SWISH = {"silu", "swish"}


def check_layer(layer: Layer, where: str) -> None:
    """Refuse a layer that no graphs are known for.

    Raises:
        IncompatibleError: its activation.
    """
    if name := unknown_activation(layer):
        raise IncompatibleError(
            f"{where}: the onnx engine does not know the activation {name!r}; load the release with "
            "engine 'torch'",
            code="activation-unknown-to-engine",
            activation=name,
        )


def unknown_activation(layer: Layer) -> str | None:
    """The activation of a layer that no graphs are known for; None where there is none."""
    beside = () if layer.convolution is None else (layer.convolution.activation,)
    known = _GELU | _TANH_GELU | _PLAIN.keys() | _SWISH
    return next((n for n in (layer.feed_forward.activation, *beside) if n not in known), None)


def activated(
    graph: Graph, rows: Rows, weights: Mapping[str, np.ndarray], part: Linear, activation: str
) -> str:
    """A linear layer and its activation; where one kernel adds the bias too, that one."""
    bias = bias_of(weights, part)
    if activation in _GELU | _TANH_GELU and bias is not None:
        added = graph.weight(f"{name_of(part)}.bias", bias)
        op = "BiasGelu" if activation in _GELU else "FastGelu"
        return graph.node(op, product(graph, rows, weights, part), added, domain=MICROSOFT)
    value = linear(graph, rows, weights, part)
    if activation in _GELU | _TANH_GELU:
        op = "Gelu" if activation in _GELU else "FastGelu"
        return graph.node(op, value, domain=MICROSOFT)
    if activation in _SWISH:
        return graph.node("Mul", value, graph.node("Sigmoid", value))
    return graph.node(_PLAIN[activation], value)


def normed(graph: Graph, value: str, weights: Mapping[str, np.ndarray], norm: Norm) -> str:
    """A norm of rows."""
    op = "LayerNormalization" if norm.kind == "layer" else "SimplifiedLayerNormalization"
    parts = _norm_weights(graph, weights, norm)
    return graph.node(op, value, *parts, axis=-1, epsilon=norm.epsilon)


def add_and_norm(
    graph: Graph,
    value: str,
    residual: str,
    weights: Mapping[str, np.ndarray],
    norm: Norm | None,
) -> str:
    """A residual connection and the norm after it."""
    if norm is None:
        return graph.node("Add", value, residual)
    op = "SkipLayerNormalization" if norm.kind == "layer" else "SkipSimplifiedLayerNormalization"
    parts = _norm_weights(graph, weights, norm)
    return graph.node(op, value, residual, *parts, domain=MICROSOFT, epsilon=norm.epsilon)


def _norm_weights(graph: Graph, weights: Mapping[str, np.ndarray], norm: Norm) -> list[str]:
    names = [f"{norm.name}.{end}" for end in ("weight", "bias")[: 1 + norm.bias]]
    return [graph.weight(f"{name}.norm", weights[name]) for name in names]
