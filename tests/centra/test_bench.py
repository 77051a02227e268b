"""Benching a release: what it takes, the floor, texts of a length, and the times that are kept."""

from __future__ import annotations

import pytest

from centra.backbone import BackboneSpec
from centra.bench import Floor, Work, measure_floor, release_work
from centra.release import TaskEntry

HIDDEN, INNER, HEADS = 8, 16, 2
# A layer of a BERT: four projections of 8 x 8, 8 x 16 and back, their biases, and two norms.
LINEAR = 4 * 8 * 8 + 8 * 16 + 16 * 8  # 512
LAYER = LINEAR + 4 * 8 + 16 + 8 + 4 * 8  # 600
BATCH, LENGTH = 3, 5


def backbone(**config: int) -> BackboneSpec:
    square, norm = (HIDDEN, HIDDEN), (HIDDEN,)
    names = {
        "attention.self.query": square,
        "attention.self.key": square,
        "attention.self.value": square,
        "attention.output.dense": square,
        "attention.output.LayerNorm": norm,
        "intermediate.dense": (INNER, HIDDEN),
        "output.dense": (HIDDEN, INNER),
        "output.LayerNorm": norm,
    }
    tensors = {f"{name}.weight": shape for name, shape in names.items()}
    tensors |= {f"{name}.bias": shape[:1] for name, shape in names.items()}
    return BackboneSpec(
        family="electra" if "embedding_size" in config else "bert",
        config={"num_attention_heads": HEADS, "vocab_size": 30, **config},
        num_layers=3,
        hidden_size=HIDDEN,
        max_length=16,
        pad_token_id=0,
        token_types=True,
        embeddings="e" * 64,
        layers=("1" * 64, "2" * 64, "3" * 64),
        layer_tensors=tensors,
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


def test_narrow_embeddings_are_projected() -> None:
    on = backbone(embedding_size=4)
    first, *_ = work(entry("regression", 0, 0, 0, on), on=on)
    assert first == Work(flops=2 * 15 * 4 * 8, bytes=4 * (15 * 4 + 4 * 8))


def test_the_floor_is_the_longer_of_computing_and_reading_unit_by_unit() -> None:
    floor = Floor(flops=100.0, bandwidth=10.0)
    works = [Work(flops=200, bytes=10), Work(flops=50, bytes=40), Work(flops=0, bytes=5)]
    assert floor.seconds(works) == pytest.approx(2 + 4 + 0.5)
    assert floor.seconds([]) == 0


def test_the_limits_of_this_machine_are_those_of_some_machine() -> None:
    floor = measure_floor(1)
    assert 1e8 < floor.flops < 1e14
    assert 1e7 < floor.bandwidth < 1e13
