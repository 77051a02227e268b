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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.checkpoints.pretrained import first_line, read_file, read_json
from centra.errors import FormatError, IncompatibleError
from centra.formats.documents import canonical_json, sha256
from centra.system.panics import no_panic
from centra.tokenization.sample_texts import sample_inputs
from centra.tokenization.trial import try_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from tokenizers import Tokenizer

    from centra.data.inputs import Input, Row, TextEncoder
    from centra.families.table import Family

__all__ = [
    "Difference",
    "ImportedTokenizer",
    "checked_encoder",
    "find_difference",
    "import_tokenizer",
    "load_tokenizer",
    "pipeline",
    "samples",
]

_JSON_FILES = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
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
_WORDS = 3000  # of the vocabulary in made-up texts
_SHOWN = 60  # characters or ids in a message


@dataclass(frozen=True, kw_only=True)
class ImportedTokenizer:
    """What a backbone keeps of its tokenizer."""

    files: dict[str, bytes]
    """``tokenizer.json`` and ``tokenizer_config.json``."""
    max_length: int
    """Tokens an input may have, special tokens included."""
    token_types: bool
    """Whether the model is told the two texts of a pair apart by token types."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An input for which Centra and transformers give other ids, or other token types."""

    input: Input
    what: str
    """``"ids"`` or ``"token types"``."""
    centra: list[int]
    transformers: list[int]

    def __str__(self) -> str:
        texts = [text for text in (self.input.text, self.input.text_pair) if text is not None]
        pairs = enumerate(zip(self.centra, self.transformers, strict=False))
        first = next((i for i, (a, b) in pairs if a != b), len(self.centra))
        centra, transformers = (_around(ids, first) for ids in (self.centra, self.transformers))
        return (
            f"for {' with '.join(_short(text) for text in texts)} Centra gives the {self.what} "
            f"{centra}, transformers {transformers}"
        )


def _short(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text)} characters)"


def _around(ids: list[int], first: int) -> str:
    """A list of ids, cut to those around the first that differs where it is long."""
    if len(ids) <= _SHOWN:
        return str(ids)
    start = max(0, first - 5)
    return f"{ids[start : start + 10]} (from number {start} of {len(ids)})"


def import_tokenizer(
    source: str, config: Any, family: Family, revision: str | None = None
) -> ImportedTokenizer:
    """Take the tokenizer of a transformers encoder.

    ``tokenizer.json`` is kept as shipped where it is just what transformers runs, so that it does
    not depend on library versions; otherwise what transformers runs is written out, canonically.

    Args:
        source: a folder or a hub name.
        config: transformers' config of the encoder.
        family: the encoder's family.
        revision: the hub's branch, tag or commit.

    Raises:
        FormatError: there is no usable tokenizer, or none with a fast form.
        IncompatibleError: its ids do not fit the encoder, or it does what Centra does not.
    """
    from tokenizers import Tokenizer

    tokenizer = load_tokenizer(source, revision, config=config)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    _check_obeyed(source, tokenizer, backend)
    _check_vocabulary(source, tokenizer.get_vocab(), int(config.vocab_size))
    types = family.token_types and config.type_vocab_size > 1
    special = {name: getattr(tokenizer, name) for name in _SPECIAL_TOKENS}
    limit = _limit(source, tokenizer)
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
        max_length=_max_length(source, limit, config, family, backend),
        token_types=types and "token_type_ids" in tokenizer.model_input_names,
    )
    _prove(source, imported, tokenizer, config, family)
    return imported


