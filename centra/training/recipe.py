"""How to train one task: plain settings, checked before anything heavy is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from centra.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from centra.formats.backbone import BackboneSpec

__all__ = ["REPORTERS", "Distillation", "Recipe", "check_reporters"]

REPORTERS = ("tensorboard", "mlflow", "wandb")
"""What training can report to, by the callbacks of Hugging Face's ``Trainer``."""

_SHORTEST = 8
"""Tokens: the special ones of a pair and a few words."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train one task."""

    tap: int
    """The frozen layer to read, from 0."""
    depth: int
    """How many layers learn."""
    epochs: int = 10
    """At most; early stopping may end sooner."""
    learning_rate: float = 1e-4
    """At its peak, after the warm-up."""
    batch_size: int = 32
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = 0.01
    dropout: float = 0.1
    """Before the output layer; inside the layers the backbone's own setting holds."""
    patience: int = 3
    """Epochs without a better dev metric after which training stops."""
    metric: str | None = None
    """The dev metric to select by; None takes the kind's first in
    :attr:`centra.kinds.base.Kind.metrics`."""
    max_length: int = 0
    """Tokens kept of each training input; 0 for the backbone's maximum."""
    crf: bool = False
    """Whether a tagging head decodes with a linear-chain CRF."""
    seed: int = 0

    def check(self, backbone: BackboneSpec) -> None:
        """Refuse settings that cannot be trained.

        Raises:
            UsageError: naming the setting.
        """
        layers = backbone.num_layers
        if not 0 <= self.tap <= layers:
            raise UsageError(f"tap {self.tap}: the backbone has layers 0 to {layers}")
        if not 0 <= self.depth <= layers - self.tap:
            raise UsageError(
                f"depth {self.depth}: above tap {self.tap} the backbone has "
                f"{layers - self.tap} layers to start from"
            )
        for name in ("epochs", "batch_size", "learning_rate", "patience"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be greater than 0")
        for name in ("warmup", "weight_decay", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie between 0 and 1")
        if self.max_length != 0 and self.max_length < _SHORTEST:
            raise UsageError(f"max_length must be 0 or at least {_SHORTEST} tokens")
        if not 0 <= self.seed < 2**32:
            raise UsageError("seed must not be negative, and be below 2^32")


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a student learns from its teacher (paper section 3.2; Hinton et al. 2015)."""

    temperature: float = 2.0
    """Divides the logits of both before they are compared; regression has none."""
    weight: float = 0.5
    """Of the teacher's answers in the loss; the labels have the rest."""
    start: Literal["teacher", "backbone"] = "teacher"
    """Whose layers above the tap the student starts from, lowest first. From its teacher it takes
    the head, too; the backbone is the comparison of the paper's appendix C."""

    def check(self) -> None:
        """Refuse settings that cannot be used.

        Raises:
            UsageError: naming the setting.
        """
        if not 0 < self.temperature < math.inf:
            raise UsageError("temperature must be greater than 0")
        if not 0 <= self.weight <= 1:
            raise UsageError("weight must lie between 0 and 1")


def check_reporters(names: Collection[str]) -> None:
    """Refuse a reporter that is unknown or not installed.

    Raises:
        UsageError: naming it.
    """
    for name in names:
        if name not in REPORTERS:
            raise UsageError(f"report_to: {name!r} is none of {', '.join(REPORTERS)}")
        if find_spec(name) is None:
            raise UsageError(f"report_to: {name} is not installed; pip install {name}")
