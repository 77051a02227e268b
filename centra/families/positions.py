"""What positions add to attention, as numbers: the same for both engines.

Rotary tables, biases by distance and windows depend on positions alone, and on no layer's weights. So
they are computed once for a batch and shared by all layers, the trunk's and the branches'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from centra.families.description import DistanceEmbeddings, RelativeBias, Rotary

__all__ = ["distance_buckets", "distance_rows", "outside_window", "rotary_tables"]


def rotary_tables(rotary: Rotary, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines for so many positions, each ``(positions, size)`` of float32."""
    steps = np.arange(0, rotary.size, 2, dtype=np.float32) / np.float32(rotary.size)
    frequencies = 1 / np.float32(rotary.base) ** steps
    angles = np.outer(np.arange(positions, dtype=np.float32), frequencies)
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles), np.sin(angles)


def distance_buckets(bias: RelativeBias, length: int) -> np.ndarray:
    """For each pair of a token and one that it looks at the bucket, ``(length, length)`` of int64."""
    distance = np.arange(length)[None] - np.arange(length)[:, None]
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


def outside_window(window: int, length: int) -> np.ndarray:
    """Which pairs of tokens are further apart than a window, booleans ``(length, length)``."""
    places = np.arange(length)
    outside: np.ndarray = np.abs(places[None] - places[:, None]) > window
    return outside
