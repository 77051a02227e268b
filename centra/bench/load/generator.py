"""Send requests as a clock plans them, whatever becomes of those before.

**Open loop.** Users do not wait for each other: they come by chance at some rate, here as a Poisson
process. So moments are drawn beforehand, and a client that is free takes the next one, waits for it and
sends. If all clients still wait for answers, moments pass; these requests are sent late, and their time
counts from the moment when they were due. A generator that counted from when it sent would leave out just
what a slow server makes its users wait (*coordinated omission*).

**Closed loop.** Without a rate every client sends its next request when it has its answer. That finds how
much a server can do; latencies are then those of so many clients.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from centra.bench.load.client import Answer, Connection, Target
from centra.bench.load.report import Histogram, LoadReport
from centra.errors import CentraError, NotAllowedError, NotFoundError
from centra.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from centra.bench.load.calls import Call

__all__ = ["Load", "run_load"]

_log = logging.getLogger(__name__)

_PARTS = 16
"""So many names of parts are believed."""
_SHOWN = 300
"""Characters of an error's text."""
_TOO_MANY = 429


@dataclass(frozen=True, kw_only=True)
class Load:
    """How a server is asked."""

    seconds: float
    """For how long, after the warm-up."""
    clients: int = 16
    """The most connections, each with one request at a time."""
    rate: float | None = None
    """Requests per second, on average; None for a closed loop."""
    warm_up: float = 2
    """Seconds before, of which nothing counts."""
    timeout: float = 30
    """Seconds after which an answer is waited for no more."""
    seed: int = 0
    """Of when requests are due and which they are: the same seed, the same load."""


async def run_load(
    target: Target, calls: Sequence[Call], load: Load, *, progress: Progress = silent
) -> LoadReport:
    """Ask a server for some time.

    Args:
        target: the server.
        calls: the requests; each time one is drawn by chance.
        load: how it is asked.
        progress: told of each second.

    Raises:
        NotFoundError: nobody answers there, or the path does not exist.
        NotAllowedError: the server does not accept the token, or none.
        CentraError: it answers a first request otherwise than with a whole answer.
    """
    await _try_once(target, calls[0], load)
    return await _Run(target, calls, load).run(progress)


async def _try_once(target: Target, call: Call, load: Load) -> None:
    """Find out before the load whether there is anything to measure."""
    connection = Connection(target)
    try:
        async with asyncio.timeout(load.timeout):
            answer = await connection.send("POST", call.path, call.body)
    except OSError as error:  # A TimeoutError is one.
        raise NotFoundError(
            f"{target.url} does not answer: {_reason(error)}", code="server-unreachable"
        ) from error
    finally:
        connection.close()
    kind = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError}.get(
        answer.status, CentraError
    )
    if answer.status != 200:
        raise kind(
            f"{target.url}{call.path} answers {answer.status}: {_text(answer)}",
            code="server-refuses",
            status=answer.status,
        )
    try:
        call.check(answer.body)
    except ValueError as error:
        raise CentraError(
            f"{target.url}{call.path} gives no whole answer: {error}", code="answer-not-whole"
        ) from error


@dataclass(kw_only=True)
class _Counts:
    """What became of the requests so far."""

    planned: int = 0
    answered: int = 0
    rejected: int = 0
    unsent: int = 0
    waited: int = 0
    inputs: int = 0
    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    first_error: str | None = None
    latency: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    parts: dict[str, Histogram] = field(default_factory=dict)
    releases: Counter[str] = field(default_factory=Counter)


