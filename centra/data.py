"""From JSONL lines and request objects to inputs, and from inputs to padded batches of token ids.

An input is always one text (or a pair of texts). Words of a tagging input are character spans of
that text, never a second tokenisation, so that sentence tasks and tagging tasks share one encoding
and one pass over the trunk. Pre-split words are joined by single spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from centra.documents import sha256
from centra.errors import DataError
from centra.jsonl import read_jsonl
from centra.labels import parse_label
from centra.progress import Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Encoding

    from centra.backbone import BackboneSpec
    from centra.blobs import BlobReader

__all__ = [
    "Encoded",
    "Example",
    "Input",
    "Row",
    "TextEncoder",
    "dev_file",
    "fingerprint",
    "read_examples",
]

Span = tuple[int, int]
"""Start and end (exclusive) in characters of a text."""

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Input:
    """One thing to answer for: a text, or a pair of texts."""

    text: str
    text_pair: str | None = None
    tokens: tuple[str, ...] | None = None
    """The words, where the caller split them; ``text`` is then their join by spaces."""

    @classmethod
    def parse(cls, value: object, where: str = "input") -> Input:
        """Read an input from a string, a pair of strings, or a mapping.

        Args:
            value: ``"text"``, ``("text", "pair")``, ``{"text": …}``, ``{"text": …, "text_pair": …}``
                or ``{"tokens": […]}``.
            where: what to call it in errors.

        Raises:
            DataError: it is none of these, or a text is empty.
        """
        match value:
            case Input():
                return value
            case str():
                parsed = cls(value)
            case [str() as text, str() as second]:
                parsed = cls(text, second)
            case {"tokens": [*tokens], **rest} if "text" not in rest:
                if not all(isinstance(token, str) and token.strip() for token in tokens):
                    raise DataError(f"{where}: 'tokens' must be a list of non-empty strings")
                parsed = cls(" ".join(tokens), None, tuple(tokens))
            case {"text": str() as text, **rest} if "tokens" not in rest:
                pair = rest.get("text_pair")
                if not isinstance(pair, str | None):
                    raise DataError(f"{where}: 'text_pair' must be a string, found {pair!r}")
                parsed = cls(text, pair)
            case _:
                shown = repr(value)[:80]
                raise DataError(
                    f"{where}: expected a text, a pair of texts, or an object with 'text' "
                    f"(and 'text_pair') or 'tokens'; found {shown}"
                )
        _check_text(parsed.text, where)
        if parsed.text_pair is not None:
            _check_text(parsed.text_pair, where)
        return parsed

    @cached_property
    def words(self) -> list[Span]:
        """The character span of each word: the caller's, or runs of letters and single marks."""
        if self.tokens is None:
            return [match.span() for match in _WORD.finditer(self.text)]
        spans, start = [], 0
        for token in self.tokens:
            spans.append((start, start + len(token)))
            start += len(token) + 1
        return spans


@dataclass(frozen=True)
class Example:
    """An input with its answer: a label, several labels, a number, or a tag per word.

    What they mean to a task is told by :func:`centra.labelling.read_as`.
    """

    input: Input
    label: str | float | tuple[str, ...]
    where: str
    """File and line, for errors."""
    numbers: bool = False
    """Whether several labels, or tags, are written as whole numbers: ``label`` has their digits."""


