"""A report on a task's answers to labelled data: over all rows, and over slices of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.evaluation.calibration import Calibration, KeptShare, calibration_of, kept_shares
from centra.kinds import kind_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

    from centra.data.inputs import Example
    from centra.formats.task_module import TaskSpec
    from centra.kinds.judgement import Judgement, Pair

__all__ = ["LENGTH", "ClassScore", "Report", "Slice", "WrongAnswer", "check_slices", "make_report"]

LENGTH = "length"
"""The slice by how many characters a text has, unless the rows have a column of that name."""

_LENGTHS = (20, 50, 100, 200, 500, 1000)
"""Where lengths part, in characters."""
_MOST_VALUES = 30
"""So many slices a column may make; the rarer values are one slice."""
_WORST = 50
"""So many errors are shown."""
_LARGEST_MATRIX = 60
"""So many labels a confusion matrix may have; of more, those with the most errors."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How a label fares."""

    label: str
    wanted: int
    """How often the data have it."""
    answered: int
    right: int
    precision: float | None
    """None where it was never answered."""
    recall: float | None
    """None where it was never wanted."""
    f1: float


@dataclass(frozen=True, kw_only=True)
class WrongAnswer:
    """A row that was answered wrongly."""

    where: str
    text: str
    wanted: str
    answered: str
    faults: tuple[str, ...]
    slices: Mapping[str, str]
    """By column, what slice the row is in."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What holds of some rows."""

    value: str
    """What they have in common; of all rows nothing."""
    rows: int
    metrics: Mapping[str, float]
    classes: tuple[ClassScore, ...]
    faults: Mapping[str, int]
    """How many labels or spans are wrong in which way."""
    calibration: Calibration | None
    """None where scores are no probabilities."""
    kept: tuple[KeptShare, ...]
    """What a threshold on the score would keep, and how much of that is right."""
    mean_deviation: float | None
    """Of numbers, the mean of how far they are off, in either direction."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A task's answers to labelled data."""

    all: Slice
    slices: Mapping[str, tuple[Slice, ...]]
    """By column."""
    confusion: Mapping[tuple[str | None, str | None], int]
    """How often which label was answered, or none, where which was wanted, or none."""
    confused: tuple[str, ...]
    """The labels to draw: all, or those with the most errors where they are many."""
    worst: tuple[WrongAnswer, ...]
    """The worst errors first."""
    errors: int
    """How many rows have one."""
    deviations: tuple[float, ...]
    """Of numbers, row by row how far they are above what was wanted."""
    outcomes: np.ndarray = field(compare=False, repr=False)
    """Row by row; see :meth:`centra.kinds.base.Kind.outcomes`."""


def make_report(
    spec: TaskSpec,
    examples: Sequence[Example],
    judgements: Sequence[Judgement],
    outcomes: np.ndarray,
    *,
    slices: Sequence[str] = (),
) -> Report:
    """Report on answers.

    Args:
        spec: the task's.
        examples: labelled, at least one.
        judgements: of the answers to their texts; see :meth:`centra.kinds.base.Kind.judge`.
        outcomes: of the examples; see :meth:`centra.kinds.base.Kind.outcomes`.
        slices: columns of the rows; see :func:`check_slices`.

    Raises:
        UsageError: no row has such a column.
    """
    check_slices(examples, slices)
    values = {column: _values(column, examples) for column in slices}
    # One that was held back, though its best label was right, costs nothing and is wrong.
    wrong = [
        i
        for i, one in enumerate(judgements)
        if one.right is False or (one.right is None and one.cost > 0)
    ]
    # Stable, so that of equally bad rows the first comes first.
    worst = sorted(wrong, key=lambda i: -judgements[i].cost)[:_WORST]
    confusion = Counter((pair.wanted, pair.answered) for pair in _pairs(judgements))
    return Report(
        all=_slice(spec, "", judgements, outcomes),
        slices={
            column: tuple(
                _slice(spec, value, [judgements[i] for i in places], outcomes[places])
                for value, places in _grouped(found, in_order=_is_length(column, examples))
            )
            for column, found in values.items()
        },
        confusion=confusion,
        confused=_most_confused(kind_named(spec.kind).names(spec.labels), confusion),
        worst=tuple(
            WrongAnswer(
                where=examples[i].where,
                text=examples[i].input.shown,
                wanted=judgements[i].wanted,
                answered=judgements[i].answered,
                faults=tuple(
                    dict.fromkeys(pair.fault for pair in judgements[i].pairs if pair.fault)
                ),
                slices={column: found[i] for column, found in values.items()},
            )
            for i in worst
        ),
        errors=len(wrong),
        deviations=tuple(one.deviation for one in judgements if one.deviation is not None),
        outcomes=outcomes,
    )


