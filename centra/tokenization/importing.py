"""A backbone's tokenizer: what transformers runs for a folder, in one file, proven to give its ids.

A folder says in many places how its texts are cut: ``tokenizer.json``, ``tokenizer_config.json``,
``special_tokens_map.json``, ``vocab.txt``, the class that reads them. transformers obeys them all,
so what Centra stores is the tokenizer that transformers ends up with. Whatever it does beyond that
file would be lost; so ids are compared on thousands of made-up texts, and a tokenizer of which
one id differs is refused.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.checkpoints.pretrained import read_file
from centra.errors import FormatError, IncompatibleError, first_line
from centra.families.settings import position_count
from centra.formats.documents import canonical_json
from centra.tokenization.checks import (
    check_ids,
    check_room,
    check_special_tokens,
    check_vocabulary,
    tokenizer_faults,
)
from centra.tokenization.comparison import find_difference, inputs_to_compare
from centra.tokenization.loading import deciding_parts, load_tokenizer, pipeline
from centra.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenizers import Tokenizer

    from centra.families.base import Family

__all__ = ["ImportedTokenizer", "import_tokenizer"]

_UNBOUNDED = 10**9  # transformers writes 1e30 for "no maximum length"

_SPECIAL_TOKENS = (
    "cls_token",
    "sep_token",
    "pad_token",
    "unk_token",
    "mask_token",
    "bos_token",
    "eos_token",
)


@dataclass(frozen=True, kw_only=True)
class ImportedTokenizer:
    """What a backbone keeps of its tokenizer."""

    files: dict[str, bytes]
    """``tokenizer.json`` and ``tokenizer_config.json``."""
    max_length: int
    """Tokens an input may have, special tokens included."""
    token_types: bool
    """Whether the model is told the two texts of a pair apart by token types."""


def import_tokenizer(
    source: str,
    family: Family,
    settings: Mapping[str, Any],
    *,
    config: Any,
    revision: str | None = None,
) -> ImportedTokenizer:
    """Take the tokenizer of a transformers encoder.

    ``tokenizer.json`` is kept as shipped where it is just what transformers runs, so that it does
    not depend on library versions; otherwise what transformers runs is written out, canonically.

    Args:
        source: a folder or a hub name.
        family: the encoder's family.
        settings: the encoder's.
        config: transformers' config of it.
        revision: the hub's branch, tag or commit.

    Raises:
        FormatError: there is no usable tokenizer, or none with a fast form.
        IncompatibleError: its ids do not fit the encoder, or it does what Centra does not.
    """
    from tokenizers import Tokenizer

    tokenizer = load_tokenizer(source, revision, config=config)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    _check_obeyed(source, tokenizer, backend)
    check_vocabulary(source, tokenizer.get_vocab(), settings["vocab_size"])
    types = family.token_types and settings["type_vocab_size"] > 1
    special = {name: getattr(tokenizer, name) for name in _SPECIAL_TOKENS}
    limit = _limit(source, tokenizer)
    if family.position_offset and settings["pad_token_id"] is None:
        raise FormatError(f"{source}: its config.json has no pad_token_id, where positions begin")
    imported = ImportedTokenizer(
        files={
            "tokenizer.json": _tokenizer_json(source, revision, backend),
            "tokenizer_config.json": canonical_json(
                {
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "model_max_length": limit,
                    **{name: str(token) for name, token in special.items() if token is not None},
                }
            ),
        },
        max_length=_max_length(source, limit, position_count(settings, family), backend),
        token_types=types and "token_type_ids" in tokenizer.model_input_names,
    )
    _prove(source, imported, tokenizer, settings)
    return imported


def _check_obeyed(source: str, tokenizer: Any, backend: Tokenizer) -> None:
    """Refuse what a tokenizer does that no stored file can say, or that no head could be read from."""
    if tokenizer.truncation_side != "right":
        raise IncompatibleError(
            f"{source}: its tokenizer keeps the end of a text that is too long (truncation_side is "
            f"{tokenizer.truncation_side!r}); Centra keeps the beginning. Set it to 'right' in "
            "tokenizer_config.json if that is good enough for your texts."
        )
    if tokenizer.split_special_tokens:
        raise IncompatibleError(
            f"{source}: its tokenizer splits special tokens that stand in a text "
            "(split_special_tokens); Centra takes them whole. Set it to false in "
            "tokenizer_config.json if your texts hold none."
        )
    check_special_tokens(source, backend)


def _tokenizer_json(source: str, revision: str | None, backend: Tokenizer) -> bytes:
    from tokenizers import Tokenizer

    backend.no_padding()
    backend.no_truncation()
    parts = json.loads(backend.to_str())
    shipped = read_file(source, "tokenizer.json", revision)
    if shipped is not None:
        try:
            if pipeline(Tokenizer.from_buffer(shipped)) == deciding_parts(parts):
                return shipped
        except Exception:  # noqa: BLE001, S110 - parts of it that transformers does not read
            pass
    return canonical_json(parts)


def _limit(source: str, tokenizer: Any) -> int | None:
    limit = tokenizer.model_max_length
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise FormatError(f"{source}: its model_max_length is {limit!r}, expected a number")
    return int(limit) if limit < _UNBOUNDED else None


def _max_length(source: str, limit: int | None, most: int, backend: Tokenizer) -> int:
    length = most if limit is None else min(limit, most)
    check_room(source, backend, length, f"model_max_length {limit}, {most} positions")
    return length


def _prove(
    source: str, imported: ImportedTokenizer, tokenizer: Any, settings: Mapping[str, Any]
) -> None:
    """Refuse a tokenizer whose stored form gives other ids than transformers, or unusable ones."""
    types = settings.get("type_vocab_size", 1)
    inputs = inputs_to_compare(tokenizer, imported.max_length)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(imported.files["tokenizer.json"])
        encoder = TextEncoder(
            path,
            max_length=imported.max_length,
            pad_token_id=0,
            token_types=imported.token_types,
        )
    with tokenizer_faults(
        lambda error: f"{source}: its tokenizer fails on texts ({first_line(error)})"
    ):
        rows = encoder.encode(inputs)
        difference = find_difference(
            inputs,
            rows,
            tokenizer,
            imported.max_length,
            token_types=types > 1,
        )
    check_ids(source, rows, settings["vocab_size"], types)
    if difference is not None:
        raise IncompatibleError(
            f"{source}: its tokenizer does what Centra cannot repeat: {difference}"
        )
