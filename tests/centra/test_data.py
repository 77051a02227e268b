"""From JSONL lines to inputs, from inputs to token ids and words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from centra.data.inputs import Input, fingerprint, read_examples
from centra.errors import DataError
from centra.tokenization.text_encoder import Encoded, Row, TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = st.text(min_size=1, max_size=10).filter(str.strip)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.jsonl"


def encoder_of(backbone: support.Backbone, **options: int) -> TextEncoder:
    return TextEncoder.of(backbone.spec, backbone.store, **options)


# Inputs


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hello", Input("hello")),
        (("a", "b"), Input("a", "b")),
        (["a", "b"], Input("a", "b")),
        ({"text": "a"}, Input("a")),
        ({"text": "a", "text_pair": "b"}, Input("a", "b")),
        ({"text": "a", "text_pair": None}, Input("a")),
        ({"text": "a", "id": 7}, Input("a")),
        ({"tokens": ["New", "York", "!"]}, Input("New York !", None, ("New", "York", "!"))),
        ({"tokens": ("a",)}, Input("a", None, ("a",))),
        (Input("a"), Input("a")),
    ],
    ids=repr,
)
def test_input_reads_every_form(value: object, expected: Input) -> None:
    assert Input.parse(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "  \n\t",
        ("", "b"),
        ("a", ""),
        ("a", "  "),
        ("a",),
        ("a", "b", "c"),
        ("a", 1),
        None,
        7,
        b"bytes",
        {},
        {"text": ""},
        {"text": 7},
        {"text": None},
        {"text": "a", "text_pair": ""},
        {"text": "a", "text_pair": 7},
        {"text": "a", "tokens": ["a"]},
        {"text_pair": "b"},
        {"tokens": []},
        {"tokens": "abc"},
        {"tokens": ["a", ""]},
        {"tokens": ["a", " "]},
        {"tokens": ["a", 7]},
        {"tokens": None},
        "\ud800",
        ("a", "\ud800"),
        {"tokens": ["a", "\udfff"]},
    ],
    ids=ascii,
)
def test_input_that_is_none_of_these_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"^input 3: "):
        Input.parse(value, "input 3")


def test_long_wrong_input_is_not_shown_whole() -> None:
    with pytest.raises(DataError) as caught:
        Input.parse({"wrong": "x" * 10_000})
    assert len(str(caught.value)) < 300


# First tokens


def test_first_token_of_each_word(tiny_backbone: support.Backbone) -> None:
    item = Input("wake me tomorrow, please")
    (row,) = encoder_of(tiny_backbone).encode([item])

    # [CLS] wake me tomo ##rrow , plea ##se [SEP]
    assert row.offsets == [
        (0, 0), (0, 4), (5, 7), (8, 12), (12, 16), (16, 17), (18, 22), (22, 24), (0, 0),
    ]  # fmt: skip
    assert row.first_tokens(item.words()) == [1, 2, 3, 5, 6]


def test_words_inside_one_token_share_it() -> None:
    row = Row([0, 1, 2], [0, 0, 0], [(0, 0), (0, 5), (0, 0)])

    assert row.first_tokens([(0, 2), (2, 3), (3, 5)]) == [1, 1, 1]


def test_word_without_a_token_has_none() -> None:
    """The tokenizer dropped the middle word, for example a lone zero-width character."""
    row = Row([0, 1, 2, 3], [0, 0, 0, 0], [(0, 0), (0, 2), (5, 7), (0, 0)])

    assert row.first_tokens([(0, 2), (3, 4), (5, 7)]) == [1, -1, 2]


def test_token_that_starts_with_the_space_before_its_word_counts() -> None:
    row = Row([0, 1, 2], [0, 0, 0], [(0, 2), (2, 5), (0, 0)])

    assert row.first_tokens([(0, 2), (3, 5)]) == [0, 1]


@pytest.mark.parametrize("family", support.FAMILIES)
def test_words_cut_off_by_truncation_have_no_token(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    item = Input.parse({"tokens": ["go"] * 100})
    (row,) = encoder_of(imported(family)).encode([item])
    assert len(row.input_ids) == support.MAX_LENGTH

    first = row.first_tokens(item.words())

    kept = [token for token in first if token >= 0]
    assert len(first) == 100
    assert first == kept + [-1] * (100 - len(kept))
    assert len(kept) > 20


@given(tokens=st.lists(WORDS, min_size=1, max_size=8), family=st.sampled_from(support.FAMILIES))
def test_first_tokens_touch_their_words(
    tokens: list[str], family: str, imported: Callable[[str], support.Backbone]
) -> None:
    item = Input.parse({"tokens": tokens})
    (row,) = encoder_of(imported(family)).encode([item])

    first = row.first_tokens(item.words())

    found = [(word, token) for word, token in zip(item.words(), first, strict=True) if token >= 0]
    for (start, end), token in found:
        covered = row.offsets[token]
        assert covered[0] < end
        assert covered[1] > start
        assert not any(a < end and b > start for a, b in row.offsets[:token])
    assert sorted(token for _, token in found) == [token for _, token in found]


@pytest.mark.parametrize("family", support.FAMILIES)
@pytest.mark.parametrize(
    "tokens",
    [
        ["fly", "to", "new", "york", "!"],
        ["why", "?", "😀", "go"],
        ["Élan", "vital", "…", "日本", "x"],
        ["e\u0301a", "b", "ﬁne"],
    ],
    ids=ascii,
)
def test_every_visible_word_has_its_own_token(
    family: str, tokens: list[str], imported: Callable[[str], support.Backbone]
) -> None:
    item = Input.parse({"tokens": tokens})
    (row,) = encoder_of(imported(family)).encode([item])

    first = row.first_tokens(item.words())

    assert min(first) > 0
    assert len(set(first)) == len(tokens)


# Encoding


def test_encoder_truncates_to_a_shorter_limit_but_never_a_longer_one(
    tiny_backbone: support.Backbone,
) -> None:
    long = [Input("rain " * 100)]

    for limit, length in ((10, 10), (1000, 64), (0, 64)):
        (row,) = encoder_of(tiny_backbone, max_length=limit).encode(long)
        assert len(row.input_ids) == len(row.token_type_ids) == len(row.offsets) == length
        assert (row.input_ids[0], row.input_ids[-1]) == (2, 3)


def test_longer_text_of_a_pair_is_truncated_first(tiny_backbone: support.Backbone) -> None:
    (row,) = encoder_of(tiny_backbone, max_length=10).encode([Input("rain " * 50, "yes it")])

    assert row.token_type_ids == [0] * 7 + [1] * 3


def test_batch_is_padded_on_the_right(imported: Callable[[str], support.Backbone]) -> None:
    backbone = imported("roberta")
    rows, batch = encoder_of(backbone).batch([Input("go"), Input("play some jazz")])
    short, long = (len(row.input_ids) for row in rows)

    assert short < long == batch.input_ids.shape[1]
    assert batch.input_ids[0].tolist() == rows[0].input_ids + [1] * (long - short)
    assert batch.attention_mask.tolist() == [[1] * short + [0] * (long - short), [1] * long]
    assert not batch.token_type_ids.any()
    assert {array.dtype for array in vars(batch).values()} == {np.dtype("int64")}


def test_padding_keeps_token_types() -> None:
    batch = Encoded.pad([Row([5, 6], [0, 1], []), Row([7], [1], [])], pad_token_id=9)

    assert batch.input_ids.tolist() == [[5, 6], [7, 9]]
    assert batch.token_type_ids.tolist() == [[0, 1], [1, 0]]


def test_encoding_does_not_depend_on_the_neighbours(tiny_backbone: support.Backbone) -> None:
    encoder = encoder_of(tiny_backbone)
    inputs = [Input("go"), Input("play some jazz, please"), Input("rain " * 100)]

    assert encoder.encode(inputs) == [encoder.encode([item])[0] for item in inputs]


def test_texts_that_spell_special_tokens_do_not_break_encoding(
    tiny_backbone: support.Backbone,
) -> None:
    (row,) = encoder_of(tiny_backbone).encode([Input("[CLS] go [SEP] [PAD]")])

    assert len(row.input_ids) >= 5


# Examples


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ({"text": "a", "label": "x"}, "x"),
        ({"text": "a", "text_pair": "b", "label": "x"}, "x"),
        ({"text": "a", "label": 3}, 3),
        ({"text": "a", "label": 3.0}, 3.0),
        ({"text": "a", "label": -0.5}, -0.5),
        ({"text": "a", "labels": []}, ()),
        ({"text": "a", "labels": ["x", "y"]}, ("x", "y")),
        ({"text": "a", "labels": [2, 10]}, ("2", "10")),
        ({"tokens": ["a", "b"], "labels": ["O", "B-x"]}, ("O", "B-x")),
        ({"text": "日本 😀", "label": "é"}, "é"),
    ],
    ids=str,
)
def test_every_kind_of_example_is_read(line: object, label: object, path: Path) -> None:
    (example,) = read_examples(support.write_jsonl(path, [line]))

    assert example.label == label
    assert type(example.label) is type(label)
    assert example.where == f"{path}:1"


def test_example_names_its_line_also_after_blank_ones(path: Path) -> None:
    path.write_text('\n{"text":"a","label":"x"}\r\n   \n{"text":"b\u2028c","label":"y"}\n\n')

    examples = read_examples(path)

    assert [example.where for example in examples] == [f"{path}:2", f"{path}:4"]
    assert examples[1].input.text == "b\u2028c"


def test_reading_reports_the_number_of_examples(path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    support.write_jsonl(path, [{"text": "a", "label": "x"}] * 3)

    read_examples(path, progress=lambda *call: seen.append(call))

    assert seen == [("read train.jsonl", 3, 3)]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "not JSON"),
        ("not json", "not JSON"),
        ('{"text": "a", "label": "x"} trailing', "not JSON"),
        pytest.param("[" * 100_000, "not JSON", id="nested too deeply"),
        ("7", "expected a text"),
        ("null", "expected a text"),
        ('"text"', "expected a text"),
        ('["a", "b"]', "expected a text"),
        ('{"label": "x"}', "expected a text"),
        ('{"text": "", "label": "x"}', "text is empty"),
        ('{"text": "a", "text_pair": "", "label": "x"}', "text is empty"),
        ('{"text": "a", "text_pair": 1, "label": "x"}', "'text_pair' must be a string, found 1"),
        ('{"text": "a", "text": "b", "label": "x"}', "the key 'text' stands twice"),
        ('{"tokens": ["a"], "text_pair": "b", "labels": ["O"]}', "do not go together"),
        ('{"tokens": ["a", ""], "labels": ["O", "O"]}', "list of non-empty strings"),
        ('{"tokens": [], "labels": []}', "text is empty"),
        ('{"tokens": ["a", "b"], "labels": ["O"]}', "2 tokens but 1 labels"),
        ('{"tokens": ["a"], "label": "x"}', "expected 'labels', a tag for each of the 'tokens'"),
        ('{"tokens": ["a"], "label": 1}', "expected 'labels', a tag for each .*; found 'label': 1"),
        ('{"tokens": ["a"], "ner_tags": ["O"]}', "found 'tokens', 'ner_tags'"),
        ('{"text": "a"}', "expected 'label'.*; found 'text'"),
        ('{"text": "a", "label": null}', "found 'label': null; leave the row out"),
        ('{"text": "a", "label": true}', "found 'label': true; write names"),
        ('{"text": "a", "label": ["x"]}', "which belongs into 'labels'"),
        ('{"text": "a", "label": "x", "labels": ["x"]}', "has both 'label' and 'labels'"),
        ('{"text": "a", "labels": "x"}', "which belongs into 'label'"),
        ('{"text": "a", "labels": 5}', "which belongs into 'label'"),
        ('{"text": "a", "labels": true}', "expected 'label'"),
        ('{"text": "a", "labels": {"x": 1}}', "expected 'label'"),
        ('{"text": "a", "labels": ["x", 1]}', "found 1 among them"),
        ('{"text": "a", "labels": [1, null]}', "found null among them"),
        ('{"text": "a", "labels": [0, 0.5]}', "found 0.5 among them"),
        ('{"text": "a", "labels": [true, false]}', "found true among them"),
        ('{"text": "a", "labels": [0, 1, 0]}', "a number twice; if these are a 0 or 1 for each"),
        ('{"tokens": ["a", "b"], "labels": [1]}', "2 tokens but 1 labels"),
        ('{"text": "a", "label": NaN}', "finite number"),
        ('{"text": "a", "label": Infinity}', "finite number"),
        ('{"text": "a", "label": -1e999}', "finite number"),
        pytest.param('{"text": "a", "label": 1' + "0" * 400 + "}", "finite", id="huge integer"),
        ('{"text": "a", "label": ""}', "empty"),
        ('{"text": "a", "labels": ["x", ""]}', "empty"),
        ('{"text": "\\ud800", "label": "x"}', "train"),
        ('{"text": "a", "label": "\\ud800"}', "train"),
    ],
)
def test_malformed_line_is_refused_with_file_and_line(line: str, match: str, path: Path) -> None:
    path.write_text(json.dumps({"text": "a", "label": "x"}) + f"\n{line}\n", encoding="utf-8")

    with pytest.raises(DataError, match=match) as caught:
        read_examples(path)

    assert str(caught.value).startswith(f"{path}:2: ")


def test_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl: no such file"):
        read_examples(path)


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_examples(tmp_path)


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_file_without_examples_is_refused(text: str, path: Path) -> None:
    path.write_text(text)

    with pytest.raises(DataError, match=r"train\.jsonl: holds no examples"):
        read_examples(path)


def test_file_that_is_not_utf8_is_refused(path: Path) -> None:
    path.write_bytes(b'{"text": "caf\xe9", "label": "x"}\n')

    with pytest.raises(DataError, match=r"train\.jsonl:1: column 14 cannot be read as UTF-8"):
        read_examples(path)


# Fingerprints


def test_fingerprint_follows_content_order_and_where_files_end() -> None:
    a, b, c = b"1\n", b"2\n", b"1\n2\n"

    assert fingerprint([a, b]) == fingerprint([a, b])
    assert len({fingerprint([a, b]), fingerprint([b, a]), fingerprint([c]), fingerprint([a])}) == 4


def test_tokens_may_have_the_text_beside_them_that_they_were_taken_from(path: Path) -> None:
    support.write_jsonl(
        path,
        [
            {
                "text": "Go to Rome!",
                "tokens": ["Go", "to", "Rome", "!"],
                "labels": ["O", "O", "B-x", "O"],
            }
        ],
    )
    (example,) = read_examples(path)

    assert example.input.text == "Go to Rome!"
    assert example.input.token_spans == [(0, 2), (3, 5), (6, 10), (10, 11)]


def test_tokens_that_are_not_in_their_text_are_refused(path: Path) -> None:
    support.write_jsonl(path, [{"text": "Go", "tokens": ["Rome"], "labels": ["O"]}])

    with pytest.raises(DataError, match=r"jsonl:1: the tokens do not stand in the text"):
        read_examples(path)
