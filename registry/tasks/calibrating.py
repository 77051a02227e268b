"""Calibrating a task: a temperature and thresholds from labelled data, as the task's next version.

The temperature goes into the last layer's weights, so that every engine, export and peer gives the same
calibrated scores without knowing of it; see ``docs/adr/0026-a-temperature-is-in-the-weights.md``.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.data.inputs import fingerprint_of
from centra.data.labelling import read_for
from centra.errors import DataError, UsageError
from centra.evaluation.calibration import calibration_of, least_threshold
from centra.evaluation.temperature import fit_temperature
from centra.formats.identities import TaskName
from centra.formats.names import parse_name
from centra.formats.task_module import TaskModule
from centra.formats.thresholds import Thresholds
from centra.kinds import kind_named
from centra.progress import Progress, Remark, silent, unheard
from registry.rules.lifecycle import VersionChange
from registry.tasks.answering import load_version
from registry.tasks.changing import current_digest, make_version
from registry.tasks.versioning import VersionRequest, check_owner

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from centra.data.inputs import Example
    from centra.data.source import DataSource
    from centra.formats.identities import Digest
    from centra.formats.task_module import TaskSpec
    from registry.connection import Registry
    from registry.tasks.outcome import TaskOutcome

__all__ = ["Calibrated", "LabelThreshold", "calibrate"]

_SAME = 1e-4
"""Thresholds that differ by less are the same: scores are sums of many floats."""


@dataclass(frozen=True, kw_only=True)
class LabelThreshold:
    """A threshold that was fitted, and what the data say of it."""

    label: str | None
    """None of one for all labels: a rejection."""
    threshold: float | None
    """None where none reaches the wanted precision; what there was stays."""
    precision: float | None
    """Of what it keeps; None where it keeps nothing."""
    kept: float
    """The share that it keeps: of the label's rows, or of all answers."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What calibrating a task led to."""

    outcome: TaskOutcome | None
    """The new version; None where scores and thresholds are as they should be."""
    examples: int
    temperature: float
    error_before: float
    """The expected calibration error of the scores."""
    error_after: float
    thresholds: tuple[LabelThreshold, ...]
    """Empty where no precision was wanted."""


