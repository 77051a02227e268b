"""Training runs as messages: what an engine hands to its workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.formats.task_module import TaskModule
from centra.training.run import Run
from centra.training.task_data import TaskData
from centra.training.trials import Trial
from centra.training.work_folder import WorkFolder

if TYPE_CHECKING:
    from pathlib import Path

    from centra.data.labelling import Labelling
    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader
    from centra.training.features import FeatureCache
    from centra.training.history import History
    from centra.training.recipe import Distillation, Recipe

__all__ = ["Job", "advance", "take_module"]

_MODULE = "module.safetensors"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run as a message to a worker; see :class:`centra.training.run.Run`."""

    backbone: BackboneSpec
    reader: BlobReader
    data: Path
    recipe: Recipe
    work: Path
    labelling: Labelling | None = None
    cache: FeatureCache | None = None
    teacher: Path | None = None
    distillation: Distillation | None = None
    report_to: tuple[str, ...] = ()
    until: int | None = None
    """The epoch to stop after; None for the last."""

    def as_trial(self, history: History, *, pruned: bool = False) -> Trial:
        """What its run came to, as a row of the table of trials."""
        return Trial(
            role="teacher" if self.teacher is None else "student",
            frozen_layers=self.recipe.tap,
            task_layers=self.recipe.depth,
            learning_rate=self.recipe.learning_rate,
            seed=self.recipe.seed,
            metric=history.metric,
            score=round(100 * history.score, 4),
            epochs=len(history.epochs),
            pruned=pruned,
        )

    def run(self) -> Run:
        """The run itself, with its data read."""
        data = TaskData.load(
            self.backbone,
            self.reader,
            self.data,
            max_length=self.recipe.max_length,
            labelling=self.labelling,
        )
        return Run(
            self.backbone,
            self.reader,
            data,
            self.recipe,
            work=self.work,
            cache=self.cache,
            teacher=self.teacher,
            distillation=self.distillation,
            report_to=self.report_to,
        )


def advance(job: Job) -> History:
    """Carry a job out: train its run to the epoch it names."""
    return job.run().train(job.until)


def take_module(job: Job) -> TaskModule:
    """The module of a run that was trained to its end.

    It stays in the run's folder, and the checkpoints that it was made from go.

    Raises:
        TrainingDivergedError: the weights became NaN or infinite.
        StoreNotWritableError: the folder cannot be written.
    """
    path = job.work / _MODULE
    if path.is_file():
        return TaskModule.read(path)
    module = job.run().module()
    module.write(path)
    WorkFolder(job.work).discard_checkpoints()
    return module