def checked_encoder(
    path: Path,
    where: str,
    *,
    vocab_size: int,
    type_vocab_size: int,
    max_length: int,
    pad_token_id: int,
    token_types: bool,
) -> TextEncoder:
    """A stored tokenizer, ready to encode, whose ids an encoder has embeddings for.

    Args:
        path: a ``tokenizer.json``.
        where: what to call its backbone in errors.
        vocab_size, type_vocab_size: how many token ids and token types the encoder knows.
        max_length, pad_token_id, token_types: see :class:`centra.data.inputs.TextEncoder`.

    Raises:
        FormatError: it cannot be read, or fails on texts.
        IncompatibleError: it gives an id or a token type that the encoder does not know, or puts no
            special token before a text, or an input may have too few tokens.
    """
    from centra.data.inputs import Input, TextEncoder

    with _faults(lambda error: f"{where}: its tokenizer cannot be read ({first_line(error)})"):
        encoder = TextEncoder(
            path, max_length=max_length, pad_token_id=pad_token_id, token_types=token_types
        )
    _check_vocabulary(where, encoder.tokenizer.get_vocab(), vocab_size)
    _check_backend(where, encoder.tokenizer)
    _check_room(where, encoder.tokenizer, max_length, f"max_length {max_length}")
    text = "A word, and some more of them: " + "naïve " * (2 * max_length)
    inputs = [Input("a"), Input("a", "b"), Input(text), Input(text, text)]
    with _faults(lambda error: f"{where}: its tokenizer fails on texts ({first_line(error)})"):
        rows = encoder.encode(inputs)
    _check_rows(where, rows, vocab_size, type_vocab_size)
    return encoder


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
    with _faults(lambda error: f"{source}: no usable tokenizer ({_why(source, revision, error)})"):
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
    return _deciding(json.loads(tokenizer.to_str()))


def _deciding(parts: dict[str, Any]) -> dict[str, Any]:
    rest = ("version", "truncation", "padding", "decoder")
    return {name: part for name, part in parts.items() if name not in rest}


def find_difference(
    inputs: Sequence[Input],
    rows: Sequence[Row],
    tokenizer: Any,
    max_length: int,
    *,
    token_types: bool,
) -> Difference | None:
    """The shortest input for which a model gets other ids from Centra than from transformers.

    Args:
        inputs: the inputs to compare on.
        rows: what Centra makes of them.
        tokenizer: transformers'.
        max_length: tokens to keep of each.
        token_types: whether the model takes token types other than 0, so that they count too.
    """
    found: list[Difference] = []
    for pairs in (False, True):
        batch = [i for i, item in enumerate(inputs) if (item.text_pair is not None) == pairs]
        if not batch:
            continue
        theirs = tokenizer(
            [inputs[i].text for i in batch],
            [inputs[i].text_pair for i in batch] if pairs else None,
            truncation=True,
            max_length=max_length,
        )
        types = theirs.get("token_type_ids") if token_types else None
        for number, i in enumerate(batch):
            ids = theirs["input_ids"][number]
            compared = [("ids", rows[i].input_ids, ids)]
            if token_types:
                kinds = types[number] if types else [0] * len(ids)
                compared.append(("token types", rows[i].token_type_ids, kinds))
            found += [
                Difference(input=inputs[i], what=what, centra=ours, transformers=wanted)
                for what, ours, wanted in compared
                if ours != wanted
            ]
    return min(found, key=lambda each: len(each.centra) + len(each.transformers), default=None)


