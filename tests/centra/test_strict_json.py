"""JSON from outside has one meaning, or none."""

from __future__ import annotations

import pytest

from centra.formats.strict_json import parse_document, parse_foreign, parse_json, too_deep

DEEP = "[" * 70 + "]" * 70


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ('[{"x": {"a": 1, "a": 1}}]', "the key 'a' stands twice"),
        ("NaN", "NaN is no finite number"),
        ('{"a": -Infinity}', "-Infinity is no finite number"),
        ("[1e999]", "1e999 is no finite number"),
        ("9" * 5000, "digits|too large"),
        (DEEP, "deeper than 64"),
        ('{"a":' * 70 + "1" + "}" * 70, "deeper than 64"),
        ("[" * 10**6, "deeper than 64"),
        ("", "Expecting value"),
    ],
)
def test_what_readers_would_understand_differently_is_refused(text: str, says: str) -> None:
    for parse in (parse_json, lambda text: parse_document(text.encode())):
        with pytest.raises(ValueError, match=says):
            parse(text)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'"\\ud800"', "half of a character"),
        (b'{"\\uDFFF": 1}', "half of a character"),
        (b'"\xed\xa0\x80"', "decode"),
        (b"\xff\xfe1\x00", "decode"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"9007199254740993", "too large"),
        (b"-" + b"9" * 90, "too large"),
        (b'"' + b"a" * 100 + b'"', "has 102 bytes, and at most 99 are read"),
    ],
)
def test_a_document_of_ours_holds_nothing_that_others_read_differently(
    data: bytes, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        parse_document(data, 99)


def test_what_honest_writers_write_is_read() -> None:
    assert parse_document(rb'{"a": [1, -2.5, null, true, "\ud83d\ude00\u0000"]}') == {
        "a": [1, -2.5, None, True, "😀\0"]
    }
    assert parse_document(b"9007199254740992") == 2**53
    assert parse_json('{"id": 123456789012345678901234567890}')["id"] > 10**29
    # A tokenizer's "no maximum length", a setting twice: transformers reads them like that.
    assert (
        parse_foreign('{"a": 1e30, "a": NaN, "b": 1000000000000000019884624838656}')["b"] > 10**30
    )


def test_depth_counts_what_is_nested_and_not_what_is_long() -> None:
    assert not too_deep([[1]] * 1000)
    assert not too_deep("text")
    nested: list[object] = []
    for _ in range(10_000):
        nested = [nested, {}]
    assert too_deep(nested)


def test_foreign_text_is_bounded_too() -> None:
    with pytest.raises(ValueError, match="deeper than 64"):
        parse_foreign(DEEP)
    with pytest.raises(ValueError, match="at most 3 are read"):
        parse_foreign("[1, 2]", 3)
