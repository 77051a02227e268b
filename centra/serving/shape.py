"""What the batches of a release are to be like: how large, and whether length matters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from centra.runtime.devices import has_gpu
from centra.runtime.packing import padded_length

__all__ = ["BatchShape", "usual_shape"]

_LEAST = 16
"""Tokens that an input counts at least: a short one has a cost of its own."""
_PER_THREAD, _CPU, _GPU = 256, (512, 4096), 4096
"""Tokens of a batch: more make none cheaper, and keep everybody waiting for the batch before."""


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """How inputs make a batch."""

    tokens: int
    """At most so many are computed together; one input alone may have more."""
    padded: bool = False
    """Whether inputs are padded to the longest, so that those of like length belong together."""

    def cost(self, tokens: int) -> int:
        """What an input of so many tokens counts."""
        return padded_length(tokens) if self.padded else max(_LEAST, tokens)


@cache
def usual_shape(engine: str, *, threads: int, device: str | None) -> BatchShape:
    """What suits an engine, where nobody says otherwise.

    Args:
        engine: the name of the one that computes.
        threads: processors that it uses.
        device: as for :func:`centra.load_release`.
    """
    padded = engine == "torch"
    if padded and device != "cpu" and (device is not None or has_gpu()):
        return BatchShape(tokens=_GPU, padded=True)
    least, most = _CPU
    return BatchShape(tokens=min(most, max(least, _PER_THREAD * threads)), padded=padded)
