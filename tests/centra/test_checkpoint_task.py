"""What a checkpoint's config.json says of its task, as transformers understands it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from centra.checkpoints.task import read_task
from centra.errors import FormatError, IncompatibleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


NAMES = {"0": "alarm", "1": "music", "2": "weather"}
MADE_UP = {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
LABELS = ("alarm", "music", "weather")


def read(
    config: dict[str, Any],
    outputs: int = 3,
    *,
    tagging: bool = False,
    kind: str | None = None,
    labels: Sequence[str] | None = None,
) -> tuple[str, tuple[str, ...], list[str]]:
    remarks: list[str] = []
    found = read_task(
        config,
        outputs,
        tagging=tagging,
        kind=kind,
        labels=labels,
        where="folder",
        remark=remarks.append,
    )
    return *found, remarks


@pytest.mark.parametrize(
    ("problem", "outputs", "kind"),
    [
        ("single_label_classification", 3, "classification"),
        ("multi_label_classification", 3, "multilabel"),
        ("multi_label_classification", 1, "multilabel"),
        ("regression", 1, "regression"),
    ],
)
def test_the_problem_type_says_the_kind(problem: str, outputs: int, kind: str) -> None:
    names = dict(list(NAMES.items())[:outputs])
    config = {"problem_type": problem, "id2label": names}
    expected = () if kind == "regression" else LABELS[:outputs]
    assert read(config, outputs) == (kind, expected, [])


def test_without_a_problem_type_one_output_is_a_regression_and_several_are_classes() -> None:
    kind, labels, remarks = read({"id2label": {"0": "LABEL_0"}}, 1)
    assert (kind, labels) == ("regression", ())
    assert "as transformers takes one output" in remarks[0]

    kind, labels, remarks = read({"id2label": NAMES, "problem_type": None})
    assert (kind, labels) == ("classification", LABELS)
    assert getattr(remarks[0], "code", None) == "kind-assumed"


@pytest.mark.parametrize(
    ("kind", "outputs"), [("multilabel", 3), ("classification", 3), ("multilabel", 1)]
)
def test_what_the_checkpoint_leaves_open_may_be_declared(kind: str, outputs: int) -> None:
    names = dict(list(NAMES.items())[:outputs])
    assert read({"id2label": names}, outputs, kind=kind) == (kind, LABELS[:outputs], [])


@pytest.mark.parametrize(
    ("config", "kind", "tagging", "says"),
    [
        ({"problem_type": "regression"}, "multilabel", False, "problem_type 'regression'"),
        ({"problem_type": "single_label_classification"}, "multilabel", False, "single_label"),
        ({}, "tagging", False, "a classifier of whole texts"),
        ({}, "classification", True, "is a token classifier"),
    ],
)
def test_what_the_checkpoint_says_cannot_be_declared_away(
    config: dict[str, Any], kind: str, tagging: bool, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        read({"id2label": NAMES, **config}, kind=kind, tagging=tagging)


@pytest.mark.parametrize(
    ("config", "kind", "outputs", "says"),
    [
        ({"problem_type": "regression", "id2label": NAMES}, None, 3, "a regression with 3 outputs"),
        ({"id2label": NAMES}, "regression", 3, "one task per number"),
        ({"id2label": {"0": "a"}}, "classification", 1, "a classification needs two"),
    ],
)
def test_outputs_that_do_not_suit_the_kind_are_refused_with_the_reason(
    config: dict[str, Any], kind: str | None, outputs: int, says: str
) -> None:
    with pytest.raises(IncompatibleError, match=says):
        read(config, outputs, kind=kind)


@pytest.mark.parametrize("problem", ["ordinal", "", 3, [], {"a": 1}])
def test_another_problem_type_is_refused(problem: object) -> None:
    with pytest.raises(FormatError, match="expected single_label_classification, multi_label"):
        read({"id2label": NAMES, "problem_type": problem})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "the ids 1, 2, 3; expected 0, 1, 2"),
        ({"id2label": {"0": "a", "1": "b", "5": "c"}}, "the ids 0, 1, 5"),
        ({"id2label": {"00": "a", "1": "b", "2": "c"}}, "the ids 00, 1, 2"),
        ({"id2label": {"-1": "a", "0": "b", "1": "c"}}, "the ids -1, 0, 1"),
        ({"id2label": {"a": "0", "b": "1", "c": "2"}}, "the ids a, b, c"),
        ({"id2label": {"0": "a", "1": "b"}}, r"2 labels \(a, b\), but its head has 3 outputs"),
        ({"id2label": ["a", "b", "c"]}, "no object from ids to labels"),
        ({"id2label": {**NAMES, "1": None}}, "label 1 is None; expected a text"),
        ({"id2label": {**NAMES, "1": ["b"]}}, "label 1 is "),
        ({"id2label": {**NAMES, "1": ""}}, "label 1, '', is empty"),
        ({"id2label": {**NAMES, "1": "alarm"}}, "label 1, 'alarm', is also label 0"),
        ({"id2label": {**NAMES, "1": "b\ud83d"}}, "half of a character"),
        ({"id2label": NAMES, "label2id": ["a"]}, "no object from labels to ids"),
        (
            {"id2label": NAMES, "label2id": {"alarm": 1, "music": 0, "weather": 2}},
            "label 'alarm' is 0 in id2label and 1 in label2id",
        ),
        (
            {"id2label": NAMES, "label2id": {"alarm": 0, "music": 1, "snow": 2}},
            "label 'weather' is 2 in id2label and missing in label2id",
        ),
        (
            {"id2label": {"0": "LABEL_1", "1": "LABEL_0", "2": "LABEL_2"}, "label2id": MADE_UP},
            "label 'LABEL_1' is 0 in id2label and 1 in label2id",
        ),
        ({}, "says num_labels 2, but its head has 3 outputs"),
        ({"num_labels": 10**9}, "says num_labels 1000000000"),
        ({"num_labels": "3"}, "says num_labels '3'"),
    ],
)
def test_labels_that_cannot_be_the_heads_are_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(FormatError, match=says) as error:
        read(config)
    assert error.value.code == "labels-unusable"
    str(error.value).encode()  # It can be printed.


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": {"1": "a", "2": "b", "3": "c"}},
        {"id2label": {"0": "a"}},
        {"id2label": NAMES, "label2id": {"alarm": 2}},
        {"id2label": {**NAMES, "1": "b\ud83d"}},
        {},
    ],
)
def test_labels_that_are_given_count_instead(config: dict[str, Any]) -> None:
    kind, labels, _ = read(config, labels=["x", "y", "z"])
    assert (kind, labels) == ("classification", ("x", "y", "z"))
    with pytest.raises(UsageError, match="has 3 outputs, but 2 labels were given"):
        read(config, labels=["x", "y"])


def test_a_regression_takes_no_labels() -> None:
    with pytest.raises(UsageError, match="a regression, which has no labels"):
        read({"problem_type": "regression", "id2label": {"0": "a"}}, 1, labels=["x"])


@pytest.mark.parametrize("inverse", [None, {}, MADE_UP, {"LABEL_0": 0, "LABEL_1": 1}])
def test_a_label2id_that_nobody_set_says_nothing(inverse: object) -> None:
    assert read({"id2label": NAMES, "label2id": inverse})[1] == LABELS


def test_whole_numbers_are_labels_by_their_digits() -> None:
    config = {"id2label": {"0": 0, "1": 1}, "label2id": {"0": "0", "1": "1"}}
    assert read(config, 2)[1] == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), "LABEL_0"),
        (("yes", "Yes", "no"), "differ only by case"),
        (("new york", "newyork", "no"), "differ only by space"),
        (("caf\u00e9", "cafe\u0301", "no"), "Unicode form"),
        ((" a", "b", "c"), "begins or ends with space"),
    ],
)
def test_labels_that_seem_not_to_be_meant_are_remarked_on(
    labels: tuple[str, ...], says: str
) -> None:
    config = {
        "problem_type": "single_label_classification",
        "id2label": {str(i): label for i, label in enumerate(labels)},
    }
    _, found, remarks = read(config)
    assert found == labels
    assert len(remarks) == 1
    assert says in remarks[0]
