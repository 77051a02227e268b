"""Kinds of tasks, a file each: what labels mean, targets, loss, decoding, metrics, agreement.

Nothing else knows a kind by its name: who needs one asks :func:`kind_named`. A further kind is a
subclass of :class:`centra.kinds.base.Kind` that is put into :data:`KINDS`, in every process that
meets its tasks.
"""

from __future__ import annotations

import difflib

from centra.errors import UsageError
from centra.kinds.base import Kind
from centra.kinds.classification import Classification
from centra.kinds.multilabel import Multilabel
from centra.kinds.regression import Regression
from centra.kinds.tagging import Tagging

__all__ = ["KINDS", "Kind", "kind_named"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Classification(), Multilabel(), Regression(), Tagging())
}
"""By name. Where labels suit several kinds, they are taken for those of the first."""


def kind_named(name: str) -> Kind:
    """The kind of a name.

    Raises:
        UsageError: there is none; the text names those that there are.
    """
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        raise UsageError(
            f"there is no kind {name!r} of tasks; expected one of {', '.join(KINDS)}"
            + (f" (perhaps {near[0]!r})" if near else ""),
            code="unknown-kind",
            kind=name,
            known=[*KINDS],
        )
    return KINDS[name]
