"""Dev metrics, and from logits and targets to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from centra.data.inputs import Example, Input
from centra.errors import DataError, UsageError
from centra.tokenization.text_encoder import Row
from centra.training import metrics
from centra.training.targets import IGNORED, dev_metrics, loss, target
from centra.training.task_data import Split
from tests import support

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.formats.task_module import TaskSpec

BACKBONE = "0" * 64


def example(label: object, text: str = "a b", pair: str | None = None, **fields: object) -> Example:
    tokens = tuple(text.split()) if fields.get("split") else None
    return Example(Input(text, pair, tokens), label, "train.jsonl:7")


def split(
    spec: TaskSpec, examples: list[Example], offsets: Sequence[tuple[int, int]] = ((0, 1), (2, 3))
) -> Split:
    """Examples of texts whose tokens, between two special ones, have these offsets."""
    places = [(0, 0), *offsets, (0, 0)]
    row = Row([*range(len(places))], [0] * len(places), places)
    return Split([row] * len(examples), [target(spec, e, row) for e in examples], examples)


# Metrics


def test_classification_metrics_of_known_answers() -> None:
    found = metrics.classification(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))

    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["matthews"] == pytest.approx(1 / 3**0.5)


def test_matthews_of_a_constant_answer_is_0() -> None:
    assert metrics.classification(np.array([1, 1]), np.array([0, 1]))["matthews"] == 0


def test_classification_of_a_single_label_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    """A small dev set may hold one label; warnings about it would only puzzle."""
    found = metrics.classification(np.array([1, 1]), np.array([1, 1]))

    assert (found["accuracy"], found["matthews"]) == (1, 0)
    assert not recwarn.list


def test_multilabel_metrics_of_known_answers() -> None:
    found = metrics.multilabel(
        np.array([[True, False], [True, True]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    )

    assert found == {"micro_f1": pytest.approx(0.8), "macro_f1": pytest.approx(5 / 6)}


def test_multilabel_f1_counts_labels_and_not_their_absence() -> None:
    nothing, wanted = np.zeros((4, 2), dtype=bool), np.array([[1.0, 0], [0, 0], [0, 0], [0, 0]])

    assert metrics.multilabel(nothing, wanted) == {"micro_f1": 0, "macro_f1": 0}


def test_multilabel_f1_of_a_single_label_counts_the_same_way() -> None:
    nothing, wanted = np.zeros((4, 1), dtype=bool), np.array([[1.0], [0], [0], [0]])

    assert metrics.multilabel(nothing, wanted) == {"micro_f1": 0, "macro_f1": 0}
    assert metrics.multilabel(wanted > 0, wanted) == {"micro_f1": 1, "macro_f1": 1}


def test_regression_metrics_of_known_answers() -> None:
    found = metrics.regression(np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0, 30.0]))

    assert found["spearman"] == pytest.approx(1)
    assert 0.9 < found["pearson"] < 1


@pytest.mark.parametrize(
    ("predicted", "expected"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([1], [2])]
)
def test_correlation_with_a_constant_is_0(predicted: list[float], expected: list[float]) -> None:
    found = metrics.regression(np.array(predicted, float), np.array(expected, float))

    assert found == {"pearson": 0, "spearman": 0}


def test_entity_f1_counts_whole_spans() -> None:
    expected = [["B-a", "I-a", "O"], ["B-b", "O", "O"]]

    assert metrics.tagging(expected, expected) == {"entity_f1": 1.0}
    half = [["B-a", "O", "O"], ["B-b", "O", "O"]]
    assert metrics.tagging(half, expected) == {"entity_f1": 0.5}


@pytest.mark.parametrize("expected", [["O", "O"], ["B-a", "O"]])
def test_entity_f1_without_predicted_entities_is_0_and_silent(
    expected: list[str], recwarn: pytest.WarningsRecorder
) -> None:
    assert metrics.tagging([["O", "O"]], [expected]) == {"entity_f1": 0.0}
    assert not recwarn.list


@pytest.mark.parametrize("kind", metrics.METRICS)
def test_first_metric_of_a_kind_is_the_default(kind: str) -> None:
    assert metrics.check_metric(kind, None) == metrics.METRICS[kind][0]
    for name in metrics.METRICS[kind]:
        assert metrics.check_metric(kind, name) == name


def test_metric_of_another_kind_is_refused_and_the_right_ones_named() -> None:
    with pytest.raises(UsageError, match="no metric 'pearson'; expected one of accuracy, macro_f1"):
        metrics.check_metric("classification", "pearson")


# From logits to metrics


@pytest.mark.parametrize(
    ("kind", "logits", "labels"),
    [
        ("classification", [[1, 0, 0], [0, 0, 3]], ["alarm", "weather"]),
        ("multilabel", [[1, -1, 2], [-1, 4, -1]], [("alarm", "weather"), ("music",)]),
        ("regression", [[1], [2], [3]], [10.0, 20.0, 30.0]),
        ("tagging", [[[9, 0, 0], [0, 9, 0], [0, 0, 9], [9, 0, 0]]], [("B-city", "I-city")]),
    ],
)
def test_perfect_logits_have_the_best_metric(
    kind: str, logits: list[object], labels: list[object]
) -> None:
    spec = support.make_spec(BACKBONE, kind)
    dev = split(spec, [example(label, split=kind == "tagging") for label in labels])
    found = dev_metrics(spec, np.array(logits, np.float32), dev)

    assert found.keys() == set(metrics.METRICS[kind])
    assert all(value == pytest.approx(1) for name, value in found.items() if name != "macro_f1")


def test_multilabel_metrics_follow_the_task_s_threshold() -> None:
    logits = np.array([[1.0, 1, 1]], np.float32)
    careful = {"activation": "tanh", "threshold": 0.9}
    specs = [support.make_spec(BACKBONE, "multilabel", **x) for x in ({}, {"head": careful})]
    dev = split(specs[0], [example(specs[0].labels)])

    usual, strict = (dev_metrics(spec, logits, dev) for spec in specs)

    assert (usual["micro_f1"], strict["micro_f1"]) == (1, 0)


def test_tokens_without_a_tag_do_not_count() -> None:
    spec = support.make_spec(BACKBONE, "tagging")
    logits = np.zeros((1, 4, 3), np.float32)
    logits[0, :, 1] = 9  # B-city everywhere
    dev = split(spec, [example(("B-city",), "ab", split=True)], offsets=[(0, 1), (1, 2)])

    assert dev_metrics(spec, logits, dev) == {"entity_f1": 1.0}


def test_entities_that_truncation_cuts_off_are_missed() -> None:
    spec = support.make_spec(BACKBONE, "tagging")
    logits = np.zeros((1, 3, 3), np.float32)
    logits[0, 1, 1] = 9
    dev = split(spec, [example(("B-city", "B-city"), split=True)], offsets=[(0, 1)])

    assert dev_metrics(spec, logits, dev) == {"entity_f1": pytest.approx(2 / 3)}


def test_the_score_on_tokens_is_told_where_it_is_another() -> None:
    """The token is two words of a text, and the second has no tag of its own."""
    spec = support.make_spec(BACKBONE, "tagging")
    logits = np.zeros((1, 4, 3), np.float32)
    logits[0, :, 0] = 5
    logits[0, 1, 1] = 9
    dev = split(spec, [example(("B-city",), "@b", split=True)], offsets=[(0, 1), (1, 2)])

    assert dev_metrics(spec, logits, dev) == {"entity_f1": 0.0, "entity_f1_on_tokens": 1.0}


# Targets


def test_target_of_every_kind() -> None:
    row = Row([2, 5, 6, 7, 3], [0] * 5, [(0, 0), (0, 1), (2, 3), (3, 4), (0, 0)])

    def of(kind: str, label: object, text: str = "a bc", **fields: object) -> object:
        spec = support.make_spec(BACKBONE, kind)
        return target(spec, example(label, text, **fields), row).tolist()

    assert of("classification", "music") == 1
    assert of("multilabel", ("weather", "alarm")) == [1, 0, 1]
    assert of("multilabel", ()) == [0, 0, 0]
    assert of("regression", 2.5) == 2.5
    tags = of("tagging", ("O", "B-city"), split=True)
    assert tags == [IGNORED, 0, 1, IGNORED, IGNORED]


def test_target_of_words_that_were_cut_off_is_ignored() -> None:
    row = Row([2, 5, 3], [0] * 3, [(0, 0), (0, 1), (0, 0)])
    spec = support.make_spec(BACKBONE, "tagging")

    tags = target(spec, example(("B-city", "I-city"), split=True), row)

    assert tags.tolist() == [IGNORED, 1, IGNORED]


@pytest.mark.parametrize(
    ("kind", "label"),
    [("classification", "news"), ("multilabel", ("alarm", "news")), ("tagging", ("O", "B-news"))],
)
def test_label_that_the_task_does_not_know_is_refused_with_file_and_line(
    kind: str, label: object
) -> None:
    row = Row([2, 5, 6, 3], [0] * 4, [(0, 0), (0, 1), (2, 3), (0, 0)])

    with pytest.raises(DataError, match=r"^train\.jsonl:7: label '(B-)?news' does not occur"):
        target(support.make_spec(BACKBONE, kind), example(label, split=kind == "tagging"), row)


def test_loss_of_every_kind_is_lower_for_better_logits() -> None:
    import torch

    cases = {
        "classification": ([[0.0, 5.0, 0.0]], torch.tensor([1])),
        "multilabel": ([[5.0, -5.0, 5.0]], torch.tensor([[1.0, 0.0, 1.0]])),
        "regression": ([[2.5]], torch.tensor([2.5])),
        "tagging": ([[[9.0, 0.0, 0.0], [0.0, 5.0, 0.0]]], torch.tensor([[IGNORED, 1]])),
    }
    for kind, (logits, targets) in cases.items():
        spec = support.make_spec("0" * 64, kind)
        good = loss(spec, torch.tensor(logits), targets)
        bad = loss(spec, -torch.tensor(logits), targets)
        assert 0 <= good < 0.1 < bad
