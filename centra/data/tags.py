"""Tags of words, and the schemes that mark with them where a span begins and ends.

Centra's own scheme is BIO: ``B-x`` begins a span of type x, ``I-x`` goes on with it, ``O`` is outside.
Other schemes mark a span's last word and a span of one word, too, with various letters. They are read as
*plain tags*: ``O``, or ``B-``, ``I-``, ``E-`` (last) or ``S-`` (alone) and a type. Those become BIO.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = [
    "SCHEMES",
    "Notation",
    "Scheme",
    "TagError",
    "bio_head",
    "bio_labels",
    "detect_scheme",
    "strays",
    "tagged_spans",
    "to_bio",
]

Scheme = Literal["bio", "iob1", "io", "bioes", "bilou", "bmes", "bmewo"]

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
"""``bio`` is IOB2. In ``iob1`` only a span right after one of its type begins with B-. ``io`` has I-
alone, or types without marks."""

_MARKS: dict[Scheme, str] = {
    "bio": "BI",
    "iob1": "BI",
    "io": "I",
    "bioes": "BIES",
    "bilou": "BILU",
    "bmes": "BMES",
    "bmewo": "BMEW",
}
_PLAIN = str.maketrans("MLUW", "IESS")
_ALONE = frozenset("BSUW")
"""One of these is in any data with spans, unless they are IO."""

_OWN_FORM = r"(?P<mark>[A-Z])-(?P<type>.+)"
_WRITTEN = {
    _OWN_FORM: "",
    r"(?P<mark>[A-Z])_(?P<type>.+)": " written B_x",
    r"(?P<type>.+)-(?P<mark>[A-Z])": " written x-B",
    r"(?P<type>.+)_(?P<mark>[A-Z])": " written x_B",
}
_EXPECTED = f"expected O, B-x or I-x, or the tags of another scheme ({', '.join(SCHEMES[1:])})"


class TagError(ValueError):
    """Tags that belong to no scheme, or to another one than was said."""

    def __init__(self, tag: str, message: str) -> None:
        super().__init__(message)
        self.tag = tag
        """The one to blame."""


@dataclass(frozen=True, kw_only=True)
class Notation:
    """A scheme, and how its tags are written."""

    scheme: Scheme
    form: str | None
    """A pattern with the groups ``mark`` and ``type``; None for types without marks."""

    @property
    def is_bio(self) -> bool:
        """Whether its tags are written as Centra writes BIO tags; IOB1 uses the same."""
        return self.form == _OWN_FORM and _MARKS[self.scheme] == _MARKS["bio"]

    def __str__(self) -> str:
        """For people: ``BIOES tags written x-B``."""
        if self.form is None:
            return f"{self.scheme.upper()} tags written without marks"
        return f"{self.scheme.upper()} tags{_WRITTEN[self.form]}"

    def plain(self, tag: str) -> str:
        """The plain tag for one of its tags."""
        if tag == "O":
            return tag
        if self.form is None:
            return f"I-{tag}"
        match = re.fullmatch(self.form, tag)
        assert match
        return f"{match['mark'].translate(_PLAIN)}-{match['type']}"


def detect_scheme(tags: Iterable[str], scheme: Scheme | None = None) -> Notation:
    """Find the scheme of tags, and how they are written: ``B-x``, ``B_x``, ``x-B`` or ``x_B``.

    Args:
        tags: all there are, in any order.
        scheme: the scheme that they are said to be of; None finds it. IOB1 has the tags of BIO, and
            means the same by them, so it need not be told from it.

    Raises:
        TagError: they are of no one scheme, or not of this one.
    """
    found = {*tags}
    marked = sorted(found - {"O"})
    for form in () if scheme == "io" else _WRITTEN:
        matches = [re.fullmatch(form, tag) for tag in marked]
        marks = {match["mark"] for match in matches if match}
        # Without one of these, what looks like a mark may well be part of a name.
        sure = form == _OWN_FORM or marks & _ALONE
        for name in (scheme,) if scheme else SCHEMES:
            if all(matches) and sure and marks <= {*_MARKS[name]}:
                return Notation(scheme=scheme or ("io" if marks == {"I"} else name), form=form)
    if scheme == "io" and all(re.fullmatch("I-.+", tag) for tag in marked):
        return Notation(scheme="io", form=_OWN_FORM)
    fault = _fault_of_io(marked) if scheme == "io" else _fault(found, scheme)
    if fault is not None:
        raise fault
    return Notation(scheme="io", form=None)


def bio_head(
    names: Sequence[str], scheme: Scheme | None = None
) -> tuple[tuple[str, ...], tuple[str, ...], Notation]:
    """What a head whose outputs have names answers, in BIO.

    Args:
        names: a tag for each output, in any scheme.
        scheme: see :func:`detect_scheme`.

    Returns:
        The labels of its task; the plain tags of its outputs where those are not the labels: where
        they mark more than BIO does, or do not mark where a span begins; how the names are written.

    Raises:
        TagError: see :func:`detect_scheme`.
    """
    notation = detect_scheme(names, scheme)
    plain = tuple(notation.plain(name) for name in names)
    if {tag[0] for tag in plain} <= {*"BIO"} and notation.scheme != "io":
        return plain, (), notation
    return bio_labels(plain), plain, notation


def to_bio(tags: Sequence[str]) -> list[str]:
    """Turn the plain tags of one sentence into BIO tags.

    What goes on with nothing begins a span, and what follows a span's last word begins the next, as
    the CoNLL scorer reads them. So any sequence has a meaning, a model's answer for example.

    Args:
        tags: one per word.
    """
    found, current = [], ""
    for tag in tags:
        mark, name = tag[0], tag[2:]
        if name:
            found.append(f"I-{name}" if mark in "IE" and name == current else f"B-{name}")
        else:
            found.append("O")
        current = "" if mark in "ES" else name
    return found


def tagged_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Read BIO tags, one per word, as ``(label, first word, word after the last)``.

    An ``I-`` tag that continues nothing starts a span, as the CoNLL scorer reads it.
    """
    spans: list[tuple[str, int, int]] = []
    for i, tag in enumerate(tags):
        if tag == "O":
            continue
        label = tag[2:]
        continues = spans and spans[-1][0] == label and spans[-1][2] == i
        if tag.startswith("I-") and continues:
            spans[-1] = (label, spans[-1][1], i + 1)
        else:
            spans.append((label, i, i + 1))
    return spans


