from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from centra.errors import InvalidNameError
from centra.formats.identities import VersionNumber, is_digest
from centra.formats.names import parse_task_name, parse_task_reference

NUMBERS = st.builds(VersionNumber, st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1))


class Record(BaseModel):
    version: VersionNumber


@given(NUMBERS)
def test_a_version_number_reads_back_as_it_is_written(number: VersionNumber) -> None:
    assert VersionNumber.parse(str(number)) == number
    assert f"{number:>30}" == str(number).rjust(30)


def test_version_numbers_are_ordered_as_numbers_and_not_as_text() -> None:
    texts = ["2.0", "1.10", "1.9", "10.0", "1.0"]
    ordered = sorted(VersionNumber.parse(text) for text in texts)
    assert [str(number) for number in ordered] == ["1.0", "1.9", "1.10", "2.0", "10.0"]


@pytest.mark.parametrize(
    "text", ["", "1", "1.", ".1", "1.00", "01.0", "-1.0", "1.0.0", "1.0\n", "a.b"]
)
def test_what_is_no_version_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError, match="version"):
        VersionNumber.parse(text)
    with pytest.raises(ValidationError, match="version"):
        Record.model_validate({"version": text})


def test_a_version_number_is_its_text_in_json() -> None:
    record = Record(version=VersionNumber(2, 1))
    assert json.loads(record.model_dump_json()) == {"version": "2.1"}
    assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("text", "name", "number"),
    [("intent", "intent", None), ("intent@2.1", "intent", VersionNumber(2, 1))],
)
def test_a_reference_is_a_task_and_perhaps_a_version(
    text: str, name: str, number: VersionNumber | None
) -> None:
    assert parse_task_reference(text) == (name, number)


@pytest.mark.parametrize("text", ["", "@1.0", "intent@", "intent@1", "In tent@1.0", "../x"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_task_reference(text)


@pytest.mark.parametrize("text", ["id", "error", "a b", ""])
def test_what_is_no_name_for_a_new_task_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_task_name(text)


def test_a_digest_is_64_lower_case_hexadecimal_digits() -> None:
    assert is_digest("0a" * 32)
    assert not any(map(is_digest, ["", "0a" * 31, "0A" * 32, "0g" * 32, "0a" * 32 + "\n"]))
