"""What a task's decision puts before texts, and how much of them it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from centra.data.inputs import Input
from centra.errors import IncompatibleError
from centra.formats.decision import Decision
from centra.formats.task_module import TaskModule, check_fits, check_module
from centra.runtime import Release
from centra.runtime.queries import Query
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.store import LocalStore

DECISIONS = {
    "plain": Decision(),
    "also-plain": Decision(),
    "queries": Decision(prefix="play: "),
    "short": Decision(max_length=6),
    "both": Decision(prefix="play: ", max_length=8),
}
TEXTS = ["wake me at seven", "rain", "play some jazz in new york, please, and is there snow"]


@pytest.fixture(scope="module")
def modules(tiny_backbone: support.Backbone) -> dict[str, TaskModule]:
    spec, store = tiny_backbone.spec, tiny_backbone.store
    # The same weights throughout, so that only what is read makes a difference.
    made = {
        name: support.make_module("classification", spec, store, decision=decision)
        for name, decision in DECISIONS.items()
    }
    pair = Decision(prefix=("play: ", "rain: "))
    made["pair"] = support.make_module("regression", spec, store, form="pair", decision=pair)
    made["tags"] = support.make_module("tagging", spec, store, decision=Decision(prefix="me to "))
    return made


@pytest.fixture
def manifest(
    modules: dict[str, TaskModule], tiny_backbone: support.Backbone, store: LocalStore
) -> ReleaseManifest:
    support.copy_backbone(tiny_backbone, store)
    return support.put_release(modules, [tiny_backbone.spec], store)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_each_task_answers_to_its_own_reading_of_a_text(
    engine: str, manifest: ReleaseManifest, store: LocalStore
) -> None:
    release = Release.load(manifest, store, engine=engine)
    given = release.logits([*TEXTS, *(f"play: {text}" for text in TEXTS)], tasks=["plain"])["plain"]

    found = release.logits(TEXTS)

    for place in range(len(TEXTS)):
        for name in ("plain", "also-plain"):
            assert np.allclose(found[name][place], given[place], atol=1e-5), name
        assert np.allclose(found["queries"][place], given[len(TEXTS) + place], atol=1e-5)
    assert np.allclose(found["short"][1], given[1], atol=1e-5)
    assert not np.allclose(found["short"][2], given[2], atol=1e-3)


def test_tasks_with_other_readings_do_not_change_a_bit(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    together = Release.load(manifest, store, engine="onnx", threads=2).logits(TEXTS)
    for name in DECISIONS:
        alone = Release.load(manifest, store, engine="onnx", tasks=[name]).logits(TEXTS)
        for own, other in zip(alone[name], together[name], strict=True):
            assert np.array_equal(own, other), name


def test_tasks_that_read_alike_share_a_row(manifest: ReleaseManifest, store: LocalStore) -> None:
    release = Release.load(manifest, store, engine="onnx")
    tasks = tuple(DECISIONS)
    (alike, several) = release.encode(
        [Query(input=TEXTS[0], tasks=("plain", "also-plain")), Query(input=TEXTS[0], tasks=tasks)]
    )
    assert (len(alike.rows), len(several.rows)) == (1, 4)
    lengths = [len(row.input_ids) for row in several.rows.values()]
    assert several.tokens == sum(lengths)


def test_truncation_counts_what_is_read_with_the_prefix(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    answers = Release.load(manifest, store, engine="onnx").predict(TEXTS[2])
    whole = answers["short"]["truncated"]["tokens"]
    with_prefix = answers["both"]["truncated"]
    assert "truncated" not in answers["plain"]
    assert answers["short"]["truncated"]["kept"] == 6
    assert with_prefix["kept"] == 8
    assert with_prefix["tokens"] > whole


def test_pairs_may_have_a_prefix_for_each_text(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    release = Release.load(manifest, store, engine="onnx")
    (query,) = release.encode([Query(input=("wake me", "seven"), tasks=("pair",))])
    (row,) = query.rows.values()
    encoder = next(iter(release.encoders.values()))
    (wanted,) = encoder.encode([Input("play: wake me", "rain: seven")])
    assert row.input_ids == wanted.input_ids
    # Offsets are those of the texts as given.
    (plain,) = encoder.encode([Input("wake me", "seven")])
    assert [span for span in row.offsets if span[0] < span[1]] == [
        span for span in plain.offsets if span[0] < span[1]
    ]


def test_spans_cut_the_caller_s_own_text(manifest: ReleaseManifest, store: LocalStore) -> None:
    release = Release.load(manifest, store, engine="onnx")
    text = "wake me in new york"
    for row in release.encode([Query(input=text, tasks=("tags",))])[0].rows.values():
        assert all(0 <= start <= end <= len(text) for start, end in row.offsets)
        # A prefix of words that the text has, too: its tokens touch none of them.
        assert "".join(text[start:end] for start, end in row.offsets) == text.replace(" ", "")


# Refusals


@pytest.mark.parametrize(
    "fields",
    [{"prefix": "wake " * 80}, {"prefix": "wake me up", "max_length": 4}, {"max_length": 2}],
)
def test_a_prefix_without_room_for_a_text_is_refused(
    fields: dict[str, Any],
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
    store: LocalStore,
) -> None:
    support.copy_backbone(tiny_backbone, store)
    module = make_module("classification", decision=Decision(**fields))
    manifest = support.put_release({"task": module}, [tiny_backbone.spec], store)
    with pytest.raises(IncompatibleError, match="no room is left"):
        Release.load(manifest, store, engine="onnx")


def test_more_tokens_than_the_backbone_reads_are_refused(
    tiny_backbone: support.Backbone, make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    module = make_module("classification", decision=Decision(max_length=100_000))
    module.write(tmp_path / "task.safetensors")
    with pytest.raises(IncompatibleError, match="max_length is 100000, but tiny@1 reads"):
        check_fits(check_module(tmp_path / "task.safetensors"), tiny_backbone.spec, "tiny@1")