def strays(tags: Sequence[str]) -> tuple[int, int]:
    """How many spans of a sentence's plain tags begin with I-, and how many with B- after another type.

    BIO has none of the first, IOB1 none of the second.
    """
    pairs = list(zip(["O", *tags], tags, strict=False))
    inside = sum(tag[0] == "I" and before[2:] != tag[2:] for before, tag in pairs)
    begun = sum(tag[0] == "B" and before[2:] != tag[2:] for before, tag in pairs)
    return inside, begun


def bio_labels(tags: Iterable[str]) -> tuple[str, ...]:
    """The BIO tags for the types of some plain tags: ``O``, then the types in the order they come."""
    types = dict.fromkeys(tag[2:] for tag in tags if tag != "O")
    return ("O", *(f"{mark}-{name}" for name in types for mark in "BI"))


def _fault(found: Collection[str], scheme: Scheme | None) -> TagError | None:
    """Why tags that are of no scheme with marks are not types without marks either."""
    marked = sorted({*found} - {"O"})
    allowed = _MARKS[scheme] if scheme else "".join(_MARKS.values())
    written = [tag for tag in marked if re.fullmatch(f"[{allowed}]-.+", tag)]
    odd = next((tag for tag in marked if tag not in written), marked[0])
    if scheme:
        marks = ", ".join(f"{mark}-x" for mark in _MARKS[scheme])
        return TagError(odd, f"{odd!r} is not a {scheme.upper()} tag; expected O, {marks}")
    if len(written) == len(marked):
        marks = ", ".join(sorted({tag[0] for tag in written}))
        return TagError(odd, f"no one scheme has the marks {marks}; {_EXPECTED}")
    if written:
        return TagError(odd, f"{odd!r} is not a BIO tag, as {written[0]!r} is; {_EXPECTED}")
    if "O" not in found:
        return TagError(
            odd,
            f"{odd!r} is not a BIO tag, and no word is tagged O; {_EXPECTED}. If each word has a type "
            "of its own, as parts of speech, write B-x; if a run of one type is one span, say io",
        )
    if all(tag in "BIMELSUW" for tag in marked):
        return TagError(odd, f"{odd!r} is not a BIO tag: it names no type; {_EXPECTED}")
    for tag in marked:
        # A mark may have been meant, in small letters for example.
        if tag.casefold() == "o" or re.search(r"^.?[-_]|[-_].?$", tag):
            return TagError(
                tag,
                f"{tag!r} is not a BIO tag; {_EXPECTED}. If it is a type without a mark, say io",
            )
    return None


def _fault_of_io(marked: Sequence[str]) -> TagError | None:
    """Why tags that are said to be IO are not types without marks."""
    for tag in marked:
        if not tag or tag.casefold() == "o" or tag[:2] in ("B-", "I-"):
            return TagError(tag, f"{tag!r} is not an IO tag; expected O and I-x, or O and types")
    return None
