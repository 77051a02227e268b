"""The epochs of a training run so far: losses, dev metrics, and whether it has come to its end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.kinds import kind_named
from centra.training.metrics import AGREEMENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.training.recipe import Recipe

__all__ = ["Epoch", "History"]


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to."""

    loss: float | None
    """The mean training loss; None where it was not finite."""
    metrics: dict[str, float]
    """On the dev set, after the epoch."""


@dataclass(frozen=True)
class History:
    """The epochs of a run so far."""

    metric: str
    """The one to select by."""
    epochs: tuple[Epoch, ...]
    finished: bool
    """By its last epoch, or by early stopping."""

    def up_to(self, epochs: int) -> History:
        """The first epochs alone, as they were known when they were the last."""
        if epochs >= len(self.epochs):
            return self
        return History(self.metric, self.epochs[:epochs], finished=False)

    @property
    def best(self) -> Epoch:
        """The first of the epochs with the best dev metric."""
        return max(self.epochs, key=lambda epoch: epoch.metrics[self.metric])

    @property
    def score(self) -> float:
        """The best dev metric so far."""
        return self.best.metrics[self.metric]

    @classmethod
    def of_log(
        cls, log: Sequence[dict[str, Any]], *, kind: str, metric: str, recipe: Recipe
    ) -> History:
        """Read Trainer's log: each epoch has a line with its loss, and one with its dev metrics.

        Args:
            log: ``log_history`` of its state.
            kind: the task's.
            metric: the one to select by.
            recipe: for its epochs and its patience.
        """
        known = (*kind_named(kind).metrics, *kind_named(kind).further_metrics)
        losses = [line["loss"] for line in log if "loss" in line]
        evaluations = [
            {
                name.removeprefix("eval_"): value
                for name, value in line.items()
                if name.removeprefix("eval_").removeprefix(AGREEMENT) in known
            }
            for line in log
            if f"eval_{metric}" in line
        ]
        epochs = tuple(
            Epoch(loss if math.isfinite(loss) else None, metrics)
            for loss, metrics in zip(losses, evaluations, strict=True)
        )
        scores = [epoch.metrics[metric] for epoch in epochs]
        since_best = len(scores) - 1 - scores.index(max(scores))
        finished = len(epochs) == recipe.epochs or since_best >= recipe.patience
        return cls(metric, epochs, finished)
