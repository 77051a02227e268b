"""A further kind of task is one file, and everything takes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from centra import distill, finetune
from centra.data.inputs import read_examples
from centra.errors import FormatError, UsageError
from centra.formats.task_module import check_module, read_spec
from centra.kinds import KINDS, kind_named
from cli import card as cards_as_text
from cli.drawing import svg
from cli.picture import picture
from registry import cards, evaluations, graphs, releases, tasks
from registry.releases import compose
from tests import support
from tests.toy_kind import Rating

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry import Registry

SCALE = ("poor", "fair", "good")
LEARNING: dict[str, Any] = {"epochs": 6, "learning_rate": 3e-3, "batch_size": 8}


@pytest.fixture
def _rating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "rating", Rating())


@pytest.fixture
def ratings(tiny_data: Callable[[str], Path], tmp_path: Path) -> Path:
    """Texts of three topics, each of which has a place on the scale."""
    places = dict(zip(("alarm", "music", "weather"), SCALE, strict=True))
    for name in ("train.jsonl", "dev.jsonl"):
        rows = map(json.loads, (tiny_data("single") / name).read_text().splitlines())
        rated = [row | {"label": places[row["label"]]} for row in rows]
        support.write_jsonl(tmp_path / "ratings" / name, rated)
    return tmp_path / "ratings"


@pytest.fixture
def teacher(_rating: None, ratings: Path, tiny_backbone: support.Backbone, tmp_path: Path) -> Path:
    """Fine-tuned: one layer above tap 1."""
    return finetune(
        tiny_backbone.folder,
        ratings,
        output=tmp_path / "teacher.safetensors",
        tap=1,
        depth=1,
        kind="rating",
        labels=SCALE,
        **LEARNING,
    ).path


# What runs on a database at all runs on both kinds of it.
@pytest.mark.parametrize("databases", ["sqlite"], indirect=True, scope="session")
def test_a_further_kind_is_trained_distilled_registered_composed_and_served(
    teacher: Path,
    ratings: Path,
    tiny_backbone: support.Backbone,
    registry: Registry,
    tmp_path: Path,
) -> None:
    spec = read_spec(teacher)
    assert (spec.kind, spec.labels, spec.outputs) == ("rating", SCALE, 1)
    assert spec.metrics["closeness"] > 0.7

    student = distill(
        tiny_backbone.folder,
        ratings,
        teacher=teacher,
        layers=0,
        output=tmp_path / "student.safetensors",
        kind="rating",
        labels=SCALE,
        **LEARNING,
    )
    assert (student.spec.kind, student.spec.depth) == ("rating", 0)

    tasks.register(registry, "stars", teacher)
    compose(registry, publish=True)
    examples = read_examples(ratings / "dev.jsonl")
    inputs = [example.input for example in examples]
    fast, reference = (
        [answer["stars"] for answer in releases.load(registry, "1", engine=engine).predict(inputs)]
        for engine in ("onnx", "torch")
    )
    assert fast[0].keys() == {"label", "value"}
    assert kind_named("rating").answer_text(fast[0])[0] == fast[0]["label"]
    assert [answer["label"] for answer in fast] == [answer["label"] for answer in reference]
    assert [answer["value"] for answer in fast] == pytest.approx(
        [answer["value"] for answer in reference], abs=1e-4
    )

    measured, _ = evaluations.evaluate(registry, "1", "stars", ratings)
    expected = kind_named("rating").score(SCALE, fast, examples)
    assert measured.metrics == {name: round(value, 6) for name, value in expected.items()}

    plan = compose(registry, precision="int8", data={"stars": ratings}, publish=True)
    (compared,) = plan.int8
    assert compared.dev is not None
    assert (compared.dev.metric, compared.dev.examples) == ("closeness", len(examples))

    card = cards.show(registry, "stars")
    for text in (cards_as_text.text(card), cards_as_text.markdown(card)):
        assert "a rating on a scale of 3" in text
    graph = graphs.build(releases.show(registry, "1"))
    assert "rating, 3 labels" in picture(graph)
    assert Rating.color in svg(graph)


@pytest.mark.usefixtures("_rating")
def test_a_module_of_a_further_kind_is_checked_by_its_kind(
    make_module: Callable[..., object], tmp_path: Path
) -> None:
    module = make_module("rating", labels=("only",))
    module.write(tmp_path / "one.safetensors")  # type: ignore[attr-defined]

    with pytest.raises(FormatError, match="a rating task with 1 labels; expected at least 2"):
        check_module(tmp_path / "one.safetensors")


def test_where_a_kind_is_unknown_those_that_are_known_are_named(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(KINDS, "rating")

    with pytest.raises(FormatError, match="kind: expected one of 'classification', 'multi"):
        check_module(teacher)
    with pytest.raises(UsageError, match=r"no kind 'taging'.*\(perhaps 'tagging'\)") as fault:
        kind_named("taging")
    assert fault.value.code == "unknown-kind"
    assert fault.value.data == {"kind": "taging", "known": [*KINDS]}
