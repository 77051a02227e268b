"""Dev metrics, and from logits and targets to them."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from seqeval.metrics import f1_score as seqeval_f1
from sklearn import metrics as reference

from centra.data.inputs import Example, Input
from centra.data.tags import tagged_spans, to_bio
from centra.errors import DataError, UsageError
from centra.kinds import KINDS
from centra.kinds.metrics import (
    accuracy,
    counted_f1,
    macro_f1,
    matthews,
    multilabel_f1,
    pearson,
    span_counts,
    spearman,
)
from centra.kinds.tagging import IGNORED
from centra.tokenization.text_encoder import Row
from centra.training.metrics import check_metric, dev_metrics
from centra.training.task_data import Split
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    return Split(
        [row] * len(examples), [KINDS[spec.kind].target(spec, e, row) for e in examples], examples
    )


# Metrics


def test_classification_metrics_of_known_answers() -> None:
    predicted, expected = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])

    assert accuracy(predicted, expected) == 0.75
    assert macro_f1(predicted, expected) == pytest.approx((0.8 + 2 / 3) / 2)
    assert matthews(predicted, expected) == pytest.approx(1 / 3**0.5)


def test_matthews_of_a_constant_answer_is_0() -> None:
    assert matthews(np.array([1, 1]), np.array([0, 1])) == 0


def test_classification_of_a_single_label_is_silent() -> None:
    """A small dev set may hold one label; warnings about it would only puzzle."""
    only = np.array([1, 1])

    assert (accuracy(only, only), macro_f1(only, only), matthews(only, only)) == (1, 1, 0)


def test_an_answer_without_a_label_is_wrong_and_no_label() -> None:
    predicted, expected = np.array([0, -1, 1, 1]), np.array([0, 0, 1, 1])

    assert accuracy(predicted, expected) == 0.75
    assert macro_f1(predicted, expected) == pytest.approx((2 / 3 + 1) / 2)


def test_multilabel_metrics_of_known_answers() -> None:
    predicted = np.array([[True, False], [True, True]])
    expected = np.array([[True, False], [False, True]])

    found = multilabel_f1(predicted, expected)
    assert found == {"micro_f1": pytest.approx(0.8), "macro_f1": pytest.approx(5 / 6)}


@pytest.mark.parametrize("labels", [1, 2])
def test_multilabel_f1_counts_labels_and_not_their_absence(labels: int) -> None:
    nothing = np.zeros((4, labels), dtype=bool)
    wanted = nothing.copy()
    wanted[0, 0] = True

    assert multilabel_f1(nothing, wanted) == {"micro_f1": 0, "macro_f1": 0}
    assert multilabel_f1(wanted, wanted) == {"micro_f1": 1, "macro_f1": 1 / labels}


def test_regression_metrics_of_known_answers() -> None:
    predicted, expected = np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0, 30.0])

    assert spearman(predicted, expected) == pytest.approx(1)
    assert 0.9 < pearson(predicted, expected) < 1


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([1], [2]), ([math.nan, 1], [1, 2])],
)
def test_correlation_that_is_none_is_0(predicted: list[float], expected: list[float]) -> None:
    pair = np.array(predicted, float), np.array(expected, float)

    assert (pearson(*pair), spearman(*pair)) == (0, 0)


def span_f1(predicted: Any, expected: Any) -> float:
    return counted_f1(span_counts(predicted, expected))


def test_entity_f1_counts_whole_spans() -> None:
    expected = [[("a", 0, 2)], [("b", 0, 1)]]

    assert span_f1(expected, expected) == 1.0
    assert span_f1([[("a", 0, 1)], [("b", 0, 1)]], expected) == 0.5


@pytest.mark.parametrize("expected", [[], [("a", 0, 1)]])
def test_entity_f1_without_predicted_entities_is_0(expected: list[tuple[str, int, int]]) -> None:
    assert span_f1([[]], [expected]) == 0.0


# Metrics beside those of the libraries that everybody uses


@pytest.fixture
def noisy() -> Iterator[None]:
    """The libraries warn of what is not defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def closely(value: float) -> object:
    return pytest.approx(0.0 if math.isnan(value) else value, rel=1e-12, abs=1e-12)


def cases(count: int = 300) -> Iterator[tuple[np.random.Generator, int]]:
    """A source of chance and a number of examples, small sets more often than large ones."""
    for seed in range(count):
        random = np.random.default_rng(seed)
        yield random, int(2 ** random.uniform(0, 9))


