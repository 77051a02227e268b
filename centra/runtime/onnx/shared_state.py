"""What all layers of a batch share in the onnx engine, the trunk's and the branches'.

The trunk makes it once for the inputs that it computes together; hidden states carry it to each
branch that reads all of these. All of it depends on the
lengths of the inputs alone, so an answer cannot depend on its neighbours through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from centra.families.positions import BLOCK, distance_buckets, distances, rotary_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.description import Attention, RelativeBias, Rotary
    from centra.runtime.packing import Bucket, Packed

__all__ = ["PositionTables", "SharedState"]


class PositionTables:
    """What positions add to the attention of a backbone's layers; each is made once.

    Several threads may make the same at once, which gives the same.
    """

    def __init__(self, biases: Mapping[str, np.ndarray], positions: int) -> None:
        """Take the backbone's tables of biases by distance.

        Args:
            biases: ``(buckets, heads)`` each, by name.
            positions: how many tokens an input may have.
        """
        self._biases = biases
        self._positions = positions
        self._rotary: dict[Rotary, tuple[np.ndarray, np.ndarray]] = {}
        self._scores: dict[tuple[RelativeBias | None, int | None, int, int, int], np.ndarray] = {}

    def rotary(self, rotary: Rotary) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines ``(positions, size)``."""
        if rotary not in self._rotary:
            self._rotary[rotary] = rotary_tables(rotary, self._positions)
        return self._rotary[rotary]

    def scores(
        self, attention: Attention, tokens: int, seen: int, before: int = 0
    ) -> np.ndarray | None:
        """What is added to the scores of some tokens with those that they look at.

        Args:
            attention: of which layer.
            tokens, seen, before: see :func:`centra.families.positions.distances`.

        Returns:
            ``(1, 1 or heads, tokens, seen)``, or None where nothing is added.
        """
        bias, window = attention.relative_bias, attention.window
        if not attention.adds_to_scores:
            return None
        key = bias, window, tokens, seen, before
        if key not in self._scores:
            distance = distances(tokens, seen, before)
            added = np.zeros((1, *distance.shape), np.float32)
            if bias is not None:
                buckets = distance_buckets(bias, distance)
                added = self._biases[bias.table][buckets].transpose(2, 0, 1)
            if window is not None:
                added = np.where(np.abs(distance) > window, np.finfo(np.float32).min, added)
            self._scores[key] = np.ascontiguousarray(added[None], dtype=np.float32)
        return self._scores[key]


class SharedState:
    """What the layers of one batch share."""

    def __init__(self, packed: Packed, tables: PositionTables) -> None:
        """Make it; what no layer asks for is not computed."""
        self.packed = packed
        self._tables = tables
        self._turns: dict[Rotary, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, packed: Packed) -> SharedState:
        """The same for some of the inputs."""
        return SharedState(packed, self._tables)

    def turns(self, attention: Attention) -> tuple[np.ndarray, ...]:
        """Cosines and sines ``(tokens, head size)`` of the packed tokens; none where nothing turns.

        Turned are places within an input: only how far apart two tokens are counts.
        """
        rotary = attention.rotary
        if rotary is None:
            return ()
        if rotary not in self._turns:
            cosines, sines = self._tables.rotary(rotary)
            self._turns[rotary] = cosines[self.packed.places], sines[self.packed.places]
        return self._turns[rotary]

    def scores(self, attention: Attention, bucket: Bucket) -> tuple[np.ndarray, ...]:
        """What is added to the scores of a bucket; see :meth:`PositionTables.scores`."""
        length = bucket.mask.shape[1]
        added = self._tables.scores(attention, length, length)
        return () if added is None else (added,)

    def block_scores(self, attention: Attention, window: int) -> tuple[np.ndarray, ...]:
        """What is added to those of a block of tokens and of as many before and behind as a window has."""
        added = self._tables.scores(attention, BLOCK, BLOCK + 2 * window, window)
        return () if added is None else (added,)

    def first_scores(self, attention: Attention, bucket: Bucket) -> np.ndarray:
        """What is added to the scores of a bucket's first tokens, ``(n, 1 or heads, length)``."""
        added = self._tables.scores(attention, 1, bucket.mask.shape[1])
        if added is None:
            return bucket.bias
        # Not added to padding, whose least number would become infinite.
        both: np.ndarray = bucket.bias + np.where(
            bucket.mask[:, None], added[:, :, 0], np.float32(0)
        )
        return both
