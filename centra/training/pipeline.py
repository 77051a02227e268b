"""The paper's pipeline for one task: search a teacher, distil students, select one module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from centra.progress import Progress, Remark, silent, unheard
from centra.training.features import open_cache
from centra.training.inputs import Blob, input_store, mark_folder, shared_inputs
from centra.training.jobs import Job, advance, take_module
from centra.training.recipe import SearchSpace
from centra.training.search import search
from centra.training.select import read_scores, select
from centra.training.teaching import teach
from centra.training.trials import best_trial, write_trials

if TYPE_CHECKING:
    from centra.data.labelling import Labelling
    from centra.data.source import DataSource
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskModule
    from centra.store import BlobReader
    from centra.store.s3.path import S3Path
    from centra.training.engines import Engine
    from centra.training.features import FeatureCache, MachineCache
    from centra.training.inputs import DataBlobs
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
    data: Path | S3Path | DataSource,
    plan: Plan,
    *,
    output: Path,
    work: Path | S3Path | None = None,
    engine: Engine,
    labelling: Labelling | None = None,
    teacher: str | None = None,
    cache: FeatureCache | MachineCache | None = None,
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
            :func:`centra.training.select.read_scores` reads, too.
        work: a folder, by default the ``work`` in the output. There each run keeps its epochs, so that a
            fit that was killed goes on, and one that is repeated ends at once. Where machines share no
            disk, it is in a bucket.
        engine: carries the runs out.
        labelling: what the labels mean, where the data do not say it.
        teacher: a checkpoint of transformers, a folder or a name on the hub, whose answers all runs
            learn from; see :func:`centra.training.teaching.teach`, which also says what the data may
            be then.
        cache: where frozen hidden states are kept; None runs the frozen layers in every epoch.
        exhaustive: train every teacher to its end.
        progress: told of each run.
        remark: told what the labels were taken for, and what is odd about them.

    Raises:
        UsageError: a setting that does not suit the backbone or the kind.
        DataError: missing, empty or malformed data; a dev label that is not in train.
        TrainingDivergedError: the weights of the best run became NaN or infinite.
        StoreNotWritableError: ``output``, ``work`` or the cache cannot be written.
        StoreError: what is in a bucket cannot be reached.
    """
    plan.distillation.check()
    output = output.absolute()  # Workers of a cluster have a current folder of their own.
    work = work or output / "work"
    work = work.absolute() if isinstance(work, Path) else work
    given: Path | S3Path | DataSource | DataBlobs = data
    if teacher is not None:
        taught = teach(
            teacher,
            data,
            work=work,
            engine=engine,
            labelling=labelling,
            hypothesis=plan.hypothesis,
            progress=progress,
            remark=remark,
        )
        given, labelling = taught.data, taught.labelling
    shared_reader, shared_data = shared_inputs(
        backbone, reader, given, work=work, one_machine=engine.one_machine
    )
    cache = open_cache(cache) if engine.one_machine else cache
    fewest, most = plan.search.layers
    found = search(
        backbone,
        reader,
        shared_data,
        plan.recipe,
        SearchSpace(
            layers=range(fewest, most + 1),
            learning_rates=plan.search.learning_rates,
            seeds=plan.search.seeds,
        ),
        work=work,
        engine=engine,
        labelling=labelling,
        distillation=None if teacher is None else plan.distillation,
        cache=cache,
        exhaustive=exhaustive,
        report_to=plan.report_to,
        progress=progress,
        remark=remark,
    )
    best = output / "teacher.safetensors"
    found.module.write(best)
    students = _students(
        backbone,
        shared_reader,
        shared_data,
        plan,
        teacher=found.best,
        module=best if isinstance(work, Path) else _as_blob(found.module, work),
        work=work,
        labelling=labelling,
        cache=cache,
    )
    if isinstance(work, Path) and not engine.one_machine:
        students = [replace(job, mark=mark_folder(work)) for job in students]
    trials = found.trials + _distil(students, engine, progress)
    scores = output / "scores.csv"
    write_trials(scores, plan.task, trials)
    threshold = Decimal(str(plan.select.threshold))
    (choice,) = select(read_scores(scores), threshold).choices
    chosen, module = found.best, found.module
    if choice.role == "student":
        depth = choice.task_layers
        chosen = best_trial(t for t in trials if (t.role, t.task_layers) == ("student", depth))
        job = students[trials.index(chosen) - len(found.trials)]
        module = take_module(replace(job, reader=reader))
    return PipelineResult(
        trials=trials, teacher=found.best, choice=choice, chosen=chosen, module=module
    )


def _students(
    backbone: BackboneSpec,
    reader: BlobReader,
    data: DataSource | DataBlobs,
    plan: Plan,
    *,
    teacher: Trial,
    module: Path | Blob,
    work: Path | S3Path,
    labelling: Labelling | None,
    cache: FeatureCache | MachineCache | None,
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
                work=work / f"student-{layers}-rate-{rate!r}-seed-{seed}",
                labelling=labelling,
                cache=cache,
                teacher=module,
                distillation=plan.distillation,
                report_to=plan.report_to,
            )
        )
    return jobs


def _as_blob(module: TaskModule, work: S3Path) -> Blob:
    store = input_store(work)
    return Blob(reader=store, digest=store.put(module.to_bytes()))


def _distil(jobs: list[Job], engine: Engine, progress: Progress) -> list[Trial]:
    trials: dict[int, Trial] = {}
    for i, history in engine.map(advance, jobs):
        trials[i] = jobs[i].as_trial(history)
        progress("students", len(trials), len(jobs))
    return [trials[i] for i in range(len(jobs))]
