"""Sizes that people type: ``500 MB``, ``20GB``."""

from __future__ import annotations

import re

__all__ = ["parse_size"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?)B?\s*", re.IGNORECASE)


def parse_size(text: str) -> int | None:
    """A size in bytes; None where the text is none.

    Units are powers of ten; ``20G`` is ``20GB``, and a bare number is bytes.
    """
    match = _SIZE.fullmatch(text)
    return int(float(match[1]) * _UNITS[match[2].upper()]) if match else None
