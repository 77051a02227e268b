"""Words: where a text is cut into them, and how tokens are put together into a text.

A tagging task answers per word. Words are character spans of one text, so that whatever a caller
sends, a text or tokens, the backbone reads one text, and offsets are those of that text.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import regex

__all__ = [
    "Segmentation",
    "Span",
    "are_characters",
    "dictionary_script",
    "join_tokens",
    "locate_tokens",
    "mostly_unspaced",
    "refine",
    "segment",
]

Span = tuple[int, int]
"""Start and end (exclusive) in characters of a text."""

Segmentation = Literal["unicode", "characters", "tokenizer", "spaces"]
"""How a text is cut into words; see :func:`segment`."""

_BOUNDARY = r"(?w)\b"
_CLUSTER = r"\X"
_KATAKANA = r"[\p{scx=Kana}--\p{scx=Hani}]"
_CHUNK = r"\S+"
_HANGUL = r"\p{Hangul}"
_DICTIONARY_SCRIPTS = (
    r"\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}\p{scx=Lana}\p{scx=Talu}\p{scx=Tale}"
)
_DICTIONARY_SCRIPT = f"[{_DICTIONARY_SCRIPTS}]"
_UNSPACED = (
    # With their marks and full-width forms.
    r"[\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{scx=Yiii}\p{scx=Tibt}\p{scx=Java}"
    rf"\p{{scx=Bali}}{_DICTIONARY_SCRIPTS}\u3000-\u303F\uFF00-\uFF9F]"
)
"""Scripts that are written without spaces between words."""


@cache
def _compiled(pattern: str) -> regex.Pattern[str]:
    # Commands that read no text do not wait for it.
    import regex

    return regex.compile(pattern, regex.V1)


def segment(text: str, by: Segmentation = "unicode", *, until: int | None = None) -> list[Span]:
    """Cut a text into words; white space belongs to none, everything else to one.

    Args:
        text: any text.
        until: only the words that begin before this character; the rest is not looked at.
        by: ``"unicode"`` cuts at the word boundaries of Unicode (UAX #29), which never part a
            character from its combining marks, joiners and selectors. Scripts without spaces have
            no such boundaries to find, so each of their characters is a word: Han, Kana, Thai, Lao,
            Khmer, Myanmar. ``"spaces"`` cuts at white space alone.
    """
    if by == "spaces":
        words = _matches(_CHUNK, text)
    elif by == "characters":
        words = _matches(_CLUSTER, text)
    else:
        words = _unicode_words(text)
    found: list[Span] = []
    for word in words:
        if until is not None and word[0] >= until:
            break
        if span := _stripped(text, word):
            found.append(span)
    if until is None or not found or found[-1][0] < until:
        return found
    return found[:-1]


def _unicode_words(text: str) -> Iterator[Span]:
    """The pieces between word boundaries, one after the other, Kana in its characters."""
    clusters = (start for start, _ in _matches(_CLUSTER, text))
    cluster, start = next(clusters, len(text)), 0
    for edge in chain((edge for edge, _ in _matches(_BOUNDARY, text)), [len(text)]):
        while cluster < edge:
            cluster = next(clusters, len(text))
        if cluster != edge:
            continue  # Inside a character.
        if _compiled(_KATAKANA).search(text, start, edge):
            yield from (match.span() for match in _compiled(_CLUSTER).finditer(text, start, edge))
        else:
            yield start, edge
        start = edge


def _matches(pattern: str, text: str) -> Iterator[Span]:
    return (match.span() for match in _compiled(pattern).finditer(text))


def dictionary_script(text: str) -> bool:
    """Whether a text has letters of a script whose words only a dictionary tells apart."""
    return _compiled(_DICTIONARY_SCRIPT).search(text) is not None


def are_characters(tokens: Iterable[str]) -> bool:
    """Whether tokens are a text's single characters, in a script without spaces.

    Korean is written with spaces, but often tagged by syllable, its spaces among them:
    ``서 울 ␣ 사 람`` is so, too.
    """
    unspaced = hangul = blank = False
    for token in tokens:
        if not _compiled(_CLUSTER).fullmatch(token):
            return False
        unspaced = unspaced or bool(_compiled(_UNSPACED).search(token))
        hangul = hangul or bool(_compiled(_HANGUL).search(token))
        blank = blank or token.isspace()
    return unspaced or (hangul and blank)


def mostly_unspaced(text: str) -> bool:
    """Whether most characters of a text are of scripts that are written without spaces."""
    unspaced = sum(1 for _ in _matches(_UNSPACED, text))
    return 2 * unspaced > len("".join(text.split()))


def join_tokens(tokens: Sequence[str], *, characters: bool | None = None) -> str:
    """Put tokens together as their script is written.

    Between two tokens there is a space, unless one of them touches the other with a letter or mark
    of a script that is written without. Where every token is a single character and some are of
    such a script, a text was split into its characters, and none gets a space: ``2 0 2 4 年``.

    Args:
        tokens: in their order.
        characters: whether they are a text's characters; None to find out by :func:`are_characters`.
    """
    if are_characters(tokens) if characters is None else characters:
        return "".join(tokens)
    text = ""
    for token in tokens:
        apart = text and not (
            _compiled(_UNSPACED).match(text[-1]) or _compiled(_UNSPACED).match(token)
        )
        text += f" {token}" if apart else token
    return text


def locate_tokens(text: str, tokens: Sequence[str]) -> list[Span] | None:
    """Where tokens stand in a text, one after the other; None where one is not there.

    A blank one has an empty span at the end of the one before: white space is part of no word.
    """
    spans, end = [], 0
    for token in tokens:
        if token.isspace():
            spans.append((end, end))
            continue
        start = text.find(token, end)
        if start < 0:
            return None
        end = start + len(token)
        spans.append((start, end))
    return spans


def refine(spans: Sequence[Span], words: Sequence[Span]) -> list[list[Span]]:
    """Each span cut where a word begins or ends inside it.

    Args:
        spans: in order, for example those of given tokens.
        words: of the same text, in order.
    """
    edges = sorted({edge for word in words for edge in word})
    found = []
    for start, end in spans:
        inside = edges[bisect_left(edges, start + 1) : bisect_left(edges, end)]
        found.append([*zip([start, *inside], [*inside, end], strict=True)])
    return found


def _stripped(text: str, span: Span) -> Span | None:
    """A span without the white space at its ends; None where nothing is left."""
    part = text[slice(*span)]
    start = span[0] + len(part) - len(part.lstrip())
    end = start + len(part.strip())
    return (start, end) if start < end else None
