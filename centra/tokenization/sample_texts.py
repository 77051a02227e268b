"""Texts of all kinds, made up, on which two tokenizers are compared.

Nobody reads them: they are there for what tokenizers do differently. Letters of every script, cases
and accents in each Unicode form, white space and control characters, emoji, a tokenizer's own words
and special tokens, words and texts longer than any limit, and pairs. The same arguments give the
same texts, without any data file.
"""

from __future__ import annotations

import itertools
import random
import unicodedata
from typing import TYPE_CHECKING

from centra.data.inputs import Input

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SCRIPTS", "sample_inputs"]

SCRIPTS = {
    "Latin": (0x41, 0x7A),
    "Latin with accents": (0xC0, 0x24F),
    "IPA": (0x250, 0x2AF),
    "Greek": (0x370, 0x3FF),
    "Cyrillic": (0x400, 0x52F),
    "Armenian": (0x531, 0x58A),
    "Hebrew": (0x591, 0x5F4),
    "Arabic": (0x600, 0x6FF),
    "Syriac": (0x700, 0x74F),
    "Thaana": (0x780, 0x7B1),
    "N'Ko": (0x7C0, 0x7FA),
    "Devanagari": (0x900, 0x97F),
    "Bengali": (0x980, 0x9FE),
    "Gurmukhi": (0xA01, 0xA76),
    "Gujarati": (0xA81, 0xAFF),
    "Tamil": (0xB82, 0xBFA),
    "Telugu": (0xC00, 0xC7F),
    "Kannada": (0xC80, 0xCF2),
    "Malayalam": (0xD00, 0xD7F),
    "Sinhala": (0xD81, 0xDF4),
    "Thai": (0xE01, 0xE5B),
    "Lao": (0xE81, 0xEDF),
    "Tibetan": (0xF00, 0xFDA),
    "Myanmar": (0x1000, 0x109F),
    "Georgian": (0x10A0, 0x10FF),
    "Hangul Jamo": (0x1100, 0x11FF),
    "Ethiopic": (0x1200, 0x139F),
    "Cherokee": (0x13A0, 0x13FD),
    "Khmer": (0x1780, 0x17F9),
    "Mongolian": (0x1800, 0x18AA),
    "Vietnamese": (0x1EA0, 0x1EFF),
    "Kana": (0x3041, 0x30FF),
    "Bopomofo": (0x3105, 0x312F),
    "Han": (0x4E00, 0x9FFF),
    "Yi": (0xA000, 0xA4C6),
    "Hangul": (0xAC00, 0xD7A3),
    "Compatibility ideographs": (0xF900, 0xFAD9),
    "Presentation forms": (0xFB00, 0xFDFB),
    "Full and half width": (0xFF01, 0xFFEE),
    "Gothic": (0x10330, 0x1034A),
    "Deseret": (0x10400, 0x1044F),
    "Mathematical letters": (0x1D400, 0x1D7FF),
    "Rare Han": (0x20000, 0x2A6DF),
}
"""First and last code point of the letters and marks that each script's words are made of."""

