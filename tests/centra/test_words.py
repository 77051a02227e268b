"""Words of texts in every script, and texts of tokens."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from centra.data.inputs import Input
from centra.data.words import join_tokens, locate_tokens, refine, segment
from centra.kinds import kind_named
from centra.tokenization.text_encoder import Row, TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.data.words import Segmentation

TOKENS = st.lists(st.text(min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=8)


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in segment(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("play jazz", ["play", "jazz"]),
        ("Don't stop, ok?", ["Don't", "stop", ",", "ok", "?"]),
        ("  spaced\tout\n", ["spaced", "out"]),
        ("Привет, мир!", ["Привет", ",", "мир", "!"]),
        ("a_b-c", ["a_b", "-", "c"]),
        ("$3.50 @7:30", ["$", "3.50", "@", "7", ":", "30"]),
        ("«oui»...", ["«", "oui", "»", ".", ".", "."]),
        ("我爱 北京。", ["我", "爱", "北", "京", "。"]),
        ("東京 2024年", ["東", "京", "2024", "年"]),
        ("iPhone手机", ["iPhone", "手", "机"]),
        ("カタカナとー", ["カ", "タ", "カ", "ナ", "と", "ー"]),
        ("ｶﾞｷﾞ", ["ｶﾞ", "ｷﾞ"]),
        ("กรุงเทพ", ["ก", "รุ", "ง", "เ", "ท", "พ"]),
        ("ນ້ຳ", ["ນ້ຳ"]),
        ("한국어 사람", ["한국어", "사람"]),
        (unicodedata.normalize("NFD", "한국어"), [unicodedata.normalize("NFD", "한국어")]),
        ("Renée Müller", ["Renée", "Müller"]),
        (unicodedata.normalize("NFD", "Renée"), [unicodedata.normalize("NFD", "Renée")]),
        ("दिल्ली में", ["दिल्ली", "में"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("Jo\u00adhn", ["Jo\u00adhn"]),
        ("❤\ufe0f ok", ["❤\ufe0f", "ok"]),
        ("👨\u200d👩\u200d👧👍🏽", ["👨\u200d👩\u200d👧", "👍🏽"]),
        ("🇫🇷🇩🇪", ["🇫🇷", "🇩🇪"]),
        ("葛\U000e0100城", ["葛\U000e0100", "城"]),
        ("", []),
        (" \u3000\u00a0", []),
    ],
    ids=ascii,
)
def test_words_of_every_script(text: str, words: list[str]) -> None:
    assert cut(text) == words


@given(text=st.text())
def test_words_cover_all_but_white_space_and_part_no_character(text: str) -> None:
    words = segment(text)

    assert "".join("".join(cut(text)).split()) == "".join(text.split())
    assert all(start < end for start, end in words)
    assert all(a[1] <= b[0] for a, b in pairwise(words))
    starts = {match.start() for match in regex.finditer(r"\X", text)}
    inside = {start for start, _ in words if start not in starts}
    assert all(text[start - 1].isspace() for start in inside)


@given(
    text=st.text(st.sampled_from("aé1 .'-\u0301\u200d雪カﾞ👩🇩🇪\u0e01\r\n") | st.characters()),
    until=st.integers(0, 20),
    by=st.sampled_from(["unicode", "characters", "tokenizer", "spaces"]),
)
def test_the_first_words_of_a_text_are_found_without_the_others(
    text: str, until: int, by: Segmentation
) -> None:
    assert segment(text, by, until=until) == [w for w in segment(text, by) if w[0] < until]


def test_words_between_spaces_are_left_whole() -> None:
    text = " don't 我爱 北京 "
    assert [text[a:b] for a, b in segment(text, "spaces")] == ["don't", "我爱", "北京"]


def test_characters_are_parted_from_each_other_alone() -> None:
    text = "S.H.E10月 e\u0301👍🏽"
    found = [text[a:b] for a, b in segment(text, "characters")]
    assert found == [*"S.H.E10月", "e\u0301", "👍🏽"]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["new", "york", "!"], "new york !"),
        (["周", "杰", "伦"], "周杰伦"),
        (["我", "用", "iPhone", "手", "机", "。"], "我用iPhone手机。"),
        (["我们", ",", "好", "！"], "我们,好！"),
        ([*"2024年5月"], "2024年5月"),
        ([*"他说“hi”"], "他说“hi”"),
        (["ラー", "メン", "を"], "ラーメンを"),
        (["กรุง", "เทพ"], "กรุงเทพ"),
        (["서울", "사람"], "서울 사람"),
        (["a", "b"], "a b"),
    ],
    ids=ascii,
)
def test_tokens_are_joined_as_their_script_is_written(tokens: list[str], text: str) -> None:
    assert join_tokens(tokens) == text


@given(tokens=TOKENS)
def test_joined_tokens_are_found_again_in_their_order(tokens: list[str]) -> None:
    text = join_tokens(tokens)
    spans = locate_tokens(text, tokens)

    assert spans is not None
    assert [text[start:end] for start, end in spans] == tokens
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_tokens_that_are_not_in_the_text_are_not_found() -> None:
    assert locate_tokens("new york", ["york", "new"]) is None
    assert locate_tokens("new york", ["new", "new"]) is None


def test_tokens_are_cut_where_words_begin_inside_them() -> None:
    text = "ask @some_one ok"
    spans = [(0, 3), (4, 13), (14, 16)]
    assert refine(spans, segment(text)) == [[(0, 3)], [(4, 5), (5, 13)], [(14, 16)]]


@pytest.mark.parametrize("family", support.FAMILIES)
@pytest.mark.parametrize(
    "text", ["周杰伦的歌", "go 東京!", "Jo\u00adhn 👨\u200d👩\u200d👧"], ids=ascii
)
def test_spans_cut_the_callers_own_string(
    family: str, text: str, imported: Callable[[str], support.Backbone]
) -> None:
    """Every word is tagged; those that the tokenizer does not tell apart are one span."""
    import numpy as np

    backbone = imported(family)
    item = Input(text)
    (row,) = TextEncoder.of(backbone.spec, backbone.store).encode([item])
    logits = np.zeros((1, len(row.input_ids), 3))
    logits[..., 1] = 9

    (answer,) = kind_named("tagging").decode(
        support.make_spec("0" * 64, "tagging"), logits, [item], [row]
    )

    spans = answer["spans"]
    assert "".join(text[s["start"] : s["end"]] for s in spans) == "".join(text.split())
    assert all(s["text"] == text[s["start"] : s["end"]] for s in spans)
    assert len(spans) == len({t for t in row.first_tokens(item.words()) if t >= 0})


def test_a_module_may_take_what_the_tokenizer_continues_for_one_word() -> None:
    text = "กทพ ok"
    row = Row([2, 5, 6, 7, 8, 3], [0] * 6, [(0, 0), (0, 1), (1, 2), (2, 3), (4, 6), (0, 0)], 0)
    continued = Row(row.input_ids, row.token_type_ids, row.offsets, 0, frozenset({2, 3}))
    words = segment(text)

    assert continued.word_groups(words) == row.word_groups(words)
    assert continued.word_groups(words, "tokenizer") == [(1, 0, 3), (4, 3, 4)]
