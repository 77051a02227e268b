"""From logits to answers, for every kind."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from centra.data.inputs import Input
from centra.data.tags import tagged_spans
from centra.formats.task_module import HeadSpec
from centra.kinds import kind_named
from centra.runtime import Release
from centra.tokenization.text_encoder import Row, TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore

BACKBONE = "0" * 64
TAGS = ("O", "B-city", "I-city", "B-day", "I-day")


def answers(kind: str, logits: Sequence[object], **fields: Any) -> list[dict[str, Any]]:
    spec = support.make_spec(BACKBONE, kind, **fields)
    inputs, rows = [Input("x")] * len(logits), [Row([], [], [])] * len(logits)
    return kind_named(spec.kind).decode(spec, np.array(logits, dtype=np.float32), inputs, rows)


def tagged(
    tokens: list[str] | None, tags: list[str], encoder: TextEncoder, text: str = ""
) -> dict[str, Any]:
    """Decode logits that give each word's first token its tag, and every other token junk."""
    item = Input(text) if tokens is None else Input.parse({"tokens": tokens})
    (row,) = encoder.encode([item])
    logits = np.zeros((1, len(row.input_ids), len(TAGS)), dtype=np.float32)
    logits[..., TAGS.index("B-day")] = 5
    first = row.first_tokens(item.words())
    for token, tag in reversed([*zip(first, tags, strict=tokens is not None)]):
        if token >= 0:
            logits[0, token] = 0
            logits[0, token, TAGS.index(tag)] = 9
    spec = support.make_spec(BACKBONE, "tagging", labels=TAGS)
    (answer,) = kind_named(spec.kind).decode(spec, logits, [item], [row])
    return answer


@pytest.fixture(scope="module")
def encoder(tiny_backbone: support.Backbone) -> TextEncoder:
    return TextEncoder.of(tiny_backbone.spec, tiny_backbone.store)


# Classification, regression


def test_classification_names_the_best_label_with_its_probability() -> None:
    first, second = answers("classification", [[0, np.log(3), 0], [9, 0, 0]])

    assert (first["label"], second["label"]) == ("music", "alarm")
    assert first["score"] == pytest.approx(0.6)
    assert first.keys() == {"label", "score"}


def test_classification_of_huge_logits_does_not_overflow() -> None:
    (answer,) = answers("classification", [[1e38, -1e38, 0]])

    assert answer == {"label": "alarm", "score": 1.0}


def test_tie_goes_to_the_first_label() -> None:
    assert answers("classification", [[1, 1, 1]])[0]["label"] == "alarm"


def test_regression_gives_the_value_itself() -> None:
    assert answers("regression", [[2.5], [-1]]) == [{"value": 2.5}, {"value": -1.0}]


def test_answers_are_plain_values() -> None:
    (answer,) = answers("classification", [[0, 1, 2]])

    assert type(answer["label"]) is str
    assert type(answer["score"]) is float
    assert type(answers("regression", [[1]])[0]["value"]) is float


# Multilabel


