"""Settings: what ``centra fit`` reads from a file, and what is refused before anything is trained."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centra.errors import DataError, UsageError
from centra.training import recipe as settings
from centra.training.plan import Plan
from centra.training.recipe import REPORTERS, Distillation, Recipe, check_reporters
from tests.support import imported_by

if TYPE_CHECKING:
    from pathlib import Path

SHORTEST = """
task = "intent"
backbone = "minilm"
data = "data/intent"
[search]
layers = [2, 5]
"""
WHOLE = """
task = "slots"
backbone = "minilm@2"
data = "/data/slots"
teacher = "models/slots"
hypothesis = "It is {}."
report_to = ["tensorboard", "mlflow"]
kind = "tagging"
labels = "tags.txt"
tags = "iob1"
words = "spaces"
thresholds = "thresholds.toml"

[search]
layers = [1, 4]
learning_rates = [1e-5, 2]
seeds = [0, 4294967295]

[training]
epochs = 7
batch_size = 16
warmup = 0.0
weight_decay = 1.0
dropout = 0.2
patience = 2
metric = "entity_f1"
max_length = 48
crf = true
pooling = "mean"
template = "query: {text}"

[distill]
layers = [3, 1]
temperature = 4.0
weight = 0.9
start = "backbone"
learning_rates = [3e-5]
seeds = [1, 2]

[select]
threshold = 0.0
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "task.toml"


def read(path: Path, text: str) -> Plan:
    path.write_text(text, encoding="utf-8")
    return Plan.read(path)


# Read


def test_shortest_recipe_has_the_documented_defaults(path: Path) -> None:
    plan = read(path, SHORTEST)

    assert (plan.task, plan.backbone, plan.report_to) == ("intent", "minilm", ())
    assert plan.data == "data/intent", "as written: whoever runs it knows where the recipe lies"
    assert plan.search.layers == (2, 5)
    assert plan.search.learning_rates == (1e-4, 3e-4)
    assert plan.search.seeds == (0,)
    assert plan.distill.layers == (1, 2, 3)
    assert plan.distill.learning_rates is None
    assert plan.distill.seeds is None
    assert plan.select.threshold == 1.0


def test_defaults_are_those_of_training_and_distilling_without_a_file(path: Path) -> None:
    plan = read(path, SHORTEST)

    assert plan.recipe == Recipe(tap=0, depth=0)
    assert plan.distillation == Distillation()


def test_every_setting_reaches_its_run(path: Path) -> None:
    plan = read(path, WHOLE)

    assert plan.recipe == Recipe(
        tap=0,
        depth=0,
        epochs=7,
        batch_size=16,
        warmup=0.0,
        weight_decay=1.0,
        dropout=0.2,
        patience=2,
        metric="entity_f1",
        max_length=48,
        crf=True,
        pooling="mean",
        template="query: {text}",
    )
    changed = {
        field.name
        for field in fields(Recipe)
        if getattr(plan.recipe, field.name) != getattr(Recipe(tap=0, depth=0), field.name)
    }
    own = {"tap", "depth", "learning_rate", "seed"}
    assert changed == {field.name for field in fields(Recipe)} - own, "no default hides a slip"
    assert plan.distillation == Distillation(temperature=4.0, weight=0.9, start="backbone")
    assert plan.search.seeds == (0, 2**32 - 1)
    assert plan.search.learning_rates == (1e-5, 2.0)
    assert plan.distill.layers == (3, 1)
    assert plan.distill.learning_rates == (3e-5,)
    assert plan.distill.seeds == (1, 2)
    assert plan.select.threshold == 0.0
    assert plan.report_to == ("tensorboard", "mlflow")


@given(
    epochs=st.integers(1, 1000),
    batch_size=st.integers(1, 4096),
    patience=st.integers(1, 99),
    shares=st.tuples(*[st.floats(0, 1)] * 3),
    crf=st.booleans(),
    temperature=st.floats(0, 1e6, exclude_min=True, allow_subnormal=False),
    weight=st.floats(0, 1),
)
def test_settings_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    epochs: int,
    batch_size: int,
    patience: int,
    shares: tuple[float, float, float],
    crf: bool,
    temperature: float,
    weight: float,
) -> None:
    names = ("warmup", "weight_decay", "dropout")
    training = dict(zip(names, shares, strict=True)) | {
        "epochs": epochs,
        "batch_size": batch_size,
        "patience": patience,
    }
    distill = {"temperature": temperature, "weight": weight}
    lines = [SHORTEST, "[training]", f"crf = {str(crf).lower()}"]
    lines += [f"{name} = {value!r}" for name, value in training.items()]
    lines += ["[distill]", *(f"{name} = {value!r}" for name, value in distill.items())]

    plan = read(tmp_path_factory.getbasetemp() / "round.toml", "\n".join(lines))

    assert plan.recipe == Recipe(tap=0, depth=0, crf=crf, **training)
    assert plan.distillation == Distillation(**distill)