@pytest.mark.usefixtures("noisy")
def test_classification_metrics_are_scikit_learn_s() -> None:
    for random, examples in cases():
        labels = int(random.integers(1, 12))
        expected = random.integers(labels, size=examples)
        guess = random.integers(labels, size=examples)
        predicted = np.where(random.random(examples) < random.random(), expected, guess)
        f1 = reference.f1_score(expected, predicted, average="macro", zero_division=0)
        assert accuracy(predicted, expected) == closely(
            reference.accuracy_score(expected, predicted)
        )
        assert macro_f1(predicted, expected) == closely(f1)
        assert matthews(predicted, expected) == closely(
            reference.matthews_corrcoef(expected, predicted)
        )


@pytest.mark.usefixtures("noisy")
def test_multilabel_metrics_are_scikit_learn_s() -> None:
    for random, examples in cases():
        shape = examples, int(random.integers(2, 9))
        expected = random.random(shape) < random.random(shape[1])
        predicted = expected ^ (random.random(shape) < random.random() / 2)
        assert multilabel_f1(predicted, expected) == {
            f"{average}_f1": closely(
                reference.f1_score(expected, predicted, average=average, zero_division=0)
            )
            for average in ("micro", "macro")
        }


@pytest.mark.usefixtures("noisy")
def test_correlations_are_scipy_s() -> None:
    for random, examples in cases():
        values = random.normal(size=examples + 1) * 10.0 ** random.integers(-6, 7)
        guess = values + random.normal(size=examples + 1) * abs(values).max() * random.random() * 2
        if random.random() < 0.5:  # ties
            values, guess = (np.round(v / abs(values).max() * 3) for v in (values, guess))
        for predicted, expected in ((guess, values), (guess.astype(np.float32), values)):
            assert pearson(predicted, expected) == closely(pearsonr(predicted, expected).statistic)
            assert spearman(predicted, expected) == closely(
                spearmanr(predicted, expected).statistic
            )


@pytest.mark.usefixtures("noisy")
def test_entity_f1_is_seqeval_s() -> None:
    for random, sentences in cases():
        lengths = random.integers(1, 9, size=sentences)
        expected = [bio(random, int(length)) for length in lengths]
        predicted = [tags if random.random() < 0.5 else bio(random, len(tags)) for tags in expected]
        found = span_f1(*([tagged_spans(tags) for tags in side] for side in (predicted, expected)))
        assert found == closely(seqeval_f1(expected, predicted, zero_division=0))


def bio(random: np.random.Generator, length: int) -> list[str]:
    """Valid BIO tags of one sentence."""
    tags = random.choice(["O", "O", "O", "B-a", "I-a", "B-b-c", "I-b-c"], size=length)
    return to_bio([str(tag) for tag in tags])


# Choosing one


@pytest.mark.parametrize("kind", KINDS)
def test_first_metric_of_a_kind_is_the_default(kind: str) -> None:
    assert check_metric(kind, None) == KINDS[kind].metrics[0]
    for name in KINDS[kind].metrics:
        assert check_metric(kind, name) == name


def test_metric_of_another_kind_is_refused_and_the_right_ones_named() -> None:
    with pytest.raises(UsageError, match="no metric 'pearson'; expected one of accuracy, macro_f1"):
        check_metric("classification", "pearson")


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

    assert found.keys() == set(KINDS[kind].metrics)
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
        return KINDS[spec.kind].target(spec, example(label, text, **fields), row).tolist()

    assert of("classification", "music") == 1
    assert of("multilabel", ("weather", "alarm")) == [1, 0, 1]
    assert of("multilabel", ()) == [0, 0, 0]
    assert of("regression", 2.5) == 2.5
    tags = of("tagging", ("O", "B-city"), split=True)
    assert tags == [IGNORED, 0, 1, IGNORED, IGNORED]


def test_target_of_words_that_were_cut_off_is_ignored() -> None:
    row = Row([2, 5, 3], [0] * 3, [(0, 0), (0, 1), (0, 0)])
    spec = support.make_spec(BACKBONE, "tagging")

    tags = KINDS[spec.kind].target(spec, example(("B-city", "I-city"), split=True), row)

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
        KINDS[kind].target(
            support.make_spec(BACKBONE, kind), example(label, split=kind == "tagging"), row
        )


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
        good = KINDS[spec.kind].loss(torch.tensor(logits), targets)
        bad = KINDS[spec.kind].loss(-torch.tensor(logits), targets)
        assert 0 <= good < 0.1 < bad
