"""Sets of labels: files of them, and what is odd about them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from centra.data.labels import label_remarks, near_label, number_label, read_labels
from centra.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("b\na\n", ("b", "a")),
        ("b\r\na\r\n\r\n", ("b", "a")),
        ("only", ("only",)),
        ("10\n9\n", ("10", "9")),
        (" a\na\n", (" a", "a")),
        ("é 日本\n\u2028x\n", ("é 日本", "\u2028x")),
        ("\ufeffb\na", ("b", "a")),
        ('["b", "a"]', ("b", "a")),
        ('\n[\n "b",\n 3\n]\n', ("b", "3")),
    ],
)
def test_labels_are_read_in_their_order(
    content: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content.encode())

    assert read_labels(path) == labels


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "labels: holds no labels"),
        ("\n\n", "labels: holds no labels"),
        ("[]", "labels: holds no labels"),
        ("a\n\nb\n", "labels:2: the label is empty"),
        ("a\nb\na\n", "labels:3: label 'a' is there twice, first at .*labels:1"),
        ('["a", "a"]', "label 2: label 'a' is there twice"),
        ('["a", ""]', "label 2: the label is empty"),
        ('["a", null]', "label 2: expected a string, found null"),
        ('["a", 1.5]', "label 2: expected a string, found 1.5"),
        ('["a", true]', "label 2: expected a string, found true"),
        ('["a", "\\ud800"]', "label 2: .* not valid Unicode"),
        ('{"0": "a"}', "expected a JSON list of labels, found a JSON object"),
        ('["a", "b"', "begins as JSON, but is none"),
        (b"caf\xe9\n", "cannot be read as UTF-8 text"),
    ],
)
def test_labels_that_are_none_are_refused(content: str | bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(DataError, match=says):
        read_labels(path)


def test_missing_file_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="labels: no such file; expected labels, one a line"):
        read_labels(tmp_path / "labels")
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("number", "label"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1.0", "1"),
        ("1e3", "1000"),
        ("-7", "-7"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("0.5", None),
        ("1e-3", None),
    ],
)
def test_a_whole_number_is_called_by_its_digits(number: str, label: str | None) -> None:
    assert number_label(json.loads(number)) == label


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["yes", "no"], []),
        (["LABEL_0", "LABEL_1"], ["placeholders instead of labels (2, such as LABEL_0)"]),
        (["LABEL_x", "LABEL_"], []),
        (["a", "a "], ["'a ' begins or ends with space", "'a' and 'a ' differ only by space"]),
        (["a b", "a  b"], ["differ only by space"]),
        (["Music", "music"], ["'Music' and 'music' differ only by case"]),
        (["caf\u00e9", "cafe\u0301"], ["differ only by Unicode form"]),
        (["ﬁlm", "film"], ["differ only by"]),
        (["STRASSE", "straße"], ["differ only by case"]),
        (["１", "1"], ["differ only by"]),
    ],
)
def test_odd_labels_are_remarked_on(labels: list[str], says: list[str]) -> None:
    remarks = label_remarks(labels)

    assert len(remarks) == len(says)
    for remark, text in zip(remarks, says, strict=True):
        assert text in remark


def test_many_odd_labels_are_a_few_remarks() -> None:
    remarks = label_remarks([f"{mark}{i}" for i in range(9) for mark in "aA"])

    assert len(remarks) == 6
    assert remarks[-1] == "and 4 more such labels"


def test_nearly_the_same_label_is_found() -> None:
    assert near_label("PLAY music", ["stop", "play_music", "play music "]) == "play music "
    assert near_label("pause", ["play"]) is None