def test_labels_are_a_file_or_a_list(path: Path) -> None:
    (path.parent / "labels.txt").write_text("b\na\n")
    for written in ('"labels.txt"', '["b", "a"]'):
        text = with_setting("labels", written).replace('thresholds = "thresholds.toml"', "")
        assert read(path, text).labelling(path.parent).labels == ("b", "a")
    twice = read(path, with_setting("labels", '["a", "a"]'))
    with pytest.raises(DataError, match="labels: label 2: label 'a' is there twice"):
        twice.labelling(path.parent)


def test_a_teacher_is_a_folder_beside_the_recipe_or_a_name(path: Path) -> None:
    plan = read(path, WHOLE)
    assert plan.teacher_source(path.parent) == "models/slots"
    (path.parent / "models" / "slots").mkdir(parents=True)
    assert plan.teacher_source(path.parent) == str(path.parent / "models" / "slots")
    assert read(path, SHORTEST).teacher_source(path.parent) is None


# Refused

BAD = {
    "kind": ['"class"', "7"],
    "labels": ["7", "[1]", "[[]]"],
    "teacher": ["7", "{}"],
    "hypothesis": ["7", "true"],
    "tags": ['"iob"', "true"],
    "words": ['"word"', "7"],
    "thresholds": ["7", "0.5", "{}"],
    "task": ["7", "[]"],
    "backbone": ["7", "true"],
    "data": ["7", "{}"],
    "report_to": ['["paper"]', '"tensorboard"', "7"],
    "search.layers": ["[0, 3]", "[2]", "[2, 3, 4]", "[4, 2]", "2", '["a", "b"]', "[1.5, 2]"],
    "search.learning_rates": ["[]", "[0.0]", "[-1e-4]", "[inf]", "[nan]", '["a"]', "1e-4"],
    "search.seeds": ["[]", "[-1]", "[4294967296]", "[0.5]", "0"],
    "training.epochs": ["0", "-1", "1.5", '"many"', '"3"', "true", "3.0", "2026-01-01"],
    "training.batch_size": ["0", "2.5"],
    "training.warmup": ["-0.1", "1.1", "nan"],
    "training.weight_decay": ["-0.1", "1.1", "inf"],
    "training.dropout": ["-0.1", "1.1", '"a"'],
    "training.patience": ["0"],
    "training.metric": ["7"],
    "training.max_length": ["-1", "1.5"],
    "training.pooling": ['"middle"', "1"],
    "training.template": ["7", "true", '"query: "', '["{text}"]', '["{text}", "a"]'],
    "training.crf": ['"perhaps"', "7", "1", '"yes"'],
    "distill.layers": ["[]", "[0]", "2", "[1.5]"],
    "distill.temperature": ["0.0", "-1.0", "inf", "nan"],
    "distill.weight": ["-0.1", "1.1", "nan"],
    "distill.start": ['"nowhere"', "7"],
    "distill.learning_rates": ["[]", "[0.0]", "[inf]"],
    "distill.seeds": ["[]", "[-1]"],
    "select.threshold": ["-0.1", "nan", "inf", '"a"'],
}


def with_setting(name: str, value: str) -> str:
    """The whole recipe with one setting changed."""
    section, _, setting = name.rpartition(".")
    lines, inside = [], ""
    for line in WHOLE.splitlines():
        if line.startswith("["):
            inside = line.strip("[]")
        ours = inside == section and line.partition(" =")[0] == setting
        lines.append(f"{setting} = {value}" if ours else line)
    return "\n".join(lines)


