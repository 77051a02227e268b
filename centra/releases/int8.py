"""Whether a task may answer in int8: its answers held against those in fp32, on probe and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.formats.precision import Precision
from centra.formats.task_module import read_spec
from centra.kinds import kind_named
from centra.progress import Progress, silent
from centra.releases.evaluation import answers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np

    from centra.data.inputs import Example
    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskSpec
    from centra.runtime import Release
    from centra.store import BlobReader

__all__ = ["LEAST_AGREEMENT", "MAX_LOSS", "DevComparison", "Int8Comparison", "compare_int8"]

MAX_LOSS = 1.0
"""How many points of its metric a task may lose, unless another limit is set."""
LEAST_AGREEMENT = 0.98
"""The least share of equal answers on the probe that counts as sane where there is no data."""


@dataclass(frozen=True, kw_only=True)
class DevComparison:
    """A task on labelled data, in fp32 and in int8."""

    examples: int
    agreement: float
    """The share of equal answers: of words where the task answers for words, else of inputs."""
    metric: str
    """The first of the kind's metrics."""
    fp32: float
    int8: float
    loss: float
    """Of the metric, in points, which are hundredths; negative for a gain."""


@dataclass(frozen=True, kw_only=True)
class Int8Comparison:
    """A task's answers in int8 beside those in fp32, and what follows."""

    task: str
    agreement: float
    """The share of equal answers on the probe: of tokens where the head reads every token, else of
    inputs."""
    difference: float
    """The largest difference of logits on the probe."""
    dev: DevComparison | None
    """None where no data was given."""
    refused: str | None
    """Why the task stays in fp32; None where it goes to int8."""


def compare_int8(
    manifest: ReleaseManifest,
    reader: BlobReader,
    tasks: Collection[str],
    data: Mapping[str, Sequence[Example]],
    *,
    max_loss: float = MAX_LOSS,
    progress: Progress = silent,
) -> list[Int8Comparison]:
    """Decide which tasks of a release may answer in int8.

    Data decides where there is some; the few inputs of the probe do otherwise.

    Args:
        manifest: the release; in which precisions does not matter.
        reader: where its blobs are.
        tasks: those to compare; none costs nothing.
        data: labelled examples, for any of them.
        max_loss: the most points that a task's metric may fall.
        progress: told of each step.

    Returns:
        Each task's comparison, in the order of their names.

    Raises:
        UsageError: the onnx engine, which alone computes in int8, is not installed.
        DataError: data that does not suit its task.
        FormatError, BlobNotFoundError, CorruptBlobError, StoreError: a blob cannot be had.
    """
    if not tasks:
        return []
    from centra.runtime import Release

    def loaded(precision: Precision, some: Collection[str]) -> Release:
        of_one = manifest.with_precisions(dict.fromkeys(some, precision))
        return Release.load(of_one, reader, tasks=some, engine="onnx", progress=progress)

    int8, fp32 = (
        loaded(Precision.INT8, tasks),
        loaded(Precision.FP32, [task for task in data if task in tasks]),
    )
    found = []
    for done, task in enumerate(sorted(tasks), 1):
        spec = read_spec(reader.fetch(manifest.tasks[task].digest))
        own, recorded = int8.probe_logits(task)
        kind = kind_named(spec.kind)
        agreement = kind.agreement(_on_probe(spec, recorded), _on_probe(spec, own))
        dev = _on_data(fp32, int8, task, data[task], progress) if task in data else None
        found.append(
            Int8Comparison(
                task=task,
                agreement=agreement,
                difference=float(abs(own - recorded).max(initial=0.0)),
                dev=dev,
                refused=_refused(agreement, dev, max_loss),
            )
        )
        progress("compare int8", done, len(tasks))
    return found


def _refused(agreement: float, dev: DevComparison | None, max_loss: float) -> str | None:
    if dev is None:
        if agreement >= LEAST_AGREEMENT:
            return None
        return (
            f"on its probe {agreement:.1%} of the answers are those in fp32, and "
            f"{LEAST_AGREEMENT:.0%} are needed where no data is given"
        )
    if dev.loss <= max_loss:
        return None
    return f"{dev.metric} falls by {dev.loss:.2f} points, and {max_loss:g} are allowed"


def _on_data(
    fp32: Release, int8: Release, task: str, examples: Sequence[Example], progress: Progress
) -> DevComparison:
    entry = fp32.manifest.tasks[task]
    kind = kind_named(entry.kind)
    metric = kind.metrics[0]
    exact, rounded = (answers(release, task, examples, progress) for release in (fp32, int8))
    before, after = (
        kind.score(entry.labels, found, examples)[metric] for found in (exact, rounded)
    )
    return DevComparison(
        examples=len(examples),
        agreement=kind.agreement(
            kind.comparable(exact, examples), kind.comparable(rounded, examples)
        ),
        metric=metric,
        fp32=round(before, 6),
        int8=round(after, 6),
        loss=round(100 * (before - after), 4),
    )


def _on_probe(spec: TaskSpec, logits: np.ndarray) -> list[Any]:
    """What must be equal on a probe, whose words are not known: tokens stand for them."""
    if spec.reads_every_token:
        best: list[int] = logits.argmax(axis=-1).tolist()
        return best
    kind = kind_named(spec.kind)
    return kind.comparable(kind.decode(spec, logits, (), ()), ())
