"""Model cards: all that is known of one version of a task, from the database and its module's spec."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from centra.errors import CentraError
from centra.formats.names import parse_task_reference
from centra.formats.precision import Precision
from centra.formats.template import PLAIN
from registry.database.listing import by_name
from registry.database.models import Channel, Release, ReleaseTask, Task, TaskVersion
from registry.versions import VersionRow, version_row

if TYPE_CHECKING:
    from centra.formats.identities import Digest, ReleaseNumber, TaskName, VersionNumber
    from centra.formats.task_module import TaskSpec
    from registry.connection import Registry
    from registry.evaluations import EvaluationRow
    from registry.rules.lifecycle import TaskState

__all__ = ["Card", "Teacher", "show"]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The module that one was distilled from."""

    digest: Digest
    versions: list[str]
    """Where it is registered, ``task@major.minor``; empty where it is not."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One version of a task: what it does, where it comes from, and who uses it."""

    name: TaskName
    team: str
    state: TaskState
    current: VersionNumber
    version: VersionRow
    evaluations: list[EvaluationRow]
    """What it was measured on in releases, the newest first."""
    releases: list[ReleaseNumber]
    """The releases that hold this version."""
    int8: list[ReleaseNumber]
    """Those of them that hold it in int8."""
    channels: list[str]
    """The channels that serve one of these now."""
    source: str | None = None
    """Where its module was fetched from: MLflow's registry, the hub or a bucket; None where it lay with
    whoever registered it, and where an older Centra did not record it."""
    threshold: float | tuple[float, ...] | None = None
    """The probability from which a multilabel task names a label; None for other kinds."""
    rejection: float | None = None
    """The score below which a classification gives no label; None where it always gives one."""
    pooling: str = "first"
    """How a text's tokens become one row; of no weight for heads on every token."""
    template: str | tuple[str, str] = PLAIN
    """What each text is put in, or the first and the second of a pair, at ``{text}``."""
    max_length: int | None = None
    """Tokens kept of each input; None for the backbone's maximum."""
    crf: bool = False
    """Whether a tagging task's tags are decoded with a CRF."""
    training: dict[str, Any] = field(default_factory=dict)
    """What the module's maker wrote into it; see :attr:`centra.formats.task_module.TaskSpec.training`."""
    teacher: Teacher | None = None
    remark: str | None = None
    """Why decision, CRF, training and teacher are not known, where the store cannot give the module."""

    @property
    def reference(self) -> str:
        """``task@major.minor``."""
        return f"{self.name}@{self.version.version}"


def show(registry: Registry, reference: str) -> Card:
    """The card of a version, ``name@major.minor``, or of a task's current one, ``name``.

    Training and teacher come from the module itself. A card without them, and with a remark, is
    made where the store cannot give it.

    Raises:
        InvalidNameError: the name or the number is malformed.
        TaskNotFoundError: there is no such task or version.
        DatabaseError: the registry cannot be used.
    """
    from registry import evaluations

    name, number = parse_task_reference(reference)
    with registry.read() as uow:
        version = uow.version(name, number)
        held = select(Release.number).join(ReleaseTask).where(ReleaseTask.version_id == version.id)
        held = held.order_by(Release.number)
        serving = (
            select(Channel.name)
            .join(ReleaseTask, ReleaseTask.release_id == Channel.release_id)
            .where(ReleaseTask.version_id == version.id)
        )
        serving = serving.order_by(by_name(registry, Channel.name))
        card = Card(
            name=name,
            team=version.task.team,
            state=version.task.state,
            current=uow.current(version.task).number,
            version=version_row(version),
            evaluations=evaluations.of_version(uow, version, summaries=True),
            releases=list(uow.session.scalars(held)),
            int8=list(uow.session.scalars(held.where(ReleaseTask.precision == Precision.INT8))),
            channels=list(uow.session.scalars(serving)),
            source=uow.source_of(version),
        )
    try:
        spec = _spec(registry, card.version.digest)
    except CentraError as error:
        remark = f"the module cannot be read, so training and teacher are not known: {error}"
        return replace(card, remark=remark)
    return replace(
        card,
        threshold=spec.effective_decision.threshold,
        rejection=spec.effective_decision.rejection,
        pooling=spec.decision.pooling,
        template=spec.decision.template,
        max_length=spec.decision.max_length,
        crf=spec.head.crf,
        training=spec.training,
        teacher=_teacher(registry, spec.teacher) if spec.teacher else None,
    )


def _spec(registry: Registry, digest: Digest) -> TaskSpec:
    from centra.formats.task_module import read_spec

    return read_spec(registry.store.fetch(digest))


def _teacher(registry: Registry, digest: Digest) -> Teacher:
    query = (
        select(Task.name, TaskVersion.number)
        .join(TaskVersion, TaskVersion.task_id == Task.id)
        .where(TaskVersion.digest == digest)
        .order_by(by_name(registry, Task.name), TaskVersion.number)
    )
    with registry.read() as uow:
        rows = uow.session.execute(query)
        return Teacher(digest=digest, versions=[f"{name}@{number}" for name, number in rows])
