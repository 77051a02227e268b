"""CoNLL: a token a line with its columns, and a blank line between sentences."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from centra.data.source import DATA_FIELDS
from centra.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["conll_rows"]

_UNIVERSAL = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_PART = re.compile(r"\d+[-.]\d+")
"""The id of a span of tokens that are written as one, or of an empty node: neither is a token."""
_COMMENT = re.compile(r"# ?[\w.]+ = ")
"""What no token of ``#`` looks like, however many columns there are."""
_EXPECTED = "expected a token and its tag a line, and a blank line between sentences"


def conll_rows(
    text: str, where: str, columns: Mapping[str, str], *, universal: bool = False
) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
    """Each sentence, with the place of its first token; instead of one that cannot be read its error.

    Columns are apart by tabs, where the first token's are, else by spaces. Lines that begin with ``#``
    and have another number of columns are comments, of which ``# NAME = VALUE`` is a column of the
    sentence that follows; ``-DOCSTART-`` begins a document.

    Args:
        text: the file's.
        where: what errors call it.
        columns: the column of ``tokens`` and of ``labels`` by number, from 1, or by the name that a
            line ``# global.columns = …`` or CoNLL-U gives it; by default the first and the last.
        universal: whether it is CoNLL-U, whose tokens are the second column.

    Raises:
        DataError: there is no token, or no such column; the line is named.
    """
    table = _Table(where, columns, universal=universal)
    sentence = _Sentence()
    for number, line in enumerate((*_lines(text), ""), 1):
        if not line.strip():
            if sentence.first:
                found = {**sentence.said, "tokens": sentence.tokens, "labels": sentence.tags}
                yield f"{where}:{sentence.first}", sentence.error or found
                sentence = _Sentence()
            continue
        try:
            cells = table.cells(line, number, inside=bool(sentence.first))
        except DataError as error:
            if not table.is_known:
                raise
            sentence.error = sentence.error or error
            sentence.first = sentence.first or number
            continue
        if cells is None:
            sentence.said |= _said(line)
            continue
        sentence.first = sentence.first or number
        sentence.tokens.append(cells[0])
        sentence.tags.append(cells[1])
    table.check_found()


class _Sentence:
    """What is known of a sentence so far."""

    def __init__(self) -> None:
        self.first = 0
        """The line of its first token."""
        self.tokens: list[str] = []
        self.tags: list[str] = []
        self.said: dict[str, str] = {}
        """What comments say of it."""
        self.error: DataError | None = None


class _Table:
    """The columns of a file, which its first token has."""

    def __init__(self, where: str, columns: Mapping[str, str], *, universal: bool) -> None:
        odd = {*columns} - {"tokens", "labels"}
        if odd:
            raise DataError(
                f"{where}: is CoNLL, which has no column for {min(odd)!r}; name those of 'tokens' and "
                "'labels'"
            )
        self._where, self._columns, self._universal = where, columns, universal
        self._names: tuple[str, ...] = _UNIVERSAL if universal else ()
        self._delimiter: str | None = None
        self._count = self._token = self._tag = 0

    @property
    def is_known(self) -> bool:
        """Whether a token has said which columns there are."""
        return bool(self._count)

    def cells(self, line: str, number: int, *, inside: bool) -> tuple[str, str] | None:
        """The token and the tag of a line; None where it has none."""
        where = f"{self._where}:{number}"
        cells = self._split(line)
        is_comment = self._universal or len(cells) != self._count or _COMMENT.match(line)
        if line.startswith("#") and is_comment and not inside:
            name, equals, value = line.removeprefix("#").partition("=")
            if equals and name.strip() == "global.columns":
                self._names = (*value.split(),)
                return None
            if self._count or self._universal or equals or line.startswith("# "):
                return None
        if cells[0] == "-DOCSTART-":
            return None
        if not self._count:
            self._begin(line, where)
            cells = self._split(line)
        if len(cells) != self._count:
            raise DataError(
                f"{where}: has {len(cells)} columns, and the first token has {self._count}; {_EXPECTED}"
            )
        if self._universal and _PART.fullmatch(cells[0]):
            return None
        for place, what in ((self._token, "token"), (self._tag, "tag")):
            if not cells[place].strip():
                raise DataError(f"{where}: column {place + 1}: the {what} is empty; {_EXPECTED}")
        return cells[self._token].strip(), cells[self._tag].strip()

    def check_found(self) -> None:
        """Refuse a file of no token."""
        if not self._count:
            raise DataError(f"{self._where}: holds no tokens; {_EXPECTED}")

    def _begin(self, line: str, where: str) -> None:
        self._delimiter = "\t" if "\t" in line else None
        count = len(self._split(line))
        if count < 2:
            raise DataError(f"{where}: has one column; {_EXPECTED}")
        usual = "2" if self._universal else "1"
        self._token = self._place("tokens", usual, count, where)
        self._tag = self._place("labels", str(count), count, where)
        if self._token == self._tag:
            raise DataError(
                f"{where}: tokens and labels are both column {self._tag + 1}; name another for one of them"
            )
        self._count = count

    def _place(self, field: str, usual: str, count: int, where: str) -> int:
        column = self._columns.get(field, usual)
        if column in self._names:
            return self._names.index(column)
        if not column.isdecimal():
            known = f"its columns are {', '.join(self._names)}" if self._names else "it names none"
            raise DataError(
                f"{where}: has no column {column!r} for {field!r}; {known}; a number from 1 to "
                f"{count} says which"
            )
        if not 1 <= int(column) <= count:
            raise DataError(
                f"{where}: has {count} columns, and none of number {column} for {field!r}"
            )
        return int(column) - 1

    def _split(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split("\t") if self._delimiter else line.split()


def _said(line: str) -> dict[str, str]:
    """What a comment says of the sentence after it."""
    name, equals, value = line.removeprefix("#").partition("=")
    name = name.strip()
    if not line.startswith("#") or not equals or name in ("global.columns", *DATA_FIELDS):
        return {}
    return {name: value.strip()}


def _lines(text: str) -> list[str]:
    # Not splitlines, which also breaks at characters that tokens may have.
    return re.split(r"\r\n|\n|\r", text)
