"""Requests of many clients, answered together: the one way from an event loop to releases.

A request is checked and enters the queue; its inputs are tokenised beside the event loop; a thread
takes batches from the queue and computes them; answers go back to whoever asked. Another release can
take over between two requests: each is answered by the one that was there when it came.

There may be several channels, each with a release of its own: a batch is of one of them, and they
take turns. What their releases have in common is in memory once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from centra.errors import UsageError
from centra.formats.names import distinct_names
from centra.runtime.queries import Query
from centra.runtime.requests import is_one_input
from centra.serving.channels import ServedChannels
from centra.serving.compute import ComputeThread, Observer, tell
from centra.serving.errors import ClosedError, DeadlineError, ServingError, TooLargeError
from centra.serving.follower import Follower, Following
from centra.serving.limits import Limits
from centra.serving.mailbox import Mailbox
from centra.serving.preparing import LoadOptions
from centra.serving.queue import InputQueue
from centra.serving.request import QueuedInput, Request
from centra.serving.served_channel import NOT_OPEN
from centra.serving.shadow import Shadow
from centra.serving.shape import BatchShape, usual_shape
from centra.serving.tokenizing import Tokenization, TokenizerThreads
from centra.system.processors import processors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from centra.data.inputs import Input
    from centra.runtime.queries import EncodedQuery
    from centra.serving.channels import Source
    from centra.serving.served import ServedRelease
    from centra.serving.served_channel import ServedChannel

__all__ = ["Batcher", "Observer"]

_log = logging.getLogger(__name__)

_LIMITS = Limits()


class Batcher:
    """Answers the requests of an event loop in batches; use it as an async context manager."""

    def __init__(
        self,
        source: Source | Mapping[str, Source],
        *,
        follow: bool = True,
        interval: float = 5.0,
        shadow: str | os.PathLike[str] | None = None,
        share: float = 1.0,
        tasks: Collection[str] | str | None = None,
        keys: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = (),
        engine: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        limits: Limits = _LIMITS,
        observer: Observer | None = None,
        make_follower: Callable[..., Following] = Follower,
    ) -> None:
        """Say what is to be served; it is loaded when the ``async with`` block begins.

        Args:
            source: as for :func:`centra.load_release`; or a loaded release, which stays the
                caller's to close. Or several of these, each by the name that callers choose it by;
                the first answers those who choose none.
            follow: where a source is a channel, serve what it names from now on.
            interval: seconds between two looks at a channel.
            shadow: likewise a source, whose release answers a ``share`` of the inputs too when
                there is time for it, to learn how its answers differ; see
                :class:`centra.serving.shadow.Shadow`. Not with several sources.
            tasks, keys, engine, threads, device, dtype: as for :func:`centra.load_release`; threads
                that this process has no processors for are not begun.
            limits: how much is taken at once.
            observer: is told of what happens.
            make_follower: makes what follows a source, from what :class:`Follower` takes.

        Raises:
            UsageError: no source or a bad name among several, or a shadow of them.
        """
        self.limits = limits
        self.observer = observer
        files = [keys] if isinstance(keys, str | os.PathLike) else keys
        self._options = LoadOptions(
            tasks=tasks,
            keys=tuple(Path(key) for key in files),
            engine=engine,
            threads=_bounded(threads),
            device=device,
            dtype=dtype,
        )
        comparing = None
        if shadow is not None:
            comparing = Shadow(
                shadow,
                share=share,
                options=self._options,
                busy=lambda: self.queue.inputs > 0,
                interval=interval,
            )
        self.channels = ServedChannels(
            source,
            options=self._options,
            follow=follow,
            interval=interval,
            make_follower=make_follower,
            shadow=comparing,
        )
        """What is served, by name."""
        self.queue: InputQueue[QueuedInput] = InputQueue(
            inputs=limits.queue_inputs,
            tokens=limits.queue_tokens,
            seconds=limits.queue_ms / 1000,
            lanes=self.channels,
        )
        """What waits."""
        self._begun = self._open = False
        self._idle: asyncio.Future[None] | None = None
        self._requests: dict[Request, asyncio.TimerHandle | None] = {}

    async def __aenter__(self) -> Self:
        """Load the releases, one after the other, and begin.

        Raises:
            CentraError: see :func:`centra.load_release`; of several, the text names which.
        """
        self._loop = asyncio.get_running_loop()
        self._mailbox = Mailbox(self._loop)
        await self.channels.open(self._mailbox)
        self._tokenizers = TokenizerThreads(
            max(1, processors() // 8), most_characters=self.limits.input_characters
        )
        self._compute = ComputeThread(
            self.queue, self._mailbox, shape=self._batch_shape, observer=self.observer
        )
        self._begun = self._open = True
        self.channels.start()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End it; see :meth:`aclose`."""
        await self.aclose()

    @property
    def served(self) -> ServedRelease:
        """What new requests are answered by that choose no channel.

        Raises:
            ClosedError: the batcher has not begun, or has ended.
        """
        return self.channels.choose().served

    @property
    def swapped(self) -> int:
        """How often a release of the default channel took another's place."""
        return self.channels.choose().swapped

    @property
    def follower(self) -> Following | None:
        """What follows the default channel, where it is followed."""
        return self.channels.choose().follower

    @property
    def shadow(self) -> Shadow | None:
        """What compares with another release, where that is asked for."""
        return self.channels.choose().shadow

    @property
    def accepts(self) -> bool:
        """Whether new requests are taken."""
        return self._open

    @property
    def alive(self) -> bool:
        """Whether requests are taken, and the thread is there that computes them."""
        return self._open and self._compute.alive

    @property
    def open_requests(self) -> int:
        """How many requests have been taken in and not been answered yet."""
        return len(self._requests)

    @overload
    async def predict(  # type: ignore[overload-overlap]  # A text is no list of texts.
        self,
        inputs: str | Mapping[str, Any] | Input,
        tasks: Collection[str] | str | None = None,
        *,
        channel: str | None = None,
        top_k: int | None = None,
        logits: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]: ...

    @overload
    async def predict(
        self,
        inputs: Iterable[object],
        tasks: Collection[str] | str | None = None,
        *,
        channel: str | None = None,
        top_k: int | None = None,
        logits: bool = False,
        timeout: float | None = None,
    ) -> list[dict[str, Any]]: ...

    async def predict(
        self,
        inputs: object,
        tasks: Collection[str] | str | None = None,
        *,
        channel: str | None = None,
        top_k: int | None = None,
        logits: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Answer one input, or several, as :meth:`centra.Release.predict` does.

        Args:
            inputs, tasks: as there.
            channel: which of several answers; default the first.
            top_k: so many best labels besides, of tasks whose kind ranks labels.
            logits: whether raw logits are given besides.
            timeout: seconds after which there is no use for the answers.

        Raises:
            DataError, NotFoundError, UsageError: as there; or there is no such channel.
            ServingError: as of :meth:`submit`, or the time is over.
            Exception: a branch failed.
        """
        one = is_one_input(inputs)
        if not one and not hasattr(inputs, "__iter__"):
            raise UsageError(
                f"expected a text, an object with 'text' or 'tokens', or a list of them; "
                f"found {inputs!r}",
                code="no-inputs",
            )
        names = None if tasks is None else tuple(distinct_names(tasks))
        items: Iterable[object] = [inputs] if one else inputs  # type: ignore[assignment]
        queries = [Query(input=item, tasks=names, top_k=top_k, logits=logits) for item in items]
        request = await self.submit(queries, channel=channel, timeout=timeout)
        answers = await request.collect()
        for answer in answers:
            for error in (answer.error, *answer.errors.values()):
                if error is not None:
                    raise error
        in_order = [dict(sorted(answer.answers.items())) for answer in answers]
        return in_order[0] if one else in_order

    async def submit(
        self,
        queries: Sequence[Query],
        *,
        channel: str | None = None,
        timeout: float | None = None,
    ) -> Request:
        """Send a request; it returns when it is tokenised and waits for its batch.

        Args:
            queries: of the request.
            channel: which of several answers; default the first.
            timeout: seconds after which there is no use for answers; what lacks them then has a
                :class:`DeadlineError` instead.

        Raises:
            NotFoundError: there is no such channel.
            OverloadedError: too much waits already.
            TooLargeError: the request is larger than is ever taken.
            DeadlineError: the time was over before it was tokenised.
            ClosedError: the batcher ends, or has not begun.
        """
        try:
            return await self._submit(queries, self.channels.choose(channel), timeout)
        except ServingError as error:
            if self.observer is not None:
                tell(self.observer.refused, error)
            raise

    def swap(self, served: ServedRelease) -> None:
        """Let another release answer who chooses no channel; call it on the event loop.

        See :meth:`centra.serving.served_channel.ServedChannel.swap`.
        """
        self.channels.choose().swap(served)

    async def aclose(self) -> None:
        """Take no new requests, answer those that were taken, and give everything back.

        If it is cancelled meanwhile, what has no answer by then fails.
        """
        self._open = False
        if not self._begun:
            return
        try:
            await self.channels.follow_no_more()
            if self._requests:
                self._idle = self._idle or self._loop.create_future()
                # Somebody else may wait for it, too.
                await asyncio.shield(self._idle)
        finally:
            await self._end()

    async def _end(self) -> None:
        for request in [*self._requests]:
            request.fail(ClosedError("the batcher ended before there was an answer"))
        await asyncio.to_thread(self._end_threads)
        await self.channels.close()
        self._begun = False

    async def _submit(
        self, queries: Sequence[Query], channel: ServedChannel, timeout: float | None
    ) -> Request:
        if not self._open:
            raise ClosedError(NOT_OPEN)
        if len(queries) > self.limits.request_inputs:
            raise TooLargeError(
                f"the request has {len(queries)} inputs; at most {self.limits.request_inputs} are "
                "taken",
                field="inputs",
                limit=self.limits.request_inputs,
            )
        request = Request(
            channel.served,
            queries,
            channel=channel.name,
            timeout=timeout,
            done=self._request_done,
        )
        if not queries:
            return request
        self.queue.enter(request.ticket)
        channel.begin()
        self._requests[request] = (
            None if timeout is None else self._loop.call_later(timeout, _expire, request)
        )
        work = Tokenization(
            request.served.release,
            queries,
            done=partial(self._tokenised, request),
            unwanted=lambda: request.finished,
        )
        self._tokenizers.submit(work)
        await request.admission()
        return request

    def _tokenised(self, request: Request, results: list[EncodedQuery | Exception]) -> None:
        """In a thread of the tokenizers: from there to the queue."""
        self._mailbox.post(partial(_note, request, results, time.monotonic()), wake=False)
        inputs = [
            (QueuedInput(request, place, encoded), encoded.tokens)
            for place, encoded in enumerate(results)
            if not isinstance(encoded, Exception)
        ]
        try:
            self.queue.fill(request.ticket, inputs)
        except Exception as error:  # noqa: BLE001 - raised again by who sends it
            self._mailbox.post(partial(request.fail, error))
        else:
            self._mailbox.post(request.admit)

    def _request_done(self, request: Request) -> None:
        if request.ticket.present:
            self.queue.leave(request.ticket)
        if timer := self._requests.pop(request):
            timer.cancel()
        self.channels[request.channel].end(request)
        if self.observer is not None and not request.refused:
            tell(self.observer.request_done, request)
        if self._idle is not None and not self._requests:
            self._idle.set_result(None)
            self._idle = None

    def _end_threads(self) -> None:
        self._tokenizers.close()
        self.queue.close()
        self._compute.join()

    def _batch_shape(self, served: ServedRelease) -> BatchShape:
        usual = usual_shape(
            served.release.engine,
            threads=self._options.threads or processors(),
            device=self._options.device,
        )
        return replace(usual, tokens=self.limits.batch_tokens or usual.tokens)


def _note(request: Request, results: list[EncodedQuery | Exception], now: float) -> None:
    request.ready = now
    for place, result in enumerate(results):
        request.tokenised(place, result)


def _expire(request: Request) -> None:
    request.fail(DeadlineError("the time that the caller gave is over"))


def _bounded(threads: int | None) -> int | None:
    if threads is None or threads <= processors():
        return threads
    text = "%d threads are asked for, and this process may use %d processors: so many are taken"
    _log.warning(text, threads, processors())
    return processors()
