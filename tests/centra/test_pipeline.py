"""The whole pipeline for one task: search a teacher, distil students, select one module."""

from __future__ import annotations

import contextlib
import csv
import shutil
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import DataError, UsageError
from centra.formats.task_module import check_fits, check_module
from centra.system.files import file_digest
from centra.training.engines import LocalEngine
from centra.training.features import FeatureCache
from centra.training.history import Epoch, History
from centra.training.pipeline import PipelineResult, run_pipeline
from centra.training.plan import Plan
from centra.training.recipe import Distillation, Recipe
from centra.training.select import read_scores, select
from centra.training.train import train_module
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from centra.training.jobs import Job

TRAINING = {"epochs": 2, "batch_size": 12, "dropout": 0.0}
SHORT = {
    "search": {"layers": (2, 2), "learning_rates": (1e-2,)},
    "training": TRAINING | {"epochs": 1},
    "distill": {"layers": (1,)},
}
SCORES = {
    ("teacher", 2): 0.90,
    ("teacher", 3): 0.95,
    ("student", 1): 0.91,
    ("student", 2): 0.94,
}


class Judged:
    """One process; answers with scores of the test's own, by role and layers."""

    one_machine = True

    def __init__(self, scores: Mapping[tuple[str, int], float]) -> None:
        self._scores = scores

    def map(
        self, function: Callable[[Job], History], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, History]]:
        for i, job in enumerate(jobs):
            history = function(job)
            role = "teacher" if job.teacher is None else "student"
            score = self._scores[role, job.recipe.depth]
            epochs = tuple(Epoch(e.loss, {history.metric: score}) for e in history.epochs)
            yield i, History(history.metric, epochs, history.finished)


def plan(**sections: Any) -> Plan:
    return Plan.model_validate(
        {
            "task": "intent",
            "backbone": "tiny",
            "data": "intent",
            "search": {"layers": (2, 3), "learning_rates": (1e-2,)},
            "training": TRAINING,
            "distill": {"layers": (1, 2, 3), "temperature": 3.0},
        }
        | sections
    )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "intent-fit"


@pytest.fixture
def run(
    tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path], output: Path
) -> Callable[..., PipelineResult]:
    """Run the pipeline on the tiny BERT; sections change the recipe."""

    def run(
        data: str | Path = "single",
        *,
        engine: Any = None,
        cache: FeatureCache | None = None,
        exhaustive: bool = False,
        **sections: Any,
    ) -> PipelineResult:
        return run_pipeline(
            tiny_backbone.spec,
            tiny_backbone.store,
            tiny_data(data) if isinstance(data, str) else data,
            plan(**sections),
            output=output,
            engine=engine or LocalEngine(1),
            cache=cache,
            exhaustive=exhaustive,
        )

    return run


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "scores.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[PipelineResult, Path]:
    """A fit by the scores above, and its folder; made once."""
    output = tmp_path_factory.mktemp("fit") / "finished"
    found = run_pipeline(
        tiny_backbone.spec,
        tiny_backbone.store,
        tiny_data("single"),
        plan(),
        output=output,
        engine=Judged(SCORES),
    )
    return found, output


@pytest.fixture
def again(
    finished: tuple[PipelineResult, Path], run: Callable[..., PipelineResult], output: Path
) -> Callable[..., PipelineResult]:
    """Repeat that fit in a copy of its folder; sections change the recipe."""
    shutil.copytree(finished[1], output)
    return lambda **sections: run(engine=Judged(SCORES), **sections)


