"""What answers are worth: calibration, thresholds, tests of differences, and errors of spans."""

from __future__ import annotations

import math
import random
import time
import zlib

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, precision_recall_curve

from centra.data.inputs import Example, Input
from centra.errors import DataError, FormatError
from centra.evaluation.calibration import calibration_of, kept_shares, least_threshold
from centra.evaluation.outcomes import pack_outcomes, unpack_outcomes
from centra.evaluation.report import make_report
from centra.evaluation.significance import Interval, bootstrap, compare_metric, mcnemar
from centra.evaluation.temperature import fit_temperature
from centra.kinds import kind_named
from centra.kinds.spans import match_spans
from tests.support import make_spec


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (0, 1), (8, 2), (60, 40), (400, 380)])
def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ(won: int, lost: int) -> None:
    before = [False] * won + [True] * lost + [True, False, True]
    after = [True] * won + [False] * lost + [True, False, True]
    found = mcnemar(before, after)
    assert (found.won, found.lost, found.exact) == (won, lost, True)
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert found.p_value == pytest.approx(expected)


def test_of_many_rows_mcnemar_is_near_the_binomial_test() -> None:
    found = mcnemar([False] * 1100 + [True] * 1000, [True] * 1100 + [False] * 1000)
    assert not found.exact
    assert found.p_value == pytest.approx(stats.binomtest(1100, 2100).pvalue, rel=0.02)


def test_mcnemar_of_published_figures() -> None:
    # Agresti, Categorical data analysis (2002), table 10.1: 150 and 86 of 1600 changed their minds,
    # by the chi-square statistic with the correction (150 - 86 - 1)² / 236 = 16.82.
    found = mcnemar([False] * 150 + [True] * 86, [True] * 150 + [False] * 86)
    assert found.p_value == pytest.approx(stats.chi2.sf((150 - 86 - 1) ** 2 / 236, 1), rel=0.1)
    many = mcnemar([False] * 700 + [True] * 600, [True] * 700 + [False] * 600)
    assert many.p_value == pytest.approx(stats.chi2.sf(99**2 / 1300, 1))
    same = mcnemar([True] * 600 + [False] * 600, [False] * 600 + [True] * 600)
    assert same.p_value == 1.0


def test_a_bootstrap_interval_is_near_scipy_s_and_the_normal_one() -> None:
    generator = np.random.default_rng(5)
    before = generator.random(800) < 0.8
    after = np.where(generator.random(800) < 0.9, before, generator.random(800) < 0.7)
    found = bootstrap(
        800,
        lambda places: {"accuracy": float(before[places].mean())},
        lambda places: {"accuracy": float(after[places].mean())},
    )["accuracy"]
    gains = after.astype(float) - before
    theirs = stats.bootstrap(
        (gains,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    spread = 1.96 * gains.std() / 800**0.5
    for low, high in (theirs, (gains.mean() - spread, gains.mean() + spread)):
        assert found.low == pytest.approx(low, abs=0.003)
        assert found.high == pytest.approx(high, abs=0.003)


def test_a_bootstrap_interval_holds_the_true_difference_19_times_of_20() -> None:
    generator = np.random.default_rng(11)
    held = 0
    for _ in range(40):
        before, after = generator.random((2, 150)) < 0.7
        found = bootstrap(
            150,
            lambda places, right=before: {"accuracy": np.count_nonzero(right[places]) / 150},  # type: ignore[misc]
            lambda places, right=after: {"accuracy": np.count_nonzero(right[places]) / 150},  # type: ignore[misc]
        )
        held += not found["accuracy"].significant
    assert 35 <= held <= 40


def test_ten_thousand_rows_of_150_labels_are_compared_in_seconds() -> None:
    generator = np.random.default_rng(0)
    wanted = generator.integers(0, 150, 10_000)
    before, after = (
        np.stack([np.where(generator.random(10_000) < 0.9, wanted, 0), wanted], axis=1)
        for _ in range(2)
    )
    begun = time.process_time()
    found = compare_metric(kind_named("classification"), ("x",) * 150, "macro_f1", before, after)
    assert time.process_time() - begun < 30
    assert isinstance(found, Interval)


@pytest.mark.parametrize(
    "outcomes",
    [
        np.array([[-1, 149], [3, 3]]),
        np.array([[True, False, True]]),
        np.array([[0.25, -1e300]]),
        np.array([[0, 70_000], [2, 1]]),
        np.array([[200, 0, 255]]),
    ],
)
def test_outcomes_are_packed_as_they_are(outcomes: np.ndarray) -> None:
    packed = pack_outcomes(outcomes)
    assert packed is not None
    assert np.array_equal(unpack_outcomes(packed, len(outcomes)), outcomes)
    assert pack_outcomes(outcomes.copy()) == packed
    with pytest.raises(FormatError, match=f"the outcomes of {len(outcomes) + 3} rows"):
        unpack_outcomes(packed, len(outcomes) + 3)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"no zlib",
        zlib.compress(b"no header"),
        zlib.compress(b"<i2 1000000000000\nabcd"),
        zlib.compress(b"|O 1\nabababab"),
        zlib.compress(bytes(70 * 2**20)),
    ],
)
def test_what_is_no_outcomes_is_refused(packed: bytes) -> None:
    with pytest.raises(FormatError, match="the outcomes of 1 rows of an evaluation cannot be read"):
        unpack_outcomes(packed, 1)