class _Run:
    """One load."""

    def __init__(self, target: Target, calls: Sequence[Call], load: Load) -> None:
        self._target = target
        self._calls = calls
        self._load = load
        self._chance = random.Random(load.seed)  # noqa: S311 - no secrets
        self._counts = _Counts()
        self._begin = 0.0
        """When requests begin to count, by the performance counter; so is the next."""
        self._end = 0.0
        self._due: Iterator[tuple[float, Call]] = iter(())

    async def run(self, progress: Progress) -> LoadReport:
        start = time.perf_counter()
        self._begin = start + self._load.warm_up
        self._end = self._begin + self._load.seconds
        self._due = self._plan(start)
        reporting = asyncio.create_task(self._tell(progress))
        worked = time.process_time()
        try:
            async with asyncio.TaskGroup() as clients:
                for _ in range(self._load.clients):
                    clients.create_task(self._client())
        finally:
            reporting.cancel()
            with suppress(asyncio.CancelledError):
                await reporting
        over = time.perf_counter()
        share = (time.process_time() - worked) / (over - start)
        # What is still due is due: those who wait for it have waited until now.
        if self._load.rate is not None:
            for moment, _ in self._due:
                self._count_unsent(moment, over)
        return self._report(max(over, self._end) - self._begin, share)

    def _plan(self, start: float) -> Iterator[tuple[float, Call]]:
        """When requests are due, until the end, and which they are."""
        if self._load.rate is None:
            while (now := time.perf_counter()) < self._end:
                yield now, self._chance.choice(self._calls)
            return
        moment = start
        while True:
            moment += self._chance.expovariate(self._load.rate)
            if moment >= self._end:
                return
            yield moment, self._chance.choice(self._calls)

    async def _client(self) -> None:
        async with Connection(self._target) as connection:
            for moment, call in self._due:
                free = time.perf_counter()
                if free >= self._end:
                    self._count_unsent(moment, free)
                    return
                if free < moment:
                    await asyncio.sleep(moment - free)
                await self._request(connection, call, moment, free)

    async def _request(
        self, connection: Connection, call: Call, moment: float, free: float
    ) -> None:
        """Send a request, and count what comes of it.

        Args:
            connection: a free one.
            call: the request.
            moment: when it was due.
            free: when its client was free for it.
        """
        sent = time.perf_counter()
        answer: Answer | OSError
        try:
            async with asyncio.timeout(self._load.timeout):
                answer = await connection.send("POST", call.path, call.body)
        except OSError as error:  # A TimeoutError is one.
            answer = error
        done = time.perf_counter()
        if moment < self._begin:
            return
        counts = self._counts
        counts.planned += 1
        if self._load.rate is not None:
            if free > moment:
                counts.waited += 1
            else:
                counts.lateness.record(sent - moment)
        if isinstance(answer, OSError):
            # Nobody knows how long it would have taken; it was at least this long.
            counts.latency.record(done - moment)
            slow = isinstance(answer, TimeoutError)
            self._fail("timeout" if slow else "connection", _reason(answer))
        elif answer.status == _TOO_MANY:
            counts.rejected += 1
            counts.first_error = counts.first_error or _text(answer)
        elif answer.status != 200:
            self._fail(str(answer.status), _text(answer))
        else:
            self._count_answer(call, answer, done - moment)

    def _count_answer(self, call: Call, answer: Answer, seconds: float) -> None:
        counts = self._counts
        try:
            outcome = call.check(answer.body)
        except ValueError as error:
            self._fail("not whole", str(error))
            return
        counts.answered += 1
        counts.inputs += outcome.inputs
        counts.answers += outcome.answers
        counts.latency.record(seconds)
        if outcome.release is not None:
            counts.releases[outcome.release] += 1
        for name, part in _parts(answer.headers.get("server-timing", "")):
            if name in counts.parts or len(counts.parts) < _PARTS:
                counts.parts.setdefault(name, Histogram()).record(part)

    def _count_unsent(self, moment: float, now: float) -> None:
        if moment >= self._begin and self._load.rate is not None:
            self._counts.planned += 1
            self._counts.unsent += 1
            self._counts.latency.record(now - moment)

    def _fail(self, what: str, text: str) -> None:
        if not self._counts.errors:
            _log.info("the first request that failed: %s: %s", what, text)
        self._counts.errors[what] += 1
        self._counts.first_error = self._counts.first_error or f"{what}: {text}"

    async def _tell(self, progress: Progress) -> None:
        total = max(1, round(self._load.warm_up + self._load.seconds))
        for second in range(1, total):
            await asyncio.sleep(1)
            progress("load, seconds", second, total)
        await asyncio.Event().wait()

    def _report(self, seconds: float, share: float) -> LoadReport:
        counts, load = self._counts, self._load
        parts = {name: histogram.summary() for name, histogram in counts.parts.items()}
        return LoadReport(
            url=self._target.url,
            rate=load.rate,
            clients=load.clients,
            seconds=seconds,
            planned=counts.planned,
            answered=counts.answered,
            rejected=counts.rejected,
            failed=counts.errors.total(),
            unsent=counts.unsent,
            errors=dict(sorted(counts.errors.items())),
            first_error=counts.first_error,
            requests_per_second=counts.answered / seconds,
            inputs_per_second=counts.inputs / seconds,
            answers_per_second=counts.answers / seconds,
            latency=counts.latency.summary(),
            lateness=counts.lateness.summary(),
            waited=counts.waited,
            processor_share=share,
            parts={name: found for name, found in parts.items() if found is not None},
            releases=dict(counts.releases),
        )


def _parts(header: str) -> Iterator[tuple[str, float]]:
    """Names and seconds of a ``Server-Timing`` header; what is not such is passed over."""
    for part in header.split(","):
        name, *fields = (word.strip() for word in part.split(";"))
        for text in fields:
            key, _, value = text.partition("=")
            if name and key == "dur":
                with suppress(ValueError):
                    yield name, float(value.strip('"')) / 1000


def _text(answer: Answer) -> str:
    return " ".join(answer.body.decode("utf-8", errors="replace").split())[:_SHOWN]


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer within the time that a request is given"
    return str(error.strerror or error) or type(error).__name__
