"""``centra fit``: from a recipe to a module that goes into a release."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from centra.formats.task_module import read_spec
from centra.store import open_path
from centra.store.s3.path import S3Path
from centra.system.files import file_digest
from centra.training.trials import Trial
from cli.plots import draw, write_png
from tests import support
from tests.cli.helpers import answers, centra, read, refused, state
from tests.cli.test_reading import tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECIPE = """\
task = "topic"
backbone = "tiny"
data = "topic-data"

[search]
layers = [2, 3]
learning_rates = [3e-3]

[training]
epochs = 2
batch_size = 16

[distill]
layers = [1, 2, 3]

[select]
threshold = 1000  # Whatever they score, the shallowest.
"""
FILES = ("topic.safetensors", "teacher.safetensors", "scores.csv", "scores.png", "card.md")


@pytest.fixture
def recipe(tmp_path: Path, tiny_data: Callable[[str], Path]) -> Path:
    """A recipe for the tiny topics, with its data beside it and far from the registry."""
    folder = tmp_path / "recipes"
    shutil.copytree(tiny_data("single"), folder / "topic-data")
    path = folder / "topic.toml"
    path.write_text(RECIPE)
    return path


def changed(recipe: Path, before: str, after: str) -> Path:
    """The recipe with a line replaced."""
    text = recipe.read_text()
    assert before in text
    recipe.write_text(text.replace(before, after))
    return recipe


def times(folder: Path) -> dict[str, int]:
    """When each file of the work folder was written."""
    files = [path for path in (folder / "work").rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def is_png(path: Path) -> bool:
    data = path.read_bytes()
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB`\x82")


def test_a_recipe_ends_in_a_module_that_is_released(home: Path, recipe: Path) -> None:
    result = centra("fit", recipe, "--jobs", "1", "--json")
    found = json.loads(result.stdout)
    files = dict(zip(("module", "teacher", "scores", "picture", "card"), FILES, strict=True))
    assert {what: found[what] for what in files} == {
        what: f"topic-fit/{name}" for what, name in files.items()
    }
    last = result.stderr.splitlines()[-1]
    assert last == "register it with: centra task register topic topic-fit/topic.safetensors"
    assert "students (" in result.stderr

    trials = found["trials"]
    teachers = [trial for trial in trials if trial["role"] == "teacher"]
    students = [trial for trial in trials if trial["role"] == "student"]
    assert [trial["task_layers"] for trial in teachers] == [2, 3]
    teacher = read_spec(home / found["teacher"])
    assert [trial["task_layers"] for trial in students] == [*range(1, teacher.depth)]
    assert found["chosen"] == students[0]
    chosen = read_spec(home / found["module"])
    assert (chosen.tap_layer, chosen.depth) == (teacher.tap_layer, 1)
    assert chosen.teacher == file_digest(home / found["teacher"])
    assert chosen.metrics == found["metrics"]
    assert round(100 * found["metrics"]["accuracy"], 2) == round(students[0]["score"], 2)

    with (home / found["scores"]).open(newline="") as file:
        table = [*csv.DictReader(file)]
    assert [row["role"] for row in table] == [trial["role"] for trial in trials]
    (choice,) = read("select", "--scores", found["scores"], "--threshold", "1000")["choices"]
    assert (choice["role"], choice["task_layers"]) == ("student", 1)
    assert is_png(home / found["picture"])

    assert read("task", "register", "topic", found["module"])["version"] == "1.0"
    assert read("compose", "--release")["tasks"]["topic"] == "1.0"
    (answer,) = answers("play some jazz", "--task", "topic")
    assert answer["topic"]["label"] in ("alarm", "music", "weather")


def test_the_card_tells_what_the_module_is_and_how_it_was_chosen(home: Path, recipe: Path) -> None:
    found = read("fit", recipe, "--jobs", "1", "--output", "out")
    text = (home / "out" / "card.md").read_text()
    assert text.startswith("# topic\n\nTakes single texts and gives one of 3 labels. Chosen among ")
    assert "gains at least 1000 in points of accuracy" in text
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## Metrics", "## Training", "## Trials", "## Labels"]
    facts, metrics, training, trials, labels = tables(text)
    module = home / "out" / "topic.safetensors"
    spec = read_spec(module)
    assert dict(facts[1:]) == {
        "kind": "classification",
        "takes": "single texts",
        "gives": "one of 3 labels",
        "backbone": f"tiny@1, tap {spec.tap_layer}, depth 1",
        "module": f"sha256:{file_digest(module)}, {module.stat().st_size:,} bytes",
    }
    assert metrics[1][:2] == ["accuracy", f"{found['metrics']['accuracy']:.4f}"]
    told = dict(training[1:])
    assert "learning\\_rate 0.003" in told["recipe"]
    assert told["distillation"] == "start teacher, temperature 2.0, weight 0.5"
    assert told["data"] == spec.training["data"]
    assert told["teacher"] == f"sha256:{file_digest(home / 'out' / 'teacher.safetensors')}"
    assert trials[0][-2:] == ["accuracy", "state"]
    assert [row[-2] for row in trials[1:]] == [f"{t['score']:.2f}" for t in found["trials"]]
    states = [row[-1] for row in trials[1:]]
    assert (states.count("best teacher"), states.count("chosen")) == (1, 1)
    assert "\n![Score against layers](scores.png)\n" in text
    assert labels[1:] == [["0", "alarm"], ["1", "music"], ["2", "weather"]]


def test_a_fit_that_is_done_ends_in_the_same_bytes_and_trains_nothing(
    home: Path, recipe: Path
) -> None:
    folder = home / "topic-fit"
    first = centra("fit", recipe, "--jobs", "1")
    header, *rows, last = first.stdout.splitlines()  # No plot: this is no terminal.
    assert header.split()[:3] == ["ROLE", "FROZEN", "LAYERS"]
    assert {row.split()[0] for row in rows} == {"teacher", "student"}
    assert sum(row.endswith("  best teacher") for row in rows) == 1
    (chosen,) = [row for row in rows if row.endswith("  chosen")]
    assert chosen.split()[0] == "student"
    assert last == "topic-fit/topic.safetensors"
    before = {name: (folder / name).read_bytes() for name in FILES}
    work = times(folder)
    assert {path.rpartition("/")[2] for path in work} >= {"history.json", "run"}
    again = centra("fit", recipe, "--jobs", "1", "--feature-cache", "off")
    assert again.stdout == first.stdout
    assert {name: (folder / name).read_bytes() for name in FILES} == before
    assert times(folder) == work
    # Another rule chooses again from what is there.
    found = read("fit", changed(recipe, "threshold = 1000", "threshold = 0"), "--jobs", "1")
    assert found["chosen"]["score"] == max(trial["score"] for trial in found["trials"])
    unchanged = {path: time for path, time in times(folder).items() if path in work}
    assert unchanged == work


def test_a_fit_takes_its_data_from_a_bucket_and_leaves_all_in_one(
    home: Path, recipe: Path, s3_url: str, tmp_path: Path
) -> None:
    bucket = open_path(s3_url)
    assert isinstance(bucket, S3Path)
    for name in ("train.jsonl", "dev.jsonl"):
        (bucket / "data" / name).upload(recipe.parent / "topic-data" / name)
    shutil.rmtree(recipe.parent / "topic-data")
    changed(recipe, 'data = "topic-data"', f"data = {json.dumps((bucket / 'data').url)}")

    done = read("fit", recipe, "--output", (bucket / "fit").url, "--jobs", "1")

    parts = ("module", "teacher", "scores", "picture", "card")
    assert [done[part] for part in parts] == [str(bucket / "fit" / name) for name in FILES]
    assert {*FILES} < {*(bucket / "fit").names()}
    module = tmp_path / "topic.safetensors"
    module.write_bytes((bucket / "fit" / "topic.safetensors").read_bytes() or b"")
    centra("task", "register", "topic", module)
    assert not [*home.glob("*-fit")]


def test_a_search_takes_its_data_from_a_bucket(home: Path, recipe: Path, s3_url: str) -> None:
    bucket = open_path(s3_url)
    assert isinstance(bucket, S3Path)
    for name in ("train.jsonl", "dev.jsonl"):
        (bucket / "data" / name).upload(recipe.parent / "topic-data" / name)
    what = ("--task", "topic", "--backbone", "tiny", "--data", (bucket / "data").url)
    how = ("--epochs", "1", "--min-layers", "1", "--max-layers", "1", "--jobs", "1")

    done = read("search", *what, *how)

    assert done["teacher"] == "topic-search/teacher.safetensors"
    assert read_spec(home / done["teacher"]).training["data"]


def test_a_tagging_fit_with_a_crf_and_a_terminal(
    home: Path, tiny_data: Callable[[str], Path], warm_python: Path
) -> None:
    text = RECIPE.replace('"topic"', '"places"').replace("epochs = 2", "epochs = 2\ncrf = true")
    (home / "places.toml").write_text(
        text.replace('"topic-data"', json.dumps(str(tiny_data("tagging"))))
    )
    found = read("fit", "places.toml", "--jobs", "1")
    assert found["chosen"]["metric"] == "entity_f1"
    module = home / found["module"]
    assert read_spec(module).head.crf
    card = (home / found["card"]).read_text()
    count = len(read_spec(module).labels)
    assert f"Takes single texts and gives spans, by {count} BIO tags with a CRF. " in card
    assert "crf true" in card
    centra("task", "register", "places", module)
    assert read("compose", "--release")["tasks"]["places"] == "1.0"
    (answer,) = answers("fly to new york", "--task", "places")
    assert answer["places"].keys() == {"spans"}

    # On a terminal, people see bars while it runs and a plot at the end.
    shown = on_a_terminal(warm_python, "-m", "cli", "fit", "places.toml", "--jobs", "1")
    assert re.search(r"students .*━.* \d/\d \d:\d\d:\d\d", shown)
    assert "best entity_f1" in shown
    assert "places: entity f1, in points" in shown
    assert "o teacher" in shown
    assert "x student" in shown
    assert shown.index("layers of its own") < shown.index("register it with:")


def on_a_terminal(*command: str | Path) -> str:
    """What a command shows to a person, without colours and movements of the cursor."""
    main, terminal = os.openpty()
    process = subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(main, 65536):
            shown += part
    except OSError:
        pass  # Linux's way to say that the other side has closed.
    os.close(main)
    assert process.wait() == 0, shown.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_task_begins_with_texts_and_a_list_of_labels(home: Path, recipe: Path) -> None:
    """A model of natural-language inference teaches; no row has a label."""
    data = recipe.parent / "topic-data"
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    shutil.rmtree(data)
    (recipe.parent / "topics.txt").write_text("".join(f"{row['text']}\n" for row in rows))
    changed(recipe, "topic-data", "topics.txt")
    teacher = support.make_checkpoint("bert", "AutoModelForSequenceClassification", home / "team")
    config = json.loads((teacher / "config.json").read_text())
    names = ("contradiction", "neutral", "entailment")
    config |= {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    (teacher / "config.json").write_text(json.dumps(config))
    how = ("--teacher", "team", "--labels", "alarm, music,weather", "--hypothesis", "It is {}.")

    result = centra("fit", recipe, *how, "--jobs", "1", "--json")

    found, told = json.loads(result.stdout), found_in(home / "topic-fit" / "card.md")
    assert {trial["metric"] for trial in found["trials"]} == {"agreement_accuracy"}
    by = found["taught_by"]
    assert (by["architecture"], by["hypothesis"]) == ("BertForSequenceClassification", "It is {}.")
    assert (by["labels"], by["texts"], by["labelled"]) == ([*names], len(rows), 0)
    assert f"teacher ({len(rows)}/{len(rows)})" in result.stderr
    assert f"digest {by['digest']}" in told
    assert "dev set, against its teacher's answers" in told
    assert "| agreement accuracy | state |" in told
    assert read_spec(home / found["module"]).labels == ("alarm", "music", "weather")
    assert read("task", "register", "topic", found["module"])["version"] == "1.0"
    again = centra("fit", recipe, *how, "--jobs", "1", "--json")
    assert again.stdout == result.stdout


def found_in(card: Path) -> str:
    """A card's text without what keeps Markdown's signs from being signs."""
    return card.read_text().replace("\\", "")


def test_what_is_said_of_a_teacher_is_refused_where_it_makes_no_sense(
    home: Path, recipe: Path
) -> None:
    says = "topic.toml: hypothesis: is for a teacher, and there is none"
    refused("fit", recipe, "--hypothesis", "It is {}.", code=2, says=says)
    refused("fit", recipe, "--labels", "a,b,b", code=1, says="'b' is there twice")
    refused("fit", recipe, "--teacher", "nobody", "--jobs", "1", code=3, says="nobody")
    teacher = support.make_checkpoint("bert", "AutoModelForSequenceClassification", home / "team")
    lists = (
        "the data has the labels alarm, music, weather; the teacher",
        "LABEL_0, LABEL_1, LABEL_2",
    )
    refused("fit", recipe, "--teacher", teacher, "--jobs", "1", code=5, says=lists)


# Plots


def trial(role: str, layers: int, score: float, *, pruned: bool = False) -> Trial:
    return Trial(
        role="teacher" if role == "teacher" else "student",
        frozen_layers=2,
        task_layers=layers,
        learning_rate=1e-4,
        seed=0,
        metric="macro_f1",
        score=score,
        epochs=3,
        pruned=pruned,
    )


TRIALS = [
    trial("teacher", 4, 80.0),
    trial("teacher", 6, 81.5),
    trial("teacher", 8, 70.0, pruned=True),
    trial("student", 1, 76.0),
    trial("student", 2, 79.0),
]


def test_a_terminal_plot_shows_every_trial_by_its_sign() -> None:
    text = draw("topic", TRIALS, TRIALS[4])
    assert "\x1b" not in text
    assert "topic: macro f1, in points" in text
    *plot, axis, ticks, label = text.rstrip().splitlines()
    assert ticks.split() == ["1", "2", "4", "6", "8"]
    assert "o teacher   - teacher, pruned   x student   # chosen" in label
    assert axis.count("┬") == 5
    canvas = "".join(line.partition("┤")[2] or line.partition("│")[2] for line in plot[2:])
    assert {sign: canvas.count(sign) for sign in "ox-#"} == {"o": 2, "x": 1, "-": 1, "#": 1}


def test_only_what_there_is_is_in_a_plot() -> None:
    text = draw("topic", TRIALS[:1], TRIALS[0])
    assert "student" not in text
    assert "pruned" not in text


def test_a_picture_is_the_same_for_the_same_trials(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, "topic", TRIALS, TRIALS[4])
    write_png(tmp_path / "c.png", "topic", TRIALS, TRIALS[3])
    assert is_png(tmp_path / "a.png")
    first, same, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == same != other


# Recipes that cannot be fitted


@pytest.mark.parametrize(
    ("before", "after", "code", "says"),
    [
        ("task =", "colour = 1\ntask =", 2, "colour: is unknown; expected task, backbone"),
        ("epochs = 2", "speed = 2", 2, "training.speed: is unknown; expected epochs"),
        (
            "epochs = 2",
            'epochs = "ten"',
            2,
            'training.epochs: expected a whole number, found "ten"',
        ),
        ("epochs = 2", "epochs = 0", 2, "training.epochs:"),
        ("epochs = 2", "dropout = nan", 2, "training.dropout:"),
        ("epochs = 2", 'metric = "f1"', 2, "no metric 'f1'; expected one of accuracy"),
        ("epochs = 2", "crf = true", 2, "crf: a classification task has no tags to chain"),
        ("epochs = 2", "max_length = 3", 2, "max_length must be 0 or at least 8"),
        (
            "layers = [2, 3]",
            "layers = [5, 2]",
            2,
            "search: layers: expected [fewest, most], found [5, 2]",
        ),
        ("layers = [2, 3]", "layers = [2, 4]", 2, "layers: 4 cannot be fine-tuned; the backbone"),
        ("layers = [2, 3]", "layers = [0, 2]", 2, "search.layers[0]:"),
        ("layers = [2, 3]", "layers = 2", 2, "search.layers:"),
        ("layers = [2, 3]", "layers = []", 2, "search.layers: expected 2 items, found []"),
        ("[3e-3]", "[-1]", 2, "search.learning_rates[0]:"),
        ("[3e-3]", "[inf]", 2, "search.learning_rates[0]:"),
        ("[3e-3]", "[]", 2, "search.learning_rates:"),
        ("[search]\nlayers = [2, 3]\nlearning_rates = [3e-3]", "", 2, "search: is missing"),
        ("[1, 2, 3]", "[]", 2, "distill.layers:"),
        ("[1, 2, 3]", "[1]\ntemperature = 0", 2, "distill.temperature:"),
        ("[1, 2, 3]", "[1]\nweight = 1.5", 2, "distill.weight:"),
        ("[1, 2, 3]", '[1]\nstart = "end"', 2, "distill.start:"),
        ("threshold = 1000", "threshold = -1", 2, "select.threshold:"),
        ("threshold = 1000", "threshold = inf", 2, "select.threshold:"),
        ("task =", 'report_to = ["paper"]\ntask =', 2, "report_to[0]:"),
        ('"topic"', '"../topic"', 2, "task: '../topic' is not a valid task name"),
        ('"topic"', '"teacher"', 2, "task: teacher.safetensors is the teacher's file"),
        ('"tiny"', '"nope"', 3, "backbone: there is no backbone 'nope'"),
        ('"tiny"', '"tiny@9"', 3, "backbone: there is no backbone 'tiny@9'"),
        ("[search]", "[search", 2, "not a TOML file"),
        ("[search]", "[task]", 2, "not a TOML file"),
    ],
)
def test_a_bad_recipe_is_named_with_its_field_and_nothing_is_written(
    home: Path, recipe: Path, before: str, after: str, code: int, says: str
) -> None:
    held = state(home)
    changed(recipe, before, after)
    message = refused("fit", recipe, "--jobs", "1", code=code, says=says)
    assert message.startswith(f"{recipe}: ")
    assert state(home) == held


def test_a_recipe_s_data_are_named_where_they_are_looked_for(home: Path, recipe: Path) -> None:
    held = state(home)
    changed(recipe, '"topic-data"', '"nothing"')
    says = f"{recipe.parent / 'nothing' / 'train.jsonl'}: no such file"
    refused("fit", recipe, "--jobs", "1", code=1, says=says)
    recipe.write_bytes(b"task = '\xff'")
    refused("fit", recipe, code=2, says=f"{recipe}: not a TOML file")
    recipe.unlink()
    refused("fit", recipe, code=2, says=f"{recipe}: cannot be read")
    assert state(home) == held


def test_a_folder_that_cannot_be_made_is_told(home: Path, recipe: Path) -> None:
    (home / "file").touch()
    refused("fit", recipe, "--output", "file", code=2, says="is a file")
    says = f"cannot write {home / 'file' / 'out'}"
    refused("fit", recipe, "--jobs", "1", "--output", "file/out", code=4, says=says)
