"""The paper's steps one by one: ``centra train``, ``search``, ``distill``, ``select``."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import tomllib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from centra.formats.task_module import read_spec
from centra.system.files import file_digest
from centra.training.recipe import Distillation, Recipe
from cli.output import reporting
from cli.training import _EXTRA
from tests import support
from tests.cli.helpers import answers, centra, read, refused, state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = ("--backbone", "tiny", "--epochs", "2", "--batch-size", "16")
TRAINERS = ("train", "search", "distill")


def words(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def features(tmp_path: Path) -> list[Path]:
    """The files of the feature cache."""
    return [*(tmp_path / "cache" / "features").glob("*")]


def test_search_distil_select_and_register_a_student(
    home: Path, tiny_data: Callable[[str], Path]
) -> None:
    task = ("--task", "topic", "--data", tiny_data("single"), *QUICK)
    rates = ("--learning-rate", "3e-3", "--learning-rate", "1e-3")
    found = read("search", *task, *rates, "--min-layers", "2", "--jobs", "1", "--exhaustive")
    assert found.keys() == {"teacher", "scores", "best", "trials"}
    assert found["teacher"] == "topic-search/teacher.safetensors"
    assert found["best"] in found["trials"]
    assert found["best"]["score"] == max(trial["score"] for trial in found["trials"])
    # By default the most are five sixths of the backbone's three layers.
    assert [(t["task_layers"], t["learning_rate"]) for t in found["trials"]] == [
        (2, 0.003),
        (2, 0.001),
    ]
    teacher = read_spec(home / found["teacher"])
    assert (teacher.tap_layer, teacher.depth, teacher.teacher) == (1, 2, None)

    learnt = read("distill", *task, "--teacher", found["teacher"], "--layers", "1")
    assert learnt.keys() == {"output", "metrics"}
    assert learnt["output"] == "topic-student-1.safetensors"
    student = read_spec(home / learnt["output"])
    assert (student.tap_layer, student.depth) == (1, 1)
    assert student.teacher == file_digest(home / found["teacher"])
    assert student.metrics == learnt["metrics"]
    assert student.training["recipe"]["epochs"] == 2
    assert student.training["distillation"] == {
        "temperature": 2.0,
        "weight": 0.5,
        "start": "teacher",
    }

    with (home / found["scores"]).open("a", newline="") as file:
        accuracy = 100 * learnt["metrics"]["accuracy"]
        csv.writer(file).writerow(["topic", 1, 1, "student", accuracy, "accuracy", 0, 0, 2, ""])
    (choice,) = read("select", "--scores", found["scores"], "--threshold", "1000")["choices"]
    assert (choice["role"], choice["task_layers"]) == ("student", 1)

    centra("task", "register", "topic", learnt["output"])
    centra("task", "register", "teacher", found["teacher"])
    card = centra("task", "show", "topic@1.0").stdout
    assert f"teacher@1.0, sha256:{student.teacher}" in words(card)
    assert read("compose", "--release")["tasks"]["topic"] == "1.0"
    (answer,) = answers("wake me at seven", "--task", "topic")
    assert answer["topic"]["label"] in ("alarm", "music", "weather")


def test_a_search_prints_its_trials_and_its_teacher_last(
    home: Path, tiny_data: Callable[[str], Path]
) -> None:
    task = ("--task", "topic", "--data", tiny_data("single"), *QUICK)
    options = ("--learning-rate", "3e-3", "--seed", "0", "--seed", "1", "--jobs", "1")
    command = ("search", *task, *options, "--max-layers", "1", "--output", "out/topic")
    result = centra(*command)
    header, *rows, last = result.stdout.splitlines()
    assert " ".join(header.split()) == (
        "ROLE FROZEN LAYERS TASK LAYERS LEARNING RATE SEED EPOCHS ACCURACY STATE"
    )
    assert [row.split()[:5] for row in rows] == [
        ["teacher", "2", "1", "0.003", seed] for seed in ("0", "1")
    ]
    best, other = sorted(row.split()[-1] for row in rows)
    assert best == "best"
    assert other in ("complete", "pruned")
    assert last == "out/topic/teacher.safetensors"
    assert re.search(r"^trials to the end, best accuracy 0\.\d+ ", result.stderr, re.MULTILINE)
    with (home / "out" / "topic" / "trials.csv").open(newline="") as file:
        table = [*csv.DictReader(file)]
    assert [row["seed"] for row in table] == ["0", "1"]
    assert {row["task"] for row in table} == {"topic"}
    # Again, nothing is trained.
    work = {path: path.stat().st_mtime_ns for path in (home / "out").rglob("*/work/**/*")}
    assert work
    assert centra(*command).stdout == result.stdout
    assert {path: path.stat().st_mtime_ns for path in (home / "out").rglob("*/work/**/*")} == work


def test_frozen_states_are_kept_within_the_room_that_is_given(
    home: Path, tmp_path: Path, tiny_data: Callable[[str], Path]
) -> None:
    data = tiny_data("single")
    command = ("train", "--task", "topic", "--data", data, *QUICK, "--tap", "1", "--depth", "1")
    off = read(*command, "--feature-cache", "off")
    assert features(tmp_path) == []
    assert read(*command, "--feature-cache", "1kB")["metrics"] == off["metrics"]
    assert sum(path.stat().st_size for path in features(tmp_path)) <= 1000
    assert read(*command)["metrics"] == off["metrics"]
    assert len(features(tmp_path)) == 2
    assert [path.name for path in home.glob("topic*")] == ["topic.safetensors"]


def test_a_crf_is_trained_distilled_and_told_by_the_card(
    home: Path, tiny_data: Callable[[str], Path]
) -> None:
    task = ("--task", "places", "--data", tiny_data("tagging"), *QUICK)
    rate = ("--learning-rate", "3e-3")
    centra("train", *task, *rate, "--tap", "1", "--depth", "2", "--crf")
    assert read_spec(home / "places.safetensors").head.crf
    centra("distill", *task, *rate, "--teacher", "places.safetensors", "--layers", "1")
    student = "places-student-1.safetensors"
    assert read_spec(home / student).head.crf
    centra("task", "register", "places", student)
    expected = f"spans, by {len(read_spec(home / student).labels)} BIO tags with a CRF"
    assert f"gives      {expected}\n" in centra("task", "show", "places@1.0").stdout
    assert f"| gives | {expected} |" in centra("task", "show", "places", "--markdown").stdout
    assert read("task", "show", "places@1.0")["card"]["crf"] is True
    assert read("task", "show", "slots@1.0")["card"]["crf"] is False
    assert "CRF" not in centra("task", "show", "slots@1.0").stdout
    assert read("compose", "--release")["tasks"]["places"] == "1.0"
    (answer,) = answers("fly to oslo", "--task", "places")
    assert answer["places"].keys() == {"spans"}


def test_training_reports_to_tensorboard_beside_the_module(
    home: Path, tiny_data: Callable[[str], Path]
) -> None:
    task = ("--task", "topic", "--data", tiny_data("single"), *QUICK, "--tap", "2", "--depth", "1")
    centra("train", *task, "--output", "out/topic.safetensors", "--report-to", "tensorboard")
    events = [*(home / "out").rglob("events.out.tfevents.*")]
    assert events
    assert {path.relative_to(home / "out").parts[0] for path in events} == {"runs"}


def test_a_student_has_no_more_layers_than_its_teacher(
    home: Path, modules: dict[str, Path], tiny_data: Callable[[str], Path]
) -> None:
    before = state(home)
    task = ("--task", "topic", "--data", tiny_data("single"), *QUICK)
    says = ("depth 2: the teacher", "has 1 layers of its own")
    teacher = modules["intent"]  # Tap 1, depth 1, of the same labels.
    refused("distill", *task, "--teacher", teacher, "--layers", "2", code=2, says=says)
    assert state(home) == before


def test_a_long_stage_is_heard_of_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("cli.output.time", SimpleNamespace(monotonic=lambda: clock.now))
    with reporting() as report:
        for done, clock.now in enumerate((10.0, 20.0, 70.0, 80.0, 140.0, 141.0), 1):
            report("students", done, 6)
    assert capsys.readouterr().err.splitlines() == [
        "students (3/6, 0:01:30 left)",
        "students (5/6, 0:00:32 left)",
        "students (6/6)",
    ]


class Terminal(io.StringIO):
    """What takes itself for a screen."""

    def isatty(self) -> bool:
        return True


def test_each_stage_has_a_bar_of_its_own_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with reporting() as report:
        for what, done in (("teachers", 0), ("teachers, best 0.9", 2), ("students", 0)):
            report(what, done, 2)
        report("students", 1, 2)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search(r"teachers, best 0.9 ━+ 2/2 .*\n\s*students +[━╸╺ ]+ 1/2 ", plain)


# What is installed


@pytest.mark.parametrize("package", ["matplotlib", "plotext", "accelerate"])
@pytest.mark.parametrize("command", [*TRAINERS, "fit"])
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    home: Path,
    modules: dict[str, Path],
    tiny_data: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    before = state(home)
    task = ("--task", "topic", "--data", tiny_data("single"), "--backbone", "tiny")
    options = {
        "train": (*task, "--tap", "1", "--depth", "1"),
        "search": task,
        "distill": (*task, "--teacher", modules["intent"], "--layers", "1"),
        "fit": ("recipe.toml",),
    }[command]
    says = ("pip install 'centra[train]'", package)
    refused(command, *options, code=2, says=says)
    assert state(home) == before


def test_the_extra_is_asked_for_as_it_is_declared() -> None:
    project = tomllib.loads((support.ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", line)[0] for line in project["optional-dependencies"]["train"]}
    assert declared == {*_EXTRA}


def test_a_reporter_that_is_not_installed_is_named(
    home: Path, tiny_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    before = state(home)
    task = ("--task", "topic", "--data", tiny_data("single"), "--backbone", "tiny")
    says = "mlflow is not installed; pip install mlflow"
    options = ("--tap", "1", "--depth", "1", "--report-to", "mlflow")
    refused("train", *task, *options, code=2, says=says)
    refused("search", *task, "--jobs", "1", "--report-to", "mlflow", code=2, says=says)
    assert state(home) == before


# Help


def default_of(text: str, option: str) -> str:
    """What a help text says is an option's default."""
    found = re.search(rf"{option} (?:(?! --).)*?\[default: ([^\]]*)\]", words(text))
    assert found, option
    return found[1]


