"""The program that tries a tokenizer: see :mod:`centra.tokenization.trial`, which runs it as a process.

It imports nothing of ours and is given all by its arguments and standard input: the most seconds of
a processor, the most bytes of memory, and a ``tokenizer.json``. Where that fails in a way that the
library tells, it prints what the library says and ends with 3 where the tokenizer cannot be loaded,
and with 4 where it fails on texts.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from typing import Any

_LOADING, _TEXTS_FAIL = 3, 4
_IDS = 3000
"""So many ids are decoded; as many as made-up texts take words from."""
_STRINGS = 1000
_LENGTH = 10_000
"""Characters of the longest texts; inputs of users may be as long."""
_TEXTS = (
    "Turn the lights on in the kitchen, please!",
    "Ärger über Öl: 12,5 % — 3×4 = 12 … ﬁn",
    "今天北京的天气怎么样? 東京は雨です。",
    "ما حالة الطقس غدًا؟ मौसम कैसा है",
    "👩‍👩‍👧‍👦 🇵🇹 é\u0301\u0301 \u200b\t\r\n\0",
)


def main() -> int:
    """Try the tokenizer that is on standard input."""
    seconds, memory = map(int, sys.argv[1:])
    for what, most in (("CORE", 0), ("CPU", seconds), ("AS", memory)):
        with suppress(ValueError, OSError):  # It may be lower already, or not to be had.
            resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (most, most))
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    data = sys.stdin.buffer.read()
    from tokenizers import Tokenizer

    try:
        parts = json.loads(data)
    except (ValueError, RecursionError) as error:
        return _told(_LOADING, f"is no JSON in UTF-8: {error}")
    try:
        tokenizer = Tokenizer.from_buffer(data)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except BaseException as error:  # noqa: BLE001 - the library's panics are no Exceptions
        return _told(_LOADING, str(error))
    try:
        own = _strings(parts)
        for text in (*_TEXTS, *own, *_long(own)):
            tokenizer.encode(text)
        tokenizer.encode(_TEXTS[0], _TEXTS[2])
        size = tokenizer.get_vocab_size()
        for token in range(0, size, max(1, size // _IDS)):
            tokenizer.decode([token])
    except BaseException as error:  # noqa: BLE001
        return _told(_TEXTS_FAIL, str(error) or type(error).__name__)
    return 0


def _told(code: int, text: str) -> int:
    line = text.strip().split("\n")[0][:300]
    sys.stdout.buffer.write(line.encode(errors="backslashreplace"))
    return code


def _long(own: list[str]) -> list[str]:
    """Long texts: of one character over and over, on which bad patterns go astray, and of them all."""
    runs = [letter * _LENGTH for letter in "a 1.!中\n"]
    return [*runs, *(f"{run}#" for run in runs), " ".join((*_TEXTS, *own))[:_LENGTH]]


def _strings(parts: dict[str, Any]) -> list[str]:
    """The tokenizer's own texts, from which its parts make other texts; the vocabulary's aside."""
    named = (parts.get(name) for name in ("normalizer", "pre_tokenizer", "decoder", "added_tokens"))
    todo, found = [*named], dict[str, None]()
    while todo and len(found) < _STRINGS:
        part = todo.pop()
        if isinstance(part, str):
            found[part[:_LENGTH]] = None
        elif isinstance(part, dict):
            todo += part.values()
        elif isinstance(part, list):
            todo += part
    return [*found]


if __name__ == "__main__":
    sys.exit(main())
