"""Searching how many layers to fine-tune: what is tried, what is given up, and that it goes on."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import DataError, StoreNotWritableError, TrainingDivergedError, UsageError
from centra.formats.backbone import BackboneSpec
from centra.store import LocalStore
from centra.training.engines import LocalEngine
from centra.training.features import FeatureCache
from centra.training.history import Epoch, History
from centra.training.pipeline import run_pipeline
from centra.training.plan import Plan
from centra.training.recipe import Recipe, SearchSpace
from centra.training.search import Search, search
from centra.training.train import train_module
from centra.training.trials import Trial, best_trial, write_trials
from tests import support
from tests.centra.test_engines import SEVERAL, engine_called

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from centra.training.jobs import Job

RECIPE = Recipe(tap=0, depth=0, epochs=2, batch_size=12, dropout=0.1)
"""Trials are judged after epoch 1."""
LONGER = {"epochs": 8, "patience": 8}
"""And after epoch 3."""
SPACE = SearchSpace(layers=(1, 2), learning_rates=(1e-2, 1e-4))

Steps = list[tuple[str, int]]
"""What an engine was asked for: a run's folder, and the epoch to stop after (0 for the last)."""


class Watched:
    """One process; notes what it is asked for, and may answer with scores of the test's own."""

    one_machine = True

    def __init__(self, scores: Mapping[Any, Sequence[float]] | None = None, *by: str) -> None:
        """Scores of each epoch, by the recipe's settings of these names; by default its depth."""
        self.asked: Steps = []
        self._scores = scores
        self._setting = attrgetter(*by or ("depth",))

    def map(self, function: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
        for i, job in enumerate(jobs):
            self.asked.append((job.work.name, job.until or 0))
            yield i, self._judged(job, function(job))

    def _judged(self, job: Job, history: History) -> History:
        if self._scores is None:
            return history
        values = self._scores[self._setting(job.recipe)]
        epochs = tuple(
            Epoch(epoch.loss, epoch.metrics | {history.metric: values[min(i, len(values) - 1)]})
            for i, epoch in enumerate(history.epochs)
        )
        return History(history.metric, epochs, history.finished)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture(scope="module")
def tiny_data(
    tiny_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Every other row: what is searched here need not be learnt."""
    root = tmp_path_factory.mktemp("fewer")

    @functools.cache
    def fewer(kind: str) -> Path:
        for file in tiny_data(kind).glob("*.jsonl"):
            target = root / kind / file.name
            target.parent.mkdir(exist_ok=True)
            target.write_text("".join(file.read_text().splitlines(keepends=True)[::2]))
        return root / kind

    return fewer


@pytest.fixture
def run(
    tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path], work: Path
) -> Callable[..., Search]:
    """Search on the tiny BERT; options change the recipe."""

    def run(
        data: str | Path = "single",
        space: SearchSpace = SPACE,
        *,
        engine: Any = None,
        cache: FeatureCache | None = None,
        exhaustive: bool = False,
        work: Path = work,
        progress: Callable[..., None] = lambda *_: None,
        **options: Any,
    ) -> Search:
        return search(
            tiny_backbone.spec,
            tiny_backbone.store,
            tiny_data(data) if isinstance(data, str) else data,
            replace(RECIPE, **options),
            space,
            work=work,
            engine=engine or LocalEngine(1),
            cache=cache,
            exhaustive=exhaustive,
            progress=progress,
        )

    return run


@pytest.fixture(scope="module")
def plain(
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Search:
    """A search in this process, without a cache; made once."""
    return search(
        tiny_backbone.spec,
        tiny_backbone.store,
        tiny_data("single"),
        RECIPE,
        SPACE,
        work=tmp_path_factory.mktemp("plain"),
        engine=LocalEngine(1),
    )


def table(found: Search, folder: Path) -> bytes:
    write_trials(folder / "trials.csv", "intent", found.trials)
    return (folder / "trials.csv").read_bytes()


# What is tried


def test_trials_are_all_combinations_in_order(run: Callable[..., Search], work: Path) -> None:
    space = SearchSpace(layers=(3, 1), learning_rates=(1e-2, 1e-3), seeds=(7, 5))

    found = run(space=space, epochs=1)

    assert [
        (trial.frozen_layers, trial.task_layers, trial.learning_rate, trial.seed)
        for trial in found.trials
    ] == [(3 - n, n, rate, seed) for n, rate, seed in product((1, 3), (1e-2, 1e-3), (7, 5))]
    assert {(t.role, t.metric, t.epochs, t.pruned) for t in found.trials} == {
        ("teacher", "accuracy", 1, False)
    }
    assert len([path for path in work.iterdir() if path.is_dir()]) == 8


def test_what_is_named_twice_is_tried_once(run: Callable[..., Search]) -> None:
    space = SearchSpace(layers=(1, 1), learning_rates=(1e-2, 0.01), seeds=(0, 0))

    assert len(run(space=space, epochs=1).trials) == 1


def test_rates_that_differ_little_do_not_share_a_run(run: Callable[..., Search]) -> None:
    space = SearchSpace(layers=(1,), learning_rates=(1e-2, 1.0000001e-2))
    engine = Watched()

    assert len(run(space=space, epochs=1, engine=engine).trials) == 2
    assert len({work for work, _ in engine.asked}) == 2


# What is given up


@pytest.mark.parametrize(
    ("epochs", "rungs"), [(1, [0]), (2, [1, 0]), (5, [1, 2, 0]), (6, [1, 3, 0]), (18, [1, 3, 9, 0])]
)
def test_trials_are_judged_after_epochs_1_3_9_up_to_half(
    epochs: int, rungs: list[int], run: Callable[..., Search]
) -> None:
    engine = Watched()

    run(space=SearchSpace(layers=(1,), learning_rates=(1e-2,)), engine=engine, epochs=epochs)

    assert [until for _, until in engine.asked] == rungs


def test_trials_that_cannot_win_are_given_up_at_the_next_rung(
    run: Callable[..., Search], work: Path
) -> None:
    """Of eight trials three go on, of these two, and after half of the epochs one."""
    hopeless = dict.fromkeys([(1, 0), (1, 3), (2, 1), (2, 2), (2, 3)], (0.4, 0.99))
    scores = {
        (1, 1): (0.6, 0.6, 0.6, 0.99),
        (1, 2): (0.55, 0.55, 0.8, 0.8, 0.85),
        (2, 0): (0.5, 0.5, 0.7, 0.9),
    }
    engine = Watched(hopeless | scores, "depth", "seed")
    space = SearchSpace(layers=(1, 2), learning_rates=(1e-2,), seeds=(0, 1, 2, 3))

    found = run(space=space, engine=engine, **LONGER)

    ends = {(t.task_layers, t.seed): (t.pruned, t.epochs, t.score) for t in found.trials}
    assert ends == dict.fromkeys(hopeless, (True, 1, 40.0)) | {
        (1, 1): (True, 3, 60.0),
        (1, 2): (True, 4, 80.0),
        (2, 0): (False, 8, 90.0),
    }
    assert found.module.spec.depth == 2

    def name(layers: int, seed: int) -> str:
        return f"layers-{layers}-rate-0.01-seed-{seed}"

    assert engine.asked == [
        *((name(layers, seed), 1) for layers in (2, 1) for seed in range(4)),
        *((name(2, 0), 3), (name(1, 1), 3), (name(1, 2), 3)),
        *((name(2, 0), 4), (name(1, 2), 4)),
        (name(2, 0), 0),
    ]
    # One has become a module, and those that were given up need no more room.
    assert not [*work.glob("*/checkpoint-*")]


def test_of_equal_trials_those_with_fewer_layers_go_on(run: Callable[..., Search]) -> None:
    engine = Watched(dict.fromkeys((1, 2, 3), (0.5,)))

    found = run(space=SearchSpace(layers=(1, 2, 3), learning_rates=(1e-2,)), engine=engine)

    ends = [(trial.task_layers, trial.pruned, trial.epochs) for trial in found.trials]
    assert ends == [(1, False, 2), (2, False, 2), (3, True, 1)]


@pytest.mark.parametrize(("trials", "go_on"), [(1, 1), (2, 2), (3, 2), (4, 2), (8, 3)])
def test_better_third_goes_on_in_whatever_order(
    trials: int, go_on: int, run: Callable[..., Search]
) -> None:
    """Of a single layer's seeds, whose scores rise and fall."""
    seeds = tuple(range(trials))
    scores = [(11 * seed % trials) / trials for seed in seeds]
    engine = Watched({seed: (score,) for seed, score in enumerate(scores)}, "seed")

    found = run(space=SearchSpace(layers=(1,), learning_rates=(1e-2,), seeds=seeds), engine=engine)

    kept = {trial.seed for trial in found.trials if not trial.pruned}
    assert kept == set(sorted(seeds, key=lambda seed: -scores[seed])[:go_on])


def test_exhaustive_search_trains_all_to_the_end(run: Callable[..., Search]) -> None:
    engine = Watched()

    found = run(exhaustive=True, engine=engine)

    assert [(trial.pruned, trial.epochs) for trial in found.trials] == [(False, 2)] * 4
    assert [until for _, until in engine.asked] == [0] * 4


def test_early_stopping_ends_a_trial_that_was_not_given_up(
    run: Callable[..., Search], tmp_path: Path
) -> None:
    """Over the pauses at the rungs as without them."""
    space = SearchSpace(layers=(2,), learning_rates=(3e-2,))
    expected = run(space=space, epochs=18, patience=2, exhaustive=True)
    assert expected.best.epochs < 18, "else it does not show"

    found = run(space=space, epochs=18, patience=2, work=tmp_path / "other")

    assert found.trials == expected.trials


# What wins


def test_winner_is_the_module_of_its_own_run(
    plain: Search,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """As if it alone had been trained, without a pause."""
    best = plain.best
    assert best.score == max(trial.score for trial in plain.trials)

    module = train_module(
        tiny_backbone.spec,
        tiny_backbone.store,
        tiny_data("single"),
        replace(
            RECIPE,
            tap=best.frozen_layers,
            depth=best.task_layers,
            learning_rate=best.learning_rate,
            seed=best.seed,
        ),
        work=tmp_path / "alone",
    )

    assert plain.module.to_bytes() == module.to_bytes()
    assert 100 * module.spec.metrics["accuracy"] == pytest.approx(best.score, abs=1e-3)


@pytest.mark.parametrize("data", ["multilabel", "regression", "tagging"])
def test_every_kind_is_searched_by_its_own_metric(data: str, run: Callable[..., Search]) -> None:
    found = run(data, SearchSpace(layers=(1, 2), learning_rates=(1e-2,)), epochs=2)

    (metric,) = {trial.metric for trial in found.trials}
    assert 100 * found.module.spec.metrics[metric] == pytest.approx(found.best.score, abs=1e-3)


@pytest.mark.parametrize("scores", [(0.8, 0.8), (0.9999996, 0.9999998)], ids=["same", "rounded"])
def test_equal_scores_go_to_fewer_layers(
    scores: tuple[float, float], run: Callable[..., Search]
) -> None:
    """Also where the table, which has four decimals, shows them as equal."""
    engine = Watched({1: scores[:1], 2: scores[1:]})

    found = run(engine=engine)

    assert found.best.task_layers == 1
    assert found.best is found.trials[0], "and then to the first"
    assert found.module.spec.depth == 1


def trial(score: float, layers: int, **fields: Any) -> Trial:
    values = {"role": "teacher", "learning_rate": 1e-4, "seed": 0, "metric": "accuracy"}
    values |= {"epochs": 3, "pruned": False} | fields
    return Trial(score=score, task_layers=layers, frozen_layers=12 - layers, **values)


def test_best_trial_is_the_best_then_the_smallest_then_the_first() -> None:
    trials = [trial(90.0, 4), trial(91.0, 6), trial(91.0, 5, seed=1), trial(91.0, 5, seed=2)]

    assert best_trial(trials) is trials[2]
    assert best_trial(trials[:2]) is trials[1]


# The same table again


def test_repeated_search_trains_nothing(
    run: Callable[..., Search], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run()
    assert {trial.pruned for trial in first.trials} == {True, False}, "else it does not show"

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr("centra.training.trainer.Trainer.train", refuse)
    again = run()

    assert table(again, tmp_path) == table(first, tmp_path)
    assert again.module.to_bytes() == first.module.to_bytes()


@pytest.mark.parametrize("change", [{"data": "pair"}, {"epochs": 3}, {"dropout": 0.0}], ids=str)
def test_other_data_or_settings_start_anew(
    change: dict[str, Any], run: Callable[..., Search], tmp_path: Path
) -> None:
    space = SearchSpace(layers=(1,), learning_rates=(1e-2,))
    run(space=space)

    found = run(space=space, **change)

    fresh = run(space=space, work=tmp_path / "fresh", **change)
    assert table(found, tmp_path) == table(fresh, tmp_path)
    assert found.module.to_bytes() == fresh.module.to_bytes()


def test_changed_examples_start_anew(
    run: Callable[..., Search], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """In the same folder."""
    folder = support.tiny_data("single", tmp_path / "data")
    space = SearchSpace(layers=(1,), learning_rates=(1e-2,))
    first = run(folder, space, epochs=1)
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:-10]))

    again = run(folder, space, epochs=1)

    assert first.module.spec.training["examples"] == 72
    assert again.module.spec.training["examples"] == 62


def test_halving_after_an_exhaustive_search_gives_the_table_of_halving(
    run: Callable[..., Search], tmp_path: Path
) -> None:
    """What later epochs came to was not known at the rung: what was given up is again."""
    scores = {1: (0.45, 0.99), 2: (0.5, 0.5, 0.5), 3: (0.4, 0.9)}
    space = SearchSpace(layers=(1, 2, 3), learning_rates=(1e-2,))
    expected = run(space=space, engine=Watched(scores), work=tmp_path / "fresh")
    assert [trial.pruned for trial in expected.trials] == [False, False, True]

    whole = run(space=space, engine=Watched(scores), exhaustive=True)

    assert [trial.score for trial in whole.trials] == [99.0, 50.0, 90.0]
    again = run(space=space, engine=Watched(scores))
    assert table(again, tmp_path) == table(expected, tmp_path)


@pytest.mark.parametrize("several", [name for name in SEVERAL if name != "one process"])
def test_result_does_not_depend_on_the_engine(
    several: str,
    run: Callable[..., Search],
    plain: Search,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Not even where a run pauses in one process and goes on in another."""
    found = run(engine=engine_called(several, request))

    assert table(found, tmp_path) == table(plain, tmp_path)
    assert found.module.to_bytes() == plain.module.to_bytes()


@pytest.mark.parametrize("has", ["nothing", "another"])
def test_machine_that_does_not_have_the_folder_is_refused(
    has: str, run: Callable[..., Search], work: Path
) -> None:
    class Elsewhere:
        one_machine = False

        def map(
            self, function: Callable[[Job], Any], jobs: Sequence[Job]
        ) -> Iterator[tuple[int, Any]]:
            for path in work.iterdir():
                path.unlink() if has == "nothing" else path.write_text(has)
            yield from ((i, function(job)) for i, job in enumerate(jobs))

    with pytest.raises(UsageError, match=r"not the same folder on .*, or s3://BUCKET/KEY"):
        run(engine=Elsewhere())


def test_table_does_not_depend_on_the_cache(
    run: Callable[..., Search], plain: Search, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "features", 10**9)

    found = run(cache=cache)

    assert table(found, tmp_path) == table(plain, tmp_path)
    assert len([*cache.folder.iterdir()]) == 4, "two taps of two splits, once for all"


# Killed


def carry_out(what: str, arguments: Sequence[str], output: Path) -> None:
    """A search or a fit, with all that it ends in written to a folder."""
    data, root, digest = arguments
    store = LocalStore(Path(root))
    backbone = BackboneSpec.from_bytes(store.fetch(digest).read_bytes(), digest)
    cache = FeatureCache(output / "features", 10**9)
    if what == "search":
        found = search(
            backbone,
            store,
            Path(data),
            RECIPE,
            SPACE,
            work=output / "work",
            engine=LocalEngine(1),
            cache=cache,
        )
        write_trials(output / "scores.csv", "intent", found.trials)
    else:
        plan = Plan.model_validate(
            {
                "task": "intent",
                "backbone": "tiny",
                "data": data,
                "search": {"layers": (2, 2), "learning_rates": (1e-2, 1e-4)},
                "training": {"epochs": 2, "batch_size": 12},
                "distill": {"layers": (1,), "seeds": (0, 1)},
            }
        )
        found = run_pipeline(
            backbone,
            store,
            Path(data),
            plan,
            output=output,
            engine=LocalEngine(1),
            cache=cache,
        )
    found.module.write(output / "module.safetensors")


def kill_at(limit: int, folder: Path) -> None:
    """End this process at once when it changes a file below a folder for the n-th time."""
    left = limit
    changes = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "open")

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        # Folders are removed file by file, each named within its folder alone.
        inside = event in ("os.remove", "os.rmdir") and args[1] != -1
        if event not in changes or not (inside or str(args[0]).startswith(str(folder))):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def end_killed(what: str, folder: str, *arguments: str) -> None:
    """Carry something out whole, and beside it killed again and again until it ends.

    Each try is a fork of this process, which has imported all and run nothing.
    """
    output = {name: Path(folder) / name for name in ("whole", "killed")}
    for path in output.values():
        path.mkdir()
    limits = [0, *(8 + i + 7 * i % 11 for i in range(60))]
    for i, limit in enumerate(limits):
        child = os.fork()
        if not child:
            target = output["killed" if i else "whole"]
            if limit:
                kill_at(limit, target)
            carry_out(what, arguments, target)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL), code
        if code == 0 and i:
            print(i - 1)
            return
    raise AssertionError("it never ended")


@pytest.mark.parametrize("what", ["search", "fit"])
def test_killed_at_many_moments_it_ends_as_if_never_killed(
    what: str,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    warm_python: Path,
) -> None:
    arguments = [tmp_path, tiny_data("single"), tiny_backbone.store.root, tiny_backbone.spec.digest]
    script = (
        "import sys; from tests.centra.test_search import end_killed; end_killed(*sys.argv[1:])"
    )

    done = subprocess.run(
        [warm_python, "-c", script, what, *arguments],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5, "kills"
    files = [
        "scores.csv",
        "module.safetensors",
        *(["teacher.safetensors"] if what == "fit" else []),
    ]
    for name in files:
        whole, killed = (tmp_path / folder / name for folder in ("whole", "killed"))
        assert killed.read_bytes() == whole.read_bytes(), name


# Refused


@pytest.mark.parametrize(
    ("space", "match"),
    [
        (SearchSpace(layers=(0, 1)), r"layers: 0 cannot be fine-tuned; the backbone has 3"),
        (SearchSpace(layers=(1, 4)), r"layers: 4 cannot be fine-tuned; the backbone has 3"),
        # As a recipe of 'centra fit' may say: nothing is counted so far.
        (
            SearchSpace(layers=range(1, 2**53)),
            r"layers: 4 cannot be fine-tuned; the backbone has 3",
        ),
        (SearchSpace(layers=()), r"layers: expected at least one"),
        (SearchSpace(layers=(1,), learning_rates=()), r"learning_rates: expected at least one"),
        (SearchSpace(layers=(1,), seeds=()), r"seeds: expected at least one"),
        (SearchSpace(layers=(1,), learning_rates=(-1.0,)), r"learning_rate must be greater than 0"),
        (SearchSpace(layers=(1,), seeds=(-1,)), r"seed must not be negative"),
    ],
)
def test_space_that_cannot_be_searched_is_refused(
    space: SearchSpace, match: str, run: Callable[..., Search], work: Path
) -> None:
    with pytest.raises(UsageError, match=match):
        run(space=space)
    assert not work.exists()


def test_metric_of_another_kind_is_refused(run: Callable[..., Search]) -> None:
    with pytest.raises(UsageError, match="no metric 'pearson'"):
        run(metric="pearson")


def test_missing_data_is_refused(run: Callable[..., Search], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl: no such file"):
        run(tmp_path)


def test_work_folder_that_cannot_be_made_is_refused(
    run: Callable[..., Search], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreNotWritableError, match=r"cannot write .*file"):
        run(work=tmp_path / "file")


def test_winner_that_diverged_is_refused(run: Callable[..., Search]) -> None:
    space = SearchSpace(layers=(1,), learning_rates=(1e30,))

    with pytest.raises(TrainingDivergedError, match=r"NaN or infinite at learning rate 1e\+30"):
        run("regression", space, epochs=1)


def test_trial_that_diverged_does_not_end_the_search(run: Callable[..., Search]) -> None:
    space = SearchSpace(layers=(1,), learning_rates=(1e30, 1e-2))

    found = run("regression", space, epochs=1)

    assert found.best.learning_rate == 1e-2
    assert len(found.trials) == 2


# The table


def test_table_has_a_line_per_trial(tmp_path: Path) -> None:
    trials = [
        trial(98.123456, 4, learning_rate=3e-5),
        trial(97.0, 2, role="student", seed=3, epochs=1, pruned=True),
    ]

    write_trials(tmp_path / "new" / "trials.csv", "intent", trials)

    assert (tmp_path / "new" / "trials.csv").read_text().splitlines() == [
        "task,frozen_layers,task_layers,role,score,metric,learning_rate,seed,epochs,state",
        "intent,8,4,teacher,98.1235,accuracy,3e-05,0,3,complete",
        "intent,10,2,student,97.0000,accuracy,0.0001,3,1,pruned",
    ]


def test_table_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreNotWritableError, match=r"cannot write .*trials\.csv"):
        write_trials(tmp_path / "file" / "trials.csv", "intent", [])
