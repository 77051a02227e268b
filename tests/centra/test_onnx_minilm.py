"""The onnx engine on real weights: trained modules on MiniLM, held against the reference and apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from centra.formats.task_module import TaskModule
from centra.runtime import Release
from centra.store import LocalStore
from centra.training.recipe import Recipe
from centra.training.train import train_module
from tests import support

if TYPE_CHECKING:
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest

# The demo's tasks at the demo's taps, on a few rows and for one epoch each.
RECIPES = {
    "intent": Recipe(tap=4, depth=2, epochs=1, learning_rate=5e-4),
    "slots": Recipe(tap=3, depth=2, epochs=1, learning_rate=5e-4),
    "emotion": Recipe(tap=5, depth=1, epochs=1, learning_rate=5e-4),
    "small": Recipe(tap=4, depth=1, epochs=1, learning_rate=5e-4, seed=1),
}
CORPUS = {"small": "intent"}
ROWS = 96


@pytest.fixture(scope="module")
def modules(
    minilm: support.Backbone, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TaskModule]:
    work = tmp_path_factory.mktemp("trained")
    return {name: _train(name, recipe, minilm, work) for name, recipe in RECIPES.items()}


@pytest.fixture(scope="module")
def store(minilm: support.Backbone, tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    made = LocalStore(tmp_path_factory.mktemp("store"))
    support.copy_backbone(minilm, made)
    return made


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Dev rows of every task: of many lengths, and more than one batch."""
    return [row["text"] for task in ("intent", "emotion") for row in _rows(task, "dev")[::7]] + [
        " ".join(row["tokens"]) for row in _rows("slots", "dev")[::7]
    ]


def _rows(task: str, part: str) -> list[dict[str, Any]]:
    lines = (support.ROOT / "examples" / "assistant" / task / f"{part}.jsonl").read_text()
    return [json.loads(line) for line in lines.splitlines()]


def _train(name: str, recipe: Recipe, minilm: support.Backbone, work: Path) -> TaskModule:
    corpus = CORPUS.get(name, name)
    for part in ("train", "dev"):
        rows = _rows(corpus, part)
        support.write_jsonl(work / name / f"{part}.jsonl", rows if part == "train" else rows[:48])
    rows = _rows(corpus, "train")
    support.write_jsonl(work / name / "train.jsonl", rows[:: len(rows) // ROWS])
    return train_module(minilm.spec, minilm.store, work / name, recipe, work=work / f"{name}.work")


def released(
    modules: dict[str, TaskModule],
    minilm: support.Backbone,
    store: LocalStore,
    precision: str = "fp32",
) -> ReleaseManifest:
    int8 = list(modules) if precision == "int8" else []
    return support.put_release(modules, [minilm.spec], store, int8)


def assert_same_bits(ours: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> None:
    assert ours.keys() == theirs.keys()
    for name, arrays in ours.items():
        for own, other in zip(arrays, theirs[name], strict=True):
            assert own.tobytes() == other.tobytes(), name


def test_answers_are_the_reference_s(
    modules: dict[str, TaskModule], minilm: support.Backbone, store: LocalStore, texts: list[str]
) -> None:
    manifest = released(modules, minilm, store)
    ours, reference = (
        Release.load(manifest, store, engine=name, device="cpu") for name in ("onnx", "torch")
    )

    own, theirs = ours.logits(texts), reference.logits(texts)

    for name in modules:
        difference = max(np.abs(a - b).max() for a, b in zip(own[name], theirs[name], strict=True))
        assert 0 < difference < 2e-5, name
    for answer, other in zip(ours.predict(texts), reference.predict(texts), strict=True):
        assert answer["intent"]["label"] == other["intent"]["label"]
        assert answer["intent"]["score"] == pytest.approx(other["intent"]["score"], abs=1e-5)
        assert [span["words"] for span in answer["slots"]["spans"]] == [
            span["words"] for span in other["slots"]["spans"]
        ]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
def test_tasks_stay_apart_to_the_bit(
    threads: int,
    precision: str,
    modules: dict[str, TaskModule],
    minilm: support.Backbone,
    store: LocalStore,
    texts: list[str],
) -> None:
    def load(modules: dict[str, TaskModule]) -> Release:
        manifest = released(modules, minilm, store, precision)
        return Release.load(manifest, store, engine="onnx", threads=threads)

    before = load(modules).logits(texts)

    for name, module in modules.items():
        assert_same_bits(load({name: module}).logits(texts), {name: before[name]})
    # intent becomes another module, emotion goes, and another task comes.
    changed = {"intent": modules["small"], "slots": modules["slots"], "new": modules["emotion"]}
    after = load(changed).logits(texts)
    assert_same_bits({"slots": after["slots"]}, {"slots": before["slots"]})
    assert_same_bits({"emotion": after["new"]}, {"emotion": before["emotion"]})
    assert_same_bits({"small": after["intent"]}, {"small": before["small"]})


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
def test_inputs_stay_apart_to_the_bit(
    threads: int,
    precision: str,
    modules: dict[str, TaskModule],
    minilm: support.Backbone,
    store: LocalStore,
    texts: list[str],
) -> None:
    manifest = released(modules, minilm, store, precision)
    release = Release.load(manifest, store, engine="onnx", threads=threads)
    together = release.logits(texts)

    for size in (1, 2, 3, 8):
        for start in range(0, len(texts), 3 * size):
            part = slice(start, start + size)
            found = release.logits(texts[part][::-1])
            expected = {name: arrays[part][::-1] for name, arrays in together.items()}
            assert_same_bits(found, expected)