@pytest.mark.parametrize(
    ("threshold", "chosen"),
    [(0.0, ("teacher", 3)), (1.5, ("student", 2)), (3.0, ("student", 2)), (3.5, ("student", 1))],
)
def test_fit_ends_in_what_select_gives_for_its_scores(
    threshold: float,
    chosen: tuple[str, int],
    again: Callable[..., PipelineResult],
    output: Path,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """The module is the one of the chosen run, as the steps alone would have made it."""
    found = again(select={"threshold": threshold})

    (choice,) = select(read_scores(output / "scores.csv"), Decimal(str(threshold))).choices
    assert found.choice == choice
    assert (choice.role, choice.task_layers) == chosen
    assert found.chosen in found.trials
    assert (found.chosen.role, found.chosen.task_layers) == chosen
    recipe = Recipe(tap=0, depth=choice.task_layers, learning_rate=1e-2, **TRAINING)
    data, work = tiny_data("single"), tmp_path / "alone"
    if choice.role == "teacher":
        expected = train_module(tiny_backbone.spec, tiny_backbone.store, data, recipe, work=work)
    else:
        expected = train_module(
            tiny_backbone.spec,
            tiny_backbone.store,
            data,
            recipe,
            teacher=output / "teacher.safetensors",
            distillation=Distillation(temperature=3.0),
            work=work,
        )
    assert found.module.to_bytes() == expected.to_bytes()


def test_teacher_is_the_best_of_the_search_and_students_are_its_own(
    again: Callable[..., PipelineResult], output: Path, tiny_backbone: support.Backbone
) -> None:
    found = again(select={"threshold": 3.5})

    assert (found.teacher.task_layers, found.teacher.score) == (3, 95.0)
    file = check_module(output / "teacher.safetensors")
    check_fits(file, tiny_backbone.spec, "tiny@1")
    assert file.spec.depth == 3
    assert found.module.spec.teacher == file_digest(output / "teacher.safetensors")
    assert found.module.spec.tap_layer == file.spec.tap_layer == 0
    distillation = found.module.spec.training["distillation"]
    assert distillation == vars(Distillation(temperature=3.0))


def test_scores_hold_teachers_then_students_smaller_than_the_best_teacher(
    finished: tuple[PipelineResult, Path],
) -> None:
    found, output = finished

    table = rows(output)
    assert [(r["role"], r["frozen_layers"], r["task_layers"], r["score"]) for r in table] == [
        ("teacher", "1", "2", "90.0000"),
        ("teacher", "0", "3", "95.0000"),
        ("student", "0", "1", "91.0000"),
        ("student", "0", "2", "94.0000"),
    ]
    assert {row["task"] for row in table} == {"intent"}
    assert [f"{trial.score:.4f}" for trial in found.trials] == [row["score"] for row in table]


def test_students_take_their_teacher_s_rate_and_seed_unless_told(
    run: Callable[..., PipelineResult],
) -> None:
    sections = SHORT | {"search": SHORT["search"] | {"seeds": (3,)}}
    distill = {"layers": (1, 1), "learning_rates": (1e-3, 5e-3, 1e-3), "seeds": (1, 0, 1)}

    own = run(**sections)
    told = run(**sections | {"distill": distill})

    def students(found: PipelineResult) -> list[tuple[float, int]]:
        return [(t.learning_rate, t.seed) for t in found.trials if t.role == "student"]

    assert students(own) == [(1e-2, 3)]
    assert students(told) == [(1e-3, 1), (1e-3, 0), (5e-3, 1), (5e-3, 0)], "each once"


def test_teacher_without_smaller_students_is_chosen(
    run: Callable[..., PipelineResult], output: Path
) -> None:
    found = run(**SHORT | {"distill": {"layers": (2, 3)}})

    assert found.choice.role == "teacher"
    assert found.module.to_bytes() == (output / "teacher.safetensors").read_bytes()
    assert len(found.trials) == 1


@pytest.mark.parametrize(
    "near", [(0.9999996, 0.9999998), (0.95, 0.95)], ids=["rounded", "the same"]
)
def test_search_and_select_agree_on_the_teacher_where_scores_are_nearly_equal(
    near: tuple[float, float], run: Callable[..., PipelineResult], output: Path
) -> None:
    """The table has four decimals, and ties go to fewer layers."""
    few, many = near
    scores = {("teacher", 2): few, ("teacher", 3): many, ("student", 1): 0.1}

    found = run(
        engine=Judged(scores),
        exhaustive=True,
        **SHORT | {"search": {"layers": (2, 3), "learning_rates": (1e-2,)}},
    )

    assert found.choice.role == "teacher"
    assert found.choice.task_layers == found.teacher.task_layers == 2
    assert found.module.spec.depth == 2
    assert found.module.to_bytes() == (output / "teacher.safetensors").read_bytes()


def test_chosen_student_is_the_best_of_its_depth(
    run: Callable[..., PipelineResult], output: Path
) -> None:
    """Of several seeds, as the table says."""
    distill = {"layers": (1,), "learning_rates": (1e-4, 1e-2), "seeds": (0, 1)}
    found = run(**SHORT | {"distill": distill}, select={"threshold": 100.0})

    students = [trial for trial in found.trials if trial.role == "student"]
    best = max(students, key=lambda trial: trial.score)
    recipe = found.module.spec.training["recipe"]
    assert len({trial.score for trial in students}) > 1, "else it does not show"
    assert (recipe["learning_rate"], recipe["seed"]) == (best.learning_rate, best.seed)
    assert found.choice.score == Decimal(f"{best.score:.4f}")


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("it trained")


def test_repeated_fit_trains_nothing(
    finished: tuple[PipelineResult, Path],
    again: Callable[..., PipelineResult],
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, folder = finished
    monkeypatch.setattr("centra.training.trainer.Trainer.train", refuse)

    found = again()

    assert found.trials == first.trials
    assert found.choice == first.choice
    assert found.module.to_bytes() == first.module.to_bytes()
    assert (output / "scores.csv").read_bytes() == (folder / "scores.csv").read_bytes()


def test_another_threshold_needs_no_training(
    finished: tuple[PipelineResult, Path],
    again: Callable[..., PipelineResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("centra.training.trainer.Trainer.train", refuse)

    found = again(select={"threshold": 3.5})

    assert found.module.spec.depth == 1
    assert finished[0].choice != found.choice


def test_another_way_to_distil_keeps_the_teachers(
    finished: tuple[PipelineResult, Path], again: Callable[..., PipelineResult], output: Path
) -> None:
    folder = finished[1]
    first = again(select={"threshold": 3.5})

    found = again(select={"threshold": 3.5}, distill={"layers": (1,), "weight": 0.9})

    teacher = "teacher.safetensors"
    assert (output / teacher).read_bytes() == (folder / teacher).read_bytes()
    assert found.module.spec.training["distillation"]["weight"] == 0.9
    assert found.module.to_bytes() != first.module.to_bytes()


def test_cache_does_not_change_the_scores(
    run: Callable[..., PipelineResult], output: Path, tmp_path: Path
) -> None:
    run(**SHORT)
    table = (output / "scores.csv").read_bytes()
    output.rename(tmp_path / "plain")

    run(**SHORT, cache=FeatureCache(tmp_path / "features", 10**9))

    assert (output / "scores.csv").read_bytes() == table


def test_tagging_with_a_crf_stays_with_a_crf(run: Callable[..., PipelineResult]) -> None:
    training = SHORT["training"] | {"crf": True}
    found = run("tagging", **SHORT | {"training": training}, select={"threshold": 100.0})

    assert found.choice.role == "student"
    assert found.module.spec.head.crf
    assert "head.crf.transitions" in found.module.tensors


def test_reports_of_all_runs_lie_beside_each_other(
    run: Callable[..., PipelineResult], output: Path
) -> None:
    run(**SHORT, report_to=("tensorboard",))

    folders = {path.parent.name for path in (output / "work" / "runs").rglob("*tfevents*")}
    assert folders == {"layers-2-rate-0.01-seed-0", "student-1-rate-0.01-seed-0"}


def test_folders_are_found_by_workers_that_stand_elsewhere(
    finished: tuple[PipelineResult, Path],
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Elsewhere(Judged):
        one_machine = False

        def map(self, function: Any, jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
            with contextlib.chdir("/"):
                done = [*super().map(function, jobs)]
            yield from done

    shutil.copytree(tiny_data("single"), tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    found = run_pipeline(
        tiny_backbone.spec,
        tiny_backbone.store,
        Path("data"),
        plan(),
        output=Path("fit"),
        engine=Elsewhere(SCORES),
    )
    assert found.module.to_bytes() == finished[0].module.to_bytes()


@pytest.mark.parametrize(
    ("sections", "match"),
    [
        ({"search": {"layers": (3, 4)}}, "layers: 4 cannot be fine-tuned; the backbone has 3"),
        ({"training": {"metric": "pearson"}}, "no metric 'pearson'"),
        ({"training": {"crf": True}}, "crf: a classification task has no tags"),
        ({"training": {"max_length": 3}}, "max_length must be 0 or at least 8"),
    ],
    ids=str,
)
def test_recipe_that_does_not_suit_is_refused(
    sections: dict[str, Any], match: str, run: Callable[..., PipelineResult], output: Path
) -> None:
    with pytest.raises(UsageError, match=match):
        run(**sections)
    assert not (output / "scores.csv").exists()


def test_missing_data_is_refused(
    run: Callable[..., PipelineResult], tmp_path: Path, output: Path
) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl: no such file"):
        run(tmp_path)
    assert not output.exists()
