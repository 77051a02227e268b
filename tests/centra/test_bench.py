"""Benching a release: what it takes, the floor, texts of a length, and the times that are kept."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from centra.bench import Floor, Work, bench, measure_floor, release_work
from centra.bench.requests import make_input
from centra.bench.singles import single_models
from centra.errors import NotFoundError, UsageError
from centra.families import family_named
from centra.formats.backbone import BackboneSpec
from centra.formats.manifest import TaskEntry
from centra.runtime import Release
from centra.runtime.engines import ENGINES
from centra.tokenization.text_encoder import TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore

HIDDEN, INNER, HEADS = 8, 16, 2
# A layer of a BERT: four projections of 8 x 8, 8 x 16 and back, their biases, and two norms.
LINEAR = 4 * 8 * 8 + 8 * 16 + 16 * 8  # 512
LAYER = LINEAR + 4 * 8 + 16 + 8 + 4 * 8  # 600
BATCH, LENGTH = 3, 5


def backbone(**config: int) -> BackboneSpec:
    electra = "embedding_size" in config
    settings = {
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 16,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 3,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": 30,
        **config,
    }
    family = family_named("electra" if electra else "bert")
    return BackboneSpec(
        family=family.model_type,
        config=settings,
        num_layers=3,
        hidden_size=HIDDEN,
        max_length=16,
        pad_token_id=0,
        token_types=True,
        embeddings="e" * 64,
        layers=("1" * 64, "2" * 64, "3" * 64),
        layer_tensors=family.layer(settings, 1).shapes,
        tokenizer={"tokenizer.json": "0" * 64},
    )


def entry(kind: str, tap: int, depth: int, labels: int, on: BackboneSpec) -> TaskEntry:
    return TaskEntry(
        digest="a" * 64,
        backbone=on.digest,
        kind=kind,
        input="single",
        labels=tuple(f"label {i}" for i in range(labels)),
        tap_layer=tap,
        depth=depth,
    )


def work(*entries: TaskEntry, on: BackboneSpec) -> list[Work]:
    tasks = {f"task-{i}": one for i, one in enumerate(entries)}
    return release_work(tasks, {on.digest: on}, batch=BATCH, length=LENGTH)


FULL = Work(flops=2 * 15 * LINEAR + 4 * 3 * 25 * 8, bytes=4 * LAYER)
FIRST = Work(flops=2 * 3 * LINEAR + 4 * 3 * HEADS * 5 * 8, bytes=4 * LAYER)
EMBEDDINGS = Work(flops=0, bytes=4 * 15 * 8)


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed runs once a round: any figures will do."""
    monkeypatch.setattr("centra.bench.timing._SECONDS", 0)


def test_a_release_takes_its_embeddings_its_layers_up_to_the_deepest_tap_and_its_branches() -> None:
    on = backbone()
    found = work(
        entry("classification", 2, 2, 7, on),
        entry("tagging", 1, 2, 5, on),
        entry("regression", 0, 0, 0, on),
        on=on,
    )
    dense = Work(flops=2 * 3 * 8 * 8, bytes=4 * 72)
    assert found == [
        EMBEDDINGS,
        FULL,
        FULL,
        FULL + FIRST + dense + Work(flops=2 * 3 * 8 * 7, bytes=4 * 9 * 7),
        FULL + FULL + Work(flops=2 * 15 * 8 * 5, bytes=4 * 9 * 5),
        dense + Work(flops=2 * 3 * 8, bytes=4 * 9),
    ]


def test_a_pooled_task_takes_its_last_layer_in_full() -> None:
    on = backbone()
    tasks = {"mean": entry("regression", 0, 1, 0, on)}
    *_, found = release_work(tasks, {on.digest: on}, batch=BATCH, length=LENGTH, pooled=["mean"])
    assert found == FULL + Work(flops=2 * 3 * 8 * 9, bytes=4 * (72 + 9))


def test_narrow_embeddings_are_projected() -> None:
    on = backbone(embedding_size=4)
    first, *_ = work(entry("regression", 0, 0, 0, on), on=on)
    assert first == Work(flops=2 * 15 * 4 * 8, bytes=4 * (15 * 4 + 4 * 8))


