"""A checkpoint's tokenizer is its backbone's, or the difference is explained."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import transformers

from centra.checkpoints.tokenizer import check_same_tokenizer
from centra.errors import FormatError, IncompatibleError
from centra.formats.backbone import BackboneSpec
from centra.store import LocalStore
from tests import support
from tests.centra.test_tokenizer import CONFIG, MAP, made, taken, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = ("vocab.txt", "tokenizer.json", CONFIG, MAP)
GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast"}


class Cased:
    """A backbone with a cased BERT tokenizer in all its files, and a store that holds it."""

    def __init__(self, root: Path, like: BackboneSpec) -> None:
        self.store = LocalStore(root / "store")
        self.folder = made(
            "bert", root / "cased", tokenizer_class="BertTokenizer", do_lower_case=False
        )
        transformers.AutoTokenizer.from_pretrained(self.folder).save_pretrained(self.folder)
        imported = taken(self.folder)
        self.spec = like.model_copy(
            update={
                "tokenizer": {n: self.store.put(data) for n, data in imported.files.items()},
                "max_length": imported.max_length,
                "token_types": imported.token_types,
            }
        )


@pytest.fixture(scope="module")
def cased(tiny_backbone: support.Backbone, tmp_path_factory: pytest.TempPathFactory) -> Cased:
    return Cased(tmp_path_factory.mktemp("cased"), tiny_backbone.spec)


@pytest.fixture
def folder(cased: Cased, tmp_path: Path) -> Path:
    """A checkpoint's folder with the backbone's own tokenizer, to be changed."""
    return shutil.copytree(cased.folder, tmp_path / "checkpoint")


@pytest.fixture
def check(cased: Cased, folder: Path) -> Callable[..., None]:
    def check(*, pairs: bool = True) -> None:
        check_same_tokenizer(folder, cased.spec, cased.store, pairs=pairs)

    return check


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def edit_part(folder: Path, part: str, **fields: Any) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder, "tokenizer.json", **{part: content[part] | fields})


def resave(folder: Path, change: Callable[[Any], object]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    change(tokenizer)
    tokenizer.save_pretrained(folder)


# The same


@pytest.mark.parametrize("kept", [FILES, ("vocab.txt", CONFIG), ("tokenizer.json", CONFIG)])
def test_the_same_tokenizer_passes_in_whatever_files(
    kept: tuple[str, ...], folder: Path, check: Callable[..., None]
) -> None:
    remove(folder, *(set(FILES) - set(kept)))

    check()


def test_one_that_was_saved_again_passes(folder: Path, check: Callable[..., None]) -> None:
    resave(folder, lambda tokenizer: tokenizer("play jazz", padding="max_length", max_length=9))

    check()


def test_settings_that_change_no_id_pass(folder: Path, check: Callable[..., None]) -> None:
    write_json(folder, CONFIG, model_max_length=16, padding_side="left", strip_accents=False, x=1)

    check()


@pytest.mark.parametrize("kept", [(), (CONFIG,), (CONFIG, MAP)])
def test_a_folder_without_any_vocabulary_says_nothing(
    kept: tuple[str, ...], folder: Path, check: Callable[..., None]
) -> None:
    remove(folder, *(set(FILES) - set(kept)))

    check()


def test_the_class_counts_for_pairs_alone(folder: Path, check: Callable[..., None]) -> None:
    """transformers gives no token types for the generic class, and none are needed for one text."""
    write_json(folder, CONFIG, **GENERIC)

    check(pairs=False)
    with pytest.raises(IncompatibleError, match=r"token types .*model_input_names"):
        check()


# Differences


def test_a_lone_vocab_txt_is_read_as_transformers_does(
    folder: Path, check: Callable[..., None]
) -> None:
    remove(folder, *FILES[1:])

    with pytest.raises(IncompatibleError) as caught:
        check()
    assert "it lower-cases, the backbone's keeps upper case (do_lower_case)" in str(caught.value)
    assert "it strips accents, the backbone's keeps accents" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"do_lower_case": True}, r"it lower-cases, the backbone's keeps upper case"),
        ({"strip_accents": True}, r"it strips accents, .* \(strip_accents\)"),
        ({"tokenize_chinese_chars": False}, r"it leaves Chinese text together"),
        ({"truncation_side": "left"}, r"it keeps the end of a text that is too long"),
        ({"split_special_tokens": True}, r"it splits special tokens in a text"),
        (
            {"extra_special_tokens": ["[unused1]"]},
            r"takes 1 token \('\[unused1\]'\) whole wherever they stand",
        ),
        ({"model_input_names": ["input_ids"]}, r"for '.*' with '.*' Centra gives the token types"),
    ],
    ids=str,
)
def test_another_setting_is_named(
    settings: dict[str, Any], match: str, folder: Path, check: Callable[..., None]
) -> None:
    write_json(folder, CONFIG, **settings)

    with pytest.raises(IncompatibleError, match=match):
        check()


@pytest.mark.parametrize(
    ("part", "fields", "match"),
    [
        ("normalizer", {"clean_text": False}, "it keeps control characters"),
        ("pre_tokenizer", {"type": "Whitespace"}, 'pre-tokenizer: type is "Whitespace"'),
        ("model", {"max_input_chars_per_word": 9}, "max_input_chars_per_word is 9, the .* 100"),
        ("post_processor", {"single": []}, "for '.*' Centra gives the ids .*post_processor"),
    ],
)
def test_another_part_of_tokenizer_json_is_named(
    part: str,
    fields: dict[str, Any],
    match: str,
    folder: Path,
    check: Callable[..., None],
) -> None:
    write_json(folder, CONFIG, **GENERIC)
    edit_part(folder, part, **fields)

    with pytest.raises(IncompatibleError, match=match):
        check(pairs=False)


def test_another_kind_of_normaliser_is_named(folder: Path, check: Callable[..., None]) -> None:
    write_json(folder, CONFIG, **GENERIC)
    write_json(folder, "tokenizer.json", normalizer={"type": "NFKC"})

    with pytest.raises(IncompatibleError, match=r'normaliser: type is "NFKC", .*"BertNormalizer"'):
        check()


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("weather\n", "whether\n", r"its vocabulary lacks 1 token \('weather'\)"),
        ("at\nnoon\n", "noon\nat\n", r"other ids to 2 tokens \('at', 'noon'\) \('at' is 14"),
        ("[PAD]\n", "[PAD]\nnew\n", r"other ids to \d+ tokens .* more\)"),
    ],
)
def test_another_vocabulary_is_named(
    old: str, new: str, match: str, folder: Path, check: Callable[..., None]
) -> None:
    remove(folder, "tokenizer.json")
    words = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(words.replace(old, new, 1))

    with pytest.raises(IncompatibleError, match=match):
        check()


@pytest.mark.parametrize("special", [True, False])
def test_tokens_that_were_added_have_an_explanation_of_their_own(
    special: bool, folder: Path, check: Callable[..., None]
) -> None:
    resave(folder, lambda t: t.add_tokens(["[CITY]", "[DAY]"], special_tokens=special))

    with pytest.raises(IncompatibleError) as caught:
        check()
    assert "has 2 tokens ('[CITY]', '[DAY]') that the backbone's does not have" in str(caught.value)
    assert "If no text of the task does" in str(caught.value)


def other_backbone(folder: Path, like: BackboneSpec, store: LocalStore) -> BackboneSpec:
    """A backbone with a folder's tokenizer, whatever its weights."""
    files = {name: store.put(data) for name, data in taken(folder).files.items()}
    return like.model_copy(update={"tokenizer": files})


