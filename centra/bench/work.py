"""What answering takes by the onnx engine's algorithm: operations, and bytes of weights to read.

A linear layer from i to o values is 2·i·o operations a row: a multiplication and an addition for
each weight. Biases, norms, softmax and activations are left out, a few hundredths of the whole; so
are moving hidden states through memory, and padding. What is left is a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from centra.kinds import kind_named

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from centra.families.description import Layer, Linear
    from centra.formats.backbone import BackboneSpec
    from centra.formats.identities import Digest
    from centra.formats.manifest import TaskEntry

__all__ = ["Work", "embeddings_work", "first_token_work", "layer_work", "release_work", "task_work"]

_BYTES = 4
"""Of a float32."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one unit takes to answer a batch."""

    flops: int
    """Floating-point operations."""
    bytes: int
    """Bytes of weights, read once."""

    def __add__(self, other: Work) -> Work:
        return Work(flops=self.flops + other.flops, bytes=self.bytes + other.bytes)


def release_work(
    tasks: Mapping[str, TaskEntry],
    backbones: Mapping[Digest, BackboneSpec],
    *,
    batch: int,
    length: int,
    pooled: Collection[str] = (),
) -> list[Work]:
    """What a release takes, unit by unit: embeddings and shared layers, then each task's branch.

    Args:
        tasks: those that are answered, of a release's manifest.
        backbones: the specs of the backbones that they name, by digest.
        batch: how many inputs.
        length: how many tokens each of them has.
        pooled: the sentence tasks whose heads read all tokens, by their decision.
    """
    found = []
    for digest in sorted({entry.backbone for entry in tasks.values()}):
        backbone = backbones[digest]
        deepest = max(entry.tap_layer for entry in tasks.values() if entry.backbone == digest)
        found.append(embeddings_work(backbone, batch=batch, length=length))
        found += [
            layer_work(backbone.layer(number), batch=batch, length=length)
            for number in range(1, deepest + 1)
        ]
    return found + [
        task_work(
            entry, backbones[entry.backbone], batch=batch, length=length, pooled=name in pooled
        )
        for name, entry in tasks.items()
    ]


def embeddings_work(backbone: BackboneSpec, *, batch: int, length: int) -> Work:
    """Layer 0: a row of the word embeddings for each token, and the projection where there is one.

    See :func:`release_work`.
    """
    embeddings, tokens = backbone.description, batch * length
    projection = 0 if embeddings.projection is None else embeddings.projection.weights
    return Work(
        flops=2 * tokens * projection, bytes=_BYTES * (tokens * embeddings.width + projection)
    )


def layer_work(layer: Layer, *, batch: int, length: int) -> Work:
    """A layer on all tokens; see :func:`release_work`.

    Attention is two products for each pair of tokens that look at each other, each as wide as all
    heads together: 4 · batch · length · seen · hidden, where a token sees all of its input, or the
    tokens in its window. Where positions meet content, each token also meets a row for every distance,
    as many again in each direction; the rows are made when the layer is loaded.
    """
    window = layer.attention.window
    seen = length if window is None else min(length, 2 * window + 1)
    attention = 4 * batch * length * seen * layer.attention.query.outputs
    attention += 4 * batch * length * length * layer.hidden * _distance_terms(layer)
    linear = sum(part.weights for part in _of_tokens(layer))
    return Work(
        flops=2 * batch * length * linear + attention,
        bytes=_layer_bytes(layer, distances=2 * length),
    )


def first_token_work(layer: Layer, *, batch: int, length: int) -> Work:
    """A layer of which the first tokens alone are read; see :mod:`centra.runtime.onnx.layer_graphs`.

    One row for each input goes through all of its weights, for the key and value projections that
    moved are as large as those of one token. It then meets the inputs of the layer instead of keys
    and values, so that each head is as wide as all of them: 4 · batch · heads · length · hidden.
    Keys that turn with their positions or meet distances are computed for every token, and met as they
    are. Projections that moved are as large as if each head of queries had keys and values of its own. Of
    a layer with a window the tokens behind that of the first are left out.
    """
    attention = layer.attention
    if attention.window is not None:
        length = min(length, attention.window + 1)
    more = (attention.queries_per_key - 1) * attention.value.weights
    if attention.rotary is not None or attention.disentangled is not None:
        more += (length - 1) * attention.key.weights
        met = attention.key.outputs
    else:
        more += (attention.queries_per_key - 1) * attention.key.weights
        met = layer.hidden
    linear = batch * (sum(part.weights for part in _of_tokens(layer)) + more)
    products = 2 * batch * attention.heads * length * (met + layer.hidden)
    if attention.disentangled is not None and attention.disentangled.query is not None:
        products += 2 * batch * length * layer.hidden
    return Work(flops=2 * linear + products, bytes=_layer_bytes(layer, distances=length))


def task_work(
    task: TaskEntry, backbone: BackboneSpec, *, batch: int, length: int, pooled: bool = False
) -> Work:
    """A task's own layers and head; see :func:`release_work`.

    The last layer of a sentence task is one of which the first tokens alone are read, unless its head
    pools; the head is taken for one with a dense layer, which meets one row of an input.
    """
    hidden = backbone.hidden_size
    kind = kind_named(task.kind)
    outputs = kind.outputs(task.labels)
    out = _BYTES * (hidden + 1) * outputs
    layers = [backbone.layer(task.tap_layer + i) for i in range(1, task.depth + 1)]
    if kind.reads_every_token:
        head = Work(flops=2 * batch * length * hidden * outputs, bytes=out)
        return sum([layer_work(layer, batch=batch, length=length) for layer in layers], head)
    dense = _BYTES * (hidden + 1) * hidden
    head = Work(flops=2 * batch * hidden * (hidden + outputs), bytes=dense + out)
    if pooled or not layers:
        return sum([layer_work(layer, batch=batch, length=length) for layer in layers], head)
    *full, last = layers
    first = first_token_work(last, batch=batch, length=length)
    return sum([layer_work(layer, batch=batch, length=length) for layer in full], first + head)


def _of_tokens(layer: Layer) -> list[Linear]:
    """The linear layers that tokens meet."""
    of_distances = layer.attention.of_distances
    beside = [] if layer.convolution is None else [layer.convolution.linear]
    return [part for part in layer.linears if part not in of_distances] + beside


def _distance_terms(layer: Layer) -> int:
    parts = layer.attention.disentangled
    return 0 if parts is None else (parts.key is not None) + (parts.query is not None)


def _layer_bytes(layer: Layer, *, distances: int) -> int:
    """Of its tensors; of what is made for distances instead of what makes it."""
    weights = sum(prod(shape) for shape in layer.shapes.values())
    weights -= sum(part.weights + part.outputs for part in layer.attention.of_distances)
    return _BYTES * (weights + _distance_terms(layer) * distances * layer.hidden)
