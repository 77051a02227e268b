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
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    Goal,
    add_options,
    goal_table,
    our_versions,
    publish,
    report,
    say,
    system,
    table,
)
from benchmarks.tools.joint import train_joint, train_leave_one_out
from benchmarks.tools.real import find_data, minilm, take_rows
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

RESULTS = ROOT / "benchmarks" / "STUDY.md"
TASKS = (
    "domain",
    "emotion",
    "intent_snips",
    "slots_restaurant",
    "slots_snips",
    "sst2",
    "stsb",
    "trec",
)
JOINT = ("joint", "leave-one-out")
THRESHOLDS = ("1", "2", "3", "4")
"""Points of the metric that an added layer must gain: the more, the fewer layers."""
SHARE = 0.4
"""Of full fine-tuning's layers: what the goal allows."""
STUDENTS = (1, 2)
MAX_LENGTH = 64
# The recipes. Full fine-tuning and the teachers choose among the same learning rates.
LAYERS = (2, 5)
RATES = (1e-4, 3e-4)
STUDENT_RATES = (4e-4, 8e-4)
JOINT_RATE = 1e-4
HEAD_RATE, HEAD_EPOCHS = 1e-3, 20


@dataclass(frozen=True)
class Row:
    """One method: a score in points for each task, and the layers that serving them computes."""

    method: str
    scores: dict[str, float]
    layers: float

    @property
    def average(self) -> float:
        """Over the tasks."""
        return mean(self.scores.values())


