"""Tasks: as listed, one with its versions, what a change led to, and two versions side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.formats.identities import VersionNumber  # noqa: TC001 - pydantic reads the annotations
from registry.documents.base import Document, Moment, from_field, schema
from registry.documents.cards import Card
from registry.documents.versions import ContractDifference, DecisionChange, Version

if TYPE_CHECKING:
    from registry import cards, tasks

__all__ = ["Task", "TaskCalibration", "TaskChange", "TaskDifference", "TaskSummary"]


class TaskSummary(Document):
    """A task with its current version."""

    schema_: str = schema("task-summary")
    task: str
    team: str
    """The owner."""
    state: str
    """``active`` or ``retired``; retired tasks are not in the live set."""
    version: VersionNumber
    """The current one; so are all fields that follow."""
    kind: str
    input: str
    """``single`` or ``pair``: whether it takes one text or two."""
    backbone: str
    tap_layer: int
    """The frozen layer that it reads; 0 for the embeddings."""
    depth: int
    """How many layers of its own it adds."""
    metrics: dict[str, float]
    """What its maker reports of it, on the dev set."""
    created_at: Moment
    """When the version was made."""

    @classmethod
    def of(cls, row: tasks.TaskRow) -> TaskSummary:
        """The document of a task as listed."""
        return cls(
            task=row.name,
            team=row.team,
            state=row.state,
            version=row.version,
            kind=row.kind,
            input=row.input,
            backbone=row.backbone,
            tap_layer=row.tap_layer,
            depth=row.depth,
            metrics=row.metrics,
            created_at=row.created_at,
        )


class Task(Document):
    """A task with its versions: all of them, or the one that was asked for and its card."""

    schema_: str = schema("task")
    task: str
    name: str
    """The same as ``task``."""
    team: str
    """The owner."""
    state: str
    """``active`` or ``retired``; retired tasks are not in the live set."""
    current: VersionNumber
    """The version that is current."""
    versions: list[Version]
    """The oldest first; the one alone that was asked for."""
    card: Card | None
    """What else is known of the one version that was asked for; null where none was."""

    @classmethod
    def of(cls, detail: tasks.TaskDetail) -> Task:
        """The document of a task with all its versions."""
        return cls(
            task=detail.name,
            name=detail.name,
            team=detail.team,
            state=detail.state,
            current=detail.current,
            versions=[Version.of(version) for version in detail.versions],
            card=None,
        )

    @classmethod
    def with_card(cls, card: cards.Card) -> Task:
        """The document of a task with one version and its card."""
        return cls(
            task=card.name,
            name=card.name,
            team=card.team,
            state=card.state,
            current=card.current,
            versions=[Version.of(card.version)],
            card=Card.of(card),
        )


class TaskChange(Document):
    """What registering, updating, redefining, retiring, restoring or pinning a task led to."""

    schema_: str = schema("task-change")
    task: str
    version: VersionNumber
    """The current one now."""
    changed: bool
    forced: bool
    """Whether it was another team's to do, and the log says so."""
    state: str
    """The task's: a retired one stays out of the live set, whatever version is current."""
    mended: str | None
    """What was wrong with the version's stored file, which has been put back: ``missing`` or
    ``damaged``."""
    decision: list[DecisionChange]
    """How an update's logits become answers otherwise than those of the version before."""

    @classmethod
    def of(cls, outcome: tasks.TaskOutcome) -> TaskChange:
        """The document of a change."""
        return cls(
            task=outcome.task,
            version=outcome.version,
            changed=outcome.changed,
            forced=outcome.forced,
            state=outcome.state,
            mended=outcome.mended,
            decision=[DecisionChange.of(change) for change in outcome.decision],
        )


class LabelThreshold(Document):
    """A threshold that was fitted, and what the data say of it."""

    label: str | None
    """Null of one for all labels: a rejection."""
    threshold: float | None
    """Null where none reaches the wanted precision; what there was stays."""
    precision: float | None
    """Of what it keeps; null where it keeps nothing."""
    kept: float
    """The share that it keeps: of the label's rows, or of all answers."""


