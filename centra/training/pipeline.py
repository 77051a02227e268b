"""The paper's pipeline for one task: search a teacher, distil students, select one module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING

from centra.progress import Progress, Remark, silent, unheard
from centra.training.jobs import Job, advance, take_module
from centra.training.recipe import SearchSpace
from centra.training.search import search
from centra.training.select import read_scores, select
from centra.training.trials import best_trial, write_trials

if TYPE_CHECKING:
    from pathlib import Path

    from centra.data.labelling import Labelling
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskModule
    from centra.store import BlobReader
    from centra.training.engines import Engine
    from centra.training.features import FeatureCache
    from centra.training.plan import Plan
    from centra.training.select import Choice
    from centra.training.trials import Trial

__all__ = ["PipelineResult", "run_pipeline"]


@dataclass(frozen=True, kw_only=True)
class PipelineResult:
    """What the pipeline came to."""

    trials: list[Trial]
    """Teachers, then students."""
    teacher: Trial
    choice: Choice
    """Among the best of each depth."""
    chosen: Trial
    """The run that the chosen module comes from."""
    module: TaskModule
    """The chosen one."""


def run_pipeline(
    backbone: BackboneSpec,
    reader: BlobReader,
    data: Path,
    plan: Plan,
    *,
    output: Path,
    engine: Engine,
    labelling: Labelling | None = None,
    cache: FeatureCache | None = None,
    exhaustive: bool = False,
    progress: Progress = silent,
    remark: Remark = unheard,
) -> PipelineResult:
    """Search, distil and select for one task.

    Args:
        backbone: the frozen encoder that the plan names.
        reader: where its blobs are.
        data: a folder with ``train.jsonl`` and ``dev.jsonl``.
        plan: the recipe.
        output: a folder. It gets ``teacher.safetensors`` and ``scores.csv``, which
            :func:`centra.training.select.read_scores` reads, too; under ``work`` each run keeps its epochs, so that a fit
            that was killed goes on, and one that is repeated ends at once.
        engine: carries the runs out.
        labelling: what the labels mean, where the data do not say it.
        cache: where frozen hidden states are kept; None runs the frozen layers in every epoch.
        exhaustive: train every teacher to its end.
        progress: told of each run.
        remark: told what the labels were taken for, and what is odd about them.

    Raises:
        UsageError: a setting that does not suit the backbone or the kind.
        DataError: missing, empty or malformed data; a dev label that is not in train.
        TrainingDivergedError: the weights of the best run became NaN or infinite.
        StoreNotWritableError: ``output`` or the cache cannot be written.
    """
    plan.distillation.check()
    fewest, most = plan.search.layers
    found = search(
        backbone,
        reader,
        data,
        plan.recipe,
        SearchSpace(
            layers=range(fewest, most + 1),
            learning_rates=plan.search.learning_rates,
            seeds=plan.search.seeds,
        ),
        work=output / "work",
        engine=engine,
        labelling=labelling,
        cache=cache,
        exhaustive=exhaustive,
        report_to=plan.report_to,
        progress=progress,
        remark=remark,
    )
    teacher = output / "teacher.safetensors"
    found.module.write(teacher)
    students = _students(
        backbone,
        reader,
        data,
        plan,
        teacher=found.best,
        output=output,
        labelling=labelling,
        cache=cache,
    )
    trials = found.trials + _distil(students, engine, progress)
    scores = output / "scores.csv"
    write_trials(scores, plan.task, trials)
    threshold = Decimal(str(plan.select.threshold))
    (choice,) = select(read_scores(scores), threshold).choices
    chosen, module = found.best, found.module
    if choice.role == "student":
        depth = choice.task_layers
        chosen = best_trial(t for t in trials if (t.role, t.task_layers) == ("student", depth))
        module = take_module(students[trials.index(chosen) - len(found.trials)])
    return PipelineResult(
        trials=trials, teacher=found.best, choice=choice, chosen=chosen, module=module
    )


def _students(
    backbone: BackboneSpec,
    reader: BlobReader,
    data: Path,
    plan: Plan,
    *,
    teacher: Trial,
    output: Path,
    labelling: Labelling | None,
    cache: FeatureCache | None,
) -> list[Job]:
    """The runs of all students that are smaller than their teacher."""
    jobs = []
    for layers, rate, seed in product(
        sorted({number for number in plan.distill.layers if number < teacher.task_layers}),
        dict.fromkeys(plan.distill.learning_rates or (teacher.learning_rate,)),
        dict.fromkeys(plan.distill.seeds or (teacher.seed,)),
    ):
        recipe = replace(
            plan.recipe, tap=teacher.frozen_layers, depth=layers, learning_rate=rate, seed=seed
        )
        jobs.append(
            Job(
                backbone=backbone,
                reader=reader,
                data=data,
                recipe=recipe,
                work=output / "work" / f"student-{layers}-rate-{rate!r}-seed-{seed}",
                labelling=labelling,
                cache=cache,
                teacher=output / "teacher.safetensors",
                distillation=plan.distillation,
                report_to=plan.report_to,
            )
        )
    return jobs


def _distil(jobs: list[Job], engine: Engine, progress: Progress) -> list[Trial]:
    trials: dict[int, Trial] = {}
    for i, history in engine.map(advance, jobs):
        trials[i] = jobs[i].as_trial(history)
        progress("students", len(trials), len(jobs))
    return [trials[i] for i in range(len(jobs))]
