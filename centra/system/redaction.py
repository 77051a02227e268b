"""Addresses, and other programs' messages about them, without the passwords in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["hidden", "redacted", "secrets_in"]

_HIDDEN = "***"
_SHORT = 3
"""A shorter password is hidden where it stands, but not wherever its letters occur."""

_KEY = r"[\w.-]*(?:pass(?!file)|pwd|secret|token|credential|signature|(?:api|access|private|account)_?key(?!_?id))[\w.-]*"
_OPTION = re.compile(
    rf"(?<![\w.-])({_KEY}\s*=\s*)('(?:[^'\\]|\\.)*'|\"[^\"]*\"|[^\s&;,'\"]+)", re.IGNORECASE
)
_SECRET_KEY = re.compile(_KEY, re.IGNORECASE)
# As far as the last @ of a line: a password may hold one, and whatever else is not a quote.
_USER = re.compile(r"(:/*[^\s:/@?'\"]*):[^\n'\"]*@")


def redacted(text: str, *addresses: str) -> str:
    """A text in which passwords, tokens and the like are replaced by ``***``.

    Args:
        text: an address, or a message that may quote one or a part of one.
        addresses: what the message may be about; the secrets in them are hidden wherever they occur.
    """
    text = _USER.sub(rf"\1:{_HIDDEN}@", hidden(text, *addresses))
    return _OPTION.sub(rf"\1{_HIDDEN}", text)


def hidden(text: str, *addresses: str) -> str:
    """A text in which the secrets of these addresses are replaced by ``***``, and nothing else."""
    known = {secret for address in addresses for secret in secrets_in(address)}
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= _SHORT:
            text = text.replace(secret, _HIDDEN)
    return text


def secrets_in(address: str) -> set[str]:
    """The secrets that an address holds, as they stand there, decoded and encoded; empty for most."""
    found = {secret for secret in _secrets(address) if secret}
    decoded = found | {way(secret) for secret in found for way in (unquote, unquote_plus)}
    # An environment may hold bytes that are no text.
    encoded = {
        way(text, safe="", errors="replace") for text in decoded for way in (quote, quote_plus)
    }
    return decoded | encoded


def _secrets(address: str) -> Iterator[str]:
    if found := re.match(r"[A-Za-z][\w+.-]*:/*[^:/@?]*:(.*)@", address, re.DOTALL):
        yield found[1]
    if found := re.match(r"[^/.:@][^:@]*:([^/@]+)@", address):  # Its scheme was forgotten.
        yield found[1]
    yield from (found[2].strip("'\"") for found in _OPTION.finditer(address))
    for option in re.split("[?&;]", address)[1:]:
        key, _, value = option.partition("=")
        if _SECRET_KEY.fullmatch(unquote(key)):
            yield value
        elif "://" in unquote(value):
            yield from _secrets(unquote(value))
