"""Layers as the onnx engine runs them: sessions with weights, and attention between them.

See :mod:`centra.runtime.onnx.layers` for what each session computes.
"""

from __future__ import annotations

import threading
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from centra.runtime.onnx import layers as onnx_layers
from centra.runtime.onnx.session import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.formats.precision import Precision
    from centra.formats.task_module import HeadSpec
    from centra.runtime.onnx.layers import Shape
    from centra.runtime.packing import Packed, Part
    from centra.runtime.pool import Pool

__all__ = ["FirstLayer", "Hidden", "Layer"]

_MOST, _LEAST = 256, 16
"""Rows that a layer computes at a time: so few that wide inner states stay in the cache, and so many
that reading the weights is not all it does."""


class Hidden:
    """Hidden states at one layer, packed."""

    def __init__(self, states: np.ndarray, packed: Packed) -> None:
        self.states = states
        """``(tokens, hidden)``."""
        self.packed = packed
        self._padded: list[np.ndarray] | None = None
        self._lock = threading.Lock()

    def padded(self) -> list[np.ndarray]:
        """Per bucket ``(n, length, hidden)``; made once for all branches that read this layer."""
        with self._lock:
            if self._padded is None:
                part, hidden = self.packed.all, self.states.shape[1]
                if part.whole:
                    (bucket,) = part.buckets
                    self._padded = [self.states.reshape(*bucket.mask.shape, hidden)]
                else:
                    self._padded = [self.states[bucket.gather] for bucket in part.buckets]
            return self._padded


class Layer:
    """A transformer layer on all tokens, perhaps with a head on every token."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        shape: Shape,
        *,
        precision: Precision,
        pool: Pool,
        head: HeadSpec | None = None,
    ) -> None:
        """Compile a layer.

        Args:
            weights: by their names within the layer, and the head's under ``head.``.
            shape: of the layer.
            precision: of its products with weights.
            pool: whose idle threads take a share of a batch.
            head: what reads every token of it, after the last layer of a tagging task.
        """
        self._pool = pool
        self._project = Program(onnx_layers.project(weights, shape, precision))
        self._attend = _attention(shape.heads, shape.hidden)
        self._finish = Program(onnx_layers.finish(weights, shape, precision, head))

    def __call__(self, states: np.ndarray, packed: Packed) -> np.ndarray:
        """From states ``(tokens, hidden)`` to the next, or to logits ``(tokens, outputs)``."""
        # Rows come out the same in any company, and attention stays within an input. So a batch
        # may be cut anywhere between inputs, and most of a layer even within one.
        parts = packed.parts(max(self._pool.hands, _times(len(states), _MOST)))
        return _joined(self._pool.map(partial(self._run, states), parts))

    def _run(self, states: np.ndarray, part: Part) -> np.ndarray:
        own = states[part.rows]
        context = self._attend(self._by_rows(self._project, own), part)
        (found,) = self._by_rows(self._finish, context, own)
        return found

    def _by_rows(self, program: Program, *arrays: np.ndarray) -> list[np.ndarray]:
        rows = len(arrays[0])
        count = max(min(self._pool.hands, rows // _LEAST), _times(rows, _MOST))
        if count == 1:
            return program(*arrays)
        step = _times(rows, count)
        found = self._pool.map(
            lambda start: program(*(array[start : start + step] for array in arrays)),
            range(0, rows, step),
        )
        return [np.concatenate(values) for values in zip(*found, strict=True)]


class _Attention:
    """Attention of packed tokens within each input."""

    def __init__(self, heads: int, hidden: int) -> None:
        self._hidden = hidden
        self._whole = Program(onnx_layers.attention(heads, hidden, whole=True))
        self._moved = Program(onnx_layers.attention(heads, hidden, whole=False))

    def __call__(self, projected: Sequence[np.ndarray], part: Part) -> np.ndarray:
        if part.whole:
            (bucket,) = part.buckets
            shape = np.array([*bucket.mask.shape, self._hidden])
            (found,) = self._whole(*projected, bucket.mask, shape)
            return found
        return _joined(
            [
                self._moved(*projected, bucket.mask, bucket.gather, bucket.scatter)[0]
                for bucket in part.buckets
            ]
        )


class FirstLayer:
    """A last layer of which the first tokens alone are read, with its head."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        shape: Shape,
        *,
        precision: Precision,
        head: HeadSpec,
    ) -> None:
        """Compile it; see :class:`Layer`."""
        self._project = Program(onnx_layers.project_first(weights, shape, precision))
        self._attend = _first_attention(shape.heads, shape.hidden)
        self._finish = Program(onnx_layers.finish_first(weights, shape, precision, head))

    def __call__(self, hidden: Hidden) -> np.ndarray:
        """Logits ``(batch, outputs)``, in packed order."""
        packed = hidden.packed
        queries, states = self._project(hidden.states, packed.firsts)
        averages = [
            self._attend(queries, bucket.inputs, padded, bucket.bias)[0]
            for bucket, padded in zip(packed.all.buckets, hidden.padded(), strict=True)
        ]
        (logits,) = self._finish(_joined(averages), states)
        return logits


@cache
def _attention(heads: int, hidden: int) -> _Attention:
    return _Attention(heads, hidden)


@cache
def _first_attention(heads: int, hidden: int) -> Program:
    return Program(onnx_layers.first_attention(heads, hidden))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _times(number: int, most: int) -> int:
    """How many times at most so many make a number."""
    return -(-number // most)