def test_the_floor_is_the_longer_of_computing_and_reading_unit_by_unit() -> None:
    floor = Floor(flops=100.0, bandwidth=10.0)
    works = [Work(flops=200, bytes=10), Work(flops=50, bytes=40), Work(flops=0, bytes=5)]
    assert floor.seconds(works) == pytest.approx(2 + 4 + 0.5)
    assert floor.seconds([]) == 0


def test_the_fastest_of_each_kind_sets_the_floor() -> None:
    times = {"reading": [2.0, 0.5], "onnx product": [3.0, 2.0], "numpy product": [1.0, 4.0]}
    assert Floor.of(times) == Floor(flops=2 * 1024**3, bandwidth=2**29)


def test_the_limits_of_this_machine_are_those_of_some_machine() -> None:
    floor = measure_floor(1)
    assert 1e8 < floor.flops < 1e14
    assert 1e7 < floor.bandwidth < 1e13


# Inputs of a length


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize("family", support.FAMILIES)
def test_an_input_has_exactly_the_tokens_that_were_asked_for(
    imported: Callable[[str], support.Backbone], family: str, pair: bool
) -> None:
    backbone = imported(family)
    encoder = TextEncoder.of(backbone.spec, backbone.store)
    for length in (8, 9, 31, backbone.spec.max_length):
        item = make_input([encoder], length, pair=pair)
        (row,) = encoder.encode([item])
        assert len(row.input_ids) == length
        assert (item.text_pair is not None) == pair


def test_a_length_below_that_of_one_word_is_refused(tiny_backbone: support.Backbone) -> None:
    encoder = TextEncoder.of(tiny_backbone.spec, tiny_backbone.store)
    with pytest.raises(UsageError, match=r"exactly 2 tokens .* the shortest has 3"):
        make_input([encoder], 2, pair=False)
    with pytest.raises(UsageError, match=r"exactly 4 tokens .* the shortest has 5"):
        make_input([encoder], 4, pair=True)


# Releases


