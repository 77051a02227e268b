"""Distillation (paper section 3.2): a student of fewer layers learns from a fine-tuned teacher.

The student keeps its teacher's tap, starts as a copy of the teacher's lowest layers and its head,
and learns from the labels and from the teacher's logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from centra.errors import UsageError
from centra.progress import Progress, Remark, silent, unheard
from centra.training.features import open_cache
from centra.training.recipe import Distillation, Recipe

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from centra.data.source import DataSource
    from centra.data.tags import Scheme
    from centra.data.words import Segmentation
    from centra.formats.thresholds import Thresholds
    from centra.store.s3.path import S3Path
    from centra.training.backbone import Backbone
    from centra.training.features import FeatureCache, MachineCache
    from centra.training.train import TrainedModule

__all__ = ["distill"]


def distill(
    backbone: Backbone | str | os.PathLike[str],
    data: str | os.PathLike[str] | S3Path | DataSource,
    *,
    teacher: str | os.PathLike[str],
    layers: int,
    output: str | os.PathLike[str],
    temperature: float = Distillation.temperature,
    weight: float = Distillation.weight,
    start: Literal["teacher", "backbone"] = Distillation.start,
    epochs: int = Recipe.epochs,
    learning_rate: float = Recipe.learning_rate,
    batch_size: int = Recipe.batch_size,
    warmup: float = Recipe.warmup,
    weight_decay: float = Recipe.weight_decay,
    dropout: float = Recipe.dropout,
    patience: int = Recipe.patience,
    metric: str | None = Recipe.metric,
    max_length: int = Recipe.max_length,
    seed: int = Recipe.seed,
    kind: str | None = None,
    labels: Sequence[str] | str | os.PathLike[str] = (),
    tags: Scheme | None = None,
    words: Segmentation | None = None,
    thresholds: Thresholds | str | os.PathLike[str] | None = None,
    cache: FeatureCache | MachineCache | str | os.PathLike[str] | None = None,
    report_to: Sequence[str] = (),
    progress: Progress = silent,
    remark: Remark = unheard,
) -> TrainedModule:
    """Distil a fine-tuned module into one of fewer layers, and write it.

    Args:
        backbone: the teacher's, as for :func:`centra.finetune`.
        data: a folder with ``train.jsonl`` and ``dev.jsonl``, the teacher's.
        teacher: the module's file.
        layers: how many layers the student has, above its teacher's tap.
        output: the student's file.
        temperature, weight, start: see :class:`centra.training.recipe.Distillation`.
        epochs, learning_rate, batch_size, warmup, weight_decay, dropout, patience, metric,
            max_length, seed, kind, labels, tags, words, thresholds, cache, report_to, progress,
            remark: as for :func:`centra.finetune`.

    Returns:
        The student with the best dev metric; its spec names the teacher's digest.

    Raises:
        UsageError: the teacher is a folder, as a checkpoint of transformers is.
        FormatError, IncompatibleError: the teacher is no module, or not of this backbone.
        ConflictError: the teacher has another kind or other labels than the data.
        CentraError: as for :func:`centra.finetune`.
    """
    from centra.formats.task_module import read_spec
    from centra.training.train import labelling_of, train_to_file

    if Path(teacher).is_dir():
        raise UsageError(
            f"{teacher}: is a folder; a student is distilled from the file of a module on its own "
            "backbone, whose tap it keeps",
            code="teacher-is-folder",
            teacher=str(teacher),
        )
    if Path(output).resolve() == Path(teacher).resolve():
        raise UsageError(
            f"{output}: the student would take its teacher's place",
            code="output-is-teacher",
            output=str(output),
        )
    recipe = Recipe(
        tap=read_spec(Path(teacher)).tap_layer,
        depth=layers,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        warmup=warmup,
        weight_decay=weight_decay,
        dropout=dropout,
        patience=patience,
        metric=metric,
        max_length=max_length,
        seed=seed,
    )
    return train_to_file(
        backbone,
        data,
        output,
        recipe,
        teacher=Path(teacher),
        distillation=Distillation(temperature=temperature, weight=weight, start=start),
        labelling=labelling_of(kind, labels, tags, words, thresholds),
        cache=open_cache(cache),
        report_to=report_to,
        progress=progress,
        remark=remark,
    )
