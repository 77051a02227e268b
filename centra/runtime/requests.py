"""A request on its way: parsed as a whole, then encoded and answered batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from centra.data.inputs import Input
from centra.errors import UsageError
from centra.runtime.answering import answer_batch
from centra.runtime.encoding import check_top_k, chosen_tasks, encode_queries, tasks_for
from centra.runtime.queries import EncodedQuery, Query

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from centra.runtime.answering import Finish
    from centra.runtime.parts import Parts
    from centra.runtime.schedule import Profile

__all__ = ["Found", "is_one_input", "parse_inputs", "run_request"]

_BATCH_SIZE = 32


class Found(NamedTuple):
    """What a task says to some inputs of a request."""

    task: str
    places: tuple[int, ...]
    """Of the inputs in the request, from 0."""
    answers: list[dict[str, Any]]
    """One for each."""


def is_one_input(inputs: object) -> bool:
    """Whether this is an input itself, and not several."""
    return isinstance(inputs, str | bytes | Mapping | Input)


def parse_inputs(inputs: object) -> list[Input]:
    """The inputs of a request: one, or an iterable of them.

    Raises:
        UsageError: it is neither.
        DataError: an input is malformed; it is named by its place, from 1.
    """
    if is_one_input(inputs):
        inputs = [inputs]
    if not isinstance(inputs, Iterable):
        raise UsageError(
            f"expected a text, an object with 'text' or 'tokens', or a list of them; "
            f"found {inputs!r}",
            code="no-inputs",
        )
    return [Input.parse(item, f"input {number}") for number, item in enumerate(inputs, 1)]


def run_request(
    parts: Parts,
    inputs: list[Input],
    tasks: Collection[str] | str | None,
    finish: Finish,
    *,
    top_k: int | None = None,
    profile: Profile | None = None,
) -> Iterator[Found]:
    """Run a request in batches.

    Args:
        parts: of the release.
        inputs: of the request.
        tasks, top_k: see :meth:`centra.runtime.release.Release.predict`.
        finish: makes the answers.
        profile: run part by part, and add here what each takes.

    Returns:
        What each task says to some of the inputs.

    Raises:
        DataError, NotFoundError, UsageError: at once; see
            :meth:`centra.runtime.release.Release.predict`.
        Exception: when it is iterated over: of the first branch that failed in a batch, once all
            others of the batch have been yielded.
    """
    chosen = None if tasks is None else chosen_tasks(parts, tasks)
    check_top_k(top_k)
    queries = {
        place: Query(input=item, tasks=found, top_k=top_k)
        for place, item in enumerate(inputs)
        # An input that no task takes has no answers, which says as much.
        if (found := tasks_for(parts, item, chosen, place + 1))
    }
    parts.check_process()
    return _run(parts, queries, finish, profile)


def _run(
    parts: Parts, queries: Mapping[int, Query], finish: Finish, profile: Profile | None
) -> Iterator[Found]:
    places = [*queries]
    for start in range(0, len(places), _BATCH_SIZE):
        own = places[start : start + _BATCH_SIZE]
        batch: list[EncodedQuery] = []
        numbers = [place + 1 for place in own]
        for found in encode_queries(parts, [queries[place] for place in own], numbers):
            if not isinstance(found, EncodedQuery):
                raise found
            batch.append(found)
        failure: Exception | None = None
        for result in answer_batch(parts, batch, finish, profile):
            if result.error is None:
                found_at = tuple(own[i] for i in result.places)
                yield Found(result.task, found_at, result.answers)
            elif failure is None:
                failure = result.error
        if failure is not None:
            raise failure