def test_too_many_outcomes_are_not_kept() -> None:
    assert pack_outcomes(np.zeros((2**23, 8), dtype=bool)) is not None
    assert pack_outcomes(np.zeros((2**23, 9), dtype=bool)) is None


def test_a_bootstrap_tells_a_difference_from_noise_and_says_so_again() -> None:
    generator = random.Random(0)
    rows = 300
    first = np.array([generator.random() < 0.7 for _ in range(rows)])
    noise = first.copy()
    noise[:4] = ~noise[:4]
    better = first | (np.arange(rows) % 5 == 0)

    def share(values: np.ndarray) -> object:
        return lambda places: {"accuracy": float(values[places].mean())}

    chance = bootstrap(rows, share(first), share(noise))["accuracy"]  # type: ignore[arg-type]
    real = bootstrap(rows, share(first), share(better))["accuracy"]  # type: ignore[arg-type]
    assert not chance.significant
    assert real.significant
    assert real.low < real.after - real.before < real.high
    assert bootstrap(rows, share(first), share(better))["accuracy"] == real  # type: ignore[arg-type]


def test_the_calibration_error_is_the_gap_between_scores_and_what_came_true() -> None:
    perfect = [(0.5, True), (0.5, False)] * 10
    assert calibration_of(perfect).error == 0
    proud = calibration_of([(0.9, True), (0.9, False), (1.0, False), (0.0, False)])
    assert proud.error == pytest.approx((2 * 0.4 + 1.0 + 0.0) / 4)
    assert [one.count for one in proud.bins] == [1, 2, 1]


def test_the_calibration_error_is_that_of_its_definition() -> None:
    generator = np.random.default_rng(2)
    scores = generator.random(2000)
    true = generator.random(2000) < scores**2
    # Guo et al. 2017, equation 3: the bins are (m - 1, m] / M.
    bins = np.digitize(scores, np.linspace(0, 1, 16)[1:-1], right=True)
    gaps = [
        (bins == b).mean() * abs(true[bins == b].mean() - scores[bins == b].mean())
        for b in range(15)
    ]
    claims = [*zip(scores.tolist(), true.tolist(), strict=True)]
    assert calibration_of(claims).error == pytest.approx(sum(gaps))
    accuracy, means = calibration_curve(true, scores, n_bins=15)
    assert [one.accuracy for one in calibration_of(claims).bins] == pytest.approx([*accuracy])
    assert [one.score for one in calibration_of(claims).bins] == pytest.approx([*means])


def test_a_temperature_is_the_one_of_least_loss() -> None:
    generator = np.random.default_rng(8)
    logits = (generator.normal(size=(1500, 4)) * 4).astype(np.float32)
    targets = (logits / 2.5 + generator.gumbel(size=logits.shape)).argmax(axis=-1)

    def loss(log: float) -> float:
        return float(log_loss(targets, softmax(logits / math.exp(log), axis=1)))

    best = math.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
    assert fit_temperature(kind_named("classification"), logits, targets) == pytest.approx(
        best, rel=0.005
    )