def calibrate(
    registry: Registry,
    name: str,
    data: str | Path | DataSource,
    *,
    precision: float | None = None,
    force: bool = False,
    progress: Progress = silent,
    remark: Remark = unheard,
) -> Calibrated:
    """Fit a temperature, and thresholds for a wanted precision, and write them as the next version.

    Args:
        registry: where.
        name: a task whose kind ranks labels.
        data: a file, or a folder whose dev set is taken: rows that the task was not trained on.
        precision: which share of what is answered shall be right, of each label where several may be
            named; None to fit no thresholds.
        force: act for another team.
        progress: told of each step.
        remark: told what the data's labels were taken for, and what could not be reached.

    Raises:
        UsageError: the kind ranks no labels, its scores are no probabilities, or the precision is no
            share.
        DataError: missing or malformed data; no temperature fits them, or no threshold reaches the
            precision.
        TaskNotFoundError, NotOwnerError, ConflictError: see :func:`registry.tasks.update`.
        ComposeError, StoreError, DatabaseError: the registry cannot be used.
    """
    if precision is not None and not 0 < precision <= 1:
        raise UsageError(f"a precision is a share between 0 and 1, not {precision:g}")
    task = TaskName(parse_name(name, "task name"))
    digest = current_digest(registry, task)
    request = VersionRequest(task=task, change=VersionChange.UPDATE, force=force, made_from=digest)
    with registry.read() as uow:
        # Before any work is done for it.
        check_owner(uow, request)
    module = TaskModule.read(registry.store.fetch(digest))
    spec, kind = module.spec, kind_named(module.spec.kind)
    if not kind.ranks_labels or spec.effective_decision.activation != kind.activations[0]:
        raise UsageError(
            f"task {task}: its scores are no probabilities of labels; only those of classifications "
            "and of several labels, with their usual activation, are calibrated",
            code="not-calibrated",
        )
    examples = read_for(spec, data, progress, remark)
    logits, targets = _logits(registry, task, digest, spec, examples, progress=progress)
    temperature = fit_temperature(kind, logits, targets)
    fitted = _fit_thresholds(spec, logits / temperature, targets, precision)
    for one in fitted:
        if one.threshold is None:
            what = "any answer" if one.label is None else f"label {one.label!r}"
            text = f"no threshold gives {what} a precision of {precision:g} on these data"
            if one.label is None:
                raise DataError(f"{data}: {text}", code="precision-out-of-reach")
            remark(f"{text}; it keeps its own")
    if spec.decision.rejection is not None and temperature != 1 and not fitted:
        remark("the rejection stays what it was, though scores are others now")
    calibrated = Calibrated(
        outcome=None,
        examples=len(examples),
        temperature=temperature,
        error_before=_error(spec, logits, targets),
        error_after=_error(spec, logits / temperature, targets),
        thresholds=fitted,
    )
    changed = _thresholds(spec, temperature, fitted)
    if temperature == 1 and _same(spec, changed.decide(spec)):
        return calibrated
    how = {
        "temperature": temperature,
        "data": fingerprint_of(examples),
        "examples": len(examples),
        **({} if precision is None else {"precision": precision}),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.safetensors"
        _tempered(module, temperature, changed, how).write(path)
        outcome = make_version(registry, request, path, None, progress)
    return replace(calibrated, outcome=outcome)


def _logits(
    registry: Registry,
    task: str,
    digest: Digest,
    spec: TaskSpec,
    examples: Sequence[Example],
    *,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """The logits of each text, and what they should say."""
    import numpy as np

    inputs = [replace(example.input, tokens=None) for example in examples]
    with load_version(registry, task, digest, progress) as loaded:
        logits = np.stack(loaded.logits(inputs, [task])[task])
        rows = loaded.encoders[spec.backbone].encode(inputs)
    kind = kind_named(spec.kind)
    targets = [kind.target(spec, *pair) for pair in zip(examples, rows, strict=True)]
    return logits, np.stack(targets)


def _claims(
    spec: TaskSpec, logits: np.ndarray, targets: np.ndarray
) -> list[list[tuple[float, bool]]]:
    """Scores with whether they came true: of the best label of each row, or of each label."""
    from centra.kinds.probabilities import activate

    scores = activate(logits.astype("float64"), spec.effective_decision.activation)
    if kind_named(spec.kind).takes_threshold:
        return [
            [(float(score), bool(true)) for score, true in zip(*column, strict=True)]
            for column in zip(scores.T, targets.T, strict=True)
        ]
    best = scores.argmax(axis=-1)
    return [
        [
            (float(row[i]), bool(i == wanted))
            for i, row, wanted in zip(best, scores, targets, strict=True)
        ]
    ]


def _error(spec: TaskSpec, logits: np.ndarray, targets: np.ndarray) -> float:
    claims = _claims(spec, logits, targets)
    return calibration_of([claim for one in claims for claim in one]).error


def _fit_thresholds(
    spec: TaskSpec, logits: np.ndarray, targets: np.ndarray, precision: float | None
) -> tuple[LabelThreshold, ...]:
    if precision is None:
        return ()
    several = kind_named(spec.kind).takes_threshold
    found = []
    for place, claims in enumerate(_claims(spec, logits, targets)):
        threshold = least_threshold(claims, precision)
        if threshold is not None:
            threshold = round(threshold, 6)
        kept = [true for score, true in claims if threshold is not None and score >= threshold]
        total = sum(true for _, true in claims) if several else len(claims)
        share = sum(kept) if several else len(kept)
        found.append(
            LabelThreshold(
                label=spec.labels[place] if several else None,
                threshold=threshold,
                precision=sum(kept) / len(kept) if kept else None,
                kept=share / total if total else 0.0,
            )
        )
    return tuple(found)


def _thresholds(spec: TaskSpec, temperature: float, fitted: Sequence[LabelThreshold]) -> Thresholds:
    """What is to be set: what was fitted, and elsewhere what gives the same answers as before."""
    decision = spec.effective_decision
    if not kind_named(spec.kind).takes_threshold:
        return Thresholds(rejection=fitted[0].threshold if fitted else None)
    before = decision.threshold
    usual = before if isinstance(before, tuple) else (before or 0.0,) * len(spec.labels)
    own = {
        label: _at_temperature(value, temperature)
        for label, value in zip(spec.labels, usual, strict=True)
    }
    own |= {
        one.label: one.threshold
        for one in fitted
        if one.label is not None and one.threshold is not None
    }
    return Thresholds(threshold=own)


def _at_temperature(threshold: float, temperature: float) -> float:
    """The threshold that names the same texts as before; one that is no probability stays."""
    if not 0 < threshold < 1 or temperature == 1:
        return threshold
    return 1 / (1 + math.exp(-math.log(threshold / (1 - threshold)) / temperature))


def _same(one: TaskSpec, other: TaskSpec) -> bool:
    """Whether two decisions are the same but for the last digits of thresholds."""

    def numbers(spec: TaskSpec) -> list[float]:
        decision = spec.effective_decision
        own = decision.threshold
        labels = own if isinstance(own, tuple) else (own,) * len(spec.labels)
        return [math.inf if value is None else value for value in (*labels, decision.rejection)]

    return all(
        a == b or abs(a - b) < _SAME for a, b in zip(numbers(one), numbers(other), strict=True)
    )


def _tempered(
    module: TaskModule, temperature: float, thresholds: Thresholds, how: dict[str, Any]
) -> TaskModule:
    """The module with other scores and thresholds, and how that came about."""
    spec = thresholds.decide(module.spec)
    spec = spec.model_copy(update={"training": {**spec.training, "calibration": how}})
    tensors = {
        name: tensor / temperature if name in _LAST else tensor
        for name, tensor in module.tensors.items()
    }
    return TaskModule(spec, tensors)


_LAST = ("head.out.weight", "head.out.bias", "probe.logits")
"""The last layer is linear, so that dividing it divides the logits."""
