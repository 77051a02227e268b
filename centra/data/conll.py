"""CoNLL: a token a line with its columns, and a blank line between sentences."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from centra.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["conll_rows"]

_UNIVERSAL = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_PART = re.compile(r"\d+[-.]\d+")
"""The id of a span of tokens that are written as one, or of an empty node: neither is a token."""
_EXPECTED = "expected a token and its tag a line, and a blank line between sentences"


def conll_rows(
    text: str, where: str, columns: Mapping[str, str], *, universal: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each sentence, with the place of its first token.

    Columns are apart by tabs, where the first token's are, else by spaces. Lines that begin with ``#``
    and have another number of columns are comments; ``-DOCSTART-`` begins a document.

    Args:
        text: the file's.
        where: what errors call it.
        columns: the column of ``tokens`` and of ``labels`` by number, from 1, or by the name that a
            line ``# global.columns = …`` or CoNLL-U gives it; by default the first and the last.
        universal: whether it is CoNLL-U, whose tokens are the second column.

    Raises:
        DataError: a line has another number of columns than the first, or no such column; the line
            is named.
    """
    table = _Table(where, columns, universal=universal)
    tokens: list[str] = []
    tags: list[str] = []
    first = 0
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            if tokens:
                yield f"{where}:{first}", {"tokens": tokens, "labels": tags}
                tokens, tags = [], []
            continue
        cells = table.cells(line, number, inside=bool(tokens))
        if cells is None:
            continue
        first = first if tokens else number
        tokens.append(cells[0])
        tags.append(cells[1])
    if tokens:
        yield f"{where}:{first}", {"tokens": tokens, "labels": tags}
    table.check_found()


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

    def cells(self, line: str, number: int, *, inside: bool) -> tuple[str, str] | None:
        """The token and the tag of a line; None where it has none."""
        where = f"{self._where}:{number}"
        cells = self._split(line)
        if line.startswith("#") and (self._universal or len(cells) != self._count) and not inside:
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
        self._count = len(self._split(line))
        if self._count < 2:
            raise DataError(f"{where}: has one column; {_EXPECTED}")
        usual = "2" if self._universal else "1"
        self._token = self._place("tokens", usual, where)
        self._tag = self._place("labels", str(self._count), where)
        if self._token == self._tag:
            raise DataError(
                f"{where}: tokens and labels are both column {self._tag + 1}; name another for one of them"
            )

    def _place(self, field: str, usual: str, where: str) -> int:
        column = self._columns.get(field, usual)
        if column in self._names:
            return self._names.index(column)
        if not column.isdecimal():
            known = f"its columns are {', '.join(self._names)}" if self._names else "it names none"
            raise DataError(
                f"{where}: has no column {column!r} for {field!r}; {known}; a number from 1 to "
                f"{self._count} says which"
            )
        if not 1 <= int(column) <= self._count:
            raise DataError(
                f"{where}: has {self._count} columns, and none of number {column} for {field!r}"
            )
        return int(column) - 1

    def _split(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split("\t") if self._delimiter else line.split()


def _lines(text: str) -> list[str]:
    # Not splitlines, which also breaks at characters that tokens may have.
    return re.split(r"\r\n|\n|\r", text)
