"""One training from data to a task module: fine-tuning, or with a teacher distilling."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.data.labelling import Labelling
from centra.data.labels import read_labels
from centra.data.source import DataSource
from centra.errors import UsageError
from centra.formats.task_module import check_fits, check_module
from centra.formats.thresholds import read_thresholds
from centra.progress import Progress, Remark, silent, unheard
from centra.training.backbone import opened_backbone
from centra.training.recipe import Distillation
from centra.training.run import Run
from centra.training.task_data import TaskData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data.tags import Scheme
    from centra.data.words import Segmentation
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskModule, TaskSpec
    from centra.formats.thresholds import Thresholds
    from centra.store import BlobReader
    from centra.store.s3.path import S3Path
    from centra.training.backbone import Backbone
    from centra.training.features import FeatureCache
    from centra.training.recipe import Recipe
    from centra.training.trials import Trial

__all__ = ["TrainedModule", "labelling_of", "train_module", "train_to_file"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainedModule:
    """A task module that was trained and written."""

    path: Path | S3Path
    spec: TaskSpec
    """What the module says of itself."""
    trials: tuple[Trial, ...] = ()
    """What was tried before it was chosen."""

    @property
    def metrics(self) -> dict[str, float]:
        """On the dev set, by name."""
        return self.spec.metrics


def train_to_file(
    backbone: Backbone | str | os.PathLike[str],
    data: str | os.PathLike[str] | S3Path | DataSource,
    output: str | os.PathLike[str],
    recipe: Recipe,
    *,
    teacher: Path | None = None,
    distillation: Distillation | None = None,
    labelling: Labelling | None = None,
    cache: FeatureCache | None = None,
    report_to: Sequence[str] = (),
    progress: Progress = silent,
    remark: Remark = unheard,
) -> TrainedModule:
    """Train a task module and write it; its checkpoints lie beside the file until it is done.

    Args:
        backbone, data, output: as for :func:`centra.finetune`.
        recipe, teacher, distillation, labelling, cache, report_to, progress, remark: as for
            :func:`train_module`.
    """
    start = time.perf_counter()
    path = Path(output)
    with opened_backbone(backbone, progress) as encoder:
        module = train_module(
            encoder.spec,
            encoder.reader,
            DataSource.of(data),
            recipe,
            work=path.with_name(f".{path.name}.work"),
            teacher=teacher,
            distillation=distillation,
            labelling=labelling,
            cache=cache,
            report_to=report_to,
            progress=progress,
            remark=remark,
        )
    module.write(path)
    _log.info(
        "%s %s from %s in %.1f s",
        "trained" if teacher is None else "distilled",
        path,
        data,
        time.perf_counter() - start,
    )
    return TrainedModule(path=path, spec=module.spec)


def train_module(
    backbone: BackboneSpec,
    reader: BlobReader,
    data: Path | S3Path | DataSource,
    recipe: Recipe,
    *,
    work: Path,
    teacher: Path | None = None,
    distillation: Distillation | None = None,
    labelling: Labelling | None = None,
    cache: FeatureCache | None = None,
    report_to: Sequence[str] = (),
    progress: Progress = silent,
    remark: Remark = unheard,
) -> TaskModule:
    """Train a task module.

    A run that was killed goes on from its last finished epoch when called again with the same
    arguments and data; ``work`` holds its checkpoints until it is done.

    Args:
        backbone: the frozen encoder.
        reader: where its blobs are.
        data: a folder with ``train.jsonl`` and ``dev.jsonl``; see
            :func:`centra.data.inputs.read_examples`.
        recipe: the settings; a student's tap is its teacher's.
        work: a folder of this run's own; removed at the end.
        teacher: the file of a module to learn from; None learns from the labels alone.
        distillation: how a student learns from it; by default as
            :class:`centra.training.recipe.Distillation`.
        labelling: what the labels mean, where the data do not say it.
        cache: where frozen hidden states are kept; None runs the frozen layers in every epoch.
        report_to: what Trainer reports to, of :data:`centra.training.recipe.REPORTERS`.
        progress: told of each step and of the dev metric after each epoch.
        remark: told what the labels were taken for, and what is odd about them.

    Returns:
        The module with the best dev metric, its probe taken from the dev set.

    Raises:
        UsageError: a setting that does not suit the backbone, the kind or the teacher.
        DataError: missing, empty or malformed data; a dev label that is not in train.
        FormatError, IncompatibleError: the teacher is no module, or not of this backbone.
        ConflictError: the teacher has another kind, labels or tap than the data and the recipe.
        TrainingDivergedError: the weights became NaN or infinite.
        StoreNotWritableError: ``work`` or the cache cannot be written.
    """
    distillation = distillation or Distillation()
    distillation.check()
    recipe.check(backbone)
    examples = TaskData.load(
        backbone,
        reader,
        data,
        max_length=recipe.max_length,
        template=recipe.template,
        labelling=labelling,
        like=None if teacher is None else _teacher_spec(teacher, backbone),
    )
    for text in (*examples.remarks, *examples.warnings()):
        remark(text)
    run = Run(
        backbone,
        reader,
        examples,
        recipe,
        work=work,
        cache=cache,
        teacher=teacher,
        distillation=distillation,
        report_to=report_to,
    )
    run.train(progress=progress)
    module = run.module()
    run.folder.remove()
    return module


def labelling_of(
    kind: str | None,
    labels: Sequence[str] | str | os.PathLike[str],
    tags: Scheme | None,
    words: Segmentation | None,
    thresholds: Thresholds | str | os.PathLike[str] | None,
) -> Labelling:
    """What a caller says of the labels, where they and thresholds may lie in files.

    Raises:
        DataError: see :func:`centra.data.labels.read_labels` and
            :func:`centra.formats.thresholds.read_thresholds`.
    """
    if isinstance(labels, str | os.PathLike):
        labels = read_labels(Path(labels))
    if isinstance(thresholds, str | os.PathLike):
        thresholds = read_thresholds(Path(thresholds))
    return Labelling(kind=kind, labels=tuple(labels), tags=tags, words=words, thresholds=thresholds)


def _teacher_spec(teacher: Path, backbone: BackboneSpec) -> TaskSpec:
    module = check_module(teacher)
    check_fits(module, backbone, "the backbone")
    if module.spec.head.tags:
        raise UsageError(
            f"{teacher}: its head answers in tags of its own ({', '.join(module.spec.head.tags[:4])} "
            "…), which a student, whose data are BIO, cannot take over; distil from a module that "
            "was trained on BIO tags",
            code="teacher-tags",
            teacher=str(teacher),
        )
    return module.spec
