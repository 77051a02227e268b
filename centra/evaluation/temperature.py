"""One temperature for a task's logits, so that its scores are as probable as they say (Guo et al. 2017)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from centra.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from centra.kinds.base import Kind

__all__ = ["fit_temperature"]

_RANGE = (math.log(0.02), math.log(50.0))
_STEPS = 48
_GOLDEN = (math.sqrt(5) - 1) / 2
_EDGE = 0.01
"""So near to the end of the range, the valley lies beyond."""
_NEAR = 0.005
"""So near to 1 a temperature is taken for 1: the data could not tell them apart."""


def fit_temperature(kind: Kind, logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that makes labelled data most probable, by the kind's own loss.

    Args:
        kind: with one row of logits for each example.
        logits: ``(examples, outputs)``.
        targets: as :meth:`centra.kinds.base.Kind.target`, stacked.

    Returns:
        To three digits; 1 where the scores are as they should be.

    Raises:
        DataError: there is none: the data are better, the more or the less scores say.
    """
    import torch

    given, wanted = torch.from_numpy(logits).double(), torch.from_numpy(targets)

    def loss(log: float) -> float:
        return float(kind.loss((given / math.exp(log)).float(), wanted))

    # The loss has one valley: it is convex in the inverse of the temperature.
    low, high = _RANGE
    for _ in range(_STEPS):
        first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(first) <= loss(second):
            high = second
        else:
            low = first
    if min(low - _RANGE[0], _RANGE[1] - high) < _EDGE:
        flat = low > 0
        raise DataError(
            "no temperature fits these data: "
            + (
                "the scores tell nothing of their labels"
                if flat
                else "every label is right, so that no score is too high; take more or harder ones"
            ),
            code="no-temperature",
        )
    found = float(f"{math.exp((low + high) / 2):.3g}")
    return 1.0 if abs(found - 1) < _NEAR else found
