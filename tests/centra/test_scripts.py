"""Scripts without spaces, end to end: a tokenizer of characters, tags by character, spans of texts.

A span's start and end count the code points of the caller's own string, whatever a tokenizer makes
of it: lower case, other Unicode forms, no marks, bytes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from centra.checkpoints.backbone import import_backbone
from centra.checkpoints.conversion import convert
from centra.data.inputs import Input, read_examples
from centra.data.tags import tagged_spans
from centra.errors import DataError
from centra.kinds import kind_named
from centra.runtime.release import Release
from centra.tokenization.text_encoder import TextEncoder
from centra.training.recipe import Recipe
from centra.training.train import train_module
from tests import support
from tests.centra.checkpoints import TOKEN, fine_tune

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.data.words import Segmentation
    from centra.formats.task_module import TaskModule

CITIES = ["北京市", "上海市", "呼和浩特市", "𠮷林市"]
ROADS = ["中山路", "人民大街", "学府路"]
HOUSES = ["8号", "２７号", "A座", "SOHO"]
RECIPE = Recipe(
    tap=0, depth=2, epochs=12, learning_rate=5e-3, batch_size=16, dropout=0.0, patience=12
)

PARTS = [
    *"我市路号座A8，。Ａ１（ｶﾞか\u3099サー한𠮷\u0301\u0308\u0315\u200b\u200d\ufe0f\ufeff ",
    *(
        "葛\U000e0100",
        "👨\u200d👩\u200d👧",
        "👍🏽",
        "🇨🇳",
        "❤\ufe0f",
        "㍿",
        "ﷺ",
        "ﬁ",
        "İ",
        "\r\n",
        "\u3000",
    ),
    *("שָׁלוֹם", "مُحَمَّد", "กรุงเทพ", "ນ້ຳ", "दिल्ली", "한국어", "Renée", "e\u0301", "don't", "S.H.E"),
]
"""Pieces of texts that are put together by chance."""


@dataclass(frozen=True)
class Chinese:
    """A backbone with a tokenizer of characters, as bert-base-chinese has, and data on it."""

    backbone: support.Backbone
    data: Path
    module: TaskModule
    release: Release


def addresses(rows: int) -> list[dict[str, Any]]:
    """Made-up addresses, tagged by character; of some nothing but Latin letters is left."""
    chance, found = random.Random(0), []
    for number in range(rows):
        city, road, house = (chance.choice(names) for names in (CITIES, ROADS, HOUSES))
        opening = chance.choice(["我在", "👍🏽我在"])
        parts = [("", opening), ("city", city), ("road", road), ("house", house), ("", "等你")]
        if number % 7 == 0:
            parts = [("house", "SOHO")]
        found.append(
            {
                "tokens": [letter for _, part in parts for letter in part],
                "labels": [
                    f"{'I' if i else 'B'}-{name}" if name else "O"
                    for name, part in parts
                    for i in range(len(part))
                ],
            }
        )
    return found


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Chinese:
    """A trained and composed tagger of addresses."""
    root = tmp_path_factory.mktemp("chinese")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = {letter for row in addresses(99) for token in row["tokens"] for letter in token}
    letters = {letter.lower() for letter in letters}
    pieces = sorted(letters | {f"##{letter}" for letter in letters if letter.isascii()})
    tokenizer = transformers.BertTokenizer(
        vocab={piece: i for i, piece in enumerate([*special, *pieces])},
        tokenize_chinese_chars=True,
        model_max_length=support.MAX_LENGTH,
    )
    transformers.set_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=support.MAX_LENGTH,
    )
    folder = root / "encoder"
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    store = support.LocalStore(root / "store")
    backbone = support.Backbone(import_backbone(str(folder), store), store, folder)

    rows = addresses(160)
    support.write_jsonl(root / "data" / "train.jsonl", rows[32:])
    support.write_jsonl(root / "data" / "dev.jsonl", rows[:32])
    module = train_module(backbone.spec, store, root / "data", RECIPE, work=root / "work")
    manifest = support.put_release({"address": module}, [backbone.spec], store, ["address"])
    release = Release.load(manifest, store, engine="onnx")
    return Chinese(backbone, root / "data", module, release)


@pytest.fixture(scope="module")
def encoders(
    chinese: Chinese, imported: Callable[[str], support.Backbone]
) -> dict[str, tuple[TextEncoder, TextEncoder]]:
    """By kind of tokenizer, one that reads all of a short text and one that cuts it."""
    backbones = {"characters": chinese.backbone} | {
        family: imported(family) for family in ("bert", "roberta", "xlm-roberta")
    }
    return {
        name: (
            TextEncoder.of(one.spec, one.store),
            TextEncoder.of(one.spec, one.store, max_length=7),
        )
        for name, one in backbones.items()
    }


def test_a_tagger_of_chinese_characters_learns_and_answers_for_texts(chinese: Chinese) -> None:
    assert chinese.module.spec.head.words == "characters"
    assert chinese.module.spec.metrics["entity_f1"] > 0.95
    text = "👍🏽我在𠮷林市人民大街２７号等你"

    answer = chinese.release.predict([text])[0]["address"]

    assert [(s["label"], s["text"]) for s in answer["spans"]] == [
        ("city", "𠮷林市"),
        ("road", "人民大街"),
        ("house", "２７号"),
    ]
    assert [text[s["start"] : s["end"]] for s in answer["spans"]] == [
        s["text"] for s in answer["spans"]
    ]


def test_tokens_are_answered_in_tokens_their_spaces_among_them(chinese: Chinese) -> None:
    tokens = [*"我在 上海市学府路 A座等你"]

    spans = chinese.release.predict([{"tokens": tokens}])[0]["address"]["spans"]

    assert [(s["label"], s["start"], s["end"], s["text"]) for s in spans] == [
        ("city", 3, 6, "上海市"),
        ("road", 6, 9, "学府路"),
        ("house", 10, 12, "A座"),
    ]


def test_rows_of_latin_letters_in_data_of_characters_are_the_callers_texts(
    chinese: Chinese,
) -> None:
    """Else a task would learn ``S O H O``, and nobody sends that."""
    examples = read_examples(chinese.data / "train.jsonl")
    assert {"".join(e.input.tokens or ()) == e.input.text for e in examples} == {True}

    (span,) = chinese.release.predict(["SOHO"])[0]["address"]["spans"]
    assert (span["label"], span["start"], span["end"]) == ("house", 0, 4)


def test_a_checkpoint_of_characters_gives_the_spans_of_its_own_pipeline(
    chinese: Chinese, tmp_path: Path
) -> None:
    folder = fine_tune(chinese.backbone.folder, tmp_path / "checkpoint", TOKEN)
    store = support.LocalStore(tmp_path / "store")
    spec = support.copy_backbone(chinese.backbone, store)
    module = convert(folder, {"chinese@1": spec}, store, words="characters")
    release = Release.load(support.put_release({"city": module}, [spec], store), store)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "我在呼和浩特市中山路8号等你"

    # Every letter is a token here, the first behind [CLS].
    best = model(**tokenizer(text, return_tensors="pt")).logits[0, 1:-1].argmax(-1).tolist()
    assert len(best) == len(text)
    (answer,) = release.predict([text])

    names = module.spec.labels
    assert [(s["label"], s["start"], s["end"]) for s in answer["city"]["spans"]] == tagged_spans(
        [names[i] for i in best]
    )


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([*"서울 사람"], "서울 사람"),
        ([*" 我 有 iPhone 15"], " 我 有 iPhone 15"),
        ([*"好👨\u200d👩"], "好👨\u200d👩"),
    ],
    ids=ascii,
)
def test_a_text_s_characters_may_have_its_spaces_among_them(tokens: list[str], text: str) -> None:
    item = Input.parse({"tokens": tokens})

    assert item.text == text
    spans = item.words()
    assert [text[a:b] for a, b in spans] == ["" if t.isspace() else t for t in tokens]


@pytest.mark.parametrize("tokens", [["我", ""], ["我们", " ", "好"], ["a", " ", "b"]], ids=ascii)
def test_among_words_there_are_no_blank_ones(tokens: list[str]) -> None:
    with pytest.raises(DataError, match="must be a list of non-empty strings"):
        Input.parse({"tokens": tokens})


@given(
    text=st.lists(st.sampled_from(PARTS) | st.characters(codec="utf-8"), max_size=12)
    .map("".join)
    .filter(str.strip),
    by=st.sampled_from(["unicode", "characters", "tokenizer", "spaces"]),
    by_token=st.booleans(),
    seed=st.integers(0, 99),
)
def test_spans_of_any_text_cut_the_callers_own_string(
    text: str,
    by: Segmentation,
    by_token: bool,
    seed: int,
    encoders: dict[str, tuple[TextEncoder, TextEncoder]],
) -> None:
    item = Input(text, None, tuple(text.split()) if by_token else None)
    kind = kind_named("tagging")
    spec = support.make_spec("0" * 64, "tagging", head={"activation": None, "words": by})
    for encoder in (one for pair in encoders.values() for one in pair):
        (row,) = encoder.encode([item])
        logits = np.random.default_rng(seed).normal(size=(1, len(row.input_ids), 3))

        (answer,) = kind.decode(spec, logits, [item], [row])

        words, spans = item.words(by), answer["spans"]
        assert all(s["words"][0] < s["words"][1] for s in spans)
        places = [(words[s["words"][0]][0], words[s["words"][1] - 1][1]) for s in spans]
        assert [text[a:b] for a, b in places] == [s["text"] for s in spans]
        assert all(s["text"] == s["text"].strip() != "" for s in spans)
        assert all(a[1] <= b[0] for a, b in pairwise(places))
        if not by_token:
            assert places == [(s["start"], s["end"]) for s in spans]
