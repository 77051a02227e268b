"""Layers as the onnx engine runs them: sessions with weights, and attention between them.

See :mod:`centra.runtime.onnx_layers` for what each session computes.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from centra.runtime import onnx_layers
from centra.runtime.session import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.release import Precision
    from centra.runtime.onnx_layers import Shape
    from centra.runtime.packing import Packed
    from centra.task_module import HeadSpec

__all__ = ["FirstLayer", "Hidden", "Layer"]

_ROWS = 256


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
                packed, hidden = self.packed, self.states.shape[1]
                if packed.whole:
                    (bucket,) = packed.buckets
                    self._padded = [self.states.reshape(*bucket.mask.shape, hidden)]
                else:
                    self._padded = [self.states[bucket.gather] for bucket in packed.buckets]
            return self._padded


class Layer:
    """A transformer layer on all tokens, perhaps with a head on every token."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        shape: Shape,
        *,
        precision: Precision,
        threads: int,
        head: HeadSpec | None = None,
    ) -> None:
        """Compile a layer.

        Args:
            weights: by their names within the layer, and the head's under ``head.``.
            shape: of the layer.
            precision: of its products with weights.
            threads: how many work on one operator.
            head: what reads every token of it, after the last layer of a tagging task.
        """
        self._project = Program(onnx_layers.project(weights, shape, precision), threads=threads)
        self._attend = _attention(shape.heads, shape.hidden, threads)
        finish = onnx_layers.finish(weights, shape, precision, head)
        self._finish = Program(finish, threads=threads)

    def __call__(self, states: np.ndarray, packed: Packed) -> np.ndarray:
        """From states ``(tokens, hidden)`` to the next, or to logits ``(tokens, outputs)``."""
        context = self._attend(self._project(states), packed)
        # Rows come out the same in any company; some at a time, so that the wide inner states of
        # a large batch need not all be in memory, and those of a small part stay in the cache.
        return _joined(
            [
                self._finish(context[i : i + _ROWS], states[i : i + _ROWS])[0]
                for i in range(0, len(states), _ROWS)
            ]
        )


class _Attention:
    """Attention of packed tokens within each input."""

    def __init__(self, heads: int, hidden: int, threads: int) -> None:
        self._hidden = hidden
        self._whole = Program(onnx_layers.attention(heads, hidden, whole=True), threads=threads)
        self._part = Program(onnx_layers.attention(heads, hidden, whole=False), threads=threads)

    def __call__(self, projected: Sequence[np.ndarray], packed: Packed) -> np.ndarray:
        if packed.whole:
            (bucket,) = packed.buckets
            shape = np.array([*bucket.mask.shape, self._hidden])
            (found,) = self._whole(*projected, bucket.mask, shape)
            return found
        return _joined(
            [
                self._part(*projected, bucket.mask, bucket.gather, bucket.scatter)[0]
                for bucket in packed.buckets
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
        """Compile it, for one thread; see :class:`Layer`."""
        self._project = Program(onnx_layers.project_first(weights, shape, precision), threads=1)
        self._attend = _first_attention(shape.heads, shape.hidden)
        finish = onnx_layers.finish_first(weights, shape, precision, head)
        self._finish = Program(finish, threads=1)

    def __call__(self, hidden: Hidden) -> np.ndarray:
        """Logits ``(batch, outputs)``, in packed order."""
        packed = hidden.packed
        queries, states = self._project(hidden.states, packed.firsts)
        averages = [
            self._attend(queries, bucket.inputs, padded, bucket.bias)[0]
            for bucket, padded in zip(packed.buckets, hidden.padded(), strict=True)
        ]
        (logits,) = self._finish(_joined(averages), states)
        return logits


@cache
def _attention(heads: int, hidden: int, threads: int) -> _Attention:
    return _Attention(heads, hidden, threads)


@cache
def _first_attention(heads: int, hidden: int) -> Program:
    return Program(onnx_layers.first_attention(heads, hidden), threads=1)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
