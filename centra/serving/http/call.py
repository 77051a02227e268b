"""What the doors of the HTTP server have in common: from a call to a batch, and back to a response."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from centra.data.inputs import Input
from centra.errors import CentraError
from centra.serving.errors import CancelledError, TooLargeError
from centra.serving.http.bodies import check_body, parse_body, read_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request as HttpRequest

    from centra.runtime.queries import Query
    from centra.serving.batcher import Batcher
    from centra.serving.limits import Limits
    from centra.serving.metrics import Metrics
    from centra.serving.request import InputAnswer, Request, Timing
    from centra.serving.served import ServedRelease
    from centra.serving.served_channel import ServedChannel
    from centra.serving.tokens import Caller, Tokens
    from centra.serving.tracing import Tracing

__all__ = [
    "Serving",
    "answer_all",
    "caller_of",
    "channel_of",
    "check_count",
    "read_as",
    "reason",
    "serving_of",
    "submit",
    "tasks_of",
    "timed_response",
    "timing_header",
    "timing_parts",
    "while_connected",
]

Model = TypeVar("Model", bound=BaseModel)


@dataclass(kw_only=True, eq=False)
class Serving:
    """What an application answers with; ``app.state.serving``."""

    batcher: Batcher
    metrics: Metrics
    tokens: Tokens | None = None
    """Who may call; None for everybody."""
    tracing: Tracing | None = None
    """Where traces of calls go; None for nowhere."""
    draining: bool = False
    """Whether the server ends, and wants no new calls."""
    all_metrics: Callable[[str], Awaitable[tuple[bytes, str]]] | None = None
    """Where other servers answer for the same application: the metrics of all, for a header Accept."""

    @property
    def limits(self) -> Limits:
        """How much is taken at once."""
        return self.batcher.limits

    @property
    def ready(self) -> bool:
        """Whether calls are answered."""
        return self.batcher.accepts and not self.draining


def serving_of(request: HttpRequest) -> Serving:
    """What the call's application answers with."""
    serving: Serving = request.app.state.serving
    return serving


def caller_of(request: HttpRequest) -> Caller | None:
    """Who calls; None where anybody may."""
    caller: Caller | None = request.scope["state"].get("caller")
    return caller


def channel_of(request: HttpRequest) -> ServedChannel:
    """The channel that the call is for.

    Raises:
        NotAllowedError: the caller's token does not have it.
    """
    state = request.scope["state"]
    channel: ServedChannel = state["channel"]
    state["channel_name"] = channel.name
    caller = caller_of(request)
    if caller is not None:
        caller.check_channel(channel.name)
    return channel


def tasks_of(request: HttpRequest) -> list[str]:
    """The tasks that the caller may know of: those that are served and that its token has."""
    served, caller = channel_of(request).served, caller_of(request)
    return served.tasks if caller is None else caller.allowed(served.tasks)


async def read_as(request: HttpRequest, model: type[Model]) -> Model:
    """The body of a call as a model has it.

    Raises:
        BodyError: it is not.
        TooLargeError, SlowBodyError: see :func:`centra.serving.http.bodies.read_body`.
    """
    return check_body(
        model, parse_body(await read_body(request, serving_of(request).limits.body_bytes))
    )


def check_count(request: HttpRequest, count: int, field: str) -> None:
    """Refuse more inputs than are ever taken, before any of them is looked at.

    Raises:
        TooLargeError: there are more.
    """
    most = serving_of(request).batcher.limits.request_inputs
    if count > most:
        raise TooLargeError(
            f"{field}: {count} inputs; at most {most} are taken at once", field=field, limit=most
        )


async def submit(
    request: HttpRequest, queries: Sequence[Query], *, seconds: float | None = None
) -> Request:
    """Send queries to be answered, within what the caller may.

    Args:
        request: the call.
        queries: of one call, at least one.
        seconds: after which nobody waits for the answers.

    Raises:
        NotAllowedError: the caller's token does not have a task, or the channel.
        OverloadedError, TooLargeError, ClosedError: see :meth:`centra.serving.Batcher.submit`.
    """
    serving, channel, caller = serving_of(request), channel_of(request), caller_of(request)
    request.scope["state"]["inputs"] = len(queries)
    if caller is not None:
        queries = [_restricted(query, caller, channel.served) for query in queries]
        caller.spend(len(queries))
    request.scope["state"]["submitted"] = True
    running = await serving.batcher.submit(queries, channel=channel.name, timeout=seconds)
    request.scope["state"] |= {"running": running, "release": running.served.digest[:12]}
    return running


async def answer_all(
    request: HttpRequest, queries: Sequence[Query], *, seconds: float | None = None
) -> tuple[Request, list[InputAnswer]]:
    """Every answer to some queries, in order, and the request that they belong to.

    Args:
        request, queries, seconds: as for :func:`submit`.

    Raises:
        DeadlineError: the time was over before all were there.
        CancelledError: the client has gone.
        ServingError, NotAllowedError: see :func:`submit`.
    """
    async with while_connected(request):
        running = await submit(request, queries, seconds=seconds)
        answers = await running.collect()
    if running.failure is not None:
        raise running.failure
    return running, answers


@asynccontextmanager
async def while_connected(request: HttpRequest) -> AsyncIterator[None]:
    """Go on only while the client is there; what waits for answers is cancelled when it goes away.

    Args:
        request: whose body has been read.

    Raises:
        CancelledError: it has gone.
    """
    task, gone = asyncio.current_task(), False
    assert task is not None

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watching = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise CancelledError("the client has gone") from None
    finally:
        watching.cancel()


def timing_header(timing: Timing, serialise: float | None = None) -> str:
    """The value of ``Server-Timing``: milliseconds of each part."""
    return ", ".join(
        f"{part};dur={milliseconds:.3f}"
        for part, milliseconds in timing_parts(timing, serialise).items()
    )


def timing_parts(timing: Timing, serialise: float | None = None) -> dict[str, float]:
    """Milliseconds of each part of a request's time."""
    parts = {
        "tokenise": timing.tokenise,
        "queue": timing.queue,
        "trunk": timing.trunk,
        "branch": timing.branch,
    }
    if serialise is not None:
        parts["serialise"] = serialise
    return {part: round(seconds * 1000, 3) for part, seconds in parts.items()}


def timed_response(
    body: bytes,
    running: Request,
    serialise: float,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response of JSON that says where its time went.

    Args:
        body: the JSON.
        running: what it answers.
        serialise: the seconds that making the body took.
        headers: further ones.
    """
    running.serialised = serialise
    timing = {"Server-Timing": timing_header(running.timing, serialise)}
    return Response(body, media_type="application/json", headers={**timing, **(headers or {})})


def reason(error: Exception) -> str:
    """What a caller is told of an error that concerns an input alone."""
    return (
        str(error) if isinstance(error, CentraError) else "the server failed at this; see its log"
    )


def clock() -> float:
    """Seconds, for measuring."""
    return time.perf_counter()


def _restricted(query: Query, caller: Caller, served: ServedRelease) -> Query:
    """A query for no other tasks than the caller may ask for."""
    if caller.tasks is None:
        return query
    if query.tasks is not None:
        caller.check(query.tasks)
        return query
    entries = served.release.manifest.tasks
    form = query.input.form if isinstance(query.input, Input) else "single"
    tasks = [name for name in caller.allowed(served.tasks) if entries[name].input == form]
    return replace(query, tasks=tuple(tasks))
