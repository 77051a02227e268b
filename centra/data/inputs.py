"""From JSONL lines and request objects to inputs, and from inputs to padded batches of token ids.

An input is always one text (or a pair of texts). Words of a tagging input are character spans of
that text, never a second tokenisation, so that sentence tasks and tagging tasks share one encoding
and one pass over the trunk. See :mod:`centra.data.words` for how tokens become a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from centra.data.labels import parse_label
from centra.data.words import dictionary_script, join_tokens, locate_tokens, refine, segment
from centra.errors import DataError, FormatError
from centra.formats.documents import sha256
from centra.formats.jsonl import read_jsonl
from centra.progress import Progress, silent
from centra.system.panics import no_panic

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Encoding

    from centra.data.words import Segmentation, Span
    from centra.formats.backbone import BackboneSpec
    from centra.store.blobs import BlobReader

__all__ = [
    "Encoded",
    "Example",
    "Input",
    "LabelForm",
    "Row",
    "TextEncoder",
    "dev_file",
    "fingerprint",
    "read_examples",
]

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece makes of the space before a word."""


@dataclass(frozen=True)
class Input:
    """One thing to answer for: a text, or a pair of texts."""

    text: str
    text_pair: str | None = None
    tokens: tuple[str, ...] | None = None
    """The words, where the caller split them; they stand in ``text`` one after the other."""

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
            case {"tokens": [*_], "text_pair": str()}:
                raise DataError(
                    f"{where}: 'tokens' and 'text_pair' do not go together; a pair is 'text' and "
                    "'text_pair'"
                )
            case {"tokens": [*tokens], **rest} if "text" not in rest:
                parsed = cls.of_tokens(tokens, where)
            case {"text": str() as text, **rest} if "tokens" not in rest:
                pair = rest.get("text_pair")
                if not isinstance(pair, str | None):
                    raise DataError(f"{where}: 'text_pair' must be a string, found {pair!r}")
                parsed = cls(text, pair)
            case _:
                shown = repr(value)[:80]
                raise DataError(
                    f"{where}: expected a text, a pair of texts, or an object with either 'text' "
                    f"(and 'text_pair') or 'tokens'; found {shown}"
                )
        _check_text(parsed.text, where)
        if parsed.text_pair is not None:
            _check_text(parsed.text_pair, where, "second text")
        return parsed

    @classmethod
    def of_tokens(cls, tokens: Sequence[object], where: str, text: str | None = None) -> Input:
        """Make an input of tokens.

        Args:
            tokens: the words.
            where: what to call it in errors.
            text: the text that they were taken from; without it they are joined to one.

        Raises:
            DataError: a token is no string or blank, or is not in the text.
        """
        words = [token for token in tokens if isinstance(token, str) and token.strip()]
        if len(words) != len(tokens):
            raise DataError(f"{where}: 'tokens' must be a list of non-empty strings")
        if text is not None and locate_tokens(text, words) is None:
            raise DataError(f"{where}: the tokens do not stand in the text one after the other")
        return cls(join_tokens(words) if text is None else text, None, tuple(words))

    @property
    def form(self) -> Literal["single", "pair"]:
        """Whether it is one text or two."""
        return "single" if self.text_pair is None else "pair"

    def words(self, by: Segmentation = "unicode") -> list[Span]:
        """The span of each word in the text: the caller's tokens, or as :func:`segment` cuts it."""
        if self.tokens is not None:
            return self.token_spans
        if by not in self._segments:
            self._segments[by] = segment(self.text, by)
        return self._segments[by]

    @cached_property
    def token_spans(self) -> list[Span]:
        """The span of each of the caller's tokens in the text."""
        return locate_tokens(self.text, self.tokens or ()) or []

    @cached_property
    def _segments(self) -> dict[Segmentation, list[Span]]:
        # Several tagging tasks ask for the words of one input.
        return {}


LabelForm = Literal["label", "labels", "tags"]
"""How an example gives its answer: one label or number, several labels, or a tag per token."""


