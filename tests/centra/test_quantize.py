"""Which tasks may answer in int8: by their probes, or by data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from centra.data.inputs import Example, Input
from centra.errors import DataError, UsageError
from centra.formats.task_module import HeadSpec
from centra.releases.evaluation import measure
from centra.releases.int8 import compare_int8
from centra.runtime import Release
from tests import support

if TYPE_CHECKING:
    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore

TEXTS = [f"{opening} {text}" for opening in ("please", "now") for text in ("rain", "play", "go")]


@pytest.fixture
def modules(tiny_backbone: support.Backbone) -> dict[str, TaskModule]:
    spec, store = tiny_backbone.spec, tiny_backbone.store
    kinds: tuple[Any, ...] = ("classification", "multilabel", "tagging")
    made = {kind: support.make_module(kind, spec, store, tap=2) for kind in kinds}
    return made | {"fragile": support.make_module("classification", spec, store, fragile=True)}


@pytest.fixture
def manifest(
    modules: dict[str, TaskModule], tiny_backbone: support.Backbone, backbone_store: LocalStore
) -> ReleaseManifest:
    return support.put_release(modules, [tiny_backbone.spec], backbone_store)


def labelled(manifest: ReleaseManifest, store: LocalStore, task: str) -> list[Example]:
    """Texts with what the task says of them in fp32, but for the last."""
    release = Release.load(manifest, store, tasks=[task], engine="onnx")
    found = [answer[task]["label"] for answer in release.predict(TEXTS)]
    found[-1] = next(label for label in manifest.tasks[task].labels if label != found[-1])
    return [Example(Input(text), label, "x") for text, label in zip(TEXTS, found, strict=True)]


def test_tasks_whose_answers_stay_go_to_int8_and_others_do_not(
    manifest: ReleaseManifest, backbone_store: LocalStore
) -> None:
    found = compare_int8(manifest, backbone_store, ["tagging", "fragile", "multilabel"], {})

    fragile, *others = found
    assert [one.task for one in found] == ["fragile", "multilabel", "tagging"]
    assert fragile.agreement < 0.5
    assert fragile.difference > 0.3
    assert str(fragile.refused).startswith("on its probe 33.3% of the answers are those in fp32")
    for one in others:
        assert (one.agreement, one.dev, one.refused) == (1.0, None, None)
        assert 0 < one.difference < 0.05


def test_numbers_agree_that_differ_by_little_of_their_span(
    tiny_backbone: support.Backbone, backbone_store: LocalStore
) -> None:
    spec, store = tiny_backbone.spec, tiny_backbone.store
    modules = {
        "wide": support.make_module("regression", spec, store, seed=3),
        "narrow": support.make_module("regression", spec, store, fragile=True),
    }
    manifest = support.put_release(modules, [spec], backbone_store)

    narrow, wide = compare_int8(manifest, backbone_store, list(modules), {})

    assert (narrow.agreement, wide.agreement) == (0.0, 1.0)


def test_data_decides_where_there_is_some(
    manifest: ReleaseManifest, backbone_store: LocalStore
) -> None:
    data = {"fragile": labelled(manifest, backbone_store, "fragile")}
    (one,) = compare_int8(manifest, backbone_store, ["fragile"], data)

    int8 = manifest.with_precisions({"fragile": "int8"})
    measured = [
        measure(Release.load(m, backbone_store, engine="onnx"), "fragile", data["fragile"])
        for m in (manifest, int8)
    ]
    assert one.dev is not None
    assert (one.dev.examples, one.dev.metric) == (6, "accuracy")
    assert [one.dev.fp32, one.dev.int8] == [round(m.metrics["accuracy"], 6) for m in measured]
    assert one.dev.fp32 == round(5 / 6, 6)
    assert one.dev.loss == pytest.approx(100 * (one.dev.fp32 - one.dev.int8), abs=1e-3)
    assert one.dev.agreement < 1
    assert one.refused == f"accuracy falls by {one.dev.loss:.2f} points, and 1 are allowed"

    (lenient,) = compare_int8(manifest, backbone_store, ["fragile"], data, max_loss=100)

    assert lenient.dev == one.dev
    assert lenient.refused is None


def test_tags_agree_word_by_word(manifest: ReleaseManifest, backbone_store: LocalStore) -> None:
    example = Example(Input("fly to rome", tokens=("fly", "to", "rome")), ("O", "O", "B-city"), "x")

    (one,) = compare_int8(manifest, backbone_store, ["tagging"], {"tagging": [example]})

    assert one.dev is not None
    assert (one.dev.examples, one.dev.metric, one.dev.agreement) == (1, "entity_f1", 1.0)


def test_a_head_with_tags_of_its_own_is_compared_by_its_answers(
    tiny_backbone: support.Backbone, backbone_store: LocalStore
) -> None:
    spec, store = tiny_backbone.spec, tiny_backbone.store
    head = HeadSpec(tags=("O", "B-city", "E-city", "S-city"))
    module = support.make_module("tagging", spec, store, head=head)
    manifest = support.put_release({"cities": module}, [spec], backbone_store)
    example = Example(Input("fly to rome", tokens=("fly", "to", "rome")), ("O", "O", "B-city"), "x")

    for data in ({}, {"cities": [example]}):
        (one,) = compare_int8(manifest, backbone_store, ["cities"], data)
        assert (one.agreement, one.refused) == (1.0, None)


def test_comparing_nothing_costs_nothing(
    manifest: ReleaseManifest, backbone_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert compare_int8(manifest, backbone_store, [], {}) == []


def test_without_the_engine_it_says_what_to_install(
    manifest: ReleaseManifest, backbone_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(UsageError, match=r"pip install 'centra\[serve\]'"):
        compare_int8(manifest, backbone_store, ["tagging"], {})


def test_data_of_another_kind_is_refused(
    manifest: ReleaseManifest, backbone_store: LocalStore
) -> None:
    data = {"tagging": [Example(Input("fly to rome"), "alarm", "dev.jsonl:1")]}

    with pytest.raises(DataError, match=r"dev\.jsonl:1"):
        compare_int8(manifest, backbone_store, ["tagging"], data)
