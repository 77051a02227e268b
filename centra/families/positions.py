"""What positions add to attention, as numbers: the same for both engines.

Rotary tables, biases by distance and windows depend on positions alone, and on no layer's weights. So
they are computed once for a batch and shared by all layers, the trunk's and the branches'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from centra.families.description import DistanceEmbeddings, RelativeBias, Rotary

__all__ = [
    "BLOCK",
    "distance_buckets",
    "distance_rows",
    "distances",
    "in_blocks",
    "rotary_tables",
]

BLOCK = 128
"""How many tokens of a long input look at those in their window together."""


def in_blocks(window: int | None, length: int) -> bool:
    """Whether attention in a window is computed block by block.

    Args:
        window: how far a token looks in each direction.
        length: of the inputs, with padding.
    """
    return window is not None and length > max(2 * BLOCK, BLOCK + 2 * window)


def rotary_tables(rotary: Rotary, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines for so many positions, each ``(positions, size)`` of float32."""
    steps = np.arange(0, rotary.size, 2, dtype=np.float32) / np.float32(rotary.size)
    frequencies = 1 / np.float32(rotary.base) ** steps
    angles = np.outer(np.arange(positions, dtype=np.float32), frequencies)
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles), np.sin(angles)


def distances(tokens: int, seen: int, before: int = 0) -> np.ndarray:
    """How far each of some tokens that are looked at stands behind each that looks, ``(tokens, seen)``.

    Args:
        tokens: how many look.
        seen: how many they look at.
        before: how many of those stand before the first that looks.
    """
    found: np.ndarray = np.arange(seen)[None] - before - np.arange(tokens)[:, None]
    return found


def distance_buckets(bias: RelativeBias, distance: np.ndarray) -> np.ndarray:
    """The bucket of each of some distances (:func:`distances`), int64."""
    half = bias.buckets // 2
    single = half // 2
    found = np.where(distance > 0, half, 0)
    distance = np.abs(distance)
    far = np.log(np.maximum(distance, 1) / single) / np.log(bias.farthest / single)
    far = np.minimum(single + (far * (half - single)).astype(np.int64), half - 1)
    buckets: np.ndarray = found + np.where(distance < single, distance, far)
    return buckets


def distance_rows(embeddings: DistanceEmbeddings, distances: np.ndarray) -> np.ndarray:
    """The rows of some distances, int64; in float32, as transformers chooses them."""
    span, farthest = embeddings.span, embeddings.farthest
    places = distances.astype(np.int64)
    if farthest is not None:
        near, size = span // 2, np.abs(places)
        far = np.log(np.maximum(size, near).astype(np.float32) / np.float32(near))
        far = far / np.log(np.float32((farthest - 1) / near)) * np.float32(near - 1)
        wide = (np.ceil(far) + near).astype(np.int64) * np.sign(places)
        places = np.where(size <= near, places, wide)
    rows: np.ndarray = np.clip(places + span, 0, 2 * span - 1)
    return rows
