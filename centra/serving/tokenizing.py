"""Tokenising beside the event loop: some threads that take the inputs of all requests in turn."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from centra.data.inputs import Input
from centra.errors import CentraError
from centra.serving.errors import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.runtime.queries import EncodedQuery, Query
    from centra.runtime.release import Release

__all__ = ["Tokenization", "TokenizerThreads"]

_log = logging.getLogger(__name__)

_AT_ONCE = 32
"""Inputs that a thread takes at a time."""


@dataclass(eq=False)
class Tokenization:
    """The inputs of one request, to be tokenised for a release."""

    release: Release
    queries: Sequence[Query]
    done: Callable[[list[EncodedQuery | Exception]], None]
    """Told, in one of the threads, what became of each."""
    unwanted: Callable[[], bool]
    """Whether nobody waits for it any more."""
    next: int = 0
    left: int = field(init=False)
    results: list[EncodedQuery | Exception] = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.queries)
        self.results = [CentraError("not tokenised")] * self.left


class TokenizerThreads:
    """Threads that tokenise; a large request takes turns with the others."""

    def __init__(self, threads: int, *, most_characters: int) -> None:
        """Start them.

        Args:
            threads: how many.
            most_characters: of one input.
        """
        self._most_characters = most_characters
        self._waiting: deque[Tokenization] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name="centra-tokenizer", daemon=True)
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Tokenization) -> None:
        """Tokenise a request's inputs when it is their turn."""
        with self._changed:
            self._waiting.append(work)
            self._changed.notify()

    def close(self) -> None:
        """End the threads, once all that was submitted is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while part := self._take():
            self._tokenise(*part)

    def _take(self) -> tuple[Tokenization, range] | None:
        """Some inputs of a request; None at the end."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            work = self._waiting.popleft()
            places = range(work.next, min(work.next + _AT_ONCE, len(work.queries)))
            work.next = places.stop
            if work.next < len(work.queries):
                self._waiting.append(work)
                self._changed.notify()
        return work, places

    def _tokenise(self, work: Tokenization, places: range) -> None:
        if not work.unwanted():
            todo: dict[int, Query] = {}
            for place in places:
                try:
                    todo[place] = self._checked(work.queries[place], place)
                except CentraError as error:
                    work.results[place] = error
            encoded = _encode(work.release, [*todo.values()])
            for place, result in zip(todo, encoded, strict=True):
                work.results[place] = result
        with self._changed:
            work.left -= len(places)
            ready = not work.left
        if ready:
            work.done(work.results)

    def _checked(self, query: Query, place: int) -> Query:
        """A query with its input parsed.

        Raises:
            DataError: the input is malformed.
            TooLargeError: it is too long.
        """
        where = f"input {place + 1}"
        item = Input.parse(query.input, where)
        length = len(item.text) + len(item.text_pair or "")
        if length > self._most_characters:
            raise TooLargeError(
                f"{where}: {length} characters; at most {self._most_characters} are taken",
                field=f"inputs[{place}]",
                limit=self._most_characters,
            )
        return replace(query, input=item)


def _encode(release: Any, queries: list[Query]) -> list[EncodedQuery | Exception]:
    if not queries:
        return []
    try:
        return list(release.encode(queries))
    except Exception as error:  # noqa: BLE001 - sent to whoever asked
        if len(queries) == 1:
            _log.exception("tokenising failed")
            return [error]
    # Which of them it was is found out one by one.
    return [result for query in queries for result in _encode(release, [query])]
