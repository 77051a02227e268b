"""How many layers to fine-tune (paper section 3.1): many short runs, of which most stop early.

Every trial trains to the same early epochs; there the better third goes on, of the last three two
(successive halving), and after half of the epochs one.
Frozen hidden states are computed once for all. The trials of a stage are judged together, whichever
was done first, and each keeps its epochs on disk, so that a search that was killed goes on to the
same table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import takewhile
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from centra.progress import Progress, Remark, silent, unheard
from centra.training.features import open_cache
from centra.training.inputs import mark_folder, shared_inputs
from centra.training.jobs import Job, advance, take_module
from centra.training.remote_work import discard_checkpoints
from centra.training.run import Run
from centra.training.task_data import TaskData
from centra.training.trials import Trial, best_trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.data.labelling import Labelling
    from centra.data.source import DataSource
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskModule
    from centra.store import BlobReader
    from centra.store.s3.path import S3Path
    from centra.training.engines import Engine
    from centra.training.features import FeatureCache, MachineCache
    from centra.training.history import History
    from centra.training.inputs import DataBlobs
    from centra.training.recipe import Distillation, Recipe, SearchSpace

__all__ = ["Search", "search"]

_REDUCTION = 3
"""Of so many trials one goes on; three is what halving's authors and libraries take."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search came to."""

    trials: list[Trial]
    best: Trial
    module: TaskModule
    """Of the best trial."""


def search(
    backbone: BackboneSpec,
    reader: BlobReader,
    data: Path | S3Path | DataSource | DataBlobs,
    recipe: Recipe,
    space: SearchSpace,
    *,
    work: Path | S3Path,
    engine: Engine,
    labelling: Labelling | None = None,
    distillation: Distillation | None = None,
    cache: FeatureCache | MachineCache | None = None,
    exhaustive: bool = False,
    report_to: Sequence[str] = (),
    progress: Progress = silent,
    remark: Remark = unheard,
) -> Search:
    """Find how many layers to fine-tune, and at which learning rate.

    Args:
        backbone: the frozen encoder.
        reader: where its blobs are.
        data: a folder with ``train.jsonl`` and ``dev.jsonl``.
        recipe: what all trials share; its tap, depth, learning rate and seed come from the space.
        space: the trials.
        work: a folder of this search's own. It keeps the trials' epochs, so that the same search
            again ends at once, until it is removed. Where machines share no disk, it is in a bucket.
        engine: carries the trials out.
        labelling: what the labels mean, where the data do not say it.
        distillation: how a teacher's answers are learnt from, where they are among the data.
        cache: where frozen hidden states are kept; None runs the frozen layers in every epoch.
        exhaustive: train every trial to its end.
        report_to: what Trainer reports to, of :data:`centra.training.recipe.REPORTERS`.
        progress: told of each trial that reached an early or its last epoch.
        remark: told what the labels were taken for, and what is odd about them.

    Raises:
        UsageError: a setting that does not suit the backbone or the kind.
        DataError: missing, empty or malformed data; a dev label that is not in train.
        TrainingDivergedError: the best trial's weights became NaN or infinite.
        StoreNotWritableError: ``work`` or the cache cannot be written.
        StoreError: what is in a bucket cannot be reached.
    """
    recipes = space.recipes(recipe, backbone)
    for each in recipes:
        each.check(backbone)
    work = work.absolute() if isinstance(work, Path) else work
    shared_reader, shared_data = shared_inputs(
        backbone, reader, data, work=work, one_machine=engine.one_machine
    )
    examples = TaskData.load(
        backbone,
        reader,
        shared_data,
        max_length=recipe.max_length,
        template=recipe.template,
        labelling=labelling,
    )
    for text in (*examples.remarks, *examples.warnings()):
        remark(text)
    # What the data's kind does not allow is refused here, before anything is computed.
    Run(backbone, reader, examples, recipes[0], work=Path(work.name), report_to=report_to)
    taps = {each.tap for each in recipes}
    if engine.one_machine and (cache := open_cache(cache)) is not None:
        for split in (examples.train, examples.dev):
            cache.ensure(backbone, reader, split.rows, taps, progress)
    mark = mark_folder(work) if isinstance(work, Path) and not engine.one_machine else None
    jobs = [
        Job(
            backbone=backbone,
            reader=shared_reader,
            data=shared_data,
            recipe=each,
            work=work / f"layers-{each.depth}-rate-{each.learning_rate!r}-seed-{each.seed}",
            labelling=labelling,
            distillation=distillation,
            cache=cache,
            mark=mark,
            taps=() if engine.one_machine else tuple(sorted(taps)),
            report_to=tuple(report_to),
        )
        for each in recipes
    ]
    rungs = {} if exhaustive else _rungs(recipe.epochs)
    histories, pruned = _halve(jobs, engine, rungs, progress)
    trials = [
        job.as_trial(history, pruned=i in pruned)
        for i, (job, history) in enumerate(zip(jobs, histories, strict=True))
    ]
    best = best_trial(trial for trial in trials if not trial.pruned)
    return Search(
        trials=trials,
        best=best,
        module=take_module(replace(jobs[trials.index(best)], reader=reader)),
    )


