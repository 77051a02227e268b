"""How an encoder's parts look, with their sizes and the names of their tensors.

A family makes these of a backbone's settings, and of the number of a layer: layers may differ. Both
engines, the shapes that tensors must have, int8 and the counts of work are made from them alone, and
from nothing else that a family says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Attention",
    "Convolution",
    "Disentangled",
    "DistanceEmbeddings",
    "Embeddings",
    "FeedForward",
    "Layer",
    "Linear",
    "Norm",
    "RelativeBias",
    "Rotary",
    "Shapes",
    "Table",
]

Shapes = dict[str, tuple[int, ...]]
"""The shape of each of some tensors, by name."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear layer: ``NAME.weight`` of ``(outputs, inputs)``, and perhaps ``NAME.bias``."""

    name: str
    inputs: int
    outputs: int
    bias: bool = True
    first_row: int = 0
    """Where its rows begin in the stored tensor, for linear layers that are stored as one."""
    stored_rows: int | None = None
    """How many rows the stored tensor has; None where it is this layer's alone."""

    @property
    def rows(self) -> slice:
        """Its rows of the stored tensors."""
        return slice(self.first_row, self.first_row + self.outputs)

    @property
    def weights(self) -> int:
        """How many weights it has, without biases."""
        return self.inputs * self.outputs

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Of the stored weight."""
        return self.stored_rows or self.outputs, self.inputs


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A norm over the last axis: ``NAME.weight`` and perhaps ``NAME.bias``."""

    name: str
    size: int
    epsilon: float
    kind: Literal["layer", "rms"] = "layer"
    bias: bool = True

    @property
    def shapes(self) -> Shapes:
        """Of its tensors."""
        return _shapes((), (self,))


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Positions as turns of queries and keys; value i of a head turns with value i + half of it."""

    base: float
    size: int
    """The width of a head."""


@dataclass(frozen=True, kw_only=True)
class RelativeBias:
    """Positions as numbers added to the scores of attention, by how far apart two tokens are.

    Distances fall into buckets as in T5: half of them for each direction, of these half for single
    distances, and the rest ever wider up to the farthest.
    """

    table: str
    """The tensor ``(buckets, heads)``, among the embeddings."""
    buckets: int
    farthest: int


@dataclass(frozen=True, kw_only=True)
class DistanceEmbeddings:
    """A row for how far a token stands behind another, or, with less than nothing, before it.

    Distances up to half the span have rows of their own, and farther ones share rows that grow wider by
    powers; without a farthest distance all have, and those beyond the span share the last.
    """

    table: str
    """The tensor ``(2 * span, size)``, among the embeddings; row ``span`` is a token's own place."""
    size: int
    span: int
    farthest: int | None
    norm: Norm | None
    """Of the rows; is among the embeddings too."""

    @property
    def shapes(self) -> Shapes:
        """Of their tensors."""
        return {self.table: (2 * self.span, self.size)} | _shapes((), (self.norm,))