class TaskCalibration(Document):
    """What calibrating a task led to."""

    schema_: str = schema("task-calibration")
    change: TaskChange | None
    """The new version; null where scores and thresholds were as they should be."""
    examples: int
    """How many rows."""
    temperature: float
    """By which logits are divided now; 1 where scores were as they should be."""
    error_before: float
    """The expected calibration error of the scores."""
    error_after: float
    """Likewise."""
    thresholds: list[LabelThreshold]
    """Empty where no precision was wanted."""

    @classmethod
    def of(cls, found: tasks.Calibrated) -> TaskCalibration:
        """The document of a calibration."""
        return cls(
            change=TaskChange.of(found.outcome) if found.outcome else None,
            examples=found.examples,
            temperature=found.temperature,
            error_before=found.error_before,
            error_after=found.error_after,
            thresholds=[
                LabelThreshold(**{name: getattr(one, name) for name in LabelThreshold.model_fields})
                for one in found.thresholds
            ],
        )


class ChangedRow(Document):
    """A row that two versions answer differently."""

    where: str
    """File and line."""
    text: str
    wanted: str
    before: str
    """What the version before answers."""
    after: str
    """What the version after answers."""
    change: str
    """``won`` where the version after alone is right, ``lost`` where the one before alone is, else
    ``other``."""


class MetricChange(Document):
    """How much a metric differs, by a paired bootstrap over the rows."""

    before: float
    after: float
    low: float
    """Of the difference, after less before; between ``low`` and ``high`` it lies with 95 % confidence."""
    high: float
    """Likewise."""
    significant: bool
    """Whether 0 lies outside."""


class SignTest(Document):
    """McNemar's test of how often two versions are right."""

    won: int
    """Rows that only the version after has right."""
    lost: int
    """Rows that only the version before has right."""
    p_value: float
    """How probable as uneven a split is where both are equally good."""
    exact: bool
    """Whether by the binomial distribution; else by the chi-square one."""


class TaskComparison(Document):
    """Two versions on the same data."""

    data: str
    """The fingerprint of the examples."""
    examples: int
    """How many rows."""
    changed: list[ChangedRow]
    """Those that are answered differently."""
    test: SignTest | None
    """Null of a kind whose answers are only more or less near."""
    metrics: dict[str, MetricChange]

    @classmethod
    def of(cls, found: tasks.Comparison) -> TaskComparison:
        """The document of a comparison."""
        test = found.test
        return cls(
            data=found.data,
            examples=found.examples,
            changed=[
                ChangedRow(**{name: getattr(row, name) for name in ChangedRow.model_fields})
                for row in found.changed
            ],
            test=SignTest(**{name: getattr(test, name) for name in SignTest.model_fields})
            if test
            else None,
            metrics={
                metric: MetricChange(
                    **{name: getattr(change, name) for name in MetricChange.model_fields}
                )
                for metric, change in found.metrics.items()
            },
        )


class TaskDifference(Document):
    """How two versions of a task differ."""

    schema_: str = schema("task-difference")
    task: str
    from_: Version = from_field()
    to: Version
    contract: ContractDifference
    decision: list[DecisionChange]
    """How logits become answers, where that differs."""
    tensors_changed: list[str]
    """The names of those that are in both with other bytes, or in one alone."""
    tensors_same: int
    """How many are the same."""

    comparison: TaskComparison | None
    """What both answer to data; null where none were given."""

    @classmethod
    def of(
        cls, difference: tasks.TaskDifference, comparison: tasks.Comparison | None = None
    ) -> TaskDifference:
        """The document of a difference, and of a comparison on data."""
        return cls(
            task=difference.task,
            from_=Version.of(difference.before),
            to=Version.of(difference.after),
            contract=ContractDifference.of(difference.contract),
            decision=[DecisionChange.of(change) for change in difference.decision],
            tensors_changed=difference.tensors_changed,
            tensors_same=difference.tensors_same,
            comparison=TaskComparison.of(comparison) if comparison else None,
        )