@pytest.mark.parametrize("command", TRAINERS)
def test_the_help_tells_the_defaults_of_a_recipe(command: str) -> None:
    text = centra(command, "--help").stdout
    recipe = Recipe(tap=0, depth=0)
    expected: dict[str, Any] = {
        "epochs": recipe.epochs,
        "batch-size": recipe.batch_size,
        "patience": recipe.patience,
        "max-length": recipe.max_length,
        "feature-cache": "(20GB, or half of the memory)",
        "seed": recipe.seed,
        "learning-rate": "0.0001, 0.0003" if command == "search" else recipe.learning_rate,
    }
    if command == "distill":
        how = Distillation()
        expected |= {"temperature": how.temperature, "weight": how.weight, "start": how.start}
    if command == "search":
        expected["engine"] = "local"
        assert "default a third of the backbone's" in words(text)
    assert {name: default_of(text, f"--{name}") for name in expected} == {
        name: str(value) for name, value in expected.items()
    }


def test_the_help_tells_the_defaults_of_a_fit() -> None:
    text = centra("fit", "--help").stdout
    assert default_of(text, "--feature-cache") == "(20GB, or half of the memory)"
    assert default_of(text, "--engine") == "local"
    assert "default TASK-fit" in words(text)


# What labels mean


def rows_of(folder: Path, labels: list[object]) -> Path:
    """Training and dev data with these labels."""
    rows = [{"text": "go", "label": label} for label in labels]
    for name in ("train.jsonl", "dev.jsonl"):
        support.write_jsonl(folder / name, rows)
    return folder