def check_slices(examples: Sequence[Example], slices: Sequence[str]) -> None:
    """Refuse a slice by what no row has.

    Raises:
        UsageError: naming the columns that there are.
    """
    columns = {name: None for example in examples for name in example.columns}
    for column in slices:
        if column != LENGTH and column not in columns:
            known = ", ".join([LENGTH, *(name for name in columns if name != LENGTH)][:20])
            raise UsageError(
                f"no row of the data has a column {column!r} to slice by; there are {known}",
                code="unknown-column",
                column=column,
            )


def _slice(
    spec: TaskSpec, value: str, judgements: Sequence[Judgement], outcomes: np.ndarray
) -> Slice:
    kind = kind_named(spec.kind)
    pairs = [*_pairs(judgements)]
    claims = [claim for one in judgements for claim in one.claims]
    probable = spec.effective_decision.activation != "none" and bool(claims)
    deviations = [abs(one.deviation) for one in judgements if one.deviation is not None]
    return Slice(
        value=value,
        rows=len(judgements),
        metrics=kind.metrics_of(spec.labels, outcomes),
        classes=_class_scores(kind.names(spec.labels), pairs),
        faults=dict(Counter(pair.fault for pair in pairs if pair.fault)),
        calibration=calibration_of(claims) if probable else None,
        kept=kept_shares([decision for one in judgements for decision in one.decisions]),
        mean_deviation=sum(deviations) / len(deviations) if deviations else None,
    )


def _pairs(judgements: Iterable[Judgement]) -> Iterable[Pair]:
    return (pair for one in judgements for pair in one.pairs)


def _class_scores(labels: Sequence[str], pairs: Sequence[Pair]) -> tuple[ClassScore, ...]:
    """The score of each label that occurs on either side, in the task's order."""
    wanted = Counter(pair.wanted for pair in pairs)
    answered = Counter(pair.answered for pair in pairs)
    right = Counter(pair.wanted for pair in pairs if pair.fault is None)
    return tuple(
        ClassScore(
            label=label,
            wanted=wanted[label],
            answered=answered[label],
            right=right[label],
            precision=right[label] / answered[label] if answered[label] else None,
            recall=right[label] / wanted[label] if wanted[label] else None,
            f1=2 * right[label] / (wanted[label] + answered[label]),
        )
        for label in labels
        if wanted[label] or answered[label]
    )


def _most_confused(
    labels: Sequence[str], confusion: Mapping[tuple[str | None, str | None], int]
) -> tuple[str, ...]:
    errors: Counter[str | None] = Counter()
    for (wanted, answered), count in confusion.items():
        if wanted != answered:
            errors[wanted] += count
            errors[answered] += count
    found = {label for pair in confusion for label in pair}
    kept = [label for label in labels if label in found]
    if len(kept) > _LARGEST_MATRIX:
        most = {*sorted(kept, key=lambda label: -errors[label])[:_LARGEST_MATRIX]}
        kept = [label for label in kept if label in most]
    return tuple(kept)


def _is_length(column: str, examples: Sequence[Example]) -> bool:
    return column == LENGTH and not any(LENGTH in example.columns for example in examples)


def _values(column: str, examples: Sequence[Example]) -> list[str]:
    """What slice each row is in."""
    if _is_length(column, examples):
        return [_length_range(len(example.input.shown)) for example in examples]
    found = [_shown(example.columns.get(column)) for example in examples]
    common = {value for value, _ in Counter(found).most_common(_MOST_VALUES)}
    return [value if value in common else "any other" for value in found]


def _length_range(length: int) -> str:
    lower = 0
    for upper in _LENGTHS:
        if length <= upper:
            return f"{lower + 1} to {upper} characters"
        lower = upper
    return f"more than {lower} characters"


def _shown(value: object) -> str:
    return "-" if value is None or value == "" else str(value)[:100]


def _grouped(values: Sequence[str], *, in_order: bool) -> list[tuple[str, list[int]]]:
    """The places of the rows of each slice, the largest slice first; lengths in their order."""
    groups: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault(value, []).append(place)
    if in_order:
        ranges = [_length_range(length) for length in (*_LENGTHS, _LENGTHS[-1] + 1)]
        return sorted(groups.items(), key=lambda group: ranges.index(group[0]))
    return sorted(groups.items(), key=lambda group: -len(group[1]))