_SPACES = (
    " " * 12 + "\t\n\r\x0b\x0c\x85\u00a0\u1680\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_UNSEEN = "\x00\x01\x08\x1b\x1f\x7f\x9f\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u202e\u2060\ufe0f"
_UNSEEN += "\ufeff\ufffd\ue000\U000e0041\U000f0000"
_MARKS = "\u0300\u0301\u0308\u0327\u0345\u20dd\u3099"
_SIGNS = ".,:;!?'\"()[]{}<>#@&%$€£+-–—−*/\\|_~^`´…·«»“”„‘’¿¡§©®°±²³¹½№™←∑√∞≠①⑫Ⅻﬁ。，、！？「」・"
_EMOJI = ("😀", "❤️", "👍🏽", "👩‍👩‍👧‍👦", "🇫🇷", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☺", "\u2620", "🫠")
_LITERALS = (
    "https://example.com/a?b=c&d=e#f user@example.com",
    "3.14159 1,000,000 1e-5 ２０２４ ٣٤٥ १२३",
    "don't can't o'clock rock'n'roll l’été",
    "<html><body>&amp;&#160;</body></html>",
    "def f(x): return {x: [1, 2]}  # _",
    "[CLS] [SEP] [PAD] [UNK] [MASK] <s> </s> <pad> <unk> <mask> <|endoftext|>",
    "##piece ##s ▁meta ▁ Ġ Ċ </w> @@",
    "İstanbul ıI ẞ straße ΣΊΣΥΦΟΣ ǅ ﬀ ŉ K Å",
    "snake_case camelCase kebab-case UPPER",
)
_CHANGES: tuple[Callable[[str], str], ...] = (
    str,
    str.upper,
    str.lower,
    str.title,
    str.swapcase,
    lambda text: unicodedata.normalize("NFC", text),
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: unicodedata.normalize("NFKC", text),
    lambda text: unicodedata.normalize("NFKD", text),
)
_LETTERS = (1, 1, 2, 2, 3, 4, 6, 9)  # of a word; one unknown letter makes all of it unknown
_WORD_LENGTHS = (50, 99, 100, 101, 200, 201, 1000)  # WordPiece takes none of more than 100 letters


def sample_inputs(
    words: Sequence[str], special_tokens: Sequence[str], max_length: int, seed: int = 0
) -> list[Input]:
    """Make up some two thousand six hundred inputs, a fifth of them pairs.

    Args:
        words: words of the tokenizers' vocabulary, so that not all is unknown to them.
        special_tokens: tokens that they take whole wherever they stand in a text.
        max_length: tokens that an input may have; some inputs have about so many, and more.
        seed: another seed makes up other inputs.
    """
    maker = _Maker(words, seed)
    texts = [
        *(maker.sentence(letters) for letters in maker.scripts for _ in range(26)),
        *(maker.sentence(words) for _ in range(400 if words else 0)),
        *(maker.mixture() for _ in range(400)),
        *(text for token in special_tokens[:60] for text in maker.around(token)),
        *(f"{piece}{'' if i % 2 else ' '}x" for piece in _EMOJI for i in range(2)),
        *_LITERALS,
        *(letter * length for length in _WORD_LENGTHS for letter in ("a", "É", "长", "ก", "😀")),
    ]
    long = [maker.long(factor * max_length) for factor in (0.3, 0.5, 0.7, 1, 2) for _ in range(4)]
    pairs = [(maker.any(texts), maker.any(texts)) for _ in range(500)]
    pairs += [(maker.any(texts), text) for text in long]
    pairs += [(text, maker.any(texts)) for text in long]
    pairs += zip(long, reversed(long), strict=True)
    pairs += itertools.pairwise(long)
    singles = [Input(text) for text in (*texts, *long) if text.strip()]
    return singles + [Input(*pair) for pair in pairs if pair[0].strip() and pair[1].strip()]


class _Maker:
    """Draws words and texts, always in the same order."""

    def __init__(self, words: Sequence[str], seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._words = words
        self.scripts = [
            [letter for letter in map(chr, range(first, last + 1)) if letter.isprintable()]
            for first, last in SCRIPTS.values()
        ]

    def any(self, texts: Sequence[str]) -> str:
        return self._random.choice(texts)

    def sentence(self, parts: Sequence[str]) -> str:
        """Words drawn from letters, or from whole words, in some case and Unicode form."""
        whole = parts is self._words
        found = []
        for _ in range(self._random.randint(1, 9)):
            length = self._random.choice((1, 1, 2) if whole else _LETTERS)
            found += ["".join(self._random.choices(parts, k=length)), self._between()]
        return self._random.choice(_CHANGES)("".join(found[:-1]))

    def mixture(self) -> str:
        """Pieces of everything, with or without space between them."""
        pieces = []
        for _ in range(self._random.randint(1, 12)):
            letters = self._random.choice(self.scripts)
            kind = self._random.randrange(8)
            if kind < 3:
                pieces.append("".join(self._random.choices(letters, k=self._random.randint(1, 5))))
            elif kind == 3 and self._words:
                pieces.append(self._random.choice(self._words))
            else:
                pieces.append(self._random.choice((_SIGNS, _UNSEEN, _MARKS, _EMOJI)[kind % 4]))
            pieces.append(self._random.choice(("", "", self._between())))
        return self._random.choice(_CHANGES)("".join(pieces))

    def around(self, token: str) -> list[str]:
        """A special token alone, among words, glued to them, and nearly itself."""
        return [
            token,
            f" {token} ",
            f"x {token} y",
            f"x{token}y",
            f"x  {token}  y",
            f"{token}{token} {token}",
            token.upper(),
            token.lower(),
            f"a {token.swapcase()} b",
            f"{token}\u0301",
            token[:-1],
            "\u200d".join(token),
        ]

    def long(self, length: float) -> str:
        """So many words or letters: about so many tokens, or more."""
        parts = self._random.choice([*self.scripts, *[self._words] * len(self.scripts)])
        parts = parts or self.scripts[0]
        return " ".join(self._random.choices(parts, k=max(1, int(length))))

    def _between(self) -> str:
        if self._random.randrange(8) == 0:
            return self._random.choice(_SIGNS) + self._random.choice(("", " "))
        return self._random.choice(_SPACES)
