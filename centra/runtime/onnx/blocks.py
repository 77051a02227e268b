"""Layers as the onnx engine runs them: sessions with weights, and attention between them.

See :mod:`centra.runtime.onnx.layer_graphs` for what each session computes.
"""

from __future__ import annotations

import threading
from collections import Counter
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from centra.families.positions import in_blocks
from centra.runtime.onnx import layer_graphs
from centra.runtime.onnx.convolution import neighbours
from centra.runtime.onnx.disentangled import DistanceTerms
from centra.runtime.onnx.session import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.families.description import Attention
    from centra.families.description import Layer as LayerDescription
    from centra.families.heads import Pooling
    from centra.formats.head import HeadSteps
    from centra.formats.precision import Precision
    from centra.runtime.engine import Inputs
    from centra.runtime.onnx.shared_state import SharedState
    from centra.runtime.packing import Blocks, Bucket, Packed, Part
    from centra.runtime.pool import Pool

__all__ = ["FirstLayer", "Hidden", "Layer"]

_MOST_ROWS, _LEAST_ROWS = 256, 16
"""Rows that a layer computes at a time: so few that wide inner states stay in the cache, and so many
that reading the weights is not all it does."""


class Hidden:
    """Hidden states at one layer, packed, and what all layers share of their batch."""

    def __init__(
        self, states: np.ndarray, shared: SharedState, readers: Sequence[Inputs] = ()
    ) -> None:
        """Hold states.

        Args:
            states: ``(tokens, hidden)``.
            shared: of the same inputs.
            readers: what each branch will read of them, for :meth:`read`.
        """
        self.states = states
        self.shared = shared
        self._padded: list[np.ndarray] | None = None
        self._pooled: dict[Pooling, np.ndarray] = {}
        self._beginnings: dict[int, Hidden] = {}
        self._readers = readers
        self._waiting: Counter[bytes] | None = None
        self._read: dict[bytes, Hidden] = {}
        self._lock = threading.Lock()

    @property
    def packed(self) -> Packed:
        """How the tokens are packed."""
        return self.shared.packed

    def only(self, inputs: Inputs) -> Hidden:
        """Those of some inputs."""
        if len(inputs) == len(self.packed.order):
            return self
        packed, tokens = self.packed.only(inputs)
        return Hidden(self.states[tokens], self.shared.of(packed))

    def read(self, inputs: Inputs) -> Hidden:
        """Those that a branch reads; made once for branches that read the same.

        They are kept as long as there are readers to come.
        """
        if len(inputs) == len(self.packed.order):
            return self
        key = inputs.tobytes()
        with self._lock:
            if self._waiting is None:
                self._waiting = Counter(reader.tobytes() for reader in self._readers)
            found = self._read.pop(key, None) or self.only(inputs)
            self._waiting[key] -= 1
            if self._waiting[key] > 0:
                self._read[key] = found
            return found

    def beginnings(self, tokens: int) -> Hidden:
        """Those of each input's first tokens, up to so many; made once for all branches that read them."""
        if int(self.packed.lengths.max()) <= tokens:
            return self
        with self._lock:
            if tokens not in self._beginnings:
                packed, found = self.packed.beginnings(tokens)
                self._beginnings[tokens] = Hidden(self.states[found], self.shared.of(packed))
            return self._beginnings[tokens]

    def padded(self) -> list[np.ndarray]:
        """Per bucket ``(n, length, hidden)``; made once for all branches that read these states."""
        with self._lock:
            if self._padded is None:
                self._padded = _padded(self.states, self.packed)
            return self._padded

    def pooled(self, pooling: Pooling) -> np.ndarray:
        """One row for each input ``(batch, hidden)``; made once for all branches that read these states."""
        with self._lock:
            if pooling not in self._pooled:
                self._pooled[pooling] = self.packed.pooled(self.states, pooling)
            return self._pooled[pooling]


