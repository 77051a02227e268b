"""From a recipe to a chosen module: the paper's pipeline for one task, in one call."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from centra.formats.names import parse_task_name
from centra.progress import Progress, Remark, silent, unheard
from centra.store import open_path
from centra.training.features import MachineCache, open_cache
from centra.training.plan import Plan

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from centra.training.backbone import Backbone
    from centra.training.features import FeatureCache
    from centra.training.train import TrainedModule

__all__ = ["fit"]

_log = logging.getLogger(__name__)


def fit(
    recipe: str | os.PathLike[str],
    *,
    backbone: Backbone | str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None,
    labels: Sequence[str] = (),
    hypothesis: str | None = None,
    engine: str = "local",
    jobs: int | None = None,
    cache: FeatureCache | MachineCache | str | os.PathLike[str] | None = None,
    progress: Progress = silent,
    remark: Remark = unheard,
) -> TrainedModule:
    """Search how many layers a task needs, distil students, choose one, and write it.

    A fit that was killed goes on when repeated, and one that is done ends at once.

    Args:
        recipe: a TOML file; ``docs/fit.md`` has all of it. Paths in it count from its folder.
        backbone: as for :func:`centra.finetune`; by default what the recipe names, as a folder
            beside it or a name of the Hugging Face hub.
        output: a folder for the module, ``TASK.safetensors``, the teacher's and the scores, also
            ``s3://BUCKET/KEY``; by default ``TASK-fit``.
        teacher: a checkpoint of transformers, of any size and family, whose answers on the data are
            learnt from: a folder that ``save_pretrained`` wrote, or a name of the Hugging Face hub.
            Then no row need have a label; see :func:`centra.training.texts.read_texts` for what data
            may be. By default what the recipe names, if anything.
        labels: of the task, in their order; with a teacher of natural-language inference any.
        hypothesis: that such a teacher holds against each text, with ``{}`` for the label.
        engine: where runs are carried out: ``"local"``, or ``"ray"`` for a Ray cluster.
        jobs: runs at the same time on this machine; by default one per GPU, or else one per core,
            to eight. With more than one, a script needs ``if __name__ == "__main__":``.
        cache, progress, remark: as for :func:`centra.finetune`.

    Returns:
        The chosen module, with all that was tried.

    Raises:
        UsageError: the recipe cannot be read; a setting that does not suit the backbone or the kind.
        CentraError: as for :func:`centra.finetune`.
    """
    from centra.training.backbone import opened_backbone
    from centra.training.engines import open_engine
    from centra.training.output import opened_output
    from centra.training.pipeline import run_pipeline
    from centra.training.train import TrainedModule

    start = time.perf_counter()
    plan = Plan.read(
        Path(recipe),
        teacher=None if teacher is None else _absolute(teacher),
        labels=[*labels] or None,
        hypothesis=hypothesis,
    )
    beside = Path(recipe).parent
    task = parse_task_name(plan.task)
    if backbone is None:
        local = beside / plan.backbone
        backbone = local if local.is_dir() else plan.backbone
    module = f"{task}.safetensors"
    with (
        opened_output(open_path(output or f"{task}-fit")) as results,
        opened_backbone(backbone, progress) as encoder,
    ):
        result = run_pipeline(
            encoder.spec,
            encoder.reader,
            plan.data_source(beside),
            plan,
            output=results.folder,
            work=results.work,
            engine=open_engine(engine, jobs),
            labelling=plan.labelling(beside),
            teacher=plan.teacher_source(beside),
            cache=cache if isinstance(cache, MachineCache) else open_cache(cache),
            progress=progress,
            remark=remark,
        )
        result.module.write(results.folder / module)
    path = results.place / module
    _log.info("fitted %s from %s in %.1f s", path, recipe, time.perf_counter() - start)
    return TrainedModule(path=path, spec=result.module.spec, trials=tuple(result.trials))


def _absolute(source: str | os.PathLike[str]) -> str:
    """A folder of the caller's, wherever the recipe lies; a name on the hub stays as it is."""
    return str(Path(source).absolute()) if Path(source).is_dir() else str(source)