def test_every_setting_has_a_bad_value_below() -> None:
    names = set()
    for name, field in Plan.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        names |= {name} if inner is None else {f"{name}.{setting}" for setting in inner}

    assert names == BAD.keys()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_bad_value_is_refused_with_file_and_setting(name: str, value: str, path: Path) -> None:
    text = with_setting(name, value)
    assert text != WHOLE
    with pytest.raises(UsageError) as refused:
        read(path, text)

    # What spans the two numbers of a range is named by its section and in the text.
    section, _, setting = name.rpartition(".")
    assert str(refused.value).startswith(f"{path}: {section or setting}")
    assert setting in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "training.template",
            "7",
            "training.template: expected a text in quotes or a list, found 7",
        ),
        (
            "training.template",
            '["{text}"]',
            'training.template: expected 2 items, found ["{text}"]',
        ),
        ("labels", '["a", 7]', "labels[1]: expected a text in quotes, found 7"),
    ],
)
def test_what_may_be_of_several_types_is_named_once(
    name: str, value: str, told: str, path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        read(path, with_setting(name, value))

    assert str(refused.value) == f"{path}: {told}"


@pytest.mark.parametrize("name", ["task", "backbone", "data", "search", "search.layers"])
def test_missing_setting_is_named(name: str, path: Path) -> None:
    setting = name.rpartition(".")[2]
    lines = [line for line in SHORTEST.splitlines() if not line.startswith(f"{setting} ")]
    if name == "search":
        lines = lines[: lines.index("[search]")]

    with pytest.raises(UsageError, match=rf"task\.toml: {name}: is missing"):
        read(path, "\n".join(lines))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[training]\nepoch = 3", r"training\.epoch: is unknown; did you mean epochs"),
        ("[train]\nepochs = 3", r"train: is unknown; did you mean training"),
        ("[training]\ntap = 3", r"training\.tap: is unknown; expected epochs, batch_size"),
        (
            "[training]\nseed = 3",
            r"training\.seed: is unknown here; did you mean search\.seeds or distill\.seeds",
        ),
    ],
)
def test_unknown_setting_is_named(text: str, match: str, path: Path) -> None:
    with pytest.raises(UsageError, match=rf"task\.toml: {match}"):
        read(path, SHORTEST + text)


def test_all_that_is_wrong_is_said_at_once(path: Path) -> None:
    text = SHORTEST + "[training]\nepochs = 0\n[distill]\nweight = 2.0"

    with pytest.raises(UsageError, match=r"training\.epochs: .*; distill\.weight: "):
        read(path, text)


@pytest.mark.parametrize("text", ["task = ", "task", "[search", "a = 1\na = 2"])
def test_file_that_is_not_toml_is_refused(text: str, path: Path) -> None:
    with pytest.raises(UsageError, match=r"task\.toml: not a TOML file"):
        read(path, text)


def test_file_that_is_not_text_is_refused(path: Path) -> None:
    path.write_bytes(b"task = '\xff'")

    with pytest.raises(UsageError, match=r"task\.toml: not a TOML file"):
        Plan.read(path)


def test_file_that_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match=r"task\.toml: cannot be read \(No such file"):
        Plan.read(path)


def test_empty_file_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="task: is missing"):
        read(path, "")


# Without a file


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"weight": -0.1},
        {"weight": 1.1},
        {"weight": float("nan")},
    ],
    ids=str,
)
def test_distillation_that_cannot_be_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        replace(Distillation(), **change).check()


@pytest.mark.parametrize("change", [{"temperature": 1e-3}, {"weight": 0.0}, {"weight": 1.0}])
def test_distillation_at_its_limits_is_taken(change: dict[str, Any]) -> None:
    distillation = replace(Distillation(), **change)

    distillation.check()

    assert asdict(distillation) == asdict(Distillation()) | change


@pytest.mark.parametrize("name", ["paper", "", "TensorBoard", "all"])
def test_unknown_reporter_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=rf"report_to: '{name}' is none of tensorboard, mlflow"):
        check_reporters(["tensorboard", name])


@pytest.mark.parametrize("name", REPORTERS)
def test_reporter_that_is_not_installed_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda asked: None if asked == name else object())
    check_reporters([other for other in REPORTERS if other != name])

    with pytest.raises(UsageError, match=rf"{name} is not installed; pip install {name}"):
        check_reporters(REPORTERS)


def test_reading_a_recipe_needs_no_heavy_library() -> None:
    found = imported_by("import centra.training.plan, centra.training.recipe")

    assert not found & {"torch", "transformers", "sklearn", "ray"}
