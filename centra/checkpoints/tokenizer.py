"""Whether a fine-tuned checkpoint was trained on the ids that its backbone's tokenizer gives.

Two tokenizers are compared part by part, so that a refusal can say what differs, and then by the ids
that they give for made-up texts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from centra.errors import IncompatibleError
from centra.tokenization.comparison import find_difference, inputs_to_compare
from centra.tokenization.loading import load_tokenizer, pipeline
from centra.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader

__all__ = ["check_same_tokenizer"]

_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
"""Files that hold words; without any of them, transformers makes up a tokenizer."""

_SETTINGS = {
    "lowercase": ("do_lower_case", "lower-cases", "keeps upper case"),
    "strip_accents": ("strip_accents", "strips accents", "keeps accents"),
    "handle_chinese_chars": (
        "tokenize_chinese_chars",
        "splits Chinese text into characters",
        "leaves Chinese text together",
    ),
    "clean_text": ("clean_text", "drops control characters", "keeps control characters"),
}
"""Per switch of BERT's normaliser its name in ``tokenizer_config.json``, and what on and off mean."""

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_SHOWN = 5  # tokens or differences that a message names


def check_same_tokenizer(
    folder: Path,
    backbone: BackboneSpec,
    reader: BlobReader,
    *,
    pairs: bool,
    config: Any = None,
) -> None:
    """Refuse a checkpoint whose tokenizer is not its backbone's.

    A folder without any tokenizer's vocabulary says nothing, and passes.

    Args:
        folder: the checkpoint's.
        backbone: the backbone that it stands on.
        reader: where the backbone's tokenizer is.
        pairs: whether the task takes pairs of texts, whose ids and token types then count too.
        config: transformers' config of its encoder; None reads its config.json.

    Raises:
        FormatError: its tokenizer cannot be used, or has no fast form.
        IncompatibleError: the two differ; the message says in what.
    """
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        return
    from tokenizers import Tokenizer

    digest = backbone.tokenizer["tokenizer.json"]
    tokenizer = load_tokenizer(str(folder), config=config, known=(digest,))
    path = reader.fetch(digest)
    own = _Parts(tokenizer.backend_tokenizer)
    theirs = _Parts(Tokenizer.from_file(str(path)))
    if differences := [*_differences(own, theirs), *_beyond_parts(tokenizer)]:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise IncompatibleError(
            f"{folder}: its tokenizer is not the backbone's: {'; '.join(differences[:_SHOWN])}{more}."
            " Fine-tune on the backbone's own tokenizer and save that beside the weights, or "
            "register the encoder with this tokenizer as a backbone of its own."
        )
    if added := sorted(own.ids.keys() - theirs.ids.keys(), key=own.ids.__getitem__):
        raise IncompatibleError(
            f"{folder}: its tokenizer has {_count(added)} that the backbone's does not have; a "
            "text that holds one would be read as other tokens than in training. If no text of "
            "the task does, save the backbone's tokenizer beside the weights instead (and its "
            "embeddings, where they were resized); else register a backbone that has them."
        )
    inputs = [
        item
        for item in inputs_to_compare(tokenizer, backbone.max_length)
        if pairs or not item.text_pair
    ]
    difference = find_difference(
        inputs,
        TextEncoder.of(backbone, reader).encode(inputs),
        tokenizer,
        backbone.max_length,
        token_types=backbone.config.get("type_vocab_size", 0) > 1,
    )
    if difference is not None:
        raise IncompatibleError(
            f"{folder}: its tokenizer does not give what the backbone's does: {difference}. Look for "
            "post_processor in tokenizer.json and model_input_names in tokenizer_config.json."
        )


