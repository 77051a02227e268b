"""Sets of labels: reading them from a file, and what is worth saying about them."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from centra.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["check_label", "label_remarks", "read_labels"]

_PLACEHOLDER = re.compile(r"LABEL_\d+")
_SHOWN = 5
"""So many remarks of one sort are made."""


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a set of labels in its order: one a line, or a JSON list.

    Whole numbers in a JSON list are labels by their decimal digits.

    Raises:
        DataError: there is no such file, it is no text, it holds no label, or one that is empty or
            there twice; file and line are named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected labels, one a line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    labels = _from_json(path, text) if text.lstrip()[:1] in ("[", "{") else _from_lines(path, text)
    if not labels:
        raise DataError(f"{path}: holds no labels; expected one a line, or a JSON list")
    places: dict[str, str] = {}
    for where, label in labels:
        check_label(label, where)
        if label in places:
            raise DataError(f"{where}: label {label!r} is there twice, first at {places[label]}")
        places[label] = where
    return tuple(places)


def check_label(label: str, where: str) -> None:
    """Refuse a label that is empty or no valid Unicode.

    Raises:
        DataError: naming the place.
    """
    if not label.strip():
        raise DataError(f"{where}: the label is empty")
    try:
        label.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: label {label!r} is not valid Unicode") from error


def label_remarks(labels: Sequence[str]) -> list[str]:
    """What is worth saying about a task's labels before they become a contract.

    Names that a checkpoint gives for want of better ones (``LABEL_0``); labels that begin or end
    with space; labels that differ only by space, case or Unicode form.
    """
    found = []
    placeholders = [label for label in labels if _PLACEHOLDER.fullmatch(label)]
    if placeholders:
        found.append(
            f"{len(placeholders)} labels are placeholders such as {placeholders[0]}, which say "
            "nothing to callers; --labels FILE gives them names"
        )
    found += _some(
        [f"label {label!r} begins or ends with space" for label in labels if label.strip() != label]
    )
    firsts: dict[str, str] = {}
    pairs = []
    for label in labels:
        first = firsts.setdefault(_folded(label), label)
        if first != label:
            pairs.append(
                f"labels {first!r} and {label!r} differ only by {_difference(first, label)}; "
                "if they are one, write them alike"
            )
    return found + _some(pairs)


def _from_json(path: Path, text: str) -> list[tuple[str, str]]:
    try:
        items: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: begins as JSON, but is none ({error})") from error
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a JSON list of labels, found a JSON object")
    labels = []
    for number, item in enumerate(items, 1):
        if isinstance(item, int) and not isinstance(item, bool):
            item = str(item)  # noqa: PLW2901 - the label that it is
        if not isinstance(item, str):
            raise DataError(f"{path}: label {number}: expected a string, found {json.dumps(item)}")
        labels.append((f"{path}: label {number}", item))
    return labels


def _from_lines(path: Path, text: str) -> list[tuple[str, str]]:
    lines = re.split(r"\r\n|\r|\n", text.rstrip("\r\n")) if text.strip() else []
    return [(f"{path}:{number}", line) for number, line in enumerate(lines, 1)]


def _folded(label: str) -> str:
    """What is left of a label without space, case and Unicode form."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return "".join(folded.split())


def _difference(first: str, second: str) -> str:
    """By what two labels with the same folded form differ."""
    if unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second):
        return "Unicode form (they look the same)"
    if "".join(first.split()) == "".join(second.split()):
        return "space"
    return "case" if first.casefold() == second.casefold() else "space, case or Unicode form"


def _some(remarks: list[str]) -> list[str]:
    left = len(remarks) - _SHOWN
    return remarks if left <= 0 else [*remarks[:_SHOWN], f"and {left} more such labels"]