def test_the_least_threshold_is_the_first_of_the_precision_recall_curve_that_is_high_enough() -> (
    None
):
    generator = np.random.default_rng(4)
    scores = generator.random(500).round(2)
    true = generator.random(500) < scores
    precision, _, thresholds = precision_recall_curve(true, scores)
    for wanted in (0.6, 0.8, 0.9):
        least = min(t for p, t in zip(precision[:-1], thresholds, strict=True) if p >= wanted)
        found = least_threshold([*zip(scores.tolist(), true.tolist(), strict=True)], wanted)
        # Between it and the next lower score.
        assert found is not None
        assert max((s for s in scores if s < least), default=0) < found <= least


def test_what_a_threshold_keeps() -> None:
    shares = kept_shares([(0.9, True), (0.6, False), (0.3, True)])
    by = {one.threshold: (one.coverage, one.accuracy) for one in shares}
    assert by[0.0] == (1.0, pytest.approx(2 / 3))
    assert by[0.5] == (pytest.approx(2 / 3), 0.5)
    assert by[1.0] == (0.0, None)
    assert kept_shares([]) == ()


def test_the_least_threshold_keeps_equal_scores_together() -> None:
    claims = [(0.9, True), (0.8, True), (0.8, False), (0.5, True), (0.2, False)]
    assert least_threshold(claims, 1.0) == pytest.approx(0.85)
    assert least_threshold(claims, 0.75) == pytest.approx(0.35)
    assert least_threshold(claims, 0.5) == pytest.approx(0.2)
    assert least_threshold([(0.9, False)], 0.5) is None


@pytest.mark.parametrize("name", ["classification", "multilabel"])
def test_a_temperature_undoes_what_logits_were_multiplied_with(name: str) -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(4000, 3)) * 1.5
    if name == "classification":
        targets = (logits + generator.gumbel(size=logits.shape)).argmax(axis=-1)
    else:
        chances = 1 / (1 + np.exp(-logits))
        targets = (generator.random(logits.shape) < chances).astype(np.float32)
    kind = kind_named(name)
    found = fit_temperature(kind, (3 * logits).astype(np.float32), targets)
    assert math.isclose(found, 3, rel_tol=0.1)
    assert fit_temperature(kind, (3 / found * logits).astype(np.float32), targets) == 1.0


def test_data_that_say_nothing_of_a_temperature_are_refused() -> None:
    kind, logits = kind_named("classification"), np.array([[1, 0], [0, 1]], dtype=np.float32)
    for targets, says in (([0, 1], "every label is right"), ([1, 0], "nothing of their labels")):
        with pytest.raises(DataError, match=says):
            fit_temperature(kind, logits, np.array(targets))


def test_a_right_label_that_was_held_back_is_an_error_and_the_least_of_all() -> None:
    kind, spec = kind_named("classification"), make_spec("0" * 64, labels=("a", "b"))
    example = Example(input=Input("hm"), label="a", where="rows.jsonl:1")
    answers = []
    for label, scores in ((None, (0.6, 0.4)), ("b", (0.1, 0.9)), ("a", (0.8, 0.2))):
        pairs = sorted(zip(("a", "b"), scores, strict=True), key=lambda pair: -pair[1])
        top = [{"label": name, "score": score} for name, score in pairs]
        answers.append({"label": label, "score": top[0]["score"], "top": top})
    examples = [example] * 3
    judgements = [kind.judge(answer, example) for answer in answers]
    found = make_report(spec, examples, judgements, kind.outcomes(spec.labels, answers, examples))
    assert (found.errors, found.all.metrics["accuracy"]) == (2, pytest.approx(1 / 3))
    assert [row.faults for row in found.worst] == [("wrong label",), ("missed",)]
    assert found.all.faults == {"missed": 1, "wrong label": 1}


def test_spans_are_paired_once_and_by_what_is_most_alike() -> None:
    wanted = [("city", 0, 5), ("day", 8, 12), ("day", 20, 25), ("city", 30, 35), ("day", 40, 44)]
    answered = [
        ("city", 0, 5),
        ("city", 8, 12),
        ("day", 22, 25),
        ("day", 30, 33),
        ("day", 50, 52),
        ("day", 23, 24),
    ]
    assert [(pair.wanted, pair.answered, pair.fault) for pair in match_spans(wanted, answered)] == [
        ("city", "city", None),
        ("day", "city", "wrong label"),
        ("day", "day", "wrong bounds"),
        ("city", "day", "wrong label and bounds"),
        ("day", None, "missed"),
        (None, "day", "spurious"),
        (None, "day", "spurious"),
    ]
