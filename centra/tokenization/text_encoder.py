"""From inputs to token ids: rows that are not padded, and padded batches of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from centra.data.inputs import Input
from centra.data.words import dictionary_script
from centra.errors import FormatError, IncompatibleError
from centra.formats.template import Template, parse_templates
from centra.system.panics import no_panic
from centra.tokenization.templated import Templated, Tokens, cut_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tokenizers import Encoding

    from centra.data.words import Segmentation, Span
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskSpec
    from centra.store import BlobReader

__all__ = ["Encoded", "Reading", "Row", "TextEncoder"]

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece makes of the space before a word."""


class Reading(NamedTuple):
    """How a task reads texts. Tasks that read alike share tokens, and what is computed of them."""

    backbone: str
    """Its digest."""
    templates: tuple[Template, Template] = (Template(), Template())
    """What is put around the first text of an input, and around the second of a pair."""
    max_length: int = 0
    """Tokens kept of each input; 0 for the backbone's maximum."""

    @classmethod
    def of(cls, spec: TaskSpec) -> Reading:
        """A task's."""
        templates = parse_templates(spec.decision.template)
        return cls(spec.backbone, templates, spec.decision.max_length or 0)


@dataclass(frozen=True)
class Row:
    """One encoded input, not padded."""

    input_ids: list[int]
    token_type_ids: list[int]
    offsets: list[Span]
    """Per token the characters of the text that it covers; empty spans for special tokens, and for
    those of a template."""
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
    """A batch with padding behind the tokens, whatever side a tokenizer of transformers pads on.

    Each array is ``(batch, seq)`` of int64.
    """

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
        self._templates: tuple[Template, Template] | None = None
        self._max_length = max_length
        self._long = 16 * max_length
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

    def with_templates(self, templates: tuple[Template, Template]) -> TextEncoder:
        """The same tokenizer, which puts something around the first and the second text of inputs."""
        found = copy.copy(self)
        found._templates = templates if any(map(any, templates)) else None  # noqa: SLF001
        return found

    def check_room(self, where: str, *, pair: bool) -> None:
        """Refuse templates that leave no token for the texts.

        Raises:
            IncompatibleError: they do.
            FormatError: the tokenizer fails on them.
        """
        templates = (self._templates or (Template(), Template()))[: 1 + pair]
        written = [part for template in templates for part in template]
        try:
            with no_panic(lambda error: ValueError(str(error))):
                encodings = self.tokenizer.encode_batch(written, add_special_tokens=False)
        except Exception as error:  # The library's own are of no other class.
            raise FormatError(f"{where}: the tokenizer fails on its template ({error})") from error
        taken = sum(len(part) for whole in encodings for part in (whole, *whole.overflowing))
        special = self.tokenizer.num_special_tokens_to_add(is_pair=pair)
        if taken + special + len(templates) > self._max_length:
            raise IncompatibleError(
                f"{where}: keeps {self._max_length} tokens of an input; with {special} special ones "
                f"and the {taken} of its template no room is left for the texts",
                code="template-too-long",
                max_length=self._max_length,
                template=taken,
            )

    def encode(self, inputs: Iterable[Input]) -> list[Row]:
        """Encode inputs; the special tokens of single texts or pairs are added.

        Offsets are those of the texts as given, without a template.

        Raises:
            FormatError: the tokenizer fails on a text.
        """
        items = [self._in_templates(item) for item in inputs]
        try:
            with no_panic(lambda error: ValueError(str(error))):
                encodings = self.tokenizer.encode_batch([self._texts(item) for item in items])
        except Exception as error:  # The library's own are of no other class.
            raise FormatError(f"the backbone's tokenizer fails on a text ({error})") from error
        return [self._row(*pair) for pair in zip(encodings, items, strict=True)]

    def batch(self, inputs: Iterable[Input]) -> tuple[list[Row], Encoded]:
        """Encode inputs and pad them into one batch."""
        rows = self.encode(inputs)
        return rows, Encoded.pad(rows, self.pad_token_id)

    def _in_templates(self, item: Input) -> Input:
        """What is tokenised of an input."""
        if self._templates is None:
            return item
        first, second = self._templates
        pair = item.text_pair
        return Input(first.around(item.text), None if pair is None else second.around(pair))

    def _texts(self, item: Input) -> Any:
        """What the tokenizer is given of an input.

        Of a pair it makes a piece of each piece of one text with each of the other: of two long ones
        millions. So of a long one it gets no more than surely has all tokens that are kept.
        """
        if item.text_pair is None:
            return item.text
        if len(item.text) + len(item.text_pair) <= self._long:
            return item.text, item.text_pair
        return self._beginning(item.text), self._beginning(item.text_pair)

    def _beginning(self, text: str) -> str:
        """A text up to three times as many tokens as are kept."""
        (encoding,) = self.tokenizer.encode_batch([text], add_special_tokens=False)
        pieces = encoding.overflowing[:2]
        ends = [end for piece in pieces for _, end in piece.offsets]
        return text[: max(ends)] if ends else text

    def _row(self, encoding: Encoding, item: Input) -> Row:
        pieces = self._pieces(encoding, item) if encoding.overflowing else []
        ids, offsets, types = encoding.ids, encoding.offsets, None
        if self._templates is not None:
            ids, offsets, types = self._templated(encoding, item, pieces)
        if self._space in ids:
            # A space of its own before a word touches none of the word's characters.
            offsets = [
                (start, start) if token == self._space else (start, end)
                for token, (start, end) in zip(ids, offsets, strict=True)
            ]
        return Row(
            input_ids=ids,
            token_type_ids=(types or encoding.type_ids) if self._token_types else [0] * len(ids),
            offsets=offsets,
            given=self._count(pieces),
            continuing=self._continuing(encoding, item.text),
        )

    def _templated(
        self, encoding: Encoding, item: Input, pieces: Sequence[Sequence[Encoding]]
    ) -> Tokens:
        """The tokens of an input in templates."""
        assert self._templates is not None
        texts = [
            Templated(template, len(text) - len(template.before) - len(template.after))
            for template, text in zip(self._templates, (item.text, item.text_pair), strict=True)
            if text is not None
        ]
        if pieces:
            special = self.tokenizer.num_special_tokens_to_add(is_pair=len(texts) > 1)
            return cut_texts(encoding, texts, pieces, self._max_length - special)
        spans = [
            span if i is None else texts[i].own_span(span)
            for i, span in zip(encoding.sequence_ids, encoding.offsets, strict=True)
        ]
        return encoding.ids, spans, encoding.type_ids

    def _continuing(self, encoding: Encoding, text: str) -> frozenset[int]:
        if self._continues is None or not dictionary_script(text):
            return frozenset()
        names = (self.tokenizer.id_to_token(token) or "" for token in encoding.ids)
        return frozenset(
            i
            for i, (name, (start, _)) in enumerate(zip(names, encoding.offsets, strict=True))
            if name.startswith(self._continues) and dictionary_script(text[start : start + 1])
        )

    def _pieces(self, encoding: Encoding, item: Input) -> list[list[Encoding]]:
        """What the tokenizer made of each text of an input, cut into pieces."""
        if item.text_pair is None:
            return [[encoding, *encoding.overflowing]]
        # Of a pair the pieces of one text are combined with those of the other.
        return [
            [whole, *whole.overflowing]
            for whole in self.tokenizer.encode_batch(
                [item.text, item.text_pair], add_special_tokens=False
            )
        ]

    def _count(self, pieces: Sequence[Sequence[Encoding]]) -> int:
        """How many tokens an input would have if nothing were cut off; 0 where nothing was."""
        if not pieces:
            return 0
        pair = len(pieces) > 1
        special = self.tokenizer.num_special_tokens_to_add(is_pair=pair)
        # Each piece of a single text has the special tokens again.
        own = 0 if pair else special
        return special + sum(len(piece) - own for parts in pieces for piece in parts)
