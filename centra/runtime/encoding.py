"""From queries as callers give them to inputs that are checked, and tokenised once for all tasks that read alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.data.inputs import Input
from centra.errors import CentraError, DataError, FormatError, UsageError
from centra.formats.names import distinct_names
from centra.runtime.parts import no_such_task
from centra.runtime.queries import EncodedQuery
from centra.system.forks import computing

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from centra.runtime.parts import Parts
    from centra.runtime.queries import Query
    from centra.tokenization.text_encoder import Reading, Row, TextEncoder

__all__ = ["chosen_tasks", "encode_queries", "tasks_for"]

_TAKES = {"single": "a single text", "pair": "a pair of texts"}


def encode_queries(
    parts: Parts, queries: Sequence[Query], numbers: Sequence[int]
) -> list[EncodedQuery | CentraError]:
    """Check queries and tokenise them; see :meth:`centra.runtime.release.Release.encode`.

    Args:
        parts: of the release.
        queries: of a request.
        numbers: what errors call each.
    """
    found = [_checked(parts, query, number) for query, number in zip(queries, numbers, strict=True)]
    rows: list[dict[Reading, Row]] = [{} for _ in queries]
    for reading, encoder in parts.readings.items():
        inputs = {
            i: one[0]
            for i, one in enumerate(found)
            if not isinstance(one, CentraError)
            and any(parts.reading_of[name] == reading for name in one[1])
        }
        for i, row in zip(inputs, _rows(encoder, [*inputs.values()]), strict=True):
            if isinstance(row, FormatError):
                found[i] = FormatError(f"input {numbers[i]}: {row}", input=numbers[i])
            else:
                rows[i][reading] = row
    return [
        one
        if isinstance(one, CentraError)
        else EncodedQuery(query=query, input=one[0], tasks=one[1], rows=own, encoded_by=parts)
        for query, one, own in zip(queries, found, rows, strict=True)
    ]


def chosen_tasks(parts: Parts, tasks: Collection[str] | str) -> tuple[str, ...]:
    """Tasks by name, each once.

    Raises:
        NotFoundError: one of them is not loaded.
    """
    names = distinct_names(tasks)
    for name in names:
        if name not in parts.tasks:
            raise no_such_task(name, sorted(parts.tasks))
    return tuple(names)


def tasks_for(
    parts: Parts, item: Input, chosen: Sequence[str] | None, number: int
) -> tuple[str, ...]:
    """The tasks that answer an input.

    Args:
        parts: of the release.
        item: the input.
        chosen: loaded tasks; by default all that take such an input, perhaps none.
        number: which of several inputs it is, from 1.

    Raises:
        DataError: a task that is chosen does not take such an input.
    """
    if chosen is None:
        return parts.taking[item.form]
    for name in chosen:
        expected = parts.tasks[name].spec.input
        if item.form != expected:
            raise DataError(
                f"input {number}: task {name} takes {_TAKES[expected]}",
                code="wrong-input-form",
                task=name,
                input=number,
                expected=expected,
            )
    return tuple(chosen)


def _checked(
    parts: Parts, query: Query, number: int
) -> tuple[Input, tuple[str, ...]] | CentraError:
    """A query's input and tasks, or what is wrong with it."""
    try:
        item = Input.parse(query.input, f"input {number}")
        chosen = None if query.tasks is None else chosen_tasks(parts, query.tasks)
        tasks = tasks_for(parts, item, chosen, number)
        if not tasks:
            raise DataError(
                f"input {number}: no task is asked for"
                if query.tasks is not None
                else f"input {number}: no task that is loaded takes {_TAKES[item.form]}",
                code="no-tasks",
                input=number,
            )
        check_top_k(query.top_k, f"input {number}: ")
    except CentraError as error:
        return error
    return item, tasks


def check_top_k(top_k: object, where: str = "") -> None:
    """Refuse what cannot be a number of labels.

    Raises:
        UsageError: it is neither None nor a whole number from 1 on.
    """
    if top_k is None or (isinstance(top_k, int) and top_k >= 1 and top_k is not True):
        return
    raise UsageError(
        f"{where}top_k is {top_k!r}; expected a whole number from 1 on", code="bad-top-k"
    )


def _rows(encoder: TextEncoder, inputs: Sequence[Input]) -> Sequence[Row | FormatError]:
    """Each input's row, or its error where the tokenizer fails on it."""
    if not inputs:
        return []
    with computing:
        try:
            return encoder.encode(inputs)
        except FormatError:
            return [_row(encoder, item) for item in inputs]


def _row(encoder: TextEncoder, item: Input) -> Row | FormatError:
    try:
        (row,) = encoder.encode([item])
    except FormatError as error:
        return error
    return row
