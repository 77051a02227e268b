"""A backbone's tokenizer gives transformers' ids, whatever its folder says, or is refused."""

from __future__ import annotations

import json
import shutil
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from centra.data.inputs import Input
from centra.errors import FormatError, IncompatibleError
from centra.families import family_named
from centra.tokenization.comparison import find_difference
from centra.tokenization.importing import ImportedTokenizer, import_tokenizer
from centra.tokenization.loading import load_tokenizer
from centra.tokenization.sample_texts import SCRIPTS, sample_inputs
from centra.tokenization.text_encoder import TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

WORDS = ["weather", "wea", "##ther", "play", "jazz", "ring", "at", "noon", "##ing", "cafe", "café"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "[unused2]"]
CONFIG = "tokenizer_config.json"
MAP = "special_tokens_map.json"
TYPES = ["input_ids", "token_type_ids", "attention_mask"]

PROBES = [
    "Turn the Lights on in Köln at NOON",
    "我爱 北京",
    "x [unused1] y[MASK] </s><mask> z",
    "CAFÉ cafe\u0301 İstanbul",
    " leading, trailing ",
    "play " * 100,
]


def letters() -> list[str]:
    """Some letters of each script."""
    return [
        letter
        for first, last in SCRIPTS.values()
        for letter in map(chr, range(first, min(last + 1, first + 40)))
        if letter.isprintable() and not letter.isspace()
    ]


# Folders


@cache
def wordpiece() -> dict[str, int]:
    pieces = [piece for letter in letters() for piece in (letter, f"##{letter}")]
    return {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIAL, *WORDS, *pieces]))}


@cache
def byte_level() -> Tokenizer:
    return support._byte_level_bpe()


@cache
def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=4000,
        initial_alphabet=letters(),
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(support._corpus(), trainer)
    return tokenizer


def write_vocab_txt(folder: Path) -> int:
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in wordpiece()))
    return len(wordpiece())


def write_vocab_and_merges(folder: Path) -> int:
    byte_level().model.save(str(folder))
    return byte_level().get_vocab_size()


def write_sentencepiece(folder: Path) -> int:
    from transformers.convert_slow_tokenizer import import_protobuf

    model = import_protobuf().ModelProto()
    model.trainer_spec.model_type = 1
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = 0, 1, 2
    vocab = json.loads(unigram().to_str())["model"]["vocab"]
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    for text, score, kind in [*pieces, *((*piece, 1) for piece in vocab[4:])]:
        piece = model.pieces.add()
        piece.piece, piece.score, piece.type = text, score, kind
    (folder / "sentencepiece.bpe.model").write_bytes(model.SerializeToString())
    return len(model.pieces) + 2  # <pad> and <mask>


WRITERS: dict[str, Callable[[Path], int]] = {
    "bert": write_vocab_txt,
    "distilbert": write_vocab_txt,
    "electra": write_vocab_txt,
    "roberta": write_vocab_and_merges,
    "xlm-roberta": write_sentencepiece,
}


def write_json(folder: Path, path: str, **fields: Any) -> None:
    """Set fields of a JSON file, which may not be there yet; ``...`` takes one away."""
    content = json.loads((folder / path).read_text()) if (folder / path).exists() else {}
    content = {k: v for k, v in (content | fields).items() if v is not ...}
    (folder / path).write_text(json.dumps(content, ensure_ascii=False))


def made(family: str, folder: Path, *, fast: bool = False, **settings: Any) -> Path:
    """A folder with a config and a tokenizer, as files of words or as ``tokenizer.json`` alone."""
    folder.mkdir()
    size = WRITERS[family](folder)
    offset = 2 if family_named(family).position_offset else 0
    types = {} if family == "distilbert" else {"type_vocab_size": 1 if offset else 2}
    transformers.AutoConfig.for_model(
        family, vocab_size=size, max_position_embeddings=support.MAX_LENGTH + offset, **types
    ).save_pretrained(folder)
    if fast:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        for path in folder.glob("[vms]*"):
            path.unlink()
        tokenizer.save_pretrained(folder)
        (folder / CONFIG).unlink()
    write_json(folder, CONFIG, **settings)
    return folder


