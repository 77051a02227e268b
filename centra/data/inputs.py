"""From JSONL lines and request objects to inputs and labelled examples.

An input is always one text (or a pair of texts). Words of a tagging input are character spans of
that text, never a second tokenisation, so that sentence tasks and tagging tasks share one encoding
and one pass over the trunk. See :mod:`centra.data.words` for how tokens become a text, and
:mod:`centra.tokenization.text_encoder` for how texts become token ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from centra.data.labels import parse_label
from centra.data.words import are_characters, join_tokens, locate_tokens, refine, segment
from centra.errors import DataError
from centra.formats.documents import sha256
from centra.progress import Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    from centra.data.rows import PartRows
    from centra.data.source import DataSource
    from centra.data.words import Segmentation, Span

__all__ = [
    "Example",
    "Input",
    "LabelForm",
    "example_lines",
    "examples_of",
    "fingerprint",
    "fingerprint_of",
    "parse_example",
    "read_examples",
    "tagged_by_character",
]


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
    def of_tokens(
        cls,
        tokens: Sequence[object],
        where: str,
        text: str | None = None,
        *,
        characters: bool | None = None,
    ) -> Input:
        """Make an input of tokens.

        Args:
            tokens: the words.
            where: what to call it in errors.
            text: the text that they were taken from; without it they are joined to one.
            characters: whether they are a text's single characters, perhaps with its spaces; None
                to find out by :func:`centra.data.words.are_characters`.

        Raises:
            DataError: a token is no string, or blank among words, or is not in the text.
        """
        words = [token for token in tokens if isinstance(token, str) and token]
        if characters is None:
            characters = are_characters(words)
        if len(words) != len(tokens) or not (characters or all(map(str.strip, words))):
            raise DataError(f"{where}: 'tokens' must be a list of non-empty strings")
        if text is None:
            text = join_tokens(words, characters=characters)
        elif locate_tokens(text, words) is None:
            raise DataError(f"{where}: the tokens do not stand in the text one after the other")
        return cls(text, None, tuple(words))

    @property
    def form(self) -> Literal["single", "pair"]:
        """Whether it is one text or two."""
        return "single" if self.text_pair is None else "pair"

    @property
    def shown(self) -> str:
        """The text for people; of a pair one below the other."""
        return self.text if self.text_pair is None else f"{self.text}\n{self.text_pair}"

    def words(self, by: Segmentation = "unicode", *, until: int | None = None) -> list[Span]:
        """The span of each word in the text: the caller's tokens, or as :func:`segment` cuts it.

        Args:
            by, until: see :func:`segment`.
        """
        if self.tokens is not None:
            return self.token_spans
        if (by, until) not in self._segments:
            self._segments[by, until] = segment(self.text, by, until=until)
        return self._segments[by, until]

    @cached_property
    def token_spans(self) -> list[Span]:
        """The span of each of the caller's tokens in the text."""
        return locate_tokens(self.text, self.tokens or ()) or []

    @cached_property
    def _segments(self) -> dict[tuple[Segmentation, int | None], list[Span]]:
        # Several tagging tasks ask for the words of one input.
        return {}


_TAKEN = frozenset({"text", "text_pair", "tokens", "label", "labels"})
"""The fields of a row that make its input and its label."""

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
    columns: Mapping[str, object] = field(default_factory=dict, compare=False)
    """What else its row says, by name: where it comes from, who labelled it."""

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


def read_examples(path: Path | DataSource, progress: Progress = silent) -> list[Example]:
    """Read labelled examples from a file, in the format that its suffix says.

    Each row has ``text`` (and ``text_pair``) and a ``label`` (a string or a number) or ``labels`` (a
    list of strings or whole numbers, for multilabel), or ``tokens`` and ``labels`` (a tag per token),
    perhaps beside the ``text`` that the tokens were taken from. Where all tokens of the file are single
    characters of a script without spaces, so are those of a row without a letter of that script. See
    :func:`centra.data.labelling.read_as` for what labels mean.

    Args:
        path: the file; or where data are and how to read them, of which the part that is measured on
            is read: see :func:`centra.data.rows.read_part`.
        progress: told when all are read.

    Raises:
        DataError: the file is missing or empty, or a row is malformed; file and line are named.
    """
    from centra.data.rows import PartRows, read_file, read_part
    from centra.data.source import DataSource

    if isinstance(path, DataSource):
        part = read_part(path, "dev")
    else:
        part = PartRows.of([read_file(path, DataSource(place=path))])
    return examples_of(part, progress)


