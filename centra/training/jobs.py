"""Training runs as messages: what an engine hands to its workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.formats.task_module import TaskModule
from centra.training.features import open_cache
from centra.training.inputs import Blob, check_mark
from centra.training.remote_work import opened_work
from centra.training.run import Run
from centra.training.task_data import TaskData
from centra.training.trials import Trial
from centra.training.work_folder import WorkFolder

if TYPE_CHECKING:
    from centra.data.labelling import Labelling
    from centra.data.source import DataSource
    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader
    from centra.store.s3.path import S3Path
    from centra.training.features import FeatureCache, MachineCache
    from centra.training.history import History
    from centra.training.inputs import DataBlobs
    from centra.training.recipe import Distillation, Recipe

__all__ = ["Job", "advance", "take_module"]

_MODULE = "module.safetensors"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run as a message to a worker; see :class:`centra.training.run.Run`."""

    backbone: BackboneSpec
    reader: BlobReader
    data: DataSource | DataBlobs
    recipe: Recipe
    work: Path | S3Path
    labelling: Labelling | None = None
    cache: FeatureCache | MachineCache | None = None
    taps: tuple[int, ...] = ()
    """That the cache is to have, for the runs beside this one too; empty for its own."""
    teacher: Path | Blob | None = None
    distillation: Distillation | None = None
    report_to: tuple[str, ...] = ()
    mark: str | None = None
    """Of the folder around ``work``, which the machine that carries it out must have; None for any."""
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

    def run(self, work: Path) -> Run:
        """The run itself, with its data read.

        Args:
            work: its folder, on this machine.
        """
        data = TaskData.load(
            self.backbone,
            self.reader,
            self.data,
            max_length=self.recipe.max_length,
            template=self.recipe.template,
            labelling=self.labelling,
        )
        return Run(
            self.backbone,
            self.reader,
            data,
            self.recipe,
            work=work,
            cache=open_cache(self.cache),
            taps=self.taps,
            teacher=self.teacher.fetch() if isinstance(self.teacher, Blob) else self.teacher,
            distillation=self.distillation,
            report_to=self.report_to,
        )


def advance(job: Job) -> History:
    """Carry a job out: train its run to the epoch it names.

    Raises:
        UsageError: its work folder is that of another machine.
    """
    if job.mark is not None and isinstance(job.work, Path):
        check_mark(job.work.parent, job.mark)
    with opened_work(job.work) as work:
        return job.run(work.path).train(job.until, kept=work)


def take_module(job: Job) -> TaskModule:
    """The module of a run that was trained to its end.

    It stays in the run's folder, and the checkpoints that it was made from go.

    Raises:
        TrainingDivergedError: the weights became NaN or infinite.
        StoreNotWritableError: the folder cannot be written.
    """
    with opened_work(job.work) as work:
        path = work.path / _MODULE
        if path.is_file():
            return TaskModule.read(path)
        module = job.run(work.path).module(kept=work)
        module.write(path)
        WorkFolder(work.path).discard_checkpoints()
        work.save()
        return module
