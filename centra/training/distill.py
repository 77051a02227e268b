"""Distillation (paper section 3.2): a student of fewer layers learns from a fine-tuned teacher.

The student keeps its teacher's tap, starts as a copy of the teacher's lowest layers and its head,
and learns from the labels and from the teacher's logits.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.formats.task_module import check_fits, check_module
from centra.progress import Progress, Remark, silent, unheard
from centra.training.recipe import Distillation
from centra.training.run import Run
from centra.training.task_data import TaskData

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from centra.data.labelling import Labelling
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskModule
    from centra.store import BlobReader
    from centra.training.features import FeatureCache
    from centra.training.recipe import Recipe

__all__ = ["distill"]


def distill(
    backbone: BackboneSpec,
    reader: BlobReader,
    data: Path,
    recipe: Recipe,
    *,
    teacher: Path,
    distillation: Distillation | None = None,
    work: Path,
    labelling: Labelling | None = None,
    cache: FeatureCache | None = None,
    report_to: Sequence[str] = (),
    progress: Progress = silent,
    remark: Remark = unheard,
) -> TaskModule:
    """Distil a teacher into a module of fewer layers.

    Args:
        backbone: the frozen encoder of both.
        reader: where its blobs are.
        data: a folder with ``train.jsonl`` and ``dev.jsonl``, the teacher's.
        recipe: the student's settings; its tap is the teacher's.
        teacher: a module file.
        distillation: how it learns; by default as :class:`centra.training.recipe.Distillation`.
        work, labelling, cache, report_to, progress, remark: as for
            :func:`centra.training.finetune.finetune`.

    Returns:
        The student with the best dev metric; its spec names the teacher's digest.

    Raises:
        FormatError, IncompatibleError: the teacher is no module, or not of this backbone.
        ConflictError: the teacher has another kind, labels or tap than the data and the recipe.
        UsageError: a setting that does not suit the backbone, the kind or the teacher.
        DataError, TrainingDivergedError, StoreNotWritableError: as for
            :func:`centra.training.finetune.finetune`.
    """
    distillation = distillation or Distillation()
    distillation.check()
    recipe.check(backbone)
    checked = check_module(teacher)
    check_fits(checked, backbone, "the backbone")
    if checked.spec.head.tags:
        raise UsageError(
            f"{teacher}: its head answers in tags of its own ({', '.join(checked.spec.head.tags[:4])} "
            "…), which a student, whose data are BIO, cannot take over; distil from a module that "
            "'centra train' made"
        )
    examples = TaskData.load(
        backbone,
        reader,
        data,
        max_length=recipe.max_length,
        labelling=labelling,
        like=checked.spec,
    )
    for text in examples.remarks:
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
    shutil.rmtree(work, ignore_errors=True)
    return module