@pytest.fixture
def manifest(
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> ReleaseManifest:
    modules = {
        "mood": make_module(tap=1, depth=2),
        "slots": make_module("tagging", tap=2, depth=1, seed=1),
        "stars": make_module("regression", tap=0, depth=0, seed=2),
        "same": make_module(tap=1, form="pair", seed=3),
    }
    return support.put_release(modules, [tiny_backbone.spec], backbone_store)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_single_model_is_all_layers_of_the_backbone_and_the_task_s_own_head(
    manifest: ReleaseManifest,
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    tmp_path: Path,
    engine: str,
) -> None:
    full, reader = single_models(manifest, backbone_store, ["mood", "slots"], tmp_path / "made")

    entries = {name: (entry.tap_layer, entry.depth) for name, entry in full.tasks.items()}
    assert entries == {"mood": (3, 0), "slots": (3, 0)}
    for name, entry in full.tasks.items():
        assert entry.contract == manifest.tasks[name].contract
    (trunk,), (own,) = full.trunks, manifest.trunks
    # Those that the release holds are its own; the third must be made up, under its own digest.
    assert trunk.layers[:2] == own.layers
    assert trunk.layers[2] not in tiny_backbone.spec.layers
    logits = Release.load(full, reader, engine=engine, device="cpu").logits(["wake me at seven"])
    assert [len(logits[name]) for name in ("mood", "slots")] == [1, 1]
    assert all(np.isfinite(found[0]).all() for found in logits.values())


def test_a_release_without_shared_layers_has_single_models_too(
    manifest: ReleaseManifest, backbone_store: LocalStore, tmp_path: Path
) -> None:
    alone = only(manifest, "stars")
    full, reader = single_models(alone, backbone_store, ["stars"], tmp_path / "made")
    (answer,) = Release.load(full, reader).predict(["wake me at seven"])
    assert answer.keys() == {"stars"}


def only(manifest: ReleaseManifest, task: str) -> ReleaseManifest:
    """The release of one of the tasks."""
    entry = manifest.tasks[task]
    (trunk,) = manifest.trunks
    shared = trunk.model_copy(update={"layers": trunk.layers[: entry.tap_layer]})
    return manifest.model_copy(update={"tasks": {task: entry}, "trunks": (shared,)})


def test_in_another_precision_a_report_has_no_floor(
    manifest: ReleaseManifest, backbone_store: LocalStore
) -> None:
    report = bench(
        *(manifest, backbone_store),
        batches=(1,),
        lengths=(8,),
        rounds=1,
        device="cpu",
        dtype="bf16",
    )

    assert (report.engine, report.device, report.dtype) == ("torch", "cpu", "bf16")
    assert report.floor is None
    assert (report.sizes[0].floor, report.sizes[0].floor_share) == (None, None)
    assert report.sizes[0].median > 0


def test_a_release_with_a_task_in_int8_has_no_floor(
    manifest: ReleaseManifest, backbone_store: LocalStore
) -> None:
    rounded = manifest.with_precisions({"mood": "int8"})
    measured = partial(bench, rounded, backbone_store, batches=(1,), lengths=(8,), rounds=1)

    assert measured(engine="onnx").floor is None
    assert measured(engine="onnx", tasks=["stars"]).floor is not None


@pytest.mark.usefixtures("small_floor")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_report_has_every_size_beside_its_floor_and_every_task(
    manifest: ReleaseManifest, backbone_store: LocalStore, engine: str
) -> None:
    told: list[tuple[str, int, int]] = []
    report = bench(
        manifest,
        backbone_store,
        batches=(1, 2),
        lengths=(8,),
        rounds=1,
        engine=engine,
        device="cpu",
        singles=True,
        progress=lambda *args: told.append(args),
    )

    assert (report.digest, report.engine) == (manifest.digest, engine)
    assert report.tasks == ("mood", "slots", "stars")
    assert [(size.batch, size.length) for size in report.sizes] == [(1, 8), (2, 8)]
    spec = BackboneSpec.fetch(manifest.tasks["mood"].backbone, backbone_store)
    asked = {name: manifest.tasks[name] for name in report.tasks}
    for size in report.sizes:
        works = release_work(asked, {spec.digest: spec}, batch=size.batch, length=size.length)
        assert size.floor == report.floor.seconds(works)
        assert size.floor_share == size.floor / size.median
        assert size.requests >= 1
        assert size.p95 >= size.median
        assert size.inputs_per_second == size.batch / size.median
        assert size.answers_per_second == pytest.approx(3 * size.batch / size.median)
        assert size.singles_median is not None
        assert size.singles_ratio == size.singles_median / size.median
    assert (report.parts.batch, report.parts.length) == (1, 8)
    assert [(part.task, part.tap_layer, part.depth) for part in report.parts.tasks] == [
        ("mood", 1, 2),
        ("slots", 2, 1),
        ("stars", 0, 0),
    ]
    assert told[0][0] == "load tasks"
    what, done, total = told[-1]
    assert (what, done) == ("measure", total)


@pytest.mark.usefixtures("small_floor")
def test_tasks_on_pairs_are_asked_about_pairs_of_the_length(
    manifest: ReleaseManifest, backbone_store: LocalStore
) -> None:
    report = bench(
        manifest, backbone_store, tasks=["same"], batches=(1,), lengths=(9,), rounds=1, threads=1
    )
    assert (report.tasks, report.threads) == (("same",), 1)
    assert report.sizes[0].singles_median is report.sizes[0].singles_ratio is None


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"tasks": ["mood", "same"]}, UsageError, "mood, same: some take single texts, others"),
        ({"tasks": ["nope"]}, NotFoundError, "no task 'nope'; it holds mood, same, slots, stars"),
        ({"tasks": []}, NotFoundError, "no tasks"),
        ({"lengths": [8, 65]}, UsageError, "65 tokens are more than .* at most 64"),
        ({"lengths": [2]}, UsageError, "the shortest has 3"),
        ({"engine": "torch", "threads": 2}, UsageError, "set OMP_NUM_THREADS"),
        ({"engine": "onnx", "device": "cuda"}, UsageError, "for 'cuda' take engine 'torch'"),
        ({"dtype": "int4"}, UsageError, "unknown dtype 'int4'"),
        ({"engine": "tpu"}, UsageError, "unknown engine 'tpu'; expected one of onnx, torch"),
    ],
    ids=str,
)
def test_what_cannot_be_timed_is_refused(
    manifest: ReleaseManifest,
    backbone_store: LocalStore,
    options: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        bench(manifest, backbone_store, **options)
