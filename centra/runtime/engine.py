"""What a release needs of an engine: a trunk that gives hidden states, a branch that gives logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np

    from centra.data import Encoded

__all__ = ["BranchEngine", "Probe", "TrunkEngine"]


class TrunkEngine(Protocol):
    """Computes the shared layers of one backbone."""

    def run(self, batch: Encoded, taps: Collection[int]) -> Mapping[int, Any]:
        """Hidden states at the taps, in whatever form the branches of this engine take."""
        ...


class BranchEngine(Protocol):
    """Computes one task."""

    def run(self, hidden_states: Any, batch: Encoded) -> np.ndarray:
        """From the tap's hidden states to logits ``(batch, outputs)`` or ``(batch, seq, outputs)``."""
        ...


@dataclass(frozen=True)
class Probe:
    """The inputs that a module carries, and its own logits for them."""

    batch: Encoded
    logits: np.ndarray