def examples_of(part: PartRows, progress: Progress = silent) -> list[Example]:
    """The labelled examples of rows; see :func:`read_examples`.

    Args:
        part: the rows.
        progress: told when all are read.

    Raises:
        DataError: there is none, or one is malformed; its place is named.
    """
    characters = tagged_by_character(fields for _, fields in part.rows)
    examples = [parse_example(fields, where, characters=characters) for where, fields in part.rows]
    if not examples:
        raise DataError(f"{part.name}: holds no examples; expected one a row, with its label")
    progress(f"read {part.name.rpartition('/')[2]}", len(examples), len(examples))
    return examples


def parse_example(fields: object, where: str, *, characters: bool | None = None) -> Example:
    """Read one labelled example from the object of a line; see :func:`read_examples`.

    Args:
        fields: the object.
        where: what to call its place in errors.
        characters: see :meth:`Input.of_tokens`.

    Raises:
        DataError: it is malformed; ``where`` names the place.
    """
    if not isinstance(fields, Mapping):
        raise DataError(
            f"{where}: expected a text with its label, as an object; found {str(fields)[:80]!r}"
        )
    match fields:
        case {"tokens": [*tokens], "text": str() as text} if "text_pair" not in fields:
            _check_text(text, where)
            item = Input.of_tokens(tokens, where, text, characters=characters)
        case {"tokens": [*tokens]} if "text" not in fields and "text_pair" not in fields:
            item = Input.of_tokens(tokens, where, characters=characters)
            _check_text(item.text, where)
        case _:
            item = Input.parse(fields, where)
    label, numbers = parse_label(fields, item.tokens, where)
    columns = {name: value for name, value in fields.items() if name not in _TAKEN}
    return Example(item, label, where, numbers, columns)


def tagged_by_character(rows: Iterable[object]) -> bool | None:
    """Whether all tokens of a file are single characters; None for its rows to decide one by one.

    Args:
        rows: the objects of its lines.
    """
    return are_characters(_all_tokens(rows)) or None


def fingerprint(files: Iterable[bytes]) -> str:
    """One SHA-256 digest over the bytes of some files, in the order given."""
    return sha256(b"".join(bytes.fromhex(sha256(data)) for data in files))


def fingerprint_of(*parts: Iterable[Example]) -> str:
    """One digest over the content of some sets of examples, whatever format they were read from.

    It is the :func:`fingerprint` of files of JSON lines that have nothing but these examples.

    Args:
        parts: examples as a task has them; see :func:`centra.data.labelling.read_as`.
    """
    return fingerprint(example_lines(part) for part in parts)


def example_lines(examples: Iterable[Example]) -> bytes:
    """Examples as JSON lines, one way to write each."""
    lines = []
    for example in examples:
        item, label = example.input, example.label
        fields: dict[str, Any] = {"text": item.text}
        if item.tokens is not None:
            fields = {"tokens": item.tokens}
            joined = (join_tokens(item.tokens, characters=by) for by in (False, True))
            if item.text not in joined:
                fields["text"] = item.text
        if item.text_pair is not None:
            fields["text_pair"] = item.text_pair
        if isinstance(label, tuple):
            fields["labels"] = [*map(int, label)] if example.numbers else label
        else:
            fields["label"] = label if isinstance(label, str) else float(label)
        lines.append(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
    return b"".join(lines)


def _check_text(text: str, where: str, what: str = "text") -> None:
    if not text.strip():
        raise DataError(f"{where}: the {what} is empty", code="empty-text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the {what} is not valid Unicode text ({error.reason})"
        ) from error


def _all_tokens(rows: Iterable[object]) -> Iterator[str]:
    for fields in rows:
        match fields:
            case {"tokens": [*tokens]}:
                yield from (token for token in tokens if isinstance(token, str))
