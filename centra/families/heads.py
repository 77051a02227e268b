"""Heads of fine-tuned checkpoints: what transformers' own classes put behind an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from centra.families.description import Norm, Shapes

__all__ = ["POOLINGS", "CheckpointHead", "Pooling"]

Pooling = Literal["first", "mean", "max", "late"]
"""How one row is made of an input's tokens, padding aside: the first token's, the mean, or the largest
of each value; ``late`` is the mean of what the dense layer makes of each token."""

POOLINGS: tuple[Pooling, ...] = ("first", "mean", "max", "late")


@dataclass(frozen=True, kw_only=True)
class CheckpointHead:
    """The classifier of a fine-tuned checkpoint; names are those of its tensors there.

    ``out(norm(activation(dense(pooled))))``, without what is None.
    """

    out: str
    """The last linear layer, which has a bias."""
    dense: str | None = None
    """As wide as the layers."""
    dense_bias: bool = True
    activation: str | None = None
    """Of the dense layer."""
    norm: Norm | None = None
    """After the activation."""
    pooling: Pooling = "first"
    """Of no weight where the head reads every token."""

    @property
    def parts(self) -> dict[str, str]:
        """Its parts in a task module and in the checkpoint."""
        norm = None if self.norm is None else self.norm.name
        named = {"dense": self.dense, "dense_norm": norm, "out": self.out}
        return {part: name for part, name in named.items() if name is not None}

    def shapes(self, hidden: int, outputs: int) -> Shapes:
        """Of its tensors, by their names in the checkpoint."""
        found: Shapes = {f"{self.out}.weight": (outputs, hidden), f"{self.out}.bias": (outputs,)}
        if self.dense is not None:
            found[f"{self.dense}.weight"] = (hidden, hidden)
            if self.dense_bias:
                found[f"{self.dense}.bias"] = (hidden,)
        return found if self.norm is None else found | self.norm.shapes
