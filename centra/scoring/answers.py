"""What answers add to a row: one column of JSON, or columns for each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.kinds import kind_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.kinds.base import ColumnType

__all__ = ["AnswerColumns"]

_ERROR = "error"
_TRUNCATED = "truncated"


class AnswerColumns:
    """The columns that a row gets, and what an answer has in each.

    ``answers``, an object from task to answer, or flat the columns of each task's kind
    (``intent.label``, ``intent.score``), ``TASK.top`` where best labels are asked for, and
    ``truncated``, how many tokens at the end of the input were not read. Last comes ``error``. What a
    row has not is None.
    """

    def __init__(
        self, kinds: Mapping[str, str], *, flat: bool = False, top_k: int | None = None
    ) -> None:
        """Make them.

        Args:
            kinds: the kind of each task that may answer.
            flat: columns for each task.
            top_k: as for :meth:`centra.Release.predict`.
        """
        self._flat = flat
        self._kinds = {task: kind_named(kinds[task]) for task in sorted(kinds)}
        self._top = {task for task, kind in self._kinds.items() if top_k and kind.ranks_labels}
        self.types: dict[str, ColumnType] = self._flat_types() if flat else {"answers": "json"}
        """By column, in their order, what it holds."""
        self.types[_ERROR] = "text"

    @property
    def names(self) -> list[str]:
        """The columns, in their order."""
        return [*self.types]

    def cells(self, answered: Mapping[str, Any] | str) -> list[Any]:
        """What a row gets in each column.

        Args:
            answered: its answers by task, or why it has none.
        """
        if isinstance(answered, str):
            return [None] * (len(self.types) - 1) + [answered]
        if not self._flat:
            return [answered, None]
        cells: list[Any] = []
        for task, kind in self._kinds.items():
            answer = answered.get(task)
            cells += [None] * len(kind.columns()) if answer is None else kind.cells(answer)
            if task in self._top:
                cells.append(None if answer is None else answer.get("top"))
        return [*cells, _unread(answered) or None, None]

    def _flat_types(self) -> dict[str, ColumnType]:
        types: dict[str, ColumnType] = {}
        for task, kind in self._kinds.items():
            types |= {f"{task}.{column}": holds for column, holds in kind.columns().items()}
            if task in self._top:
                types[f"{task}.top"] = "json"
        types[_TRUNCATED] = "count"
        return types


def _unread(answered: Mapping[str, Any]) -> int:
    cuts = (answer["truncated"] for answer in answered.values() if "truncated" in answer)
    return max((cut["tokens"] - cut["kept"] for cut in cuts), default=0)
