"""What answering takes by the onnx engine's algorithm: operations, and bytes of weights to read.

A linear layer from i to o values is 2·i·o operations a row: a multiplication and an addition for
each weight. Biases, norms, softmax and activations are left out, a few hundredths of the whole; so
are moving hidden states through memory, and padding. What is left is a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from centra.families.table import family_of
from centra.kinds import kind_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.backbone import BackboneSpec
    from centra.formats.identities import Digest
    from centra.formats.manifest import TaskEntry

__all__ = ["Work", "embeddings_work", "layer_work", "release_work", "task_work"]

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
) -> list[Work]:
    """What a release takes, unit by unit: embeddings and shared layers, then each task's branch.

    Args:
        tasks: those that are answered, of a release's manifest.
        backbones: the specs of the backbones that they name, by digest.
        batch: how many inputs.
        length: how many tokens each of them has.
    """
    found = []
    for digest in sorted({entry.backbone for entry in tasks.values()}):
        backbone = backbones[digest]
        deepest = max(entry.tap_layer for entry in tasks.values() if entry.backbone == digest)
        found.append(embeddings_work(backbone, batch=batch, length=length))
        found += [layer_work(backbone, batch=batch, length=length)] * deepest
    return found + [
        task_work(entry, backbones[entry.backbone], batch=batch, length=length)
        for entry in tasks.values()
    ]


def embeddings_work(backbone: BackboneSpec, *, batch: int, length: int) -> Work:
    """Layer 0: a row of the word embeddings for each token, and the projection of ELECTRA.

    See :func:`release_work`.
    """
    hidden, tokens = backbone.hidden_size, batch * length
    width = int(backbone.config.get("embedding_size", hidden))
    projection = width * hidden if width != hidden else 0
    return Work(flops=2 * tokens * projection, bytes=_BYTES * (tokens * width + projection))


def layer_work(backbone: BackboneSpec, *, batch: int, length: int) -> Work:
    """A layer on all tokens; see :func:`release_work`.

    Attention is two products for each pair of tokens of an input, each as wide as all heads
    together: 4 · batch · length² · hidden.
    """
    attention = 4 * batch * length**2 * backbone.hidden_size
    return Work(
        flops=2 * batch * length * _linear(backbone) + attention, bytes=_layer_bytes(backbone)
    )


def task_work(task: TaskEntry, backbone: BackboneSpec, *, batch: int, length: int) -> Work:
    """A task's own layers and head; see :func:`release_work`.

    The last layer of a sentence task is a first-token layer, see
    :mod:`centra.runtime.onnx.layers`: one row for each input goes through all of its weights, for
    the key and value projections that moved are as large as those of one token. It then meets the
    inputs of the layer instead of keys and values, so that each head is as wide as all of them:
    4 · batch · heads · length · hidden.
    """
    hidden = backbone.hidden_size
    kind = kind_named(task.kind)
    outputs = kind.outputs(task.labels)
    out = _BYTES * (hidden + 1) * outputs
    full = layer_work(backbone, batch=batch, length=length)
    if kind.reads_every_token:
        head = Work(flops=2 * batch * length * hidden * outputs, bytes=out)
        return sum([full] * task.depth, head)
    dense = _BYTES * (hidden + 1) * hidden
    head = Work(flops=2 * batch * hidden * (hidden + outputs), bytes=dense + out)
    if task.depth == 0:
        return head
    heads = int(backbone.config[family_of(backbone.family).names.heads_key])
    attention = 4 * batch * heads * length * hidden
    first = Work(flops=2 * batch * _linear(backbone) + attention, bytes=_layer_bytes(backbone))
    return sum([full] * (task.depth - 1), first + head)


def _linear(backbone: BackboneSpec) -> int:
    """How many weights the linear layers of a transformer layer have, without biases."""
    return sum(prod(shape) for shape in backbone.layer_tensors.values() if len(shape) == 2)


def _layer_bytes(backbone: BackboneSpec) -> int:
    return _BYTES * sum(prod(shape) for shape in backbone.layer_tensors.values())