@dataclass(frozen=True, kw_only=True)
class Disentangled:
    """Positions as scores of their own: content meets the embeddings of distances, which each layer projects.

    The scores of a query i and a key j are ``q_i k_j + q_i K(i - j) + k_j Q(i - j)``, with keys K and
    queries Q of distances, over the square root of a head's size times the number of terms.
    """

    distances: DistanceEmbeddings
    key: Linear | None
    """From distances to what queries meet; None is no such term."""
    query: Linear | None
    """From distances to what keys meet; likewise."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Every token looks at the tokens of its input, or at those near it.

    There may be fewer heads of keys and values, each of which several heads of queries look at.
    """

    heads: int
    """Of queries."""
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    rotary: Rotary | None = None
    relative_bias: RelativeBias | None = None
    disentangled: Disentangled | None = None
    window: int | None = None
    """How far it looks in each direction, in tokens; None is everywhere."""

    @property
    def adds_to_scores(self) -> bool:
        """Whether positions add anything to its scores."""
        return self.relative_bias is not None or self.window is not None

    @property
    def head_size(self) -> int:
        """The width of one head."""
        return self.query.outputs // self.heads

    @property
    def key_heads(self) -> int:
        """How many heads keys and values have."""
        return self.key.outputs // self.head_size

    @property
    def queries_per_key(self) -> int:
        """How many heads of queries, which follow each other, look at one of keys."""
        return self.heads // self.key_heads

    @property
    def scale(self) -> float:
        """What scores are multiplied by before the softmax."""
        parts = self.disentangled
        terms = 1 if parts is None else 1 + (parts.key is not None) + (parts.query is not None)
        return float((self.head_size * terms) ** -0.5)

    @property
    def linears(self) -> tuple[Linear, ...]:
        """All its linear layers."""
        return (self.query, self.key, self.value, self.output, *self.of_distances)

    @property
    def of_distances(self) -> tuple[Linear, ...]:
        """Those that distances alone meet, where they are not projected as the content is."""
        if self.disentangled is None:
            return ()
        parts = (self.disentangled.key, self.disentangled.query)
        return tuple(part for part in parts if part not in (None, self.key, self.query))


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """``outer(activation(inner(x)))``, or with a gate ``outer(activation(inner(x)) * gate(x))``."""

    inner: Linear
    outer: Linear
    activation: str
    gate: Linear | None = None


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """Beside a layer: what each token makes of its neighbours in the layer's input.

    It is added to the layer's output, behind an activation, and a norm follows. Neighbours that an
    input does not have are zeros.
    """

    name: str
    """``NAME.weight`` of ``(hidden, hidden, kernel)``, and ``NAME.bias``."""
    hidden: int
    kernel: int
    """How many tokens it looks at, an odd number: the token itself, and as many before as behind it."""
    activation: str
    norm: Norm

    @property
    def linear(self) -> Linear:
        """The same as a linear layer on a token's neighbours side by side."""
        return Linear(name=self.name, inputs=self.kernel * self.hidden, outputs=self.hidden)

    @property
    def shapes(self) -> Shapes:
        """Of its tensors."""
        weight = {f"{self.name}.weight": (self.hidden, self.hidden, self.kernel)}
        return weight | {f"{self.name}.bias": (self.hidden,)} | self.norm.shapes


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A transformer layer: attention and feed-forward, each with a residual connection and a norm."""

    hidden: int
    norm_first: bool
    """Whether norms stand before attention and feed-forward, or after their residual connections."""
    attention: Attention
    attention_norm: Norm | None
    """None is none, which a layer without norms after its residual connections may have."""
    feed_forward: FeedForward
    feed_forward_norm: Norm | None
    convolution: Convolution | None = None

    @property
    def linears(self) -> tuple[Linear, ...]:
        """All its linear layers, without a convolution."""
        feed_forward = self.feed_forward
        gate = () if feed_forward.gate is None else (feed_forward.gate,)
        return (
            *self.attention.linears,
            *(feed_forward.inner, *gate, feed_forward.outer),
        )

    @property
    def shapes(self) -> Shapes:
        """Of its tensors, by their names within the layer."""
        convolution: Shapes = {} if self.convolution is None else self.convolution.shapes
        own = _shapes(self.linears, (self.attention_norm, self.feed_forward_norm))
        return own | convolution


@dataclass(frozen=True, kw_only=True)
class Table:
    """Embeddings ``NAME.weight`` of ``(rows, width)``."""

    name: str
    rows: int
    width: int
    ids: Literal["input_ids", "token_type_ids", "positions", "zeros"]
    """What chooses a token's row; zeros give each the first."""


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Layer 0: a sum of rows, a norm, perhaps a projection; and the tables that all layers share."""

    tables: tuple[Table, ...]
    """In the order in which they are summed."""
    norm: Norm | None
    projection: Linear | None = None
    """To the layers' width, where that is another."""
    norm_last: bool = False
    """Whether the norm stands behind the projection."""
    relative_biases: tuple[RelativeBias, ...] = ()
    heads: int = 0
    """Of the layers, for those."""
    distances: DistanceEmbeddings | None = None

    @property
    def width(self) -> int:
        """Of the tables."""
        return self.tables[0].width

    @property
    def norm_and_projection(self) -> tuple[Norm | Linear, ...]:
        """What follows the sum of rows, in this order."""
        both = (self.projection, self.norm) if self.norm_last else (self.norm, self.projection)
        return tuple(part for part in both if part is not None)

    @property
    def shapes(self) -> Shapes:
        """Of its tensors, by names without a checkpoint's prefix."""
        distances: Shapes = {} if self.distances is None else self.distances.shapes
        tables: Shapes = {
            f"{table.name}.weight": (table.rows, table.width) for table in self.tables
        }
        biases: Shapes = {bias.table: (bias.buckets, self.heads) for bias in self.relative_biases}
        projection = () if self.projection is None else (self.projection,)
        return tables | _shapes((), (self.norm,)) | _shapes(projection, ()) | biases | distances


def _shapes(linears: tuple[Linear, ...], norms: tuple[Norm | None, ...]) -> Shapes:
    there = [norm for norm in norms if norm is not None]

    def biases() -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((linear.name, linear.stored_shape[:1]) for linear in linears if linear.bias)
        yield from ((norm.name, (norm.size,)) for norm in there if norm.bias)

    return (
        {f"{linear.name}.weight": linear.stored_shape for linear in linears}
        | {f"{norm.name}.weight": (norm.size,) for norm in there}
        | {f"{name}.bias": shape for name, shape in biases()}
    )
