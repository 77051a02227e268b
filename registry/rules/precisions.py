"""In which precision a release holds its tasks; pure decisions on plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.formats.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from centra.formats.manifest import Versioned

__all__ = ["Wishes", "wishes"]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """The precisions that a composition is to have, as far as the answers allow."""

    precisions: dict[str, Precision]
    """Per task."""
    doubted: set[str]
    """The tasks whose answers in int8 must first be held against those in fp32."""


def wishes(
    modules: Mapping[str, str],
    before: Mapping[str, Versioned],
    *,
    precision: Precision | None,
    named: Collection[str],
    settled: Mapping[str, Precision],
    data: Collection[str],
) -> Wishes:
    """What a composition is to compute its tasks in.

    A task keeps the precision that it had; one that was not there is in fp32. What no release has
    had in int8 is doubted, and so is what was asked for.

    Args:
        modules: per task of the composition the digest of its module.
        before: what the composition starts from.
        precision: what is asked for, if anything.
        named: the tasks that it is asked for.
        settled: what has been decided before, for some tasks.
        data: the tasks that there is data for.
    """
    found: dict[str, Precision] = {}
    doubted = set()
    for task, digest in modules.items():
        old = before.get(task)
        asked = precision is not None and task in named
        kept = old.precision if old else Precision.FP32
        found[task] = settled.get(task) or (precision if precision and asked else kept)
        same = old is not None and (old.digest, old.precision) == (digest, Precision.INT8)
        if (
            found[task] == Precision.INT8
            and task not in settled
            and (asked or task in data or not same)
        ):
            doubted.add(task)
    return Wishes(precisions=found, doubted=doubted)
