"""The paper's study on real data: what each way of training scores, and how many layers it costs.

Per task: full fine-tuning of every layer, the best teacher of a search, students of one and two
layers distilled from it, the mixed choice among these; beside them the same students started from
the backbone's layers (appendix C), one model trained jointly on all tasks, and one trained on the
others with the task's head added later (leave one out). All on the dev sets, as in the paper.

It takes hours on two cores and may be stopped at any time: the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    add_options,
    publish,
    report,
    say,
)
from benchmarks.tools.joint import train_joint, train_leave_one_out
from benchmarks.tools.real import find_data, take_rows
from benchmarks.tools.study_report import (
    Row,
    goals_of,
    mean_of,
    published_rows,
    results,
    settings_of,
)
from benchmarks.tools.study_setups import (
    HEAD_EPOCHS,
    HEAD_RATE,
    JOINT_RATE,
    MAX_LENGTH,
    METHODS,
    SETUPS,
    Setup,
)
from centra.data.source import DataSource
from centra.kinds import kind_named
from centra.training.engines import LocalEngine
from centra.training.features import FeatureCache
from centra.training.jobs import Job, advance
from centra.training.pipeline import run_pipeline
from centra.training.plan import Plan
from centra.training.recipe import Distillation, Recipe, SearchSpace
from centra.training.remote_work import discard_checkpoints
from centra.training.search import search
from centra.training.select import read_scores, select
from centra.training.task_data import TaskData
from centra.training.trials import best_trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.tools.real import Backbone
    from centra.training.trials import Trial


def main() -> int:
    """Run the study, or what is left of it; 0 where everything could be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_options(
        parser, SETUPS["minilm"].results, "two tasks, few rows, teachers and epochs", pins=None
    )
    parser.add_argument("--backbone", choices=[*SETUPS], default="minilm")
    parser.add_argument("--work", type=Path, help="default build/study-BACKBONE")
    parser.add_argument("--tasks", nargs="+", help="some of them, to do it in parts")
    parser.add_argument("--rows", type=int, help="of each train set")
    parser.add_argument("--dev-rows", type=int, default=500)
    parser.add_argument("--layers", type=int, nargs=2, help="of the teachers")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--joint-epochs", type=int, default=4)
    parser.add_argument("--left-out-epochs", type=int, default=4, help="of the others' model")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--without", nargs="+", choices=METHODS, help="of these methods")
    parser.add_argument("--jobs", type=int, help="processes that train; default one per core")
    options = parser.parse_args()
    setup = SETUPS[options.backbone]
    if options.quick:
        options.tasks, options.rows, options.dev_rows = ("trec", "slots_restaurant"), 28, 10
        options.layers = (1, 2)
        options.epochs = options.joint_epochs = options.left_out_epochs = 1
    # What is not said is the setup's.
    options.work = (
        options.work or ROOT / "build" / f"study-{options.backbone}{'-quick' * options.quick}"
    )
    for name in ("tasks", "rows", "layers", "epochs", "without"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(setup, name))
    load = os.getloadavg()[0]
    try:
        published = published_rows() if setup.paper else []
        backbone = setup.open(options.work / "store")
        source = find_data()
        name = f"{options.rows}-{options.dev_rows}"
        data = {
            task: take_rows(
                source / task,
                options.work / "data" / name / task,
                train=options.rows,
                dev=options.dev_rows,
            )
            for task in options.tasks
        }
        examples = {
            task: TaskData.load(backbone.spec, backbone.store, folder, max_length=MAX_LENGTH)
            for task, folder in data.items()
        }
        engine = LocalEngine(options.jobs)
        seeds = [
            _seed(setup, backbone, data, examples, options, engine=engine, seed=seed)
            for seed in range(options.seeds)
        ]
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    rows = [mean_of(rows) for rows in zip(*seeds, strict=True)]
    goals = goals_of(rows, setup.share, full=backbone.spec.num_layers * len(data))
    body = results(rows, goals, published, full=rows[0].layers)
    settings = settings_of(setup, options, backbone, examples, load)
    text = report(setup.title, "study.py", body, settings)
    # A part of the tasks is no study.
    options.quick = options.quick or {*options.tasks} != {*setup.tasks}
    publish(options, setup.results, text, goals)
    return 0


# Methods


def _seed(
    setup: Setup,
    backbone: Backbone,
    data: Mapping[str, Path],
    examples: Mapping[str, TaskData],
    options: argparse.Namespace,
    *,
    engine: LocalEngine,
    seed: int,
) -> list[Row]:
    """Every method's row for one seed, in the order of the report."""
    work = options.work / f"{options.rows}-{options.dev_rows}-{options.epochs}" / f"seed-{seed}"
    cache = FeatureCache(options.work / "features", 20 * 10**9)
    layers = backbone.spec.num_layers
    full: dict[str, float] = {}
    trials: dict[str, list[Trial]] = {}
    from_backbone: dict[str, list[Trial]] = {}
    for task, folder in data.items():
        say(f"seed {seed}, {task}: full fine-tuning")
        plan = _plan(setup, task, options, seed)
        full[task] = search(
            backbone.spec,
            backbone.store,
            folder,
            plan.recipe,
            SearchSpace(layers=(layers,), learning_rates=plan.search.learning_rates, seeds=(seed,)),
            work=work / task / "full",
            engine=engine,
            exhaustive=True,
        ).best.score
        say(f"seed {seed}, {task}: search and distil")
        found = run_pipeline(
            backbone.spec,
            backbone.store,
            folder,
            plan,
            output=work / task / "fit",
            engine=engine,
            cache=cache,
        )
        trials[task] = found.trials
        if "from-backbone" not in options.without:
            say(f"seed {seed}, {task}: students from the backbone")
            students = _from_backbone(
                setup,
                backbone,
                folder,
                plan,
                found.teacher,
                work=work / task,
                engine=engine,
                cache=cache,
            )
            from_backbone[task] = [found.teacher, *students]
        say(f"  {full[task]:.2f} in full; {found.choice}")
    rows = [
        Row("full fine-tuning", full, layers * len(data)),
        _best("teacher", trials, "teacher", None),
        *(_best(f"KD-{depth}", trials, "student", depth) for depth in setup.students),
        *(_mixed(work, threshold, trials) for threshold in setup.thresholds),
    ]
    if from_backbone:
        rows += [
            _best(f"KD-{depth} from the backbone", from_backbone, "student", depth)
            for depth in setup.students
        ]
    return rows + _joint(backbone, examples, options, work=work / "joint", seed=seed)


