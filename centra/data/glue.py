"""The TSV files of GLUE, as they come: which columns have the texts and the label."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["glue_layout"]

_LAYOUTS = (
    {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"},  # MRPC
    {"text": "question1", "text_pair": "question2", "label": "is_duplicate"},  # QQP
    {"text": "question", "text_pair": "sentence", "label": "label"},  # QNLI
    {"text": "sentence1", "text_pair": "sentence2", "label": "gold_label"},  # MNLI, SNLI
    {"text": "sentence1", "text_pair": "sentence2", "label": "score"},  # STS-B
    {"text": "sentence1", "text_pair": "sentence2", "label": "label"},  # RTE, WNLI
    {"text": "sentence", "label": "label"},  # SST-2, CoLA's test set
)
_COLA = re.compile(r"[^\t]+\t[01]\t\*?\t[^\t]+")
"""A row of CoLA: source, label, the author's mark, sentence; the first line is one."""


def glue_layout(
    first: str, columns: Sequence[str], named: Mapping[str, str]
) -> dict[str, str] | None:
    """By field the column of a file of GLUE; numbers where it has no header, None of another file.

    Args:
        first: its first line.
        columns: those that the first line has.
        named: the columns of fields; where these are others than usual, or are there, it is no such
            file.
    """
    if any(field != column for field, column in named.items()) or {"text", "tokens"} & {*columns}:
        return None
    if _COLA.fullmatch(first.rstrip("\r\n")):
        return {"text": "4", "label": "2"}
    found = {*first.rstrip("\r\n").split("\t")}
    for layout in _LAYOUTS:
        if {*layout.values()} <= found:
            return dict(layout)
    for layout in _LAYOUTS if found & {"index", "id"} else ():
        # Test sets have no labels.
        texts = {field: column for field, column in layout.items() if field != "label"}
        if {*texts.values()} <= found:
            return texts
    return None