def _halve(
    jobs: Sequence[Job], engine: Engine, rungs: Mapping[int, int], progress: Progress
) -> tuple[list[History], set[int]]:
    """Train all jobs to each rung, giving up there what is below the better third.

    Args:
        jobs: the trials.
        engine: carries them out.
        rungs: the epochs at which they are judged, and how many go on there at least.
        progress: told of each trial that reached a rung or its end.

    Returns:
        The history of each job, and the jobs that were given up.
    """
    histories: dict[int, History] = {}
    pruned: set[int] = set()
    for until in [*rungs, None]:
        alive = {i: job for i, job in enumerate(jobs) if i not in pruned}
        histories |= _train(alive, until, engine, progress)
        if until is None:
            break
        reached = {i: job.as_trial(histories[i]) for i, job in alive.items()}
        given_up = _given_up(reached, fewest=rungs[until])
        for i in given_up:
            discard_checkpoints(jobs[i].work)
        pruned |= given_up
    return [histories[i] for i in range(len(jobs))], pruned


def _given_up(trials: Mapping[int, Trial], *, fewest: int) -> set[int]:
    """The trials of a rung that are below its better third, of which so many are left in any case.

    Of equal trials, such as those that have learned no more than the commonest class, the ones with
    fewer layers are left.
    """
    best_first = sorted(trials, key=lambda i: (-trials[i].score, trials[i].task_layers, i))
    return {*best_first[max(fewest, ceil(len(trials) / _REDUCTION)) :]}


def _train(
    jobs: Mapping[int, Job], until: int | None, engine: Engine, progress: Progress
) -> dict[int, History]:
    """Train jobs to an epoch; their histories by the jobs' numbers."""
    found: dict[int, History] = {}
    stage = "trials to the end" if until is None else f"trials, epoch {until}"
    progress(stage, 0, len(jobs))
    # The longest first, so that none of them is left alone at the end.
    order = sorted(jobs, key=lambda number: -jobs[number].recipe.depth)
    messages = [replace(jobs[number], until=until) for number in order]
    for place, history in engine.map(advance, messages):
        found[order[place]] = history
        top = max(found, key=lambda number: found[number].score)
        score = f"{history.metric} {found[top].score:.4f} with {jobs[top].recipe.depth} layers"
        progress(f"{stage}, best {score}", len(found), len(jobs))
    return found


def _rungs(epochs: int) -> dict[int, int]:
    """The epochs at which trials are judged, with how many go on there at least.

    They are 1, 3, 9 … below half of all epochs, and that half. Early scores do not tell close ones
    apart: two are left in any case until half of the epochs, and after the first.
    """
    if epochs == 1:
        return {}
    half = epochs // 2
    early = takewhile(lambda rung: rung < half, (_REDUCTION**i for i in range(64)))
    return dict.fromkeys(early, 2) | {half: 1 if half > 1 else 2}
