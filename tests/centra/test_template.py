"""What a task's decision puts texts in, and how much of them it reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers

from centra.data.inputs import Input
from centra.errors import IncompatibleError
from centra.formats.decision import Decision
from centra.formats.task_module import TaskModule, check_fits, check_module
from centra.formats.template import parse_templates
from centra.runtime import Release
from centra.runtime.queries import Query
from centra.tokenization.text_encoder import TextEncoder
from centra.training.recipe import Recipe
from centra.training.train import train_module
from tests import support
from tests.centra.checkpoints import SENTENCE, converted
from tests.centra.test_onnx_engine import tensors
from tests.families import MAX_LENGTH, TINY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.store import LocalStore

ASKED = "play: {text} is there snow?"
DECISIONS = {
    "plain": Decision(),
    "also-plain": Decision(template="{text}"),
    "queries": Decision(template="play: {text}"),
    "asked": Decision(template=ASKED),
    "short": Decision(max_length=6),
    "both": Decision(template=ASKED, max_length=12),
}
TEXTS = ["wake me at seven", "rain", "play some jazz in new york, please, and is there snow"]
TAGGED = 2
"""A seed whose random weights find a span in each of the texts."""
LONG = "wake me in new york " * 60
engines = pytest.mark.parametrize("engine", ["onnx", "torch"])


@pytest.fixture(scope="module")
def modules(tiny_backbone: support.Backbone) -> dict[str, TaskModule]:
    spec, store = tiny_backbone.spec, tiny_backbone.store
    # The same weights throughout, so that only what is read makes a difference.
    made = {
        name: support.make_module("classification", spec, store, decision=decision)
        for name, decision in DECISIONS.items()
    }
    pair = Decision(template=("play: {text}", "{text} is there rain?"))
    made["pair"] = support.make_module("regression", spec, store, form="pair", decision=pair)
    tags = Decision(template="me to {text} new york")
    made["tags"] = support.make_module("tagging", spec, store, seed=TAGGED, decision=tags)
    return made


@pytest.fixture
def manifest(
    modules: dict[str, TaskModule], tiny_backbone: support.Backbone, store: LocalStore
) -> ReleaseManifest:
    support.copy_backbone(tiny_backbone, store)
    return support.put_release(modules, [tiny_backbone.spec], store)


@engines
def test_each_task_answers_to_its_own_reading_of_a_text(
    engine: str, manifest: ReleaseManifest, store: LocalStore
) -> None:
    release = Release.load(manifest, store, engine=engine)
    plain = {"plain": "{text}", "queries": "play: {text}", "asked": ASKED}
    filled = [template.replace("{text}", text) for template in plain.values() for text in TEXTS]
    given = release.logits(filled, tasks=["plain"])["plain"]

    found = release.logits(TEXTS, tasks=[*DECISIONS])

    for i, name in enumerate(plain):
        for place in range(len(TEXTS)):
            theirs = given[i * len(TEXTS) + place]
            assert np.allclose(found[name][place], theirs, atol=1e-5), name
            if name == "plain":
                assert np.allclose(found["also-plain"][place], theirs, atol=1e-5)
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
    assert (len(alike.rows), len(several.rows)) == (1, 5)
    lengths = [len(row.input_ids) for row in several.rows.values()]
    assert several.tokens == sum(lengths)


def test_truncation_counts_what_is_read_with_the_template(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    answers = Release.load(manifest, store, engine="onnx").predict(TEXTS[2])
    whole = answers["short"]["truncated"]["tokens"]
    in_template = answers["both"]["truncated"]
    assert "truncated" not in answers["plain"]
    assert answers["short"]["truncated"]["kept"] == 6
    assert in_template["kept"] == 12
    assert in_template["tokens"] > whole


# Tokens


@pytest.mark.parametrize("family", {tiny.tokenizer: name for name, tiny in TINY.items()}.values())
def test_a_long_text_is_cut_before_what_stands_behind_it(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    plain = TextEncoder.of(backbone.spec, backbone.store)
    whole = TextEncoder.of(
        backbone.spec.model_copy(update={"max_length": 4096}), backbone.store
    ).encode
    encoder = plain.with_templates(parse_templates(ASKED))
    short, long = encoder.encode([Input(TEXTS[0]), Input(LONG)])

    filled = ASKED.replace("{text}", TEXTS[0])
    assert short.input_ids == plain.encode([Input(filled)])[0].input_ids
    assert not short.given
    (all_of_it,) = whole([Input(ASKED.replace("{text}", LONG))])
    (behind,) = whole([Input(" is there snow?")])
    kept = len(long.input_ids)
    assert (kept, long.given) == (MAX_LENGTH, len(all_of_it.input_ids))
    tail = next(  # Of the text before it at most the last token is in one with it.
        i for i in range(1, kept) if long.input_ids[-i:] != all_of_it.input_ids[-i:]
    )
    assert tail >= len(behind.input_ids) - 1
    assert long.input_ids[: kept - tail] == all_of_it.input_ids[: kept - tail]
    for row, text in ((short, TEXTS[0]), (long, LONG)):
        own = [text[start:end] for start, end in row.offsets if start < end]
        read = max(end for _, end in row.offsets)
        assert "".join(own).replace(" ", "") == text[:read].replace(" ", "")
        assert read == len(text) if row is short else 50 < read < 400


def test_of_long_pairs_each_template_is_kept(tiny_backbone: support.Backbone) -> None:
    encoder = TextEncoder.of(tiny_backbone.spec, tiny_backbone.store)
    templates = parse_templates(("play: {text} rain", f"is there snow {'no ' * 30}{{text}} seven"))
    found = encoder.with_templates(templates)
    first, second = (
        encoder.tokenizer.encode(text, add_special_tokens=False).ids
        for text in ("play:", "is there snow " + "no " * 30)
    )
    rain, seven = (
        encoder.tokenizer.encode(text, add_special_tokens=False).ids for text in ("rain", "seven")
    )
    for pair in ((LONG, LONG), (LONG, "wake me"), ("wake me", LONG)):
        (row,) = found.encode([Input(*pair)])
        assert len(row.input_ids) == MAX_LENGTH
        middle = row.token_type_ids.index(1)
        a, b = row.input_ids[1 : middle - 1], row.input_ids[middle:-1]
        assert (a[: len(first)], a[-len(rain) :]) == (first, rain)
        assert (b[: len(second)], b[-len(seven) :]) == (second, seven)
        own = [span for span in row.offsets if span[0] < span[1]]
        assert len(own) == len(a) + len(b) - sum(map(len, (first, rain, second, seven)))


def test_pairs_may_have_a_template_for_each_text(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    release = Release.load(manifest, store, engine="onnx")
    (query,) = release.encode([Query(input=("wake me", "seven"), tasks=("pair",))])
    (row,) = query.rows.values()
    encoder = next(iter(release.encoders.values()))
    (wanted,) = encoder.encode([Input("play: wake me", "seven is there rain?")])
    assert row.input_ids == wanted.input_ids
    # Offsets are those of the texts as given.
    (plain,) = encoder.encode([Input("wake me", "seven")])
    assert [span for span in row.offsets if span[0] < span[1]] == [
        span for span in plain.offsets if span[0] < span[1]
    ]


@engines
def test_spans_cut_the_caller_s_own_text(
    engine: str, manifest: ReleaseManifest, store: LocalStore
) -> None:
    release = Release.load(manifest, store, engine=engine, tasks=["tags"])
    text = "wake me in new york"
    (query,) = release.encode([Query(input=text, tasks=("tags",))])
    for row in query.rows.values():
        assert all(0 <= start <= end <= len(text) for start, end in row.offsets)
        # A template of words that the text has, too: its tokens touch none of them.
        assert "".join(text[start:end] for start, end in row.offsets) == text.replace(" ", "")
    for given in (text, LONG):
        (answer,) = release.predict(given).values()
        assert ("truncated" in answer) == (given is LONG)
        assert answer["spans"]
        assert all(s["text"] == given[s["start"] : s["end"]] for s in answer["spans"])
    # The words as the caller has them: no word of the template is among them.
    (answer,) = release.predict({"tokens": text.split()}).values()
    assert all(0 <= s["start"] < s["end"] <= len(text.split()) for s in answer["spans"])


def test_only_the_place_of_the_text_means_anything(tiny_backbone: support.Backbone) -> None:
    encoder = TextEncoder.of(tiny_backbone.spec, tiny_backbone.store)
    odd = "{{rain}} {} %s {text} {0} \\n {TEXT} }"
    for text in ("wake me", "{text}", "rain {text} rain {text}"):
        (row,) = encoder.with_templates(parse_templates(odd)).encode([Input(text)])
        (wanted,) = encoder.encode([Input(odd.replace("{text}", text, 1))])
        assert row.input_ids == wanted.input_ids


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("query: ", "write {text} there, as in 'query: {text}'"),
        ("query: {}", "as in 'query: {text}'"),
        ("{Text} now", "as in '{text} now'"),
        ("", "as in '{text}'"),
        ("{text} or {text}", "has {text} 2 times; expected it once"),
        ("{text} \ud800", "not valid Unicode"),
        (("{text}", "query: "), "'query: ' does not say"),
    ],
)
def test_a_template_without_one_place_is_refused(written: Any, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_templates(written)


# Made


def test_what_is_learnt_is_read_in_the_template(
    tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    spec, store = tiny_backbone.spec, tiny_backbone.store
    recipe = Recipe(tap=2, depth=1, epochs=1, template=("{text} rain", "play {text}"))
    module = train_module(spec, store, tiny_data("pair"), recipe, work=tmp_path / "work")

    assert module.spec.decision == Decision(template=recipe.template)
    rain, play = (
        TextEncoder.of(spec, store).tokenizer.encode(word).ids[1:-1] for word in ("rain", "play")
    )
    probe = zip(
        module.tensors["probe.input_ids"].tolist(),
        module.tensors["probe.token_type_ids"].tolist(),
        strict=True,
    )
    for ids, types in probe:
        middle = types.index(1)
        assert ids[middle - 1 - len(rain) : middle - 1] == rain
        assert ids[middle : middle + len(play)] == play


@pytest.mark.usefixtures("few_samples")
def test_a_checkpoint_answers_as_it_did_in_its_template(
    fine_tuned_once: Callable[[str, str], Path],
    tiny_backbone: support.Backbone,
    store: LocalStore,
) -> None:
    folder = fine_tuned_once("bert", SENTENCE)
    module, _ = converted(folder, tiny_backbone, template=ASKED)

    model = getattr(transformers, SENTENCE).from_pretrained(folder).eval()
    filled = [Input(ASKED.replace("{text}", text)) for text in TEXTS]
    _, batch = TextEncoder.of(tiny_backbone.spec, tiny_backbone.store).batch(filled)
    with torch.inference_mode():
        theirs = model(**tensors(batch)).logits.numpy()
    support.copy_backbone(tiny_backbone, store)
    manifest = support.put_release({"task": module}, [tiny_backbone.spec], store)
    for engine in ("onnx", "torch"):
        found = Release.load(manifest, store, engine=engine).logits(TEXTS)["task"]
        assert np.abs(np.stack(found) - theirs).max() < 1e-5


# Refusals


@pytest.mark.parametrize(
    "fields",
    [
        {"template": "wake " * 80 + "{text}"},
        {"template": "{text} wake me up", "max_length": 4},
        {"max_length": 2},
    ],
)
def test_a_template_without_room_for_a_text_is_refused(
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
