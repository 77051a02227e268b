"""Sets of labels: reading them from a file, and what is worth saying about them."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any, TypeGuard

from centra.errors import DataError
from centra.formats.strict_json import parse_json
from centra.progress import Notice
from centra.system.files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "check_labels",
    "label_remarks",
    "near_label",
    "number_label",
    "parse_label",
    "read_labels",
]

_PLACEHOLDER = re.compile(r"LABEL_\d+")
_LARGEST = 3.4028234663852886e38
"""Of float32, in which tasks compute."""
_WIDTH = 40
"""So many characters of a wrong value are shown."""
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
        text = read_text(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected labels, one a line") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected a file of labels, one a line"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    labels = _from_json(path, text) if text.lstrip()[:1] in ("[", "{") else _from_lines(path, text)
    if not labels:
        raise DataError(f"{path}: holds no labels; expected one a line, or a JSON list")
    return _checked(labels)


def check_labels(labels: Sequence[str], where: str) -> None:
    """Refuse a list of labels as :func:`read_labels` does one of a file.

    Raises:
        DataError: a label is empty or there twice.
    """
    _checked([(f"{where}: label {number}", label) for number, label in enumerate(labels, 1)])


def _checked(labels: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    places: dict[str, str] = {}
    for where, label in labels:
        _check_label(label, where)
        if label in places:
            raise DataError(f"{where}: label {label!r} is there twice, first at {places[label]}")
        places[label] = where
    return tuple(places)


def _check_label(label: str, where: str) -> None:
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


def parse_label(
    fields: Mapping[str, Any], tokens: Sequence[str] | None, where: str
) -> tuple[str | float | tuple[str, ...], bool]:
    """Take the label out of an example's fields, as it is written.

    Args:
        fields: with ``label``, a text or a number, or ``labels``, a list of texts or of whole numbers.
        tokens: the example's, if its input is of tokens: there must be a label for each.
        where: what to call the example in errors.

    Returns:
        The label; of a list of whole numbers, their decimal digits. And whether it is such a list.

    Raises:
        DataError: there is no label, or it is none of these.
    """
    match fields:
        case {"label": _, "labels": _}:
            raise DataError(f"{where}: has both 'label' and 'labels'; expected one of them")
        case {"labels": [*labels]}:
            names, numbers = _parse_list(labels, where)
            if tokens is not None and len(names) != len(tokens):
                raise DataError(f"{where}: {len(tokens)} tokens but {len(names)} labels")
            if tokens is None and numbers and len({*names}) < len(names):
                raise DataError(
                    f"{where}: 'labels' has a number twice; if these are a 0 or 1 for each label, "
                    "write the names of those that are 1"
                )
            return names, numbers
        case {"label": str() as label} if tokens is None:
            _check_label(label, where)
            return label, False
        case {"label": int() | float() as number} if tokens is None and _is_value(number):
            return number, False
    raise DataError(f"{where}: {_misfit(fields, tokens)}")


def number_label(number: float) -> str | None:
    """The label that a whole number is: its decimal digits; None for one with a fraction."""
    return str(int(number)) if number == int(number) else None


def near_label(label: str, labels: Iterable[str]) -> str | None:
    """One of some labels that differs from a label only by space, case or Unicode form."""
    return next((other for other in labels if _folded(other) == _folded(label)), None)


def label_remarks(labels: Sequence[str]) -> list[str]:
    """What is worth saying about a task's labels before they become a contract.

    Names that a checkpoint gives for want of better ones (``LABEL_0``); labels that begin or end
    with space; labels that differ only by space, case or Unicode form.
    """
    found: list[str] = []
    placeholders = [label for label in labels if _PLACEHOLDER.fullmatch(label)]
    if placeholders:
        found.append(
            Notice(
                f"placeholders instead of labels ({len(placeholders)}, such as {placeholders[0]}) "
                "say nothing to callers",
                code="placeholder-labels",
            )
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


def _parse_list(labels: Sequence[object], where: str) -> tuple[tuple[str, ...], bool]:
    """The items of ``labels`` as texts, and whether they are whole numbers."""
    texts = [label for label in labels if isinstance(label, str)]
    if len(texts) == len(labels):
        for text in texts:
            _check_label(text, where)
        return tuple(texts), False
    names = tuple(
        digits
        for label in labels
        if _is_value(label) and (digits := number_label(label)) is not None
    )
    if len(names) < len(labels):
        odd = next(
            label
            for label in labels
            if not isinstance(label, str)
            and (texts or not _is_value(label) or number_label(label) is None)
        )
        raise DataError(
            f"{where}: expected 'labels' to be a list of strings, or of whole numbers; "
            f"found {_shown(odd)} among them"
        )
    return names, True


def _misfit(fields: Mapping[str, Any], tokens: Sequence[str] | None) -> str:
    """Why an example's fields hold no label."""
    if tokens is not None:
        expected = "expected 'labels', a tag for each of the 'tokens'"
    else:
        expected = "expected 'label' (a string or a finite number), or 'labels' (a list of strings)"
    for name, other in (("label", "labels"), ("labels", "label")):
        if name not in fields:
            continue
        value = fields[name]
        found = f"{expected}; found {name!r}: {_shown(value)}"
        if isinstance(value, bool):
            return f'{found}; write names ("yes", "no") or 0 and 1'
        if value is None:
            return f"{found}; leave the row out, or label it"
        if isinstance(value, list if name == "label" else str | int | float):
            return f"{found}, which belongs into {other!r}"
        return found
    return f"{expected}; found {', '.join(map(repr, fields))}"


def _is_value(item: object) -> TypeGuard[float]:
    """Whether something is a number that a model can learn."""
    if isinstance(item, bool) or not isinstance(item, int | float):
        return False
    return abs(item) < _LARGEST


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]} …"


def _from_json(path: Path, text: str) -> list[tuple[str, str]]:
    try:
        items: Any = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}: begins as JSON, but is none ({error})") from error
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a JSON list of labels, found a JSON object")
    labels = []
    for number, item in enumerate(items, 1):
        if isinstance(item, int) and not isinstance(item, bool):
            item = str(item)  # noqa: PLW2901 - the label that it is
        if not isinstance(item, str):
            raise DataError(f"{path}: label {number}: expected a string, found {_shown(item)}")
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
