"""What the ids of a backbone's tokenizer must be for its encoder, and its text encoder once they are."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from centra.data.inputs import Input
from centra.errors import FormatError, IncompatibleError, first_line
from centra.system.panics import no_panic
from centra.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tokenizers import Tokenizer

    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader
    from centra.tokenization.text_encoder import Row

__all__ = [
    "check_ids",
    "check_room",
    "check_special_tokens",
    "check_vocabulary",
    "checked_text_encoder",
    "tokenizer_faults",
]


def checked_text_encoder(spec: BackboneSpec, reader: BlobReader) -> TextEncoder:
    """What turns texts into the ids of a backbone, all of which its encoder has embeddings for.

    Raises:
        FormatError: the stored tokenizer cannot be read, or fails on texts.
        IncompatibleError: it gives an id or a token type that the encoder does not know, or puts no
            special token before a text, or an input may have too few tokens.
        BlobNotFoundError, CorruptBlobError, StoreError: a file cannot be had.
    """
    where = f"backbone sha256:{spec.digest}"
    files = {name: reader.fetch(digest) for name, digest in spec.tokenizer.items()}
    with tokenizer_faults(
        lambda error: f"{where}: its tokenizer cannot be read ({first_line(error)})"
    ):
        encoder = TextEncoder(
            files["tokenizer.json"],
            max_length=spec.max_length,
            pad_token_id=spec.pad_token_id,
            token_types=spec.token_types,
        )
    check_vocabulary(where, encoder.tokenizer.get_vocab(), spec.vocab_size)
    check_special_tokens(where, encoder.tokenizer)
    check_room(where, encoder.tokenizer, spec.max_length, f"max_length {spec.max_length}")
    text = "A word, and some more of them: " + "naïve " * (2 * spec.max_length)
    inputs = [Input("a"), Input("a", "b"), Input(text), Input(text, text)]
    with tokenizer_faults(
        lambda error: f"{where}: its tokenizer fails on texts ({first_line(error)})"
    ):
        rows = encoder.encode(inputs)
    check_ids(where, rows, spec.vocab_size, int(spec.config.get("type_vocab_size", 1)))
    return encoder


@contextmanager
def tokenizer_faults(message: Callable[[BaseException], str]) -> Iterator[None]:
    """Turn what goes wrong inside tokenizers into a FormatError."""
    try:
        with no_panic(lambda error: ValueError(str(error))):
            yield
    except Exception as error:
        raise FormatError(message(error)) from error


def check_vocabulary(source: str, ids: Mapping[str, int], vocab_size: int) -> None:
    """Refuse a vocabulary with ids that a model with so many of them has no embeddings for."""
    beyond = sorted((i, token) for token, i in ids.items() if i >= vocab_size)
    if beyond:
        raise IncompatibleError(
            f"{source}: its tokenizer gives ids up to {beyond[-1][0]} ({beyond[-1][1]!r}), but "
            f"there are only {vocab_size} embeddings. Save the tokenizer that the weights were "
            "trained with, or resize the embeddings and train them."
        )


def check_special_tokens(source: str, backend: Tokenizer) -> None:
    """Refuse a tokenizer without certain ids, or without a token that a head could read."""
    if getattr(backend.model, "dropout", None):
        raise IncompatibleError(
            f"{source}: its tokenizer leaves out merges at random (dropout), so that a text has no "
            "certain ids. Set dropout to null in tokenizer.json."
        )
    with tokenizer_faults(
        lambda error: f"{source}: its tokenizer fails on texts ({first_line(error)})"
    ):
        mask = backend.encode("a").special_tokens_mask
    if not mask or not mask[0]:
        raise IncompatibleError(
            f"{source}: its tokenizer puts no special token ([CLS], <s>) before a text, but the "
            "heads of sentence tasks read it. Add a post_processor to tokenizer.json, or name a "
            "tokenizer_class that has one (BertTokenizer, RobertaTokenizer …)."
        )


def check_room(source: str, backend: Tokenizer, length: int, said: str) -> None:
    """Refuse inputs that are so short that a pair's special tokens leave no room for its texts."""
    special = backend.num_special_tokens_to_add(is_pair=True)
    if length <= special + 1:
        raise IncompatibleError(
            f"{source}: an input may have {length} tokens ({said}), of which a pair's special "
            f"tokens take {special}"
        )


def check_ids(source: str, rows: Sequence[Row], ids: int, types: int) -> None:
    """Refuse ids and token types that a model with so many of them has no embeddings for."""
    for what, largest, count in (
        ("id", max(max(row.input_ids) for row in rows), ids),
        # Where there are none, the one that all tokens have is not read.
        ("token type", max(max(row.token_type_ids) for row in rows), max(types, 1)),
    ):
        if largest >= count:
            raise IncompatibleError(
                f"{source}: its tokenizer gives the {what} {largest}, but the model has only "
                f"{count} of them; look at post_processor in tokenizer.json"
            )