class Layer:
    """A transformer layer on all tokens, perhaps with what a head makes of each."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        layer: LayerDescription,
        *,
        precision: Precision,
        pool: Pool,
        distances: np.ndarray | None = None,
        head: HeadSteps | None = None,
    ) -> None:
        """Compile a layer.

        Args:
            weights: by their names within the layer, and the head's under ``head.``.
            layer: how it looks.
            precision: of its products with weights.
            pool: whose idle threads take a share of a batch.
            distances: the backbone's embeddings of them, where it has any.
            head: what is made of every token of it, after the last layer of a task.
        """
        self._pool = pool
        self._parts = layer.attention
        self._beside = layer.convolution
        self._project = Program(layer_graphs.project(weights, layer, precision))
        self._attend = _attention(layer.attention)
        self._terms = _terms(weights, layer, distances)
        self._finish = Program(layer_graphs.finish(weights, layer, precision, head))

    def __call__(self, states: np.ndarray, shared: SharedState) -> np.ndarray:
        """From states ``(tokens, hidden)`` to the next, or to what the head makes of them."""
        # Rows come out the same in any company, and attention stays within an input. So a batch
        # may be cut anywhere between inputs, and most of a layer even within one.
        parts = shared.packed.parts(
            max(self._pool.free_threads, _divided_up(len(states), _MOST_ROWS))
        )
        return _joined(self._pool.map(partial(self._run, states, shared), parts))

    def _run(self, states: np.ndarray, shared: SharedState, part: Part) -> np.ndarray:
        own = states[part.rows]
        turns = [table[part.rows] for table in shared.turns(self._parts)]
        projected = self._by_rows(self._project, own, *turns)
        context = self._attend(projected, part, shared, self._terms, self._pool)
        read = [own]
        if self._beside is not None:
            read.append(neighbours(states, shared.packed, part.rows, self._beside.kernel))
        (found,) = self._by_rows(self._finish, context, *read)
        return found

    def _by_rows(self, program: Program, *arrays: np.ndarray) -> list[np.ndarray]:
        rows = len(arrays[0])
        count = max(
            min(self._pool.free_threads, rows // _LEAST_ROWS), _divided_up(rows, _MOST_ROWS)
        )
        if count == 1:
            return program(*arrays)
        step = _divided_up(rows, count)
        found = self._pool.map(
            lambda start: program(*(array[start : start + step] for array in arrays)),
            range(0, rows, step),
        )
        return [np.concatenate(values) for values in zip(*found, strict=True)]


class _Attention:
    """Attention of packed tokens within each input."""

    def __init__(self, parts: Attention) -> None:
        self._parts = parts
        self._hidden = parts.query.outputs
        self._whole, self._moved = (
            Program(layer_graphs.attention(parts, whole=whole)) for whole in (True, False)
        )
        self._plain = None
        if not parts.adds_to_scores and parts.disentangled is None:
            self._plain = Program(layer_graphs.plain_attention(parts))

    def __call__(
        self,
        projected: Sequence[np.ndarray],
        part: Part,
        shared: SharedState,
        terms: DistanceTerms | None,
        pool: Pool,
    ) -> np.ndarray:
        def scores(bucket: Bucket) -> tuple[np.ndarray, ...]:
            return shared.scores(self._parts, bucket) if terms is None else terms.of(bucket)

        found: list[np.ndarray] = []
        for bucket in part.buckets:
            if (window := self._window(bucket)) is not None:
                added = shared.block_scores(self._parts, window)
                found += pool.map(partial(self._near, projected, added), bucket.near(window))
            elif bucket.long and self._plain is not None:
                found += pool.map(partial(self._all, projected, bucket.rows), bucket.pieces)
            elif part.whole:
                shape = np.array([*bucket.mask.shape, self._hidden])
                found += self._whole(*projected, bucket.mask, shape, *scores(bucket))
            else:
                places = bucket.mask, bucket.gather, bucket.gather, bucket.scatter
                found += self._moved(*projected, *places, *scores(bucket))
        return _joined(found)

    def _window(self, bucket: Bucket) -> int | None:
        """The window by which a bucket is cut into blocks; None where it is looked at as it is."""
        window = self._parts.window
        plain = self._parts.disentangled is None
        return window if plain and in_blocks(window, bucket.mask.shape[1]) else None

    def _near(
        self, projected: Sequence[np.ndarray], added: tuple[np.ndarray, ...], blocks: Blocks
    ) -> np.ndarray:
        places = blocks.mask, blocks.gather, blocks.seen, blocks.scatter
        (found,) = self._moved(*projected, *places, *added)
        return found

    def _all(self, projected: Sequence[np.ndarray], rows: slice, piece: slice) -> np.ndarray:
        assert self._plain is not None
        query, key, value = projected
        (found,) = self._plain(query[None, piece], key[None, rows], value[None, rows])
        return found


class FirstLayer:
    """A last layer of which the first tokens alone are read, with its head."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        layer: LayerDescription,
        *,
        precision: Precision,
        distances: np.ndarray | None = None,
        head: HeadSteps,
    ) -> None:
        """Compile it; see :class:`Layer`."""
        self._parts = layer.attention
        self._beside = layer.convolution
        self._normed = layer.norm_first and layer.attention_norm is not None
        self._project = Program(layer_graphs.project_first(weights, layer, precision))
        self._attend = _first_attention(layer.attention, layer.hidden)
        self._terms = _terms(weights, layer, distances)
        self._finish = Program(layer_graphs.finish_first(weights, layer, precision, head))

    def __call__(self, hidden: Hidden) -> np.ndarray:
        """Logits ``(batch, outputs)``, in packed order."""
        if self._parts.window is not None:
            # Behind these there is nothing in the window of the first.
            hidden = hidden.beginnings(self._parts.window + 1)
        packed, shared = hidden.packed, hidden.shared
        turns = shared.turns(self._parts)
        queries, firsts, *more = self._project(hidden.states, packed.firsts, *turns)
        padded = _padded(more.pop(0), packed) if self._normed else hidden.padded()
        # Then the keys, where they are needed.
        beside = [_padded(keys, packed) for keys in more]
        averages = [
            self._attend(
                *(queries, bucket.inputs, states, shared.first_scores(self._parts, bucket)),
                *keys,
                *(() if self._terms is None else self._terms.of_first(bucket)),
            )[0]
            for bucket, states, *keys in zip(packed.all.buckets, padded, *beside, strict=True)
        ]
        read = [firsts]
        if self._beside is not None:
            read.append(neighbours(hidden.states, packed, packed.firsts, self._beside.kernel))
        (logits,) = self._finish(_joined(averages), *read)
        return logits


def _padded(states: np.ndarray, packed: Packed) -> list[np.ndarray]:
    """Per bucket ``(n, length, hidden)``."""
    part = packed.all
    if part.whole:
        (bucket,) = part.buckets
        return [states.reshape(*bucket.mask.shape, states.shape[1])]
    return [states[bucket.gather] for bucket in part.buckets]


@cache
def _attention(parts: Attention) -> _Attention:
    return _Attention(parts)


@cache
def _first_attention(parts: Attention, hidden: int) -> Program:
    return Program(layer_graphs.first_attention(parts, hidden))


def _terms(
    weights: Mapping[str, np.ndarray], layer: LayerDescription, distances: np.ndarray | None
) -> DistanceTerms | None:
    parts = layer.attention.disentangled
    if parts is None or distances is None:
        return None
    return DistanceTerms(weights, layer.attention, parts, distances)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _divided_up(number: int, divisor: int) -> int:
    """A number divided, rounded up."""
    return -(-number // divisor)