def test_multilabel_names_labels_from_the_threshold_on_best_first() -> None:
    (answer,) = answers("multilabel", [[0.5, -0.1, 2.0]])

    assert [found["label"] for found in answer["labels"]] == ["weather", "alarm"]
    assert answer["labels"][0]["score"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_multilabel_takes_the_threshold_itself() -> None:
    (answer,) = answers("multilabel", [[0.0, -1e-3, 1e-3]])

    assert {found["label"] for found in answer["labels"]} == {"alarm", "weather"}


@pytest.mark.parametrize(("threshold", "count"), [(0.1, 3), (0.5, 2), (0.9, 1), (0.999, 0)])
def test_multilabel_follows_the_task_s_own_threshold(threshold: float, count: int) -> None:
    head = {"activation": "tanh", "threshold": threshold}

    assert len(answers("multilabel", [[-1, 1, 3]], head=head)[0]["labels"]) == count


def test_multilabel_may_name_no_label_and_survives_huge_logits() -> None:
    first, second = answers("multilabel", [[-1e38, -1, -1], [1e38, -1e38, 0.1]])

    assert first == {"labels": []}
    assert second["labels"][0] == {"label": "alarm", "score": 1.0}


# Tags


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ([], []),
        (["O", "O"], []),
        (["B-a"], [("a", 0, 1)]),
        (["B-a", "I-a", "I-a", "O"], [("a", 0, 3)]),
        (["B-a", "B-a"], [("a", 0, 1), ("a", 1, 2)]),
        (["I-a"], [("a", 0, 1)]),
        (["O", "I-a", "I-a"], [("a", 1, 3)]),
        (["B-a", "I-b"], [("a", 0, 1), ("b", 1, 2)]),
        (["B-a", "I-b", "I-a"], [("a", 0, 1), ("b", 1, 2), ("a", 2, 3)]),
        (["B-a", "O", "I-a"], [("a", 0, 1), ("a", 2, 3)]),
        (["B-a-b", "I-a-b"], [("a-b", 0, 2)]),
    ],
    ids=str,
)
def test_bio_tags_become_spans(tags: list[str], spans: list[tuple[str, int, int]]) -> None:
    assert tagged_spans(tags) == spans


@given(tags=st.lists(st.sampled_from([*TAGS, "B-a-b", "I-a-b"]), max_size=12))
def test_spans_are_those_that_seqeval_counts(tags: list[str]) -> None:
    assert tagged_spans(tags) == [(label, a, b + 1) for label, a, b in get_entities(tags)]


def test_span_names_text_place_words_and_mean_score(encoder: TextEncoder) -> None:
    answer = tagged(
        ["fly", "to", "new", "york", "on", "sunday"],
        ["O", "O", "B-city", "I-city", "O", "B-day"],
        encoder,
    )

    city, day = answer["spans"]
    assert city == {
        "label": "city",
        "text": "new york",
        "start": 2,
        "end": 4,
        "words": [2, 4],
        "score": pytest.approx(np.exp(9) / (np.exp(9) + 4)),
    }
    assert (day["text"], day["words"]) == ("sunday", [5, 6])


def test_score_of_a_span_is_the_mean_over_its_words() -> None:
    item = Input.parse({"tokens": ["a", "b"]})
    row = Row([2, 7, 8, 3], [0] * 4, [(0, 0), (0, 1), (2, 3), (0, 0)])
    logits = np.log(
        np.array([[[1, 1, 1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8], [1, 1, 1]]], dtype=np.float32)
    )

    (answer,) = kind_named("tagging").decode(
        support.make_spec(BACKBONE, "tagging"), logits, [item], [row]
    )

    assert answer["spans"][0]["score"] == pytest.approx(0.7)


def test_plain_text_is_tagged_by_its_own_words() -> None:
    item = Input("go to Rome!")
    row = Row([2, 5, 6, 7, 8, 3], [0] * 6, [(0, 0), (0, 2), (3, 5), (6, 10), (10, 11), (0, 0)])
    logits = np.zeros((1, 6, 3), dtype=np.float32)
    logits[0, [0, 1, 2, 4, 5], 0] = 5
    logits[0, 3, 1] = 5

    (answer,) = kind_named("tagging").decode(
        support.make_spec(BACKBONE, "tagging"), logits, [item], [row]
    )

    (span,) = answer["spans"]
    assert (span["text"], span["start"], span["end"], span["words"]) == ("Rome", 6, 10, [2, 3])


def test_words_beyond_the_maximum_length_are_outside_every_span(encoder: TextEncoder) -> None:
    answer = tagged(["go"] * 100, ["B-city"] + ["I-city"] * 99, encoder)

    (span,) = answer["spans"]
    assert span["words"] == [0, 62]
    assert span["text"] == " ".join(["go"] * 62)


