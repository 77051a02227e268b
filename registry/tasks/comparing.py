"""Two versions of a task on the same data: which rows they answer differently, and what that proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from centra.data.inputs import fingerprint_of
from centra.data.labelling import read_for
from centra.errors import DataError, UsageError
from centra.evaluation.significance import Interval, McNemar, bootstrap, mcnemar
from centra.formats.task_module import read_spec
from centra.kinds import kind_named
from centra.progress import Progress, Remark, silent, unheard
from centra.releases.evaluation import measure
from registry.tasks.answering import load_version

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from centra.data.inputs import Example
    from centra.data.source import DataSource
    from centra.formats.task_module import TaskSpec
    from centra.releases.evaluation import Measured
    from registry.connection import Registry
    from registry.tasks.reading import TaskDifference

__all__ = ["ChangedRow", "Comparison", "compare"]

Change = Literal["won", "lost", "other"]
"""The new version alone has the row right, the old one alone, or both or neither have."""


@dataclass(frozen=True, kw_only=True)
class ChangedRow:
    """A row that two versions answer differently."""

    where: str
    text: str
    wanted: str
    before: str
    after: str
    change: Change


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two versions on the same data."""

    data: str
    """The fingerprint of the rows."""
    examples: int
    changed: list[ChangedRow]
    """In the order of the data."""
    test: McNemar | None
    """Of how often each is right; None of a kind whose answers are only more or less near."""
    metrics: dict[str, Interval]
    """Each metric's difference."""


def compare(
    registry: Registry,
    difference: TaskDifference,
    data: str | Path | DataSource,
    progress: Progress = silent,
    *,
    remark: Remark = unheard,
) -> Comparison:
    """Ask both versions, each by itself, and compare their answers.

    Args:
        registry: where.
        difference: of the two; see :func:`registry.tasks.diff`.
        data: a file, or a folder whose dev set is taken; see
            :func:`centra.data.labelling.read_for`.
        progress: told of each step.
        remark: told what the data's labels were taken for.

    Raises:
        UsageError: the versions are of different kinds, or take different inputs.
        DataError: missing or malformed data, a label that one of the versions does not know, or rows
            that change meanwhile.
        ComposeError, StoreError: a module cannot be read.
    """
    old, new = difference.before, difference.after
    if (old.kind, old.input) != (new.kind, new.input):
        raise UsageError(
            f"{difference.task}@{old.version} is {old.kind} of {old.input} inputs, "
            f"{difference.task}@{new.version} {new.kind} of {new.input} ones: their answers cannot "
            "be compared"
        )
    sides = []
    for version in (old, new):
        spec = read_spec(registry.store.fetch(version.digest))
        # What a label means may differ, so each reads the rows for itself.
        examples = read_for(spec, data, progress, remark)
        with load_version(registry, difference.task, version.digest, progress) as loaded:
            given = measure(loaded, difference.task, examples, progress)
        sides.append(_Side(spec=spec, examples=examples, given=given))
    before, after = sides
    if [example.input for example in before.examples] != [e.input for e in after.examples]:
        raise DataError(f"{data}: the rows changed while they were read; compare again")
    kind = kind_named(old.kind)
    rights = [[one.right for one in side.given.judgements] for side in sides]
    changed = [
        ChangedRow(
            where=example.where,
            text=example.input.shown,
            wanted=one.wanted,
            before=one.answered,
            after=other.answered,
            change=_change(one.right, other.right),
        )
        for example, answers, one, other in zip(
            *(before.examples, zip(*(side.given.to_texts for side in sides), strict=True)),
            *(side.given.judgements for side in sides),
            strict=True,
        )
        if kind.distance(*answers) is None
    ]
    graded = all(right is not None for side in rights for right in side)
    return Comparison(
        data=fingerprint_of(before.examples),
        examples=len(before.examples),
        changed=changed,
        test=mcnemar(*([bool(right) for right in side] for side in rights)) if graded else None,
        metrics=bootstrap(len(before.examples), before.metrics, after.metrics),
    )


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One version with its answers."""

    spec: TaskSpec
    examples: list[Example]
    given: Measured

    def metrics(self, places: np.ndarray) -> Mapping[str, float]:
        """The metrics of rows by their places."""
        return kind_named(self.spec.kind).metrics_of(self.spec.labels, self.given.outcomes[places])


def _change(before: bool | None, after: bool | None) -> Change:  # noqa: FBT001 - a pair of answers
    if before is None or before == after:
        return "other"
    return "won" if after else "lost"
