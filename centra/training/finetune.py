"""Partial fine-tuning (paper section 3.1): the layers above the tap learn, those below stay frozen.

The branch starts as a copy of the backbone's own layers tap + 1 … tap + depth.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from centra.progress import Progress, Remark, silent, unheard
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

__all__ = ["finetune"]


def finetune(
    backbone: BackboneSpec,
    reader: BlobReader,
    data: Path,
    recipe: Recipe,
    *,
    work: Path,
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
        recipe: the settings.
        work: a folder of this run's own; removed at the end.
        labelling: what the labels mean, where the data do not say it.
        cache: where frozen hidden states are kept; None runs the frozen layers in every epoch.
        report_to: what Trainer reports to, of :data:`centra.training.recipe.REPORTERS`.
        progress: told of each step and of the dev metric after each epoch.
        remark: told what the labels were taken for, and what is odd about them.

    Returns:
        The module with the best dev metric, its probe taken from the dev set.

    Raises:
        UsageError: a setting that does not suit the backbone or the kind.
        DataError: missing, empty or malformed data; a dev label that is not in train.
        TrainingDivergedError: the weights became NaN or infinite.
        StoreNotWritableError: ``work`` or the cache cannot be written.
    """
    recipe.check(backbone)
    examples = TaskData.load(
        backbone, reader, data, max_length=recipe.max_length, labelling=labelling
    )
    for text in examples.remarks:
        remark(text)
    run = Run(backbone, reader, examples, recipe, work=work, cache=cache, report_to=report_to)
    run.train(progress=progress)
    module = run.module()
    shutil.rmtree(work, ignore_errors=True)
    return module