@dataclass(frozen=True)
class Example:
    """An input with its answer: a label, several labels, a number, or a tag per word.

    What they mean to a task is told by :func:`centra.data.labelling.read_as`.
    """

    input: Input
    label: str | float | tuple[str, ...]
    where: str
    """File and line, for errors."""
    numbers: bool = False
    """Whether several labels, or tags, are written as whole numbers: ``label`` has their digits."""

    @property
    def label_form(self) -> LabelForm:
        """How it gives its answer."""
        if not isinstance(self.label, tuple):
            return "label"
        return "labels" if self.input.tokens is None else "tags"

    def tagged_words(self, by: Segmentation) -> list[tuple[Span, str]]:
        """The words of a tagging example as its task will find them in texts, each with its tag.

        A token that is several words, as ``@someone`` is, becomes as many: the first has the
        token's tag, the others go on with it. So a task learns the words that callers' texts have.
        """
        assert isinstance(self.label, tuple)
        parts = refine(self.input.token_spans, segment(self.input.text, by))
        return [
            (span, tag if i == 0 or tag == "O" else f"I-{tag[2:]}")
            for spans, tag in zip(parts, self.label, strict=True)
            for i, span in enumerate(spans)
        ]


@dataclass(frozen=True)
class Row:
    """One encoded input, not padded."""

    input_ids: list[int]
    token_type_ids: list[int]
    offsets: list[Span]
    """Per token the characters of the text that it covers; empty spans for special tokens."""
    given: int = 0
    """How many tokens the whole input has, where it was truncated; else 0."""
    continuing: frozenset[int] = frozenset()
    """The tokens that go on with the word of the token before, as WordPiece's ``##`` does, in
    scripts whose words only a dictionary tells apart."""

    def first_tokens(self, words: Sequence[Span]) -> list[int]:
        """Per word the index of the first token that touches it.

        Words inside one token share it. -1 stands for a word without a token: truncation cut it
        off, or the tokenizer leaves it out, as it does a lone zero-width character.
        """
        found, token = [], 0
        for start, end in words:
            while token < len(self.offsets) and self.offsets[token][1] <= start:
                token += 1
            touches = token < len(self.offsets) and self.offsets[token][0] < end
            found.append(token if touches else -1)
        return found

    def word_groups(
        self, words: Sequence[Span], by: Segmentation = "unicode"
    ) -> list[tuple[int, int, int]]:
        """The words that have a token, those together that the tokens do not tell apart.

        Args:
            words: as the same way of cutting found them.
            by: ``"tokenizer"`` also puts a word to the one before where the tokenizer continues it.

        Returns:
            Per group, in order, its first token, the first word, and the word after the last.
        """
        groups: list[tuple[int, int, int]] = []
        for word, token in enumerate(self.first_tokens(words)):
            if token < 0:
                continue
            continues = by == "tokenizer" and token in self.continuing
            if groups and (continues or groups[-1][0] == token):
                groups[-1] = (*groups[-1][:2], word + 1)
            else:
                groups.append((token, word, word + 1))
        return groups


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

        Raises:
            FormatError: the file is no tokenizer, or cannot keep so few tokens.
        """
        from tokenizers import Tokenizer

        self.pad_token_id = pad_token_id
        self._token_types = token_types
        try:
            with no_panic(lambda error: ValueError(str(error))):
                self.tokenizer = Tokenizer.from_file(str(tokenizer))
                self.tokenizer.no_padding()
                self.tokenizer.enable_truncation(max_length, strategy="longest_first")
        except Exception as error:  # The library's own are of no other class.
            raise FormatError(f"{tokenizer}: cannot be used as a tokenizer ({error})") from error
        self._space = self.tokenizer.token_to_id(_SPACE)
        self._continues = getattr(self.tokenizer.model, "continuing_subword_prefix", None) or None

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
        """Encode inputs; the special tokens of single texts or pairs are added.

        Raises:
            FormatError: the tokenizer fails on a text.
        """
        items = list(inputs)
        texts: list[Any] = [
            item.text if item.text_pair is None else (item.text, item.text_pair) for item in items
        ]
        try:
            with no_panic(lambda error: ValueError(str(error))):
                encodings = self.tokenizer.encode_batch(texts)
        except Exception as error:  # The library's own are of no other class.
            raise FormatError(f"the backbone's tokenizer fails on a text ({error})") from error
        return [self._row(*pair) for pair in zip(encodings, items, strict=True)]

    def batch(self, inputs: Iterable[Input]) -> tuple[list[Row], Encoded]:
        """Encode inputs and pad them into one batch."""
        rows = self.encode(inputs)
        return rows, Encoded.pad(rows, self.pad_token_id)

    def _row(self, encoding: Encoding, item: Input) -> Row:
        ids, offsets = encoding.ids, encoding.offsets
        if self._space in ids:
            # A space of its own before a word touches none of the word's characters.
            offsets = [
                (start, start) if token == self._space else (start, end)
                for token, (start, end) in zip(ids, offsets, strict=True)
            ]
        return Row(
            input_ids=ids,
            token_type_ids=encoding.type_ids if self._token_types else [0] * len(ids),
            offsets=offsets,
            given=self._count(item) if encoding.overflowing else 0,
            continuing=self._continuing(encoding, item.text),
        )

    def _continuing(self, encoding: Encoding, text: str) -> frozenset[int]:
        if self._continues is None or not dictionary_script(text):
            return frozenset()
        names = (self.tokenizer.id_to_token(token) or "" for token in encoding.ids)
        return frozenset(
            i
            for i, (name, (start, _)) in enumerate(zip(names, encoding.offsets, strict=True))
            if name.startswith(self._continues) and dictionary_script(text[start : start + 1])
        )

    def _count(self, item: Input) -> int:
        """How many tokens an input would have if nothing were cut off."""
        texts = [text for text in (item.text, item.text_pair) if text is not None]
        parts = [
            part
            for whole in self.tokenizer.encode_batch(texts, add_special_tokens=False)
            for part in (whole, *whole.overflowing)
        ]
        special = self.tokenizer.num_special_tokens_to_add(is_pair=len(texts) == 2)
        return special + sum(len(part.ids) for part in parts)


def dev_file(data: Path) -> Path:
    """The file to measure on: of a folder its ``dev.jsonl``."""
    return data / "dev.jsonl" if data.is_dir() else data


def read_examples(
    path: Path, progress: Progress = silent, data: bytes | None = None
) -> list[Example]:
    """Read labelled examples from a JSONL file.

    Each line is an object with ``text`` (and ``text_pair``) and a ``label`` (a string or a number)
    or ``labels`` (a list of strings or whole numbers, for multilabel), or with ``tokens`` and
    ``labels`` (a tag per token), perhaps beside the ``text`` that the tokens were taken from. See
    :func:`centra.data.labelling.read_as` for what labels mean.

    Args:
        path: the file.
        progress: told when all are read.
        data: its bytes, where they have been read for their :func:`fingerprint`.

    Raises:
        DataError: the file is missing or empty, or a line is malformed; file and line are named.
    """
    examples = [_parse_example(fields, where) for where, fields in read_jsonl(path, data)]
    if not examples:
        raise DataError(f"{path}: holds no examples; expected JSONL with one example a line")
    progress(f"read {path.name}", len(examples), len(examples))
    return examples


def fingerprint(files: Iterable[bytes]) -> str:
    """One SHA-256 digest over the bytes of some files, in the order given."""
    return sha256(b"".join(bytes.fromhex(sha256(data)) for data in files))


def _check_text(text: str, where: str, what: str = "text") -> None:
    if not text.strip():
        raise DataError(f"{where}: the {what} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the {what} is not valid Unicode text ({error.reason})"
        ) from error


def _parse_example(fields: object, where: str) -> Example:
    if not isinstance(fields, Mapping):
        raise DataError(
            f"{where}: expected a text with its label, as an object; found {str(fields)[:80]!r}"
        )
    match fields:
        case {"tokens": [*tokens], "text": str() as text} if "text_pair" not in fields:
            _check_text(text, where)
            item = Input.of_tokens(tokens, where, text)
        case _:
            item = Input.parse(fields, where)
    label, numbers = parse_label(fields, item.tokens, where)
    return Example(item, label, where, numbers)
