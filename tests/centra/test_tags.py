"""Tags in all schemes, and what they become in BIO."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centra.data.tags import TagError, bio_head, bio_labels, detect_scheme, tagged_spans, to_bio

SPANS = st.lists(
    st.tuples(st.sampled_from(["O", "a", "work-of-art"]), st.integers(1, 4)), max_size=8
)
"""Runs of words: outside, or a span of a type."""

MARKS = {
    "bio": "BIIB",
    "bioes": "BIES",
    "bilou": "BILU",
    "bmes": "BMES",
    "bmewo": "BMEW",
}
"""First, inside, last and alone."""


def written(spans: list[tuple[str, int]], marks: str, form: str = "{mark}-{type}") -> list[str]:
    """Spans in a scheme."""
    first, inside, last, alone = marks
    tags = []
    for name, length in spans:
        found = [alone] if length == 1 else [first, *[inside] * (length - 2), last]
        tags += [form.format(mark=mark, type=name) if name != "O" else "O" for mark in found]
    return tags


@settings(max_examples=40)
@given(SPANS, st.sampled_from([*MARKS]))
@pytest.mark.parametrize(
    "form", ["{mark}-{type}", "{mark}_{type}", "{type}-{mark}", "{type}_{mark}"]
)
def test_spans_are_the_same_in_every_scheme_and_form(
    form: str, spans: list[tuple[str, int]], scheme: str
) -> None:
    tags = written(spans, MARKS[scheme], form)

    notation = detect_scheme(tags)

    assert to_bio([notation.plain(tag) for tag in tags]) == written(spans, MARKS["bio"])


@given(SPANS)
def test_iob1_and_io_give_their_spans(spans: list[tuple[str, int]]) -> None:
    bio = written(spans, MARKS["bio"])
    pairs = list(zip(["O", *bio], bio, strict=False))
    iob1 = [f"I{t[1:]}" if t[0] == "B" and before[2:] != t[2:] else t for before, t in pairs]
    notation = detect_scheme(iob1)
    assert to_bio([notation.plain(tag) for tag in iob1]) == bio

    bare = [tag[2:] or "O" for tag in bio]
    notation = detect_scheme([*bare, "O"])
    found = tagged_spans(to_bio([notation.plain(tag) for tag in bare]))
    # A run of one type is one span, however many it was.
    assert {i: name for name, start, end in found for i in range(start, end)} == {
        i: tag for i, tag in enumerate(bare) if tag != "O"
    }


@given(st.lists(st.sampled_from([*"O", *(f"{m}-{t}" for m in "BIES" for t in "ab")])))
def test_any_sequence_of_a_model_has_a_meaning(tags: list[str]) -> None:
    bio = to_bio(tags)

    assert [tag[2:] for tag in bio] == [tag[2:] for tag in tags]
    assert bio == to_bio(bio)
    for before, tag in zip(["O", *bio], bio, strict=False):
        assert tag[0] != "I" or before[2:] == tag[2:]


def test_last_words_end_spans_and_lone_ones_are_spans() -> None:
    tags = ["S-a", "S-a", "B-a", "E-a", "I-a", "E-b", "B-b", "I-a"]

    assert to_bio(tags) == ["B-a", "B-a", "B-a", "I-a", "B-a", "B-b", "B-b", "B-a"]


@pytest.mark.parametrize(
    ("tags", "shown"),
    [
        ("O", "BIO tags"),
        ("O B-x I-x", "BIO tags"),
        ("O B-x", "BIO tags"),
        ("O I-x", "IO tags"),
        ("O B-x I-x E-x S-y", "BIOES tags"),
        ("S-x", "BIOES tags"),
        ("B-x L-x", "BILOU tags"),
        ("B-x M-x S-x", "BMES tags"),
        ("W-x O", "BMEWO tags"),
        ("O PER LOC", "IO tags written without marks"),
        ("O B_x I_x", "BIO tags written B_x"),
        ("x-S x-B O", "BIOES tags written x-B"),
        ("x_B O", "BIO tags written x_B"),
        ("O B-creative-work", "BIO tags"),
    ],
)
def test_scheme_is_found(tags: str, shown: str) -> None:
    assert str(detect_scheme(tags.split())) == shown


@pytest.mark.parametrize(
    ("tags", "odd", "says"),
    [
        ("O city B-x", "city", "as 'B-x' is"),
        ("O B-x X-y", "X-y", "as 'B-x' is"),
        ("B-x L-x S-x", "B-x", "no one scheme has the marks B, L, S"),
        ("NOUN VERB", "NOUN", "no word is tagged O"),
        ("B I O", "B", "names no type"),
        ("O o", "o", "without a mark, say io"),
        ("O b-x", "b-x", "without a mark, say io"),
        ("O B- I-", "B-", "without a mark, say io"),
        ("O -x", "-x", "without a mark, say io"),
    ],
)
def test_tags_of_no_scheme_are_refused(tags: str, odd: str, says: str) -> None:
    with pytest.raises(TagError, match=says) as caught:
        detect_scheme(tags.split())
    assert caught.value.tag == odd
    assert "bioes" in str(caught.value)


def test_a_scheme_that_is_said_is_held_to() -> None:
    with pytest.raises(TagError, match="'S-x' is not a BIO tag; expected O, B-x, I-x"):
        detect_scheme(["B-x", "S-x"], "bio")
    with pytest.raises(TagError, match="'M-x' is not a BIOES tag"):
        detect_scheme(["B-x", "M-x"], "bioes")
    with pytest.raises(TagError, match="'B-x' is not an IO tag"):
        detect_scheme(["B-x", "O"], "io")
    # What looks like a mark, and types of which every word has one, are types if that is said.
    assert detect_scheme(["E-mail", "NOUN"], "io").plain("E-mail") == "I-E-mail"
    for scheme in ("bio", "iob1", "io", "bioes", "bilou"):
        assert detect_scheme(["I-x", "O"], scheme).scheme == scheme


@pytest.mark.parametrize(
    ("names", "labels", "tags"),
    [
        ("O B-x I-x", "O B-x I-x", ""),
        ("I-x O B-x I-y", "I-x O B-x I-y", ""),
        ("B_x I_x O", "B-x I-x O", ""),
        ("O I-x I-y", "O B-x I-x B-y I-y", "O I-x I-y"),
        ("PER O", "O B-PER I-PER", "I-PER O"),
        ("O U-y B-x L-x I-x U-x", "O B-y I-y B-x I-x", "O S-y B-x E-x I-x S-x"),
    ],
)
def test_head_keeps_the_tags_that_are_no_labels(names: str, labels: str, tags: str) -> None:
    found = bio_head(names.split())

    assert found[:2] == (tuple(labels.split()), tuple(tags.split()))


def test_labels_of_types_come_in_their_order() -> None:
    assert bio_labels(["S-y", "O", "B-x", "E-y"]) == ("O", "B-y", "I-y", "B-x", "I-x")