def taken(folder: Path) -> ImportedTokenizer:
    config = transformers.AutoConfig.from_pretrained(folder)
    family = family_named(config.model_type)
    settings = {key: getattr(config, key) for key in family.settings}
    return import_tokenizer(str(folder), family, settings, config=config)


def encoder_of(imported: ImportedTokenizer, folder: Path) -> TextEncoder:
    (folder / "stored.json").write_bytes(imported.files["tokenizer.json"])
    return TextEncoder(
        folder / "stored.json",
        max_length=imported.max_length,
        pad_token_id=0,
        token_types=imported.token_types,
    )


def assert_same_ids(imported: ImportedTokenizer, folder: Path, inputs: Sequence[Input]) -> None:
    """As a caller of transformers sees them: ids and, where it gives them, token types."""
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    rows = encoder_of(imported, folder).encode(inputs)
    for item, row in zip(inputs, rows, strict=True):
        expected = reference(
            item.text, item.text_pair, truncation=True, max_length=imported.max_length
        )
        assert row.input_ids == expected["input_ids"], item
        if imported.token_types:
            assert row.token_type_ids == expected["token_type_ids"], item
        else:
            assert not any(row.token_type_ids), item


# Every class of the supported families


@pytest.mark.parametrize(
    ("family", "name", "fast"),
    [
        ("bert", "BertTokenizer", False),
        ("bert", "BertTokenizerFast", True),
        ("bert", "PreTrainedTokenizerFast", True),
        ("roberta", "RobertaTokenizer", False),
        ("roberta", "RobertaTokenizerFast", True),
        ("roberta", "PreTrainedTokenizerFast", True),
        ("xlm-roberta", "XLMRobertaTokenizer", False),
        ("xlm-roberta", "XLMRobertaTokenizerFast", True),
        ("xlm-roberta", "PreTrainedTokenizerFast", True),
        ("distilbert", "DistilBertTokenizer", False),
        ("distilbert", "DistilBertTokenizerFast", True),
        ("electra", "ElectraTokenizer", False),
        ("electra", "ElectraTokenizerFast", True),
    ],
)
@pytest.mark.usefixtures("all_sample_texts")
def test_ids_are_transformers_on_thousands_of_texts_of_all_scripts(
    family: str, name: str, fast: bool, tmp_path: Path
) -> None:
    """With those that the import compares itself, over five thousand."""
    folder = made(family, tmp_path / "x", fast=fast, tokenizer_class=name)
    imported = taken(folder)
    encoder, reference = encoder_of(imported, folder), load_tokenizer(str(folder))
    special = reference.all_special_tokens
    inputs = sample_inputs(WORDS, special, 64, seed=1)
    singles = [item for item in inputs if item.text_pair is None]
    pairs = [item for item in inputs if item.text_pair is not None]

    found = [row.input_ids for row in encoder.encode([*singles, *pairs])]

    texts = [item.text for item in singles]
    expected = reference(texts, truncation=True, max_length=64)["input_ids"]
    firsts, seconds = [item.text for item in pairs], [item.text_pair for item in pairs]
    expected += reference(firsts, seconds, truncation=True, max_length=64)["input_ids"]
    assert found == expected
    assert len({*inputs, *sample_inputs(WORDS, special, 64)}) > 5000
    assert len({number for ids in found for number in ids}) > len(reference) / 4


