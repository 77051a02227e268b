"""Partial fine-tuning (paper section 3.1): the layers above the tap learn, those below stay frozen.

The branch starts as a copy of the backbone's own layers tap + 1 … tap + depth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.progress import Progress, Remark, silent, unheard
from centra.training.features import open_cache
from centra.training.recipe import Recipe

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

__all__ = ["finetune"]


def finetune(
    backbone: Backbone | str | os.PathLike[str],
    data: str | os.PathLike[str] | S3Path | DataSource,
    *,
    output: str | os.PathLike[str],
    tap: int,
    depth: int,
    epochs: int = Recipe.epochs,
    learning_rate: float = Recipe.learning_rate,
    batch_size: int = Recipe.batch_size,
    warmup: float = Recipe.warmup,
    weight_decay: float = Recipe.weight_decay,
    dropout: float = Recipe.dropout,
    patience: int = Recipe.patience,
    metric: str | None = Recipe.metric,
    max_length: int = Recipe.max_length,
    crf: bool = Recipe.crf,
    pooling: str = Recipe.pooling,
    template: str | tuple[str, str] = Recipe.template,
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
    """Fine-tune the layers above a tap for a task, and write the task module.

    A run that was killed goes on from its last finished epoch when repeated.

    Args:
        backbone: a folder that ``save_pretrained`` wrote or a name of the Hugging Face hub, which
            is imported for this run alone; or a :class:`centra.Backbone`.
        data: a folder with ``train.jsonl`` and ``dev.jsonl``, also ``s3://BUCKET/KEY``.
        output: the module's file.
        tap: the frozen layer to read; 0 is the embeddings.
        depth: how many layers learn, above the tap.
        epochs, learning_rate, batch_size, warmup, weight_decay, dropout, patience, metric,
            max_length, crf, pooling, template, seed: see :class:`centra.training.recipe.Recipe`.
        kind: of the task, by name; by default what the labels look like.
        labels: all of them in their order, or a file of them; by default those of the training
            data, sorted.
        tags: the scheme of a tagging task's tags; by default what they look like.
        words: how a tagging task's texts are cut into words.
        thresholds: from which scores labels are named, or a file of them; see
            :func:`centra.formats.thresholds.read_thresholds`.
        cache: a folder in which frozen hidden states are kept from run to run; without one the
            frozen layers run in every epoch.
        report_to: ``"tensorboard"``, ``"mlflow"``, ``"wandb"``.
        progress: called as ``progress(what, done, total)`` with each step.
        remark: called with what the labels were taken for, and what is odd about them.

    Returns:
        The module with the best dev metric.

    Raises:
        UsageError: a setting that does not suit the backbone or the kind.
        NotFoundError: there is no such backbone.
        DataError: missing, empty or malformed data; a dev label that is not in train.
        TrainingDivergedError: the weights became NaN or infinite.
        StoreNotWritableError: the output or the cache cannot be written.
    """
    from centra.training.train import labelling_of, train_to_file

    recipe = Recipe(
        tap=tap,
        depth=depth,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        warmup=warmup,
        weight_decay=weight_decay,
        dropout=dropout,
        patience=patience,
        metric=metric,
        max_length=max_length,
        crf=crf,
        pooling=pooling,
        template=template,
        seed=seed,
    )
    return train_to_file(
        backbone,
        data,
        output,
        recipe,
        labelling=labelling_of(kind, labels, tags, words, thresholds),
        cache=open_cache(cache),
        report_to=report_to,
        progress=progress,
        remark=remark,
    )