def _plan(setup: Setup, task: str, options: argparse.Namespace, seed: int) -> Plan:
    return Plan.model_validate(
        {
            "task": task,
            "backbone": options.backbone,
            "data": "",
            "training": {
                "epochs": options.epochs,
                "batch_size": setup.batch_size,
                "max_length": MAX_LENGTH,
                "patience": options.epochs,
                "metric": setup.metrics.get(task),
            },
            "search": {
                "layers": options.layers,
                "learning_rates": setup.rates,
                "seeds": (seed,),
            },
            "distill": {"layers": setup.students, "learning_rates": setup.student_rates},
        }
    )


def _from_backbone(
    setup: Setup,
    backbone: Backbone,
    data: Path,
    plan: Plan,
    teacher: Trial,
    *,
    work: Path,
    engine: LocalEngine,
    cache: FeatureCache,
) -> list[Trial]:
    """The same students from the same teacher, started from the backbone's layers (appendix C)."""
    jobs = [
        Job(
            backbone=backbone.spec,
            reader=backbone.store,
            data=DataSource.of(data),
            recipe=replace(
                plan.recipe,
                tap=teacher.frozen_layers,
                depth=depth,
                learning_rate=rate,
                seed=teacher.seed,
            ),
            work=work / "vanilla" / f"{depth}-{rate:g}",
            cache=cache,
            teacher=work / "fit" / "teacher.safetensors",
            distillation=Distillation(start="backbone"),
        )
        for depth in setup.students
        if depth < teacher.task_layers
        for rate in setup.student_rates
    ]
    found = dict(engine.map(advance, jobs))
    for job in jobs:
        discard_checkpoints(job.work)
    return [job.as_trial(found[i]) for i, job in enumerate(jobs)]


def _best(method: str, trials: Mapping[str, Sequence[Trial]], role: str, depth: int | None) -> Row:
    """Each task's best trial of a role and a depth; a task without one keeps its teacher."""
    best = {}
    for task, found in trials.items():
        fitting = [t for t in found if t.role == role and depth in (None, t.task_layers)]
        best[task] = best_trial(fitting or [t for t in found if t.role == "teacher"])
    layers = max(t.frozen_layers for t in best.values()) + sum(t.task_layers for t in best.values())
    return Row(method, {task: trial.score for task, trial in best.items()}, layers)


def _mixed(work: Path, threshold: str, trials: Mapping[str, Sequence[Trial]]) -> Row:
    """What ``centra select`` takes from the tables of all tasks."""
    scores = [score for task in trials for score in read_scores(work / task / "fit" / "scores.csv")]
    found = select(scores, Decimal(threshold))
    chosen = {choice.task: float(choice.score) for choice in found.choices}
    return Row(f"mixed, c = {threshold}", chosen, found.layers.total)


def _joint(
    backbone: Backbone,
    examples: Mapping[str, TaskData],
    options: argparse.Namespace,
    *,
    work: Path,
    seed: int,
) -> list[Row]:
    """One model trained on all tasks, and each task added to one trained on the others."""
    layers = backbone.spec.num_layers
    recipe = Recipe(
        tap=0,
        depth=layers,
        epochs=options.joint_epochs,
        patience=options.joint_epochs,
        learning_rate=JOINT_RATE,
        max_length=MAX_LENGTH,
        seed=seed,
    )
    head = replace(
        recipe,
        tap=layers,
        depth=0,
        epochs=HEAD_EPOCHS,
        learning_rate=HEAD_RATE,
    )
    metric = {task: kind_named(found.spec.kind).metrics[0] for task, found in examples.items()}
    rows = []
    if "joint" not in options.without:
        say(f"seed {seed}: joint training")
        scores = train_joint(
            backbone.spec, backbone.store, examples, recipe, work=work, progress=_epochs
        )
        rows.append(
            Row("joint", {task: 100 * scores[task][metric[task]] for task in examples}, layers)
        )
    if "leave-one-out" not in options.without:
        say(f"seed {seed}: leave one out")
        epochs = options.left_out_epochs
        scores = train_leave_one_out(
            backbone.spec,
            backbone.store,
            examples,
            replace(recipe, epochs=epochs, patience=epochs),
            head,
            work=work,
            progress=_epochs,
        )
        rows.append(
            Row(
                "leave one out",
                {task: 100 * scores[task][metric[task]] for task in examples},
                layers,
            )
        )
    return rows


def _epochs(what: str, done: int, total: int) -> None:
    if done == total:
        say(f"  {what}")


if __name__ == "__main__":
    sys.exit(main())