# What a folder says beside tokenizer.json


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        (CONFIG, {"do_lower_case": False}),
        (CONFIG, {"strip_accents": False}),
        (CONFIG, {"tokenize_chinese_chars": False}),
        (CONFIG, {"additional_special_tokens": ["[unused1]"]}),
        (CONFIG, {"extra_special_tokens": {"city_token": "[unused1]"}}),
        (MAP, {"additional_special_tokens": ["[unused1]", "[unused2]"]}),
        (MAP, {"sep_token": "[unused1]"}),
        ("added_tokens.json", {"[unused1]": 5}),
    ],
    ids=str,
)
def test_settings_of_the_folder_are_obeyed(
    path: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Both where only ``vocab.txt`` is there and where ``tokenizer.json`` says something else."""
    for fast in (False, True):
        folder = made("bert", tmp_path / str(fast), fast=fast, tokenizer_class="BertTokenizer")
        plain = load_tokenizer(str(folder))
        write_json(folder, path, **settings)

        imported = taken(folder)

        assert_same_ids(imported, folder, [*map(Input, PROBES), Input(*PROBES[:2])])
        rows = encoder_of(imported, folder).encode(map(Input, PROBES))
        assert [row.input_ids for row in rows] != plain(PROBES)["input_ids"]


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
@pytest.mark.parametrize("fast", [True, False])
def test_the_prefix_space_is_obeyed(family: str, fast: bool, tmp_path: Path) -> None:
    found = []
    for add in (False, True):
        folder = made(family, tmp_path / str(add), fast=fast, add_prefix_space=add)
        imported = taken(folder)
        assert_same_ids(imported, folder, [*map(Input, PROBES), Input(*PROBES[:2])])
        found.append(encoder_of(imported, folder).encode([Input("play jazz")])[0].input_ids)

    assert found[0] != found[1]


def test_a_post_processor_that_tokenizer_json_lacks_is_the_class_s(tmp_path: Path) -> None:
    folder = made("bert", tmp_path / "x", fast=True, tokenizer_class="BertTokenizer")
    write_json(folder, "tokenizer.json", post_processor=None)

    assert_same_ids(taken(folder), folder, [Input("play jazz"), Input("play", "jazz")])
    assert encoder_of(taken(folder), folder).encode([Input("play")])[0].input_ids[0] == 2


def test_what_the_class_overrules_in_tokenizer_json_is_overruled(tmp_path: Path) -> None:
    folder = made("bert", tmp_path / "x", fast=True, tokenizer_class="BertTokenizer")
    content = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder, "tokenizer.json", normalizer=content["normalizer"] | {"lowercase": False})

    assert_same_ids(taken(folder), folder, [Input("PLAY Jazz")])
    ids = encoder_of(taken(folder), folder).encode([Input("PLAY Jazz")])[0].input_ids
    assert ids == [2, wordpiece()["play"], wordpiece()["jazz"], 3]


def test_token_types_are_those_that_the_model_gets(tmp_path: Path) -> None:
    """transformers gives none for a class or a setting that does not name them."""
    pair = [Input("play jazz", "ring at noon")]
    for number, (settings, types) in enumerate(
        (
            ({"tokenizer_class": "BertTokenizer"}, True),
            ({"tokenizer_class": "BertTokenizer", "model_input_names": TYPES[::2]}, False),
            ({"tokenizer_class": "PreTrainedTokenizerFast"}, False),
            ({"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": TYPES}, True),
        )
    ):
        folder = made("bert", tmp_path / str(number), fast=True, **settings)
        assert taken(folder).token_types is types
        assert_same_ids(taken(folder), folder, pair)


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({}, 64),
        ({"model_max_length": None}, 64),
        ({"model_max_length": 1e30}, 64),
        ({"model_max_length": 512}, 64),
        ({"model_max_length": 20}, 20),
        ({"model_max_length": 20.0}, 20),
    ],
)
def test_the_maximum_length_is_the_tokenizer_s_or_the_positions(
    settings: dict[str, Any], length: int, tmp_path: Path
) -> None:
    for family in ("bert", "roberta"):
        assert taken(made(family, tmp_path / family, **settings)).max_length == length


@pytest.mark.parametrize(
    "settings",
    [
        {"padding_side": "left"},
        {"clean_up_tokenization_spaces": False},
        {"chat_template": "{{ broken"},
        {"never_split": ["x"], "do_basic_tokenize": False},
        {"tokenizer_file": "/none", "vocab_file": "/none", "name_or_path": "/none"},
    ],
    ids=str,
)
def test_settings_that_change_no_id_change_no_digest(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    plain = taken(made("bert", tmp_path / "plain", fast=True))

    assert taken(made("bert", tmp_path / "x", fast=True, **settings)) == plain


# What is stored


def test_a_tokenizer_json_that_says_it_all_is_kept_as_shipped(tmp_path: Path) -> None:
    folder = made("bert", tmp_path / "x", fast=True, tokenizer_class="BertTokenizer")
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(7)
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"), pretty=False)

    imported = taken(folder)

    assert imported.files["tokenizer.json"] == (folder / "tokenizer.json").read_bytes()
    assert_same_ids(imported, folder, [*map(Input, PROBES)])


def test_otherwise_the_same_settings_give_the_same_bytes_whatever_the_files(
    tmp_path: Path,
) -> None:
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    plain = made("bert", tmp_path / "plain", **settings)
    fast = made("bert", tmp_path / "fast", fast=True, **settings)
    backend = Tokenizer.from_file(str(fast / "tokenizer.json"))
    backend.enable_truncation(7)
    backend.normalizer = normalizers.Lowercase()
    backend.save(str(fast / "tokenizer.json"), pretty=True)

    stored = taken(plain).files["tokenizer.json"]

    assert stored == taken(fast).files["tokenizer.json"]
    assert (
        json.dumps(json.loads(stored), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        == stored.decode()
    )


@pytest.mark.parametrize("family", support.FAMILIES)
def test_transformers_reads_the_stored_files_as_the_same_tokenizer(
    family: str, tmp_path: Path
) -> None:
    """As they lie in a pulled release folder."""
    folder, pulled = made(family, tmp_path / "x"), tmp_path / "pulled"
    pulled.mkdir()
    for name, data in taken(folder).files.items():
        (pulled / name).write_bytes(data)
    before, after = (transformers.AutoTokenizer.from_pretrained(path) for path in (folder, pulled))

    for text in PROBES:
        for pair in (None, "ring at Noon"):
            assert after(text, pair)["input_ids"] == before(text, pair)["input_ids"]
    assert after.model_max_length == before.model_max_length
    assert set(before.special_tokens_map.items()) <= set(after.special_tokens_map.items())


# Refusals


def refused(folder: Path, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        taken(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        (
            {"truncation_side": "left"},
            IncompatibleError,
            "truncation_side is 'left'.*the beginning",
        ),
        ({"split_special_tokens": True}, IncompatibleError, "splits special tokens"),
        ({"extra_special_tokens": ["[CITY]"]}, IncompatibleError, r"'\[CITY\]'.*embeddings"),
        ({"model_max_length": 0}, IncompatibleError, "may have 0 tokens"),
        ({"model_max_length": 4}, IncompatibleError, "a pair's special tokens take 3"),
        ({"model_max_length": "64"}, FormatError, "model_max_length is '64', expected a number"),
        ({"model_max_length": True}, FormatError, "model_max_length is True"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, FormatError, "no fast form"),
        ({"tokenizer_class": "OwnTokenizer"}, FormatError, "transformers does not have"),
        ({"tokenizer_class": ["BertTokenizer"]}, FormatError, "transformers does not have"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, FormatError, "must be the files that"),
        ({"do_lower_case": "false"}, FormatError, "no usable tokenizer"),
    ],
    ids=str,
)
def test_settings_that_centra_cannot_obey_are_refused(
    settings: dict[str, Any], error: type[Exception], match: str, tmp_path: Path
) -> None:
    refused(made("bert", tmp_path / "x", **settings), error, match)


def test_a_class_that_only_config_json_names_is_checked_too(tmp_path: Path) -> None:
    folder = made("bert", tmp_path / "x")
    write_json(folder, "config.json", tokenizer_class="BertJapaneseTokenizer")

    refused(folder, FormatError, "BertJapaneseTokenizer, has no fast form")


@pytest.mark.parametrize(
    ("part", "error", "match"),
    [
        ({"post_processor": None}, IncompatibleError, "no special token .* before a text"),
        ({"truncation": {"direction": "Left"}}, IncompatibleError, "keeps the end"),
        ({"model": {"unk_token": "[NONE]"}}, FormatError, r"fails on texts .*\[UNK\]"),
        (
            {"post_processor": {"special_tokens": {"[CLS]": {"ids": [99_999]}}}},
            IncompatibleError,
            "gives the id 99999",
        ),
        (
            {"post_processor": {"pair": [{"Sequence": {"id": "B", "type_id": 7}}]}},
            IncompatibleError,
            "gives the token type 7",
        ),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
            FormatError,  # a panic of tokenizers, which is no Exception
            "no usable tokenizer .*precompiled_charsmap",
        ),
    ],
    ids=str,
)
def test_a_tokenizer_json_that_cannot_be_served_is_refused(
    part: dict[str, Any], error: type[Exception], match: str, tmp_path: Path
) -> None:
    folder = made(
        "bert",
        tmp_path / "x",
        fast=True,
        tokenizer_class="PreTrainedTokenizerFast",
        model_input_names=TYPES,
    )
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(30)
    content = json.loads(backend.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(_merged(content, part)))

    refused(folder, error, match)


def _merged(content: Any, part: Any) -> Any:
    """A document with parts of it replaced."""
    if isinstance(content, dict) and isinstance(part, dict) and "type" not in part:
        return content | {key: _merged(content.get(key), value) for key, value in part.items()}
    if isinstance(content, list) and isinstance(part, list):
        return [*content, *part]
    return part


def test_a_tokenizer_that_drops_merges_at_random_is_refused(tmp_path: Path) -> None:
    folder = made("roberta", tmp_path / "x", fast=True)
    content = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder, "tokenizer.json", model=content["model"] | {"dropout": 0.1})

    assert_same_ids(taken(folder), folder, [*map(Input, PROBES)])  # RobertaTokenizer drops none
    write_json(folder, CONFIG, tokenizer_class="PreTrainedTokenizerFast")
    refused(folder, IncompatibleError, "at random")


def test_token_types_that_the_family_does_not_tell_apart_are_refused(tmp_path: Path) -> None:
    """A RoBERTa with two rows of types, whose tokenizer gives pairs as BERT's does."""
    folder = made("roberta", tmp_path / "x")
    for path in ("vocab.json", "merges.txt"):
        (folder / path).unlink()
    config = made("bert", tmp_path / "bert", fast=True)
    shutil.copy(config / "tokenizer.json", folder)
    write_json(folder, "config.json", type_vocab_size=2, vocab_size=len(wordpiece()))
    write_json(folder, CONFIG, tokenizer_class="PreTrainedTokenizerFast", model_input_names=TYPES)

    refused(folder, IncompatibleError, r"Centra gives the token types \[0, .*transformers .*1\]")


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "bert"])
def test_a_missing_or_damaged_vocabulary_is_refused(family: str, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(made(family, tmp_path / "whole").glob("[vms]*"))):
        folder = made(family, tmp_path / str(number))
        (folder / path.name).write_bytes(b"\xff\xfe damaged")
        refused(folder, FormatError, "no usable tokenizer")
        (folder / path.name).unlink()
        refused(folder, FormatError, "tokenizer")


