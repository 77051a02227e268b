"""Whether a task may answer in int8: its answers held against those in fp32, on probe and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.formats.precision import Precision
from centra.formats.task_module import read_spec
from centra.kinds.decoding import decode
from centra.progress import Progress, silent
from centra.releases.evaluation import answers, score

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
_CLOSE = 0.05
"""Numbers are equal answers where they differ by no more than this share of all fp32 answers' span."""


@dataclass(frozen=True, kw_only=True)
class DevComparison:
    """A task on labelled data, in fp32 and in int8."""

    examples: int
    agreement: float
    """The share of equal answers: of words for tagging, of inputs for other kinds."""
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
    """The share of equal answers on the probe: of tokens for tagging, of inputs for other kinds."""
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
        entry = manifest.tasks[task]
        spec = read_spec(reader.fetch(entry.digest))
        own, recorded = int8.probe_logits(task)
        agreement = _agreement(entry.kind, _on_probe(spec, recorded), _on_probe(spec, own))
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
    from centra.training.metrics import METRICS

    entry = fp32.manifest.tasks[task]
    metric = METRICS[entry.kind][0]
    exact, rounded = (answers(release, task, examples, progress) for release in (fp32, int8))
    before, after = (score(entry, found, examples)[metric] for found in (exact, rounded))
    return DevComparison(
        examples=len(examples),
        agreement=_agreement(
            entry.kind,
            _comparable(entry.kind, exact, examples),
            _comparable(entry.kind, rounded, examples),
        ),
        metric=metric,
        fp32=round(before, 6),
        int8=round(after, 6),
        loss=round(100 * (before - after), 4),
    )


def _on_probe(spec: TaskSpec, logits: np.ndarray) -> list[Any]:
    """What must be equal on a probe, whose words are not known: tokens stand for them."""
    if spec.kind == "tagging":
        best: list[int] = logits.argmax(axis=-1).tolist()
        return best
    return _comparable(spec.kind, decode(spec, logits, (), ()), ())


def _comparable(
    kind: str, found: Sequence[dict[str, Any]], examples: Sequence[Example]
) -> list[Any]:
    """What must be equal for answers to agree."""
    match kind:
        case "classification":
            return [answer["label"] for answer in found]
        case "multilabel":
            return [{label["label"] for label in answer["labels"]} for answer in found]
        case "regression":
            return [answer["value"] for answer in found]
        case _:
            pairs = zip(found, examples, strict=True)
            return [
                _span_at(answer, start) for answer, e in pairs for start, _ in e.input.token_spans
            ]


def _span_at(answer: dict[str, Any], place: int) -> tuple[str, int] | None:
    """The label and the start of the span that covers a character."""
    spans = (span for span in answer["spans"] if span["start"] <= place < span["end"])
    return next(((span["label"], span["start"]) for span in spans), None)


def _agreement(kind: str, exact: Sequence[Any], rounded: Sequence[Any]) -> float:
    """The share of equal answers."""
    close = _CLOSE * (max(exact) - min(exact)) if kind == "regression" else 0.0
    equal = [
        abs(a - b) <= close if kind == "regression" else a == b
        for a, b in zip(exact, rounded, strict=True)
    ]
    return equal.count(True) / len(equal)
