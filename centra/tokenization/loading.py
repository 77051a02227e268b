"""The tokenizer that transformers reads from a folder or the hub, tried before it is trusted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from centra.checkpoints.pretrained import read_file, read_json
from centra.errors import FormatError, first_line
from centra.formats.documents import sha256
from centra.tokenization.checks import tokenizer_faults
from centra.tokenization.trial import try_tokenizer

if TYPE_CHECKING:
    from collections.abc import Collection

    from tokenizers import Tokenizer

__all__ = ["deciding_parts", "load_tokenizer", "pipeline"]

_JSON_FILES = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")


def load_tokenizer(
    source: str,
    revision: str | None = None,
    *,
    config: Any = None,
    known: Collection[str] = (),
) -> Any:
    """The tokenizer that transformers reads from a folder or hub name; never one that it makes up.

    One that is not known is tried in a process of its own first.

    Args:
        source: a folder or a hub name.
        revision: the hub's branch, tag or commit.
        config: transformers' config of the encoder; None reads config.json.
        known: the digests of those ``tokenizer.json`` that were tried before.

    Raises:
        NotFoundError: there is no such folder or hub repository.
        FormatError: there is no usable tokenizer, or none with a fast form; or it takes more time or
            memory than any that can be used.
    """
    import transformers

    _check_class(source, revision)
    data = read_file(source, "tokenizer.json", revision)
    if data is not None and sha256(data) not in known:
        try_tokenizer(data, source)
    with tokenizer_faults(
        lambda error: f"{source}: no usable tokenizer ({_why(source, revision, error)})"
    ):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source, config=config, revision=revision, trust_remote_code=False
        )
    if not tokenizer.is_fast:
        raise FormatError(_no_fast_form(source, type(tokenizer).__name__))
    # transformers makes up an empty tokenizer where a folder has none.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise FormatError(f"{source}: has no tokenizer; save it beside the weights")
    if data is None:
        try_tokenizer(tokenizer.backend_tokenizer.to_str().encode(), source)
    return tokenizer


def pipeline(tokenizer: Tokenizer) -> dict[str, Any]:
    """The parts of a tokenizer that decide on ids: normaliser, model, added tokens and so on."""
    return deciding_parts(json.loads(tokenizer.to_str()))


def deciding_parts(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts of a ``tokenizer.json`` that decide on ids."""
    rest = ("version", "truncation", "padding", "decoder")
    return {name: part for name, part in parts.items() if name not in rest}


def _check_class(source: str, revision: str | None) -> None:
    """Refuse what transformers would replace without a word by another class, or cannot serve."""
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    for file in ("tokenizer_config.json", "config.json"):
        name = read_json(source, file, revision).get("tokenizer_class")
        if name is None:
            continue
        found = tokenizer_class_from_name(name) if isinstance(name, str) else None
        if found is None:
            raise FormatError(
                f"{source}: its {file} says tokenizer_class {name!r}, which transformers does not "
                "have, and Centra runs no code of a folder's own. Where a class of transformers "
                "gives the same ids (BertTokenizer, RobertaTokenizer …), name that instead."
            )
        if not issubclass(found, PreTrainedTokenizerFast) and found.__name__ != "PythonBackend":
            raise FormatError(_no_fast_form(source, name))
        return


def _why(source: str, revision: str | None, error: BaseException) -> str:
    """Why transformers could not read a tokenizer."""
    for name in _JSON_FILES:
        try:
            read_json(source, name, revision)
        except FormatError as fault:
            return str(fault).removeprefix(f"{source}: ")
    if read_file(source, "tokenizer.json", revision) is not None:
        what = "it lacks" if isinstance(error, KeyError) else f"{type(error).__name__}:"
        return (
            "transformers cannot read its tokenizer.json and the files beside it: "
            f"{what} {first_line(error)}; save it again with save_pretrained"
        )
    for name in ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model"):
        if read_file(source, name, revision) is not None:
            # transformers says here that it needs tiktoken, which reads no such file.
            return (
                f"its {name} cannot be read, which takes the packages sentencepiece and protobuf; "
                "or save a tokenizer.json beside it"
            )
    return (
        f"{first_line(error).removesuffix(' from one of:')}; there must be the files that its "
        "tokenizer_class reads: tokenizer.json, or vocab.txt for BertTokenizer and so on"
    )


def _no_fast_form(source: str, name: str) -> str:
    return (
        f"{source}: its tokenizer, {name}, has no fast form, so it cannot be served without "
        "transformers. Save a tokenizer.json that gives the same ids (PreTrainedTokenizerFast)."
    )
