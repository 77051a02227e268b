"""The convolution beside a layer, in the onnx engine; see :class:`Convolution`.

It is a product of each token's neighbours, side by side, with a weight, and so inputs of any lengths lie
one after the other, as for all products. There is one for a whole backbone: it stays in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from centra.formats.precision import Precision
from centra.runtime.onnx.elementwise import activated, add_and_norm
from centra.runtime.onnx.products import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.description import Convolution
    from centra.runtime.onnx.graph import Graph
    from centra.runtime.packing import Packed

__all__ = ["convolved", "neighbours"]


def neighbours(
    states: np.ndarray, packed: Packed, tokens: slice | np.ndarray, kernel: int
) -> np.ndarray:
    """What a convolution reads.

    Args:
        states: ``(all tokens, hidden)``.
        packed: how they are packed.
        tokens: which of them it is computed for.
        kernel: how many tokens it looks at.

    Returns:
        ``(tokens, kernel * hidden)``: the states of a token's neighbours, from the farthest before it
        to the farthest behind, and zeros where its input has none.
    """
    steps = np.arange(kernel) - kernel // 2
    places = packed.places[tokens, None] + steps
    there = (places >= 0) & (places < np.repeat(packed.lengths, packed.lengths)[tokens, None])
    rows = np.arange(len(states))[tokens, None] + steps
    found = states[np.where(there, rows, 0)]
    found[~there] = 0
    return found.reshape(len(found), -1)


def convolved(
    graph: Graph,
    states: str,
    read: str,
    weights: Mapping[str, np.ndarray],
    part: Convolution,
) -> str:
    """A layer's output with the convolution beside it.

    Args:
        graph: what it becomes part of.
        states: the layer's output without it, ``(tokens, hidden)``.
        read: what :func:`neighbours` gives.
        weights: of the layer.
        part: how it looks.
    """
    linear = part.linear
    stored = weights[f"{part.name}.weight"]
    flat = {
        f"{part.name}.weight": stored.transpose(0, 2, 1).reshape(linear.outputs, linear.inputs),
        f"{part.name}.bias": weights[f"{part.name}.bias"],
    }
    rows = Rows.of(graph, read, Precision.FP32)
    found = activated(graph, rows, flat, linear, part.activation)
    return add_and_norm(graph, found, states, weights, part.norm)