@dataclass(frozen=True)
class Row:
    """One encoded input, not padded."""

    input_ids: list[int]
    token_type_ids: list[int]
    offsets: list[Span]
    """Per token the characters of the text that it covers; empty spans for special tokens."""

    def first_tokens(self, words: Sequence[Span]) -> list[int]:
        """Per word the index of the first token that touches it; -1 where truncation cut it off."""
        found, token = [], 0
        for start, end in words:
            while token < len(self.offsets) and self.offsets[token][1] <= start:
                token += 1
            touches = token < len(self.offsets) and self.offsets[token][0] < end
            found.append(token if touches else -1)
        return found


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A padded batch; each array is ``(batch, seq)`` of int64."""

    input_ids: np.ndarray
    attention_mask: np.ndarray
    token_type_ids: np.ndarray

    @classmethod
    def pad(cls, rows: Sequence[Row], pad_token_id: int) -> Encoded:
        """Pad rows on the right to the longest of them."""
        shape = (len(rows), max(len(row.input_ids) for row in rows))
        input_ids = np.full(shape, pad_token_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        token_type_ids = np.zeros(shape, dtype=np.int64)
        for i, row in enumerate(rows):
            length = len(row.input_ids)
            input_ids[i, :length] = row.input_ids
            attention_mask[i, :length] = 1
            token_type_ids[i, :length] = row.token_type_ids
        return cls(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        )


class TextEncoder:
    """A backbone's tokenizer: texts in, rows of token ids out, truncated to its maximum length."""

    def __init__(
        self, tokenizer: Path, *, max_length: int, pad_token_id: int, token_types: bool
    ) -> None:
        """Load a tokenizer.

        Args:
            tokenizer: a ``tokenizer.json`` of the tokenizers library.
            max_length: tokens kept of each input, special tokens included.
            pad_token_id: the id that fills short rows.
            token_types: whether the backbone tells the two texts of a pair apart by token types.
        """
        from tokenizers import Tokenizer

        self.pad_token_id = pad_token_id
        self._token_types = token_types
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, strategy="longest_first")

    @classmethod
    def of(cls, spec: BackboneSpec, reader: BlobReader, *, max_length: int = 0) -> TextEncoder:
        """The encoder of a backbone, read from a store or a release.

        Args:
            spec: the backbone.
            reader: where its tokenizer blob is.
            max_length: a shorter limit than the backbone's own, in tokens; 0 for the backbone's.
        """
        files = {name: reader.fetch(digest) for name, digest in spec.tokenizer.items()}
        return cls(
            files["tokenizer.json"],
            max_length=min(max_length or spec.max_length, spec.max_length),
            pad_token_id=spec.pad_token_id,
            token_types=spec.token_types,
        )

    def encode(self, inputs: Iterable[Input]) -> list[Row]:
        """Encode inputs; the special tokens of single texts or pairs are added."""
        texts: list[Any] = [
            item.text if item.text_pair is None else (item.text, item.text_pair) for item in inputs
        ]
        return [self._row(encoding) for encoding in self._tokenizer.encode_batch(texts)]

    def batch(self, inputs: Iterable[Input]) -> tuple[list[Row], Encoded]:
        """Encode inputs and pad them into one batch."""
        rows = self.encode(inputs)
        return rows, Encoded.pad(rows, self.pad_token_id)

    def _row(self, encoding: Encoding) -> Row:
        return Row(
            input_ids=encoding.ids,
            token_type_ids=encoding.type_ids if self._token_types else [0] * len(encoding.ids),
            offsets=encoding.offsets,
        )


def dev_file(data: Path) -> Path:
    """The file to measure on: of a folder its ``dev.jsonl``."""
    return data / "dev.jsonl" if data.is_dir() else data


def read_examples(path: Path, progress: Progress = silent) -> list[Example]:
    """Read labelled examples from a JSONL file.

    Each line is an object with ``text`` (and ``text_pair``) and a ``label`` (a string or a number)
    or ``labels`` (a list of strings or whole numbers, for multilabel), or with ``tokens`` and
    ``labels`` (a tag per token). See :func:`centra.labelling.read_as` for what they mean.

    Raises:
        DataError: the file is missing or empty, or a line is malformed; file and line are named.
    """
    examples = [_parse_example(fields, where) for where, fields in read_jsonl(path)]
    if not examples:
        raise DataError(f"{path}: holds no examples; expected JSONL with one example a line")
    progress(f"read {path.name}", len(examples), len(examples))
    return examples


def fingerprint(paths: Sequence[Path]) -> str:
    """One SHA-256 digest over the bytes of some files, in the order given."""
    return sha256(b"".join(bytes.fromhex(sha256(path.read_bytes())) for path in paths))


def _check_text(text: str, where: str) -> None:
    if not text.strip():
        raise DataError(f"{where}: the text is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: not valid Unicode text ({error.reason})") from error


def _parse_example(fields: object, where: str) -> Example:
    if not isinstance(fields, Mapping):
        raise DataError(
            f"{where}: expected a text with its label, as an object; found {str(fields)[:80]!r}"
        )
    item = Input.parse(fields, where)
    label, numbers = parse_label(fields, item.tokens, where)
    return Example(item, label, where, numbers)
