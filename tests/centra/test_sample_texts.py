"""Made-up texts: of all scripts and kinds, and the same each time."""

from __future__ import annotations

import unicodedata

import pytest

from centra.data.inputs import Input
from centra.tokenization.sample_texts import SCRIPTS, sample_inputs

WORDS = ("weather", "jazz", "ring")
SPECIAL = ("[CLS]", "<mask>")
MAX_LENGTH = 64


@pytest.fixture(scope="module")
def inputs() -> list[Input]:
    return sample_inputs(WORDS, SPECIAL, MAX_LENGTH)


@pytest.fixture(scope="module")
def texts(inputs: list[Input]) -> list[str]:
    return [item.text for item in inputs if item.text_pair is None]


def test_there_are_thousands_and_a_fifth_are_pairs(inputs: list[Input]) -> None:
    pairs = [item for item in inputs if item.text_pair is not None]

    assert len(set(inputs)) > 2000
    assert len(inputs) / 6 < len(pairs) < len(inputs) / 4


def test_each_is_an_input_that_centra_takes(inputs: list[Input]) -> None:
    for item in inputs:
        assert Input.parse({"text": item.text, "text_pair": item.text_pair}) == item


def test_letters_of_every_script_occur_often(texts: list[str]) -> None:
    letters = "".join(texts)
    counts = {
        script: sum(first <= ord(letter) <= last for letter in letters)
        for script, (first, last) in SCRIPTS.items()
    }

    assert len(counts) > 40
    assert min(counts.values()) > 300, counts


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_occur_in_both_forms(form: str, texts: list[str]) -> None:
    assert any(
        text == unicodedata.normalize(form, text) != unicodedata.normalize(other, text)
        for text in texts
        for other in {"NFC", "NFD"} - {form}
    )


def test_cases_spaces_controls_emoji_and_special_tokens_occur(texts: list[str]) -> None:
    for sought in ("WEATHER", "Weather", "\t", "\u3000", "\x00", "\u200d", "👩‍👩‍👧‍👦", *SPECIAL):
        assert any(sought in text for text in texts), sought
    assert {"x[CLS]y", "[cls]", "<MASK>", "[CLS"} <= set(texts)


def test_some_words_and_texts_are_longer_than_any_limit(inputs: list[Input]) -> None:
    words = [max(map(len, item.text.split()), default=0) for item in inputs]
    counts = [(len(item.text.split()), len((item.text_pair or "").split())) for item in inputs]

    assert max(words) >= 1000
    assert any(count > MAX_LENGTH for count, _ in counts)
    assert any(MAX_LENGTH / 4 < count < MAX_LENGTH for count, _ in counts)
    assert any(min(count) > MAX_LENGTH for count in counts)


def test_they_are_the_same_each_time_and_others_with_another_seed(inputs: list[Input]) -> None:
    assert sample_inputs(WORDS, SPECIAL, MAX_LENGTH) == inputs
    assert len(set(sample_inputs(WORDS, SPECIAL, MAX_LENGTH, seed=1)) - set(inputs)) > 1500


def test_a_vocabulary_without_words_has_texts_too() -> None:
    assert len(sample_inputs((), (), 8)) > 1500
