"""Kinds of tasks, a file each: what labels mean, targets, loss, decoding, metrics, agreement.

Nothing else knows a kind by its name: who needs one asks :func:`kind_named`. A further kind is a
subclass of :class:`centra.kinds.base.Kind` that :func:`register_kind` adds, in every process that
meets its tasks.
"""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.kinds.base import Kind
from centra.kinds.classification import Classification
from centra.kinds.multilabel import Multilabel
from centra.kinds.regression import Regression
from centra.kinds.tagging import Tagging

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KINDS", "Kind", "kind_named", "register_kind"]

_KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Classification(), Multilabel(), Regression(), Tagging())
}

KINDS: Mapping[str, Kind] = MappingProxyType(_KINDS)
"""By name. Where labels suit several kinds, they are taken for those of the first."""


def kind_named(name: str) -> Kind:
    """The kind of a name.

    Raises:
        UsageError: there is none; the text names those that there are.
    """
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        raise UsageError(
            f"there is no kind {name!r} of tasks; expected one of {', '.join(_KINDS)}"
            + (f" (perhaps {near[0]!r})" if near else ""),
            code="unknown-kind",
            kind=name,
            known=[*_KINDS],
        )
    return _KINDS[name]


def register_kind(kind: Kind) -> None:
    """Add a kind, after those that there are; of one that is there already, the new one counts."""
    _KINDS[kind.name] = kind
