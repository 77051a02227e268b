"""What answers are worth: calibration, thresholds, tests of differences, and errors of spans."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from centra.errors import DataError
from centra.evaluation.calibration import calibration_of, kept_shares, least_threshold
from centra.evaluation.significance import bootstrap, mcnemar
from centra.evaluation.temperature import fit_temperature
from centra.kinds import kind_named
from centra.kinds.spans import match_spans


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
