"""The step of composing that decides precisions: which tasks go to int8, by their own answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.formats.precision import Precision
from centra.formats.task_module import read_spec
from registry.rules.precisions import plan_precisions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from centra.data.inputs import Example
    from centra.data.source import DataSource
    from centra.formats.manifest import ReleaseManifest
    from centra.progress import Progress, Remark
    from centra.releases.int8 import Int8Comparison
    from centra.store import BlobReader
    from registry.connection import Registry
    from registry.rules.released_version import ReleasedVersion

__all__ = ["Int8Trial", "plan_int8_trial"]


@dataclass(frozen=True, kw_only=True)
class Int8Trial:
    """The precisions that tasks are to have, and those of them that must first be tried in int8."""

    reader: BlobReader
    precisions: Mapping[str, Precision]
    to_compare: Collection[str]
    examples: Mapping[str, Sequence[Example]]
    """Labelled data of tasks that are to be compared, where there is some."""

    def settle(
        self, manifest: ReleaseManifest, *, max_loss: float | None, progress: Progress
    ) -> tuple[ReleaseManifest, list[Int8Comparison]]:
        """Compare the tasks that must be; those whose answers change too much stay in fp32.

        Raises:
            UsageError, DataError, FormatError, StoreError: as
                :func:`centra.releases.int8.compare_int8`.
        """
        if not self.to_compare:
            return manifest.with_precisions(self.precisions), []
        from centra.releases.int8 import MAX_LOSS, compare_int8

        comparisons = compare_int8(
            manifest,
            self.reader,
            self.to_compare,
            self.examples,
            max_loss=MAX_LOSS if max_loss is None else max_loss,
            progress=progress,
        )
        refused = {c.task: Precision.FP32 for c in comparisons if c.refused}
        return manifest.with_precisions({**self.precisions, **refused}), comparisons


def plan_int8_trial(
    registry: Registry,
    modules: Mapping[str, str],
    before: Mapping[str, ReleasedVersion],
    *,
    requested: Precision | None,
    requested_for: Collection[str],
    decided: Mapping[str, Precision],
    data: Mapping[str, str | Path | DataSource],
    progress: Progress,
    remark: Remark,
) -> Int8Trial:
    """Plan the precisions of a composition, and read the data that they are decided on.

    Args:
        registry: where the modules are.
        modules, before, requested, requested_for, decided: see
            :func:`registry.rules.precisions.plan_precisions`.
        data: per task what :func:`centra.data.labelling.read_for` takes.
        progress, remark: told what is read, and what its labels were taken for.

    Raises:
        UsageError: there is data for a task that is not compared.
        DataError: data is missing or malformed, or does not suit its task.
    """
    plan = plan_precisions(
        modules,
        before,
        requested=requested,
        requested_for=requested_for,
        decided=decided,
        with_data=data.keys(),
    )
    for task in data:
        if task not in plan.to_compare:
            raise UsageError(
                f"there is data for {task!r}, but it is not to go to int8; with data come only "
                f"tasks that do: {', '.join(sorted(plan.to_compare)) or 'none'}",
                code="not-compared",
                task=task,
            )
    return Int8Trial(
        reader=registry.store,
        precisions=plan.precisions,
        to_compare=plan.to_compare,
        examples=_read_examples(registry, modules, data, progress, remark) if data else {},
    )


def _read_examples(
    registry: Registry,
    modules: Mapping[str, str],
    data: Mapping[str, str | Path | DataSource],
    progress: Progress,
    remark: Remark,
) -> dict[str, list[Example]]:
    from centra.data.labelling import read_for

    specs = {task: read_spec(registry.store.fetch(modules[task])) for task in data}
    return {task: read_for(specs[task], source, progress, remark) for task, source in data.items()}
