"""The paper's study on real data: what each way of training scores, and how many layers it costs.

Per task: full fine-tuning of every layer, the best teacher of a search, students of one and two
layers distilled from it, the mixed choice among these; beside them the same students started from
the backbone's layers (appendix C), one model trained jointly on all tasks, and one trained on the
others with the task's head added later (leave one out). All on the dev sets, as in the paper.

It takes hours on two cores and may be stopped at any time: the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from dataclasses import dataclass, field, replace
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
from benchmarks.tools.real import find_data, minilm, mpnet_base, take_rows
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
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.tools.real import Backbone
    from centra.training.trials import Trial

METHODS = ("from-backbone", "joint", "leave-one-out")
"""What may be left out."""
MAX_LENGTH = 64
JOINT_RATE = 1e-4
HEAD_RATE, HEAD_EPOCHS = 1e-3, 20


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is studied on a backbone."""

    title: str
    open: Callable[[Path], Backbone]
    results: Path
    tasks: tuple[str, ...]
    rows: int
    layers: tuple[int, int]
    """The fewest and the most of the teachers."""
    students: tuple[int, ...]
    thresholds: tuple[str, ...]
    """Points of the metric that an added layer must gain: the more, the fewer layers."""
    share: float
    """Of full fine-tuning's layers: what the goal allows."""
    rates: tuple[float, ...]
    """Among which full fine-tuning and the teachers choose."""
    student_rates: tuple[float, ...]
    epochs: int = 4
    batch_size: int = 32
    metrics: Mapping[str, str] = field(default_factory=dict)
    """By task, where it is not the first of its kind."""
    without: tuple[str, ...] = ()
    paper: bool = False
    """Whether the paper's own figures stand beside it."""


SETUPS = {
    "minilm": Setup(
        title="The paper's study on MiniLM",
        open=minilm,
        results=ROOT / "benchmarks" / "STUDY_MINILM.md",
        tasks=(
            *("domain", "emotion", "intent_snips", "slots_restaurant", "slots_snips"),
            *("sst2", "stsb", "trec"),
        ),
        rows=1000,
        layers=(2, 5),
        students=(1, 2),
        thresholds=("1", "2", "3", "4"),
        share=0.4,
        rates=(1e-4, 3e-4),
        student_rates=(4e-4, 8e-4),
    ),
    "mpnet-base": Setup(
        title="The paper's study on MPNet, twelve layers",
        open=mpnet_base,
        results=ROOT / "benchmarks" / "STUDY.md",
        tasks=(
            *("cola", "mrpc", "rte", "stsb"),
            *("intent", "slots_snips", "banking_intent", "emotion"),
        ),
        rows=500,
        layers=(4, 10),
        students=(1, 2, 3),
        thresholds=("1", "2", "3"),
        share=0.343,
        rates=(1e-4,),
        student_rates=(2e-4,),
        epochs=5,
        # Few rows make few steps otherwise.
        batch_size=16,
        metrics={"cola": "matthews"},
        without=METHODS,
        paper=True,
    ),
}


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
    rows = [_mean(rows) for rows in zip(*seeds, strict=True)]
    goals = _goals(rows, setup.share, full=backbone.spec.num_layers * len(data))
    body = _report(rows, goals, published, full=rows[0].layers)
    settings = _settings(setup, options, backbone, examples, load)
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


# Report


def _mean(rows: Sequence[Row]) -> Row:
    """One method over the seeds."""
    return Row(
        rows[0].method,
        {task: mean(row.scores[task] for row in rows) for task in rows[0].scores},
        mean(row.layers for row in rows),
    )


def _goals(rows: Sequence[Row], share: float, *, full: int) -> list[Goal]:
    """At the threshold that scores best within the layers that the goal allows."""
    mixed = [row for row in rows if row.method.startswith("mixed")]
    within = [row for row in mixed if row.layers <= share * full] or [
        min(mixed, key=lambda row: row.layers)
    ]
    best = max(within, key=lambda row: row.average)
    quality = 100 * best.average / rows[0].average
    return [
        Goal.at_least(99.6, f"{best.method}: % of full fine-tuning's average", quality),
        Goal.at_most(100 * share, f"{best.method}: % of its layers", 100 * best.layers / full),
    ]


def _report(
    rows: Sequence[Row], goals: Sequence[Goal], published: Sequence[Row], *, full: float
) -> list[str]:
    """The results as Markdown."""
    lines = [*goal_table(goals), "", *_table(rows, full)]
    if published:
        lines += ["", "The paper's (table 2), BERT base, all rows:", ""]
        lines += _table(published, published[0].layers)
    return lines


def _table(rows: Sequence[Row], full: float) -> list[str]:
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
    return table(headers, lines)


def published_rows() -> list[Row]:
    """The paper's table 2, from ``CENTRA_PAPER`` or ``shared/paper`` beside the checkout.

    Raises:
        BenchmarkError: it is not there.
    """
    file = (
        Path(os.environ.get("CENTRA_PAPER", ROOT.parent / "shared" / "paper")) / "tables2and5.csv"
    )
    try:
        with file.open(encoding="utf-8") as lines:
            found = [*csv.DictReader(lines)]
    except OSError as error:
        raise BenchmarkError(f"{file}: {error.strerror}; set CENTRA_PAPER to its folder") from error
    beside = ("method", "average", "layers", "overhead")
    return [
        Row(
            row["method"],
            {task: float(score) for task, score in row.items() if task not in beside},
            float(row["layers"]),
        )
        for row in found
        if row["method"].startswith(("full", "kd", "mixed"))
    ]


def _settings(
    setup: Setup,
    options: argparse.Namespace,
    backbone: Backbone,
    examples: Mapping[str, TaskData],
    load: float,
) -> list[str]:
    """What was run on what, a line each."""
    metrics = {
        task: setup.metrics.get(task, kind_named(found.spec.kind).metrics[0])
        for task, found in examples.items()
    }
    rates = " and ".join(f"{rate:g}" for rate in setup.rates)
    student_rates = " and ".join(f"{rate:g}" for rate in setup.student_rates)
    fewest, most = options.layers
    lines = (
        (
            f"{options.backbone}, {backbone.spec.num_layers} layers; {MAX_LENGTH} tokens; of each set "
            f"{options.rows} train and {options.dev_rows} dev rows at even distances, or all there are"
        ),
        "metrics: " + ", ".join(f"{task} {metric}" for task, metric in metrics.items()),
        (
            f"{options.seeds} seed{'' if options.seeds == 1 else 's'}; {options.epochs} epochs, batches "
            f"of {setup.batch_size}, the best epoch by the dev metric; full fine-tuning and teachers at learning rates "
            f"{rates}, the best counts; teachers of {fewest} to {most} layers by successive halving"
        ),
        (
            f"students of {', '.join(map(str, setup.students))} layers at {student_rates}, "
            "temperature 2, weight 0.5"
        ),
        f"{system()}; load average {load:.1f} before",
        our_versions("torch", "transformers"),
    )
    joint = (
        f"joint: {options.joint_epochs} epochs over all tasks' rows at {JOINT_RATE:g}; leave one "
        f"out: {options.left_out_epochs} over the others', then the head alone for "
        f"{HEAD_EPOCHS} at {HEAD_RATE:g}"
    )
    both = {"joint", "leave-one-out"} <= {*options.without}
    return [*lines] if both else [*lines, joint]


def _epochs(what: str, done: int, total: int) -> None:
    if done == total:
        say(f"  {what}")


if __name__ == "__main__":
    sys.exit(main())
