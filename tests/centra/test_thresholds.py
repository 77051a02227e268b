"""Thresholds that a team sets: read from a file, and made part of a module's decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import DataError
from centra.formats.decision import Decision
from centra.formats.task_module import HeadSpec
from centra.formats.thresholds import Thresholds, read_thresholds
from tests import support

if TYPE_CHECKING:
    from pathlib import Path

BACKBONE = "0" * 64


def read(tmp_path: Path, text: str, name: str = "thresholds.toml") -> Thresholds:
    path = tmp_path / name
    path.write_text(text)
    return read_thresholds(path)


def spec(kind: str = "multilabel", **fields: Any) -> Any:
    return support.make_spec(BACKBONE, kind, **fields)


def decided(thresholds: Thresholds, kind: str = "multilabel", **fields: Any) -> tuple[Any, Any]:
    """The threshold and the rejection that then count."""
    made = thresholds.decide(spec(kind, **fields))
    made.check("made")
    return made.effective_decision.threshold, made.effective_decision.rejection


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("threshold = 0.4", "a.toml"),
        ('{"threshold": 0.4}', "a.json"),
    ],
)
def test_one_threshold_is_for_all_labels(text: str, name: str, tmp_path: Path) -> None:
    assert decided(read(tmp_path, text, name)) == (0.4, None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[threshold]\nmusic = 0.7\nweather = 1", "a.toml"),
        ('{"threshold": {"music": 0.7, "weather": 1}}', "a.json"),
    ],
)
def test_labels_may_have_their_own_and_others_keep_theirs(
    text: str, name: str, tmp_path: Path
) -> None:
    thresholds = read(tmp_path, text, name)
    head = HeadSpec(activation="tanh", threshold=0.2)
    assert decided(thresholds, head=head) == ((0.2, 0.7, 1.0), None)
    before = Decision(threshold=(0.1, 0.2, 0.3))
    assert decided(thresholds, decision=before) == ((0.1, 0.7, 1.0), None)


def test_a_classification_may_reject_and_no_longer(tmp_path: Path) -> None:
    assert decided(read(tmp_path, "rejection = 0.6"), "classification") == (None, 0.6)
    for text, name in (('rejection = "none"', "a.toml"), ('{"rejection": null}', "a.json")):
        thresholds = read(tmp_path, text, name)
        before = Decision(rejection=0.5)
        assert decided(thresholds, "classification", decision=before) == (None, None)


def test_what_is_not_named_stays() -> None:
    decision = Decision(activation="sigmoid", rejection=0.5)
    before = spec("classification", decision=decision)
    assert Thresholds().decide(before) is before
    after = Thresholds(rejection=0.7).decide(before)
    assert after.decision == Decision(activation="sigmoid", rejection=0.7)


def test_a_copy_of_a_spec_answers_by_its_own_decision() -> None:
    before = spec("classification")
    assert before.effective_decision.rejection is None
    after = before.model_copy(update={"decision": Decision(rejection=0.5)})
    assert after.effective_decision.rejection == 0.5


def test_metrics_of_other_answers_are_left_out() -> None:
    measured = spec(metrics={"micro_f1": 0.9})
    assert Thresholds(threshold=0.5).decide(measured).metrics == {"micro_f1": 0.9}
    assert Thresholds(threshold=0.6).decide(measured).metrics == {}


@pytest.mark.parametrize(
    ("kind", "thresholds", "says"),
    [
        ("multilabel", Thresholds(threshold={"snow": 0.5}), r"no label 'snow'; the task has alarm"),
        ("classification", Thresholds(threshold=0.5), r"classification task has no 'threshold'"),
        ("multilabel", Thresholds(rejection=0.5), r"rejection does not suit a multilabel task"),
        ("regression", Thresholds(rejection=0.5), r"rejection does not suit a regression task"),
    ],
)
def test_what_does_not_suit_the_task_is_refused(
    kind: str, thresholds: Thresholds, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        thresholds.decide(spec(kind))


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("", "a.toml", r"expected 'threshold'"),
        ("thresholds = 1", "a.toml", r'found \["thresholds"\]'),
        ("[1]", "a.json", r"expected 'threshold'"),
        ("{", "a.json", r"not JSON"),
        ("threshold =", "a.toml", r"not TOML"),
        ("threshold = true", "a.toml", r"threshold is True; expected a number"),
        ("threshold = inf", "a.toml", r"threshold is inf; expected a number"),
        ('[threshold]\na = "high"', "a.toml", r"threshold: a is 'high'; expected a number"),
        ('rejection = "some"', "a.toml", r"rejection is 'some'"),
        ('{"threshold": null}', "a.json", r"threshold is None"),
    ],
)
def test_a_file_that_says_something_else_is_refused(
    text: str, name: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path, text, name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.toml: cannot be read"):
        read_thresholds(tmp_path / "nowhere.toml")