def samples(tokenizer: Any, max_length: int) -> list[Input]:
    """Made-up inputs for a tokenizer of transformers: see :func:`centra.tokenization.sample_texts.sample_inputs`."""
    ids = range(0, len(tokenizer), max(1, len(tokenizer) // _WORDS))
    words = (tokenizer.decode([i]).strip().removeprefix("##") for i in ids)
    special = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    return sample_inputs([word for word in words if word], special, max_length)


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


@contextmanager
def _faults(message: Callable[[BaseException], str]) -> Iterator[None]:
    """Turn what goes wrong inside tokenizers into a FormatError."""
    try:
        with no_panic(lambda error: ValueError(str(error))):
            yield
    except Exception as error:
        raise FormatError(message(error)) from error


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
    _check_backend(source, backend)


def _check_backend(source: str, backend: Tokenizer) -> None:
    """Refuse a tokenizer without certain ids, or without a token that a head could read."""
    if getattr(backend.model, "dropout", None):
        raise IncompatibleError(
            f"{source}: its tokenizer leaves out merges at random (dropout), so that a text has no "
            "certain ids. Set dropout to null in tokenizer.json."
        )
    with _faults(lambda error: f"{source}: its tokenizer fails on texts ({first_line(error)})"):
        mask = backend.encode("a").special_tokens_mask
    if not mask or not mask[0]:
        raise IncompatibleError(
            f"{source}: its tokenizer puts no special token ([CLS], <s>) before a text, but the "
            "heads of sentence tasks read it. Add a post_processor to tokenizer.json, or name a "
            "tokenizer_class that has one (BertTokenizer, RobertaTokenizer …)."
        )


def _check_vocabulary(source: str, ids: Mapping[str, int], vocab_size: int) -> None:
    beyond = sorted((i, token) for token, i in ids.items() if i >= vocab_size)
    if beyond:
        raise IncompatibleError(
            f"{source}: its tokenizer gives ids up to {beyond[-1][0]} ({beyond[-1][1]!r}), but "
            f"there are only {vocab_size} embeddings. Save the tokenizer that the weights were "
            "trained with, or resize the embeddings and train them."
        )


def _tokenizer_json(source: str, revision: str | None, backend: Tokenizer) -> bytes:
    from tokenizers import Tokenizer

    backend.no_padding()
    backend.no_truncation()
    parts = json.loads(backend.to_str())
    shipped = read_file(source, "tokenizer.json", revision)
    if shipped is not None:
        try:
            if pipeline(Tokenizer.from_buffer(shipped)) == _deciding(parts):
                return shipped
        except Exception:  # noqa: BLE001, S110 - parts of it that transformers does not read
            pass
    return canonical_json(parts)


def _limit(source: str, tokenizer: Any) -> int | None:
    limit = tokenizer.model_max_length
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise FormatError(f"{source}: its model_max_length is {limit!r}, expected a number")
    return int(limit) if limit < _UNBOUNDED else None


def _max_length(
    source: str, limit: int | None, config: Any, family: Family, backend: Tokenizer
) -> int:
    positions = int(getattr(config, family.max_length_key))
    if family.position_offset and config.pad_token_id is None:
        raise FormatError(f"{source}: its config.json has no pad_token_id, where positions begin")
    if family.position_offset:
        positions -= config.pad_token_id + 1
    length = positions if limit is None else min(limit, positions)
    _check_room(source, backend, length, f"model_max_length {limit}, {positions} positions")
    return length


def _check_room(source: str, backend: Tokenizer, length: int, said: str) -> None:
    """Refuse inputs that are so short that a pair's special tokens leave no room for its texts."""
    special = backend.num_special_tokens_to_add(is_pair=True)
    if length <= special + 1:
        raise IncompatibleError(
            f"{source}: an input may have {length} tokens ({said}), of which a pair's special "
            f"tokens take {special}"
        )


def _prove(
    source: str, imported: ImportedTokenizer, tokenizer: Any, config: Any, family: Family
) -> None:
    """Refuse a tokenizer whose stored form gives other ids than transformers, or unusable ones."""
    from centra.data.inputs import TextEncoder

    types = config.type_vocab_size if "type_vocab_size" in family.config_keys else 1
    inputs = samples(tokenizer, imported.max_length)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(imported.files["tokenizer.json"])
        encoder = TextEncoder(
            path,
            max_length=imported.max_length,
            pad_token_id=0,
            token_types=imported.token_types,
        )
    with _faults(lambda error: f"{source}: its tokenizer fails on texts ({first_line(error)})"):
        rows = encoder.encode(inputs)
        difference = find_difference(
            inputs,
            rows,
            tokenizer,
            imported.max_length,
            token_types=types > 1,
        )
    _check_rows(source, rows, config.vocab_size, types)
    if difference is not None:
        raise IncompatibleError(
            f"{source}: its tokenizer does what Centra cannot repeat: {difference}"
        )


def _check_rows(source: str, rows: Sequence[Row], ids: int, types: int) -> None:
    """Refuse ids and token types that a model with so many of them has no embeddings for."""
    for what, largest, count in (
        ("id", max(max(row.input_ids) for row in rows), ids),
        ("token type", max(max(row.token_type_ids) for row in rows), types),
    ):
        if largest >= count:
            raise IncompatibleError(
                f"{source}: its tokenizer gives the {what} {largest}, but the model has only "
                f"{count} of them; look at post_processor in tokenizer.json"
            )