@given(
    words=st.lists(
        st.tuples(st.text(min_size=1, max_size=10).filter(str.strip), st.sampled_from(TAGS)),
        min_size=1,
        max_size=8,
    ),
    family=st.sampled_from(support.FAMILIES),
)
def test_spans_slice_back_to_the_text(
    words: list[tuple[str, str]], family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    encoder = TextEncoder.of(backbone.spec, backbone.store)
    tokens, tags = [word for word, _ in words], [tag for _, tag in words]
    text = Input.parse({"tokens": tokens}).text

    for span in tagged(tokens, tags, encoder)["spans"]:
        first, end = span["words"]
        assert (first, end) == (span["start"], span["end"])
        assert "".join(span["text"].split()) == "".join("".join(tokens[first:end]).split())
        assert span["text"] in text
        assert 0 <= span["score"] <= 1
    spans = tagged(None, tags, encoder, text)["spans"]
    for span in spans:
        assert span["text"] == text[span["start"] : span["end"]]
        assert span["text"] == span["text"].strip()
    assert all(a["end"] <= b["start"] for a, b in pairwise(spans))


@given(data=st.data())
def test_tags_of_words_with_a_token_each_come_back_exactly(
    data: st.DataObject, encoder: TextEncoder
) -> None:
    known = ["fly", "go", "new", "york", "paris", "sunday", ",", "?", "to"]
    tokens = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=10))
    size = len(tokens)
    tags = data.draw(st.lists(st.sampled_from(TAGS), min_size=size, max_size=size))

    spans = tagged(tokens, tags, encoder)["spans"]

    assert [(s["label"], *s["words"]) for s in spans] == tagged_spans(tags)


# Heads with tags of their own


def test_tags_that_mark_more_than_bio_are_answered_in_bio(encoder: TextEncoder) -> None:
    tags = ("O", "B-city", "I-city", "E-city", "S-city", "S-day", "B-day", "E-day")
    labels = ("O", "B-city", "I-city", "B-day", "I-day")
    spec = support.make_spec(BACKBONE, "tagging", labels=labels, head=HeadSpec(tags=tags))
    item = Input.parse({"tokens": ["rome", "paris", "new", "york", "now", "friday"]})
    (row,) = encoder.encode([item])
    logits = np.zeros((1, len(row.input_ids), len(tags)), dtype=np.float32)
    wanted = ["S-city", "S-city", "B-city", "E-city", "O", "S-day"]
    for token, tag in zip(row.first_tokens(item.words()), wanted, strict=True):
        logits[0, token, tags.index(tag)] = 9

    (answer,) = kind_named(spec.kind).decode(spec, logits, [item], [row])

    assert [(span["label"], *span["words"]) for span in answer["spans"]] == [
        ("city", 0, 1),
        ("city", 1, 2),
        ("city", 2, 4),
        ("day", 5, 6),
    ]
    assert all(span["score"] > 0.99 for span in answer["spans"])


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_release_answers_with_such_a_head(
    engine: str,
    make_module: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    tags = ("O", "B-city", "I-city", "E-city", "S-city")
    module = make_module("tagging", head=HeadSpec(tags=tags))
    assert module.tensors["head.out.weight"].shape[0] == 5
    assert support.parity(module, tiny_backbone, backbone_store, tmp_path) < 1e-4
    # Beside another of the same place, as the torch engine puts branches together.
    modules = {"own": module, "bio": make_module("tagging", seed=1)}
    manifest = support.put_release(modules, [tiny_backbone.spec], backbone_store)

    release = Release.load(manifest, backbone_store, engine=engine, device="cpu")
    (answer,) = release.predict(["fly to new york"])

    assert {span["label"] for span in answer["own"]["spans"]} <= {"city"}
    (logits,) = release.logits(["fly to new york"])["own"]
    assert logits.shape[-1] == 5