class _Parts:
    """What decides on a tokenizer's ids, in a form that can be compared."""

    def __init__(self, tokenizer: Any) -> None:
        parts = pipeline(tokenizer)
        self.ids: dict[str, int] = tokenizer.get_vocab()
        self.added = {
            token["content"]: {flag: token[flag] for flag in _FLAGS}
            for token in parts["added_tokens"]
        }
        model = parts["model"]
        scores = model["vocab"] if model["type"] == "Unigram" else []
        # SentencePiece has them in float32; more digits than that change on the way through JSON.
        self.pieces = (model.get("merges"), [(piece, np.float32(score)) for piece, score in scores])
        # An empty prefix is none.
        self.model = {k: v for k, v in model.items() if v and k not in ("vocab", "merges")}
        self.normalizer: dict[str, Any] = parts["normalizer"] or {}
        self.pre_tokenizer: dict[str, Any] = parts["pre_tokenizer"] or {}
        if self.normalizer.get("type") == "BertNormalizer":
            accents = self.normalizer["strip_accents"]
            self.normalizer["strip_accents"] = (
                self.normalizer["lowercase"] if accents is None else accents
            )


def _differences(own: _Parts, theirs: _Parts) -> Iterator[str]:
    """What differs between a checkpoint's tokenizer and its backbone's, but for added tokens."""
    yield from _normalizer(own.normalizer, theirs.normalizer)
    yield from _changed("pre-tokenizer", own.pre_tokenizer, theirs.pre_tokenizer)
    yield from _changed("model", own.model, theirs.model)
    if lacking := sorted(theirs.ids.keys() - own.ids.keys(), key=theirs.ids.__getitem__):
        yield f"its vocabulary lacks {_count(lacking)}"
    shared = own.ids.keys() & theirs.ids.keys()
    if moved := sorted(token for token in shared if own.ids[token] != theirs.ids[token]):
        first = moved[0]
        yield (
            f"its vocabulary gives other ids to {_count(moved)} ({first!r} is {own.ids[first]}, "
            f"the backbone's {theirs.ids[first]})"
        )
    if not (lacking or moved) and own.pieces != theirs.pieces:
        yield "its merges or scores are others"
    if whole := sorted((own.added.keys() - theirs.added.keys()) & shared):
        yield f"it takes {_count(whole)} whole wherever they stand, the backbone's splits them"
    if split := sorted((theirs.added.keys() - own.added.keys()) & shared):
        yield f"it splits {_count(split)}, which the backbone's takes whole"
    for token in sorted(own.added.keys() & theirs.added.keys()):
        yield from _changed(f"added token {token!r}", own.added[token], theirs.added[token])


def _beyond_parts(tokenizer: Any) -> Iterator[str]:
    """What transformers does beyond a tokenizer's parts, and a backbone's never does."""
    if tokenizer.truncation_side != "right":
        yield "it keeps the end of a text that is too long, the backbone's the beginning (truncation_side)"
    if tokenizer.split_special_tokens:
        yield "it splits special tokens in a text, the backbone's takes them whole (split_special_tokens)"


def _normalizer(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    if not own.get("type") == theirs.get("type") == "BertNormalizer":
        yield from _changed("normaliser", own, theirs)
        return
    for switch, (name, on, off) in _SETTINGS.items():
        if own[switch] != theirs[switch]:
            mine, other = (on, off) if own[switch] else (off, on)
            yield f"it {mine}, the backbone's {other} ({name})"


def _changed(what: str, own: object, theirs: object) -> Iterator[str]:
    mine, others = dict(_leaves(own)), dict(_leaves(theirs))
    for path in sorted(mine.keys() | others.keys()):
        if mine.get(path) != others.get(path):
            yield (
                f"{what}: {path} is {_short(mine.get(path))}, "
                f"the backbone's {_short(others.get(path))}"
            )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values in a nested one, each with where it stands."""
    if not isinstance(value, dict | list):
        yield path, value
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(part, f"{path}.{key}" if path else str(key))


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _count(tokens: list[str]) -> str:
    names = ", ".join(repr(token) for token in tokens[:_SHOWN])
    more = f" and {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else ""
    return f"{len(tokens)} {'token' if len(tokens) == 1 else 'tokens'} ({names}{more})"