def test_a_merge_that_is_missing_is_named(
    tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = made("roberta", tmp_path / "x", fast=True)
    spec = other_backbone(folder, tiny_backbone.spec, store)
    content = json.loads((folder / "tokenizer.json").read_text())
    edit_part(folder, "model", merges=content["model"]["merges"][:-1])

    with pytest.raises(IncompatibleError, match="its merges or scores are others"):
        check_same_tokenizer(folder, spec, store, pairs=False)


@pytest.mark.parametrize(
    ("family", "match"),
    [
        ("roberta", "pre-tokenizer: add_prefix_space is true, the backbone's false"),
        ("xlm-roberta", 'pre-tokenizer: .*prepend_scheme is "always", the backbone\'s "never"'),
    ],
)
def test_another_prefix_space_is_named(
    family: str, match: str, tiny_backbone: support.Backbone, tmp_path: Path, store: LocalStore
) -> None:
    folder = made(family, tmp_path / "x", add_prefix_space=False)
    spec = other_backbone(folder, tiny_backbone.spec, store)
    write_json(folder, CONFIG, add_prefix_space=True)

    with pytest.raises(IncompatibleError, match=match):
        check_same_tokenizer(folder, spec, store, pairs=False)


@pytest.mark.parametrize("name", ["BertJapaneseTokenizer", "OwnTokenizer"])
def test_a_class_that_cannot_be_compared_is_refused(
    name: str, folder: Path, check: Callable[..., None]
) -> None:
    write_json(folder, CONFIG, tokenizer_class=name)

    with pytest.raises(FormatError, match=name):
        check()


def test_a_damaged_file_is_refused(folder: Path, check: Callable[..., None]) -> None:
    whole = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(
        FormatError, match=r"no usable tokenizer \(its tokenizer.json cannot be loaded: is no JSON"
    ):
        check()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(FormatError, match=r"cannot be loaded: .*Model missing.*save it again"):
        check()
    (folder / "tokenizer.json").write_text(whole)
    (folder / "special_tokens_map.json").write_text("no")
    with pytest.raises(FormatError, match=r"\(its special_tokens_map.json is no JSON"):
        check()
