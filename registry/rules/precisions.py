"""In which precision a release holds its tasks; pure decisions on plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.formats.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from centra.formats.manifest import Versioned

__all__ = ["PrecisionPlan", "plan_precisions"]


@dataclass(frozen=True, kw_only=True)
class PrecisionPlan:
    """The precisions that a composition is to have, as far as the answers allow."""

    precisions: dict[str, Precision]
    """Per task."""
    to_compare: set[str]
    """The tasks whose answers in int8 must first be held against those in fp32."""


def plan_precisions(
    modules: Mapping[str, str],
    before: Mapping[str, Versioned],
    *,
    requested: Precision | None,
    requested_for: Collection[str],
    decided: Mapping[str, Precision],
    with_data: Collection[str],
) -> PrecisionPlan:
    """What a composition is to compute its tasks in.

    A task keeps the precision that it had; one that was not there is in fp32. What no release has
    had in int8 must be compared, and so must what was asked for.

    Args:
        modules: per task of the composition the digest of its module.
        before: what the composition starts from.
        requested: the precision that is asked for, if any.
        requested_for: the tasks that it is asked for.
        decided: what has been decided before, for some tasks.
        with_data: the tasks that there is data for.
    """
    precisions: dict[str, Precision] = {}
    to_compare = set()
    for task, digest in modules.items():
        old = before.get(task)
        asked = requested is not None and task in requested_for
        kept = old.precision if old else Precision.FP32
        precision = decided.get(task) or (requested if requested and asked else kept)
        same = old is not None and (old.digest, old.precision) == (digest, Precision.INT8)
        open_question = precision == Precision.INT8 and task not in decided
        if open_question and (asked or task in with_data or not same):
            to_compare.add(task)
        precisions[task] = precision
    return PrecisionPlan(precisions=precisions, to_compare=to_compare)
