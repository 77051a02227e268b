"""Docstrings for the site: cross-references as Sphinx writes them become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["PlainRoles"]

_ROLE = re.compile(r":(?:func|class|data|meth|mod|attr|exc):`~?([^`]+)`")
_NAMES = re.compile(r"^( {4}\w+(?:, \w+)*),\n {8}(?=\w+[,:])", re.MULTILINE)
"""A line of arguments that are explained together, and goes on below."""
_LITERAL = re.compile(r"``([^`]+)``")


class PlainRoles(griffe.Extension):
    """Reads docstrings as they are meant."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of whatever has one."""
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            while (joined := _NAMES.sub(r"\1, ", text)) != text:
                text = joined
            obj.docstring.value = _LITERAL.sub(r"`\1`", text)