def main() -> int:
    """Run the study, or what is left of it; 0 where everything could be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_options(parser, RESULTS, "two tasks, few rows, teachers and epochs", pins=None)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "study")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--rows", type=int, default=1000, help="of each train set")
    parser.add_argument("--dev-rows", type=int, default=500)
    parser.add_argument("--layers", type=int, nargs=2, default=LAYERS, help="of the teachers")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--joint-epochs", type=int, default=4)
    parser.add_argument("--left-out-epochs", type=int, default=4, help="of the others' model")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--without", nargs="+", default=(), choices=JOINT)
    parser.add_argument("--jobs", type=int, help="processes that train; default one per core")
    options = parser.parse_args()
    if options.quick:
        options.work = options.work.with_name("study-quick")
        options.tasks, options.rows, options.dev_rows = ("trec", "slots_restaurant"), 28, 10
        options.layers = (1, 2)
        options.epochs = options.joint_epochs = options.left_out_epochs = 1
    load = os.getloadavg()[0]
    try:
        backbone = minilm(options.work / "store")
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
            _seed(backbone, data, examples, options, engine=engine, seed=seed)
            for seed in range(options.seeds)
        ]
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    rows = [_mean(rows) for rows in zip(*seeds, strict=True)]
    goals = _goals(rows, full=backbone.spec.num_layers * len(data))
    settings = _settings(options, backbone, examples, load)
    publish(options, RESULTS, _report(rows, goals, settings, full=rows[0].layers), goals)
    return 0


# Methods


def _seed(
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
    vanilla: dict[str, list[Trial]] = {}
    for task, folder in data.items():
        say(f"seed {seed}, {task}: full fine-tuning")
        plan = _plan(task, options, seed)
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
        say(f"seed {seed}, {task}: students from the backbone")
        students = _from_backbone(
            backbone,
            folder,
            plan,
            found.teacher,
            work=work / task,
            engine=engine,
            cache=cache,
        )
        vanilla[task] = [found.teacher, *students]
        say(f"  {full[task]:.2f} in full; {found.choice}")
    rows = [
        Row("full fine-tuning", full, layers * len(data)),
        _best("teacher", trials, "teacher", None),
        *(_best(f"KD-{depth}", trials, "student", depth) for depth in STUDENTS),
        *(_mixed(work, threshold, trials) for threshold in THRESHOLDS),
        *(_best(f"KD-{depth} from the backbone", vanilla, "student", depth) for depth in STUDENTS),
    ]
    return rows + _joint(backbone, examples, options, work=work / "joint", seed=seed)


def _plan(task: str, options: argparse.Namespace, seed: int) -> Plan:
    return Plan.model_validate(
        {
            "task": task,
            "backbone": "minilm",
            "data": "",
            "training": {
                "epochs": options.epochs,
                "max_length": MAX_LENGTH,
                "patience": options.epochs,
            },
            "search": {
                "layers": options.layers,
                "learning_rates": RATES,
                "seeds": (seed,),
            },
            "distill": {"layers": STUDENTS, "learning_rates": STUDENT_RATES},
        }
    )


def _from_backbone(
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
            data=data,
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
        for depth in STUDENTS
        if depth < teacher.task_layers
        for rate in STUDENT_RATES
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


# Report


def _mean(rows: Sequence[Row]) -> Row:
    """One method over the seeds."""
    return Row(
        rows[0].method,
        {task: mean(row.scores[task] for row in rows) for task in rows[0].scores},
        mean(row.layers for row in rows),
    )


def _goals(rows: Sequence[Row], *, full: int) -> list[Goal]:
    """At the threshold that scores best within the layers that the goal allows."""
    mixed = [row for row in rows if row.method.startswith("mixed")]
    within = [row for row in mixed if row.layers <= SHARE * full] or [
        min(mixed, key=lambda row: row.layers)
    ]
    best = max(within, key=lambda row: row.average)
    share = 100 * best.average / rows[0].average
    return [
        Goal.at_least(99.6, f"{best.method}: % of full fine-tuning's average", share),
        Goal.at_most(100 * SHARE, f"{best.method}: % of its layers", 100 * best.layers / full),
    ]


def _report(
    rows: Sequence[Row], goals: Sequence[Goal], settings: Sequence[str], *, full: float
) -> str:
    """The results as Markdown."""
    tasks = [*rows[0].scores]
    lines = [
        [
            row.method,
            *(f"{row.scores[task]:.1f}" for task in tasks),
            f"{row.average:.2f}",
            f"{100 * row.average / rows[0].average:.1f}",
            f"{row.layers:g}",
            f"{row.layers / full:.1%}",
        ]
        for row in rows
    ]
    headers = ("dev metric in points", *tasks, "average", "% of full", "layers", "overhead")
    body = (*goal_table(goals), "", *table(headers, lines))
    return report("The paper's study on MiniLM", "study.py", body, settings)


def _settings(
    options: argparse.Namespace,
    backbone: Backbone,
    examples: Mapping[str, TaskData],
    load: float,
) -> list[str]:
    """What was run on what, a line each."""
    metrics = {task: kind_named(found.spec.kind).metrics[0] for task, found in examples.items()}
    rates = " and ".join(f"{rate:g}" for rate in RATES)
    student_rates = " and ".join(f"{rate:g}" for rate in STUDENT_RATES)
    fewest, most = options.layers
    lines = (
        (
            f"all-MiniLM-L6-v2, {backbone.spec.num_layers} layers; {MAX_LENGTH} tokens; of each set "
            f"{options.rows} train and {options.dev_rows} dev rows at even distances, or all there are"
        ),
        "metrics: " + ", ".join(f"{task} {metric}" for task, metric in metrics.items()),
        (
            f"{options.seeds} seed{'' if options.seeds == 1 else 's'}; {options.epochs} epochs, batches "
            "of 32, the best epoch by the dev metric; full fine-tuning and teachers at learning rates "
            f"{rates}, the better counts; teachers of {fewest} to {most} layers by successive halving"
        ),
        (
            f"students of {' and '.join(map(str, STUDENTS))} layers at {student_rates}, temperature 2, "
            "weight 0.5"
        ),
        (
            f"joint: {options.joint_epochs} epochs over all tasks' rows at {JOINT_RATE:g}; leave one "
            f"out: {options.left_out_epochs} over the others', then the head alone for "
            f"{HEAD_EPOCHS} at {HEAD_RATE:g}"
        ),
        f"{system()}; load average {load:.1f} before",
        our_versions("torch", "transformers"),
    )
    return [*lines]


def _epochs(what: str, done: int, total: int) -> None:
    if done == total:
        say(f"  {what}")


if __name__ == "__main__":
    sys.exit(main())
