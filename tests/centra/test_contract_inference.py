"""What training data make a task's contract, and what is said of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from centra.data.inputs import read_examples
from centra.data.labelling import Labelling
from centra.errors import DataError
from centra.training.contract_inference import InferredContract, infer_contract
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., InferredContract]:
    """The contract of some labels, as they stand in a file each for training and dev."""

    def rows(labels: list[Any], name: str) -> list[Any]:
        lines = []
        for label in labels:
            fields = label if isinstance(label, dict) else {"text": "a", "label": label}
            if isinstance(label, list):
                fields = {"text": "a", "labels": label}
            if isinstance(label, tuple):
                fields = {"tokens": ["a"] * len(label), "labels": [*label]}
            lines.append(fields)
        return read_examples(support.write_jsonl(tmp_path / name, lines))

    def made(train: list[Any], dev: list[Any] | None = None, **said: Any) -> InferredContract:
        dev = train if dev is None else dev
        labelling = Labelling(**said)
        return infer_contract(rows(train, "train.jsonl"), rows(dev, "dev.jsonl"), labelling)

    return made


def values(found: InferredContract) -> list[Any]:
    return [example.label for example in found.train]


# Kinds


def test_a_number_that_is_no_class_may_have_been_meant_as_a_value(
    made: Callable[..., InferredContract],
) -> None:
    with pytest.raises(DataError) as fault:
        made([1, 2], [3])
    assert (fault.value.code, fault.value.data["label"]) == ("unknown-number", "3")
    with pytest.raises(DataError) as fault:
        made([1, 2], [3], labels=("1", "2"))
    assert fault.value.code == "unknown-label"


@pytest.mark.parametrize(
    ("labels", "kind", "names", "read"),
    [
        (["b", "a", "b"], "classification", ("a", "b"), ["b", "a", "b"]),
        (["10", "9", "1"], "classification", ("1", "10", "9"), ["10", "9", "1"]),
        ([10, 9, 1], "classification", ("1", "9", "10"), ["10", "9", "1"]),
        ([1.0, 0, -0.0], "classification", ("0", "1"), ["1", "0", "0"]),
        ([1e3, -7, 10**30], "classification", ("-7", "1000", "1" + "0" * 30), None),
        ([1, 2.5], "regression", (), [1.0, 2.5]),
        ([["b"], ["c", "a"], []], "multilabel", ("a", "b", "c"), [("b",), ("c", "a"), ()]),
        ([[10], [], [9, 2.0]], "multilabel", ("2", "9", "10"), [("10",), (), ("9", "2")]),
        ([("O", "B-b"), ("B-a", "O")], "tagging", ("O", "B-a", "I-a", "B-b", "I-b"), None),
    ],
    ids=str,
)
def test_labels_tell_the_kind(
    labels: list[Any],
    kind: str,
    names: tuple[str, ...],
    read: list[Any] | None,
    made: Callable[..., InferredContract],
) -> None:
    found = made(labels)

    assert (found.contract.kind, found.contract.input, found.contract.labels) == (
        kind,
        "single",
        names,
    )
    if read is not None:
        assert values(found) == read
        assert [type(value) for value in values(found)] == [type(value) for value in read]


def test_whole_numbers_are_classes_and_that_is_said(made: Callable[..., InferredContract]) -> None:
    found = made([i % 77 for i in range(154)])

    assert found.contract.labels == tuple(str(i) for i in range(77))
    assert found.remarks == [("77 whole numbers as labels: taken as classes")]


@pytest.mark.parametrize("dev", [[1], [1, 0.5]], ids=["in train", "in both"])
def test_a_fraction_anywhere_makes_values(
    dev: list[float], made: Callable[..., InferredContract]
) -> None:
    found = made([1, 2, 4.75], dev)
    assert found.contract.kind == "regression"
    (remark,) = found.remarks
    assert "label 4.75" in remark
    assert "train.jsonl:3" in remark

    found = made([1, 2], [1, 0.5])
    assert (found.contract.kind, values(found)) == ("regression", [1.0, 2.0])
    assert "dev.jsonl:2" in found.remarks[0]


def test_what_is_said_of_the_kind_holds(made: Callable[..., InferredContract]) -> None:
    found = made([1, 2], kind="regression")
    assert (found.contract.kind, values(found), found.remarks) == ("regression", [1.0, 2.0], [])

    found = made([1, 2], kind="classification")
    assert (found.contract.kind, values(found), found.remarks) == ("classification", ["1", "2"], [])

    for labels, kind, says in (
        ([1, 2.5], "classification", r"train\.jsonl:2: label 2.5 is a number; a classification"),
        (["1", "2"], "regression", r"train\.jsonl:1: label '1' is a text; a regression task has"),
        (["a", "b"], "multilabel", r"train\.jsonl:1: label 'a' is a text; a multilabel task has"),
        ([["a"]], "classification", r"train\.jsonl:1: 'labels' is a list; a classification"),
        ([["a"]], "tagging", r"train\.jsonl:1: 'labels' is a list; a tagging task has 'tokens'"),
        ([("O",)], "multilabel", r"train\.jsonl:1: 'labels' is a list of tags; a multilabel"),
    ):
        with pytest.raises(DataError, match=says):
            made(labels, kind=kind)


@pytest.mark.parametrize(
    ("train", "dev", "says"),
    [
        (["a", 1], ["a"], r"train\.jsonl:2 has a number as its label, .*train\.jsonl:1 a text"),
        ([1, 2], ["a"], r"train\.jsonl:1 has a number as its label, .*dev\.jsonl:1 a text"),
        ([["a"], [1]], [["a"]], r"train\.jsonl:2 has a number as its label"),
        (["a", ["a"]], ["a"], r"train\.jsonl:2: a multilabel example .* a task takes one kind"),
        (["a", ("O",)], ["a"], r"train\.jsonl:2: a tagging example"),
        (["a", {"text": "a", "text_pair": "b", "label": "a"}], ["a"], r"2: .* with a pair input"),
        (["a"], [{"text": "a", "text_pair": "b", "label": "a"}], r"dev\.jsonl:1: .* a pair input"),
        (["a", "b"], ["c"], r"dev\.jsonl:1: label 'c' does not occur in the training data"),
        (["a", "b"], ["A "], r"known are a, b; 'a' is nearly the same"),
        ([1, 2], [3], r"dev\.jsonl:1: label '3' does not occur"),
    ],
)
def test_labels_that_do_not_go_together_are_refused(
    train: list[Any], dev: list[Any], says: str, made: Callable[..., InferredContract]
) -> None:
    with pytest.raises(DataError, match=says):
        made(train, dev)


def test_a_number_is_the_class_of_its_digits_where_training_names_it(
    made: Callable[..., InferredContract],
) -> None:
    # As a table has them of which one part has no other label.
    found = made(["0", "1", "oos"], [1, 0])
    assert found.contract.labels == ("0", "1", "oos")
    assert [example.label for example in found.dev] == ["1", "0"]


# A set that is given


def test_given_labels_and_their_order_are_the_contract(
    made: Callable[..., InferredContract],
) -> None:
    found = made(["b", "a"], labels=("c", "b", "a", "B"))

    assert found.contract.labels == ("c", "b", "a", "B")
    assert found.remarks[0] == "2 of the labels given are in no row of the training data: c, B"
    assert "differ only by case" in found.remarks[1]
    with pytest.raises(DataError, match=r"dev\.jsonl:1: label 'd' is none of the labels given"):
        made(["a", "b"], ["d"], labels=("a", "b"))
    with pytest.raises(DataError, match="regression task, which has none"):
        made([0.5, 1], labels=("a", "b"))


def test_numbers_are_places_among_names(made: Callable[..., InferredContract]) -> None:
    found = made([2, 0, 1], labels=("no", "maybe", "yes"))
    assert (found.contract.labels, values(found)) == (
        ("no", "maybe", "yes"),
        ["yes", "no", "maybe"],
    )
    assert found.remarks == [
        "3 whole numbers as labels: taken as places in the task's labels, from 0, which is 'no'"
    ]

    assert values(made([[0, 2], []], labels=("a", "b", "c"))) == [("a", "c"), ()]
    assert values(made([2, 10], labels=("10", "2"))) == ["2", "10"]
    with pytest.raises(DataError, match=r"train\.jsonl:2: 3 is the place of no label.* 0 to 2"):
        made([0, 3], labels=("a", "b", "c"))
    with pytest.raises(DataError, match="-1 is the place of no label"):
        made([0, -1], labels=("a", "b", "c"))
    with pytest.raises(
        DataError, match=r"label '0' is none of the labels given; known are 00, 01$"
    ):
        made([0, 1], labels=("00", "01"))


# Tags


@pytest.mark.parametrize(
    ("tags", "remark"),
    [
        (("B-x", "I-x", "O", "B-x", "B-y", "I-y"), None),
        (("B-x", "E-x", "O", "S-x", "B-y", "E-y"), "BIOES tags: converted to BIO"),
        (("B-x", "L-x", "O", "U-x", "B-y", "L-y"), "BILOU tags: converted to BIO"),
        (("I-x", "I-x", "O", "I-x", "I-y", "I-y"), "IO tags: converted to BIO; words of one type"),
        (("x", "x", "O", "x", "y", "y"), "IO tags written without marks: converted to BIO"),
        (("x_B", "x_I", "O", "x_B", "y_B", "y_I"), "BIO tags written x_B: converted to BIO"),
        (("B-x", "I-x", "O", "B-x", "I-y", "I-y"), "2 spans begin with an I- tag; it is read as B"),
    ],
)
def test_tags_become_bio(
    tags: tuple[str, ...], remark: str | None, made: Callable[..., InferredContract]
) -> None:
    found = made([tags])

    assert values(found) == [("B-x", "I-x", "O", "B-x", "B-y", "I-y")]
    assert found.contract.labels == ("O", "B-x", "I-x", "B-y", "I-y")
    assert len(found.remarks) == (remark is not None)
    assert (remark or "") in "".join(found.remarks)


def test_iob1_is_told_by_its_spans(made: Callable[..., InferredContract]) -> None:
    found = made([("I-x", "B-x", "O"), ("O", "I-y", "I-x")])

    assert values(found) == [("B-x", "B-x", "O"), ("O", "B-y", "B-x")]
    assert found.remarks == ["IOB1 tags: converted to BIO"]
    assert found.scheme == "iob1"
    with pytest.raises(DataError, match=r"train\.jsonl:1: 'I-x' is not a BIOES|'B-x' is not an IO"):
        made([("I-x", "B-x", "O")], tags="io")


@pytest.mark.parametrize("tag", ["B-", "I-", "b-x", "", "o", "-x"])
def test_tag_of_no_scheme_is_refused_with_file_and_line(
    tag: str, made: Callable[..., InferredContract]
) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl:2: "):
        made([("O",), ("O", tag)])


def test_tags_of_two_schemes_are_refused_with_file_and_line(
    made: Callable[..., InferredContract],
) -> None:
    with pytest.raises(DataError, match=r"dev\.jsonl:1: 'city' is not a BIO tag, as 'B-x' is"):
        made([("O", "B-x")], [("O", "city")])
    with pytest.raises(DataError, match="but this is a classification task"):
        made(["a", "b"], tags="bio")


def test_given_tags_are_the_contract_in_any_scheme(made: Callable[..., InferredContract]) -> None:
    bio = ("B-y", "I-y", "O", "B-x", "I-x")
    assert made([("O", "B-x")], labels=bio).contract.labels == bio
    assert made([("O", "S-x")], labels=bio).contract.labels == bio
    for labels in (("O", "S-y", "B-x", "E-x"), ("y", "x"), ("O", "I-y", "I-x")):
        found = made([("O", "B-x", "I-x")], labels=labels, tags=None)
        assert found.contract.labels == ("O", "B-y", "I-y", "B-x", "I-x")
        assert found.remarks == ["1 of the labels given are in no row of the training data: y"]
    with pytest.raises(DataError, match=r"train\.jsonl:1: label 'B-z' is none of the labels given"):
        made([("O", "B-z")], labels=bio)


def test_numbers_as_tags_need_names(made: Callable[..., InferredContract]) -> None:
    with pytest.raises(
        DataError, match=r"train\.jsonl:1: the tags are numbers, and no labels are given"
    ):
        made([(0, 1, 2)])

    found = made([(0, 1, 2), (1, 1, 0)], labels=("O", "B-x", "I-x"))

    assert values(found) == [("O", "B-x", "I-x"), ("B-x", "B-x", "O")]
    assert "taken as places in the task's labels, from 0, which is 'O'" in found.remarks[0]
    with pytest.raises(DataError, match="a number must name a BIO tag"):
        made([(0, 1)], labels=("O", "S-x"))
    with pytest.raises(DataError, match=r"train\.jsonl:1: -100 is the place of no label"):
        made([(0, -100)], labels=("O", "B-x", "I-x"))
