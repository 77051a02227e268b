"""Tokenising beside the event loop: some threads that take the inputs of all requests in turn."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

from centra.data.inputs import Input
from centra.errors import CentraError
from centra.serving.errors import TooLargeError
from centra.serving.failures import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.runtime.queries import EncodedQuery, Query
    from centra.runtime.release import Release

__all__ = ["Tokenization", "TokenizerThreads"]

_log = logging.getLogger(__name__)

_TURN_SECONDS = 0.002
"""After so long another request has its turn: by inputs, many long ones would hold up all others."""
_LONG_CHARACTERS = 10_000
"""An input with more has a thread that others do not wait for: it takes longer than any turn."""


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
    """Threads that tokenise; a large request takes turns with the others.

    Long inputs wait for each other alone, in a thread of their own.
    """

    def __init__(self, threads: int, *, most_characters: int) -> None:
        """Start them.

        Args:
            threads: how many, besides the one for long inputs.
            most_characters: of one input.
        """
        self._most_characters = most_characters
        self._waiting: deque[Tokenization] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._long: SimpleQueue[tuple[Tokenization, int, Input] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name="centra-tokenizer", daemon=True)
            for _ in range(threads)
        ]
        self._long_thread = threading.Thread(
            target=self._work_long, name="centra-tokenizer-long", daemon=True
        )
        for thread in (*self._threads, self._long_thread):
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
        self._long.put(None)
        self._long_thread.join()

    def _work(self) -> None:
        while work := self._take():
            self._turn(work)

    def _work_long(self) -> None:
        while (taken := self._long.get()) is not None:
            work, place, item = taken
            if not work.unwanted():
                work.results[place] = self._encode(work, place, item)
            self._finish(work, 1)

    def _take(self) -> Tokenization | None:
        """The request whose turn it is; None at the end."""
        with self._changed:
            while True:
                while self._waiting:
                    work = self._waiting.popleft()
                    if work.next < len(work.queries):
                        self._waiting.append(work)
                        self._changed.notify()
                        return work
                if self._closed:
                    return None
                self._changed.wait()

    def _turn(self, work: Tokenization) -> None:
        """Tokenise inputs of a request until its turn is over."""
        ends, done = time.monotonic() + _TURN_SECONDS, 0
        while (place := self._claim(work)) is not None:
            item = None if work.unwanted() else self._parse(work, place)
            if item is not None and _length(item) > _LONG_CHARACTERS:
                self._long.put((work, place, item))
            else:
                if item is not None:
                    work.results[place] = self._encode(work, place, item)
                done += 1
            if time.monotonic() >= ends:
                break
        self._finish(work, done)

    def _finish(self, work: Tokenization, done: int) -> None:
        """Count inputs of a request that are done, and tell when all are."""
        with self._changed:
            work.left -= done
            ready = done > 0 and not work.left
        if ready:
            work.done(work.results)

    def _claim(self, work: Tokenization) -> int | None:
        """The next input that no thread has taken."""
        with self._changed:
            if work.next == len(work.queries):
                return None
            work.next += 1
            return work.next - 1

    def _parse(self, work: Tokenization, place: int) -> Input | None:
        """An input of a request; None where it is none, which is its result then."""
        try:
            item = Input.parse(work.queries[place].input, f"input {place + 1}")
            self._check_length(item, place)
        except CentraError as error:
            work.results[place] = error
            return None
        except Exception as error:  # noqa: BLE001 - sent to whoever asked
            log_failure(_log, "reading an input failed", error)
            work.results[place] = error
            return None
        return item

    def _encode(self, work: Tokenization, place: int, item: Input) -> EncodedQuery | Exception:
        # One by one: of many at once the tokenizer makes work for threads of its own, which nobody
        # here counts, and is no faster by that where all processors compute.
        query = replace(work.queries[place], input=item)
        try:
            (encoded,) = work.release.encode([query], first=place + 1)
        except CentraError as error:
            return error
        except Exception as error:  # noqa: BLE001 - sent to whoever asked
            log_failure(_log, "tokenising failed", error)
            return error
        return encoded

    def _check_length(self, item: Input, place: int) -> None:
        length = _length(item)
        if length > self._most_characters:
            raise TooLargeError(
                f"input {place + 1} has {length} characters; at most {self._most_characters} are "
                "taken",
                field=f"inputs[{place}]",
                limit=self._most_characters,
            )


def _length(item: Input) -> int:
    return len(item.text) + len(item.text_pair or "")