def test_numbers_are_what_is_said_of_them(home: Path) -> None:
    data = rows_of(home / "numbers", [1, 0, 10, 2])
    task = ("train", "--task", "new", "--data", data, "--tap", "2", "--depth", "0", *QUICK)
    remark = "4 whole numbers as labels: taken as classes; --kind regression says otherwise"
    assert remark in centra(*task).stderr
    assert read_spec(home / "new.safetensors").labels == ("0", "1", "2", "10")

    again = centra(*task, "--kind", "regression")
    assert "whole numbers" not in again.stderr
    assert read_spec(home / "new.safetensors").kind == "regression"

    (home / "names.json").write_text(json.dumps([f"Label {i}" for i in range(11)]))
    named = centra(*task, "--labels", "names.json").stderr
    assert "taken as places in the task's labels, from 0, which is 'Label 0'" in named
    assert "7 of the labels given are in no row of the training data: Label 3, Label 4" in named
    assert len(read_spec(home / "new.safetensors").labels) == 11

    rows_of(data, [1, 2.5])
    assert "label 2.5" in centra(*task).stderr
    assert read_spec(home / "new.safetensors").kind == "regression"


@pytest.mark.parametrize("command", ["train --tap 1 --depth 1", "search", "distill --layers 1"])
def test_options_on_labels_are_those_of_every_command(
    command: str, home: Path, modules: dict[str, Path]
) -> None:
    data = rows_of(home / "numbers", [1, 0])
    teacher = ("--teacher", modules["intent"]) if command.startswith("distill") else ()
    task = (*command.split(), "--task", "new", "--data", data, *QUICK, *teacher)
    says = "train.jsonl:1: label 1 is a number; a tagging task has 'tokens' with 'labels'"
    refused(*task, "--kind", "tagging", code=1, says=says)
    refused(*task, "--labels", "none.txt", code=1, says="none.txt: no such file; expected labels")
    refused(*task, "--tags", "bioes", code=1, says="tags were said to be bioes")
    file = data / "train.jsonl"
    options = ("--data", file)
    says = "is a file; expected a folder with train.jsonl and dev.jsonl"
    refused(*task, *options, code=1, says=f"{file}: {says}")