def test_of_a_sentencepiece_model_it_says_what_reading_one_takes(tmp_path: Path) -> None:
    folder = made("xlm-roberta", tmp_path / "x")
    (folder / "sentencepiece.bpe.model").write_bytes(b"damaged")

    refused(folder, FormatError, "packages sentencepiece and protobuf")


def test_positions_that_begin_nowhere_are_refused(tmp_path: Path) -> None:
    folder = made("roberta", tmp_path / "x")
    write_json(folder, "config.json", pad_token_id=None)

    refused(folder, FormatError, "no pad_token_id")


# Differences


def test_the_shortest_text_that_differs_is_shown_with_both_lists(tmp_path: Path) -> None:
    """As for a tokenizer whose class does in Python what no file says."""
    folder = made("bert", tmp_path / "x", tokenizer_class="BertTokenizer")
    cased = made("bert", tmp_path / "y", tokenizer_class="BertTokenizer", do_lower_case=False)
    inputs = [*map(Input, ("play jazz", "PLAY jazz at noon", "PLAY", "noon")), Input("x", "NOON")]
    rows = encoder_of(taken(folder), folder).encode(inputs)
    play = wordpiece()["play"]

    def difference(path: Path) -> Any:
        return find_difference(inputs, rows, load_tokenizer(str(path)), 64, token_types=True)

    assert difference(folder) is None
    assert str(difference(cased)) == (
        f"for 'PLAY' Centra gives the ids [2, {play}, 3], transformers "
        f"{load_tokenizer(str(cased))('PLAY')['input_ids']}"
    )


def test_long_lists_are_cut_to_where_they_differ(tmp_path: Path) -> None:
    folder = made("bert", tmp_path / "x", tokenizer_class="BertTokenizer")
    reference = load_tokenizer(str(folder))
    reference.truncation_side = "left"
    inputs = [Input("play " * 99 + "noon")]
    rows = encoder_of(taken(folder), folder).encode(inputs)

    found = str(find_difference(inputs, rows, reference, 64, token_types=True))

    assert "(499 characters)" in found
    assert found.count("(from number") == 2
    assert len(found) < 400
