"""What a replica does of a roll: it loads, prepares, hands over and abandons as it is told."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from centra.errors import CentraError, StoreError, first_line
from centra.serving.errors import ClosedError
from centra.serving.follower import TO_END
from centra.serving.preparing import prepare_release
from centra.serving.ray.rollout import Cause, Failure, Order, ReplicaState, Step
from centra.serving.refusals import error_code, may_be_mended
from centra.serving.served import ServedRelease
from centra.system.memory import trim_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.formats.manifest import ChannelPointer
    from centra.releases.find import ChannelSource
    from centra.serving.channel import StoreFault
    from centra.serving.preparing import LoadOptions
    from centra.serving.ray.client import CoordinatorClient
    from centra.serving.ray.roll import Answer, RolledChannel
    from centra.serving.refusals import RefusedRelease

__all__ = ["RolledReplica"]

_log = logging.getLogger(__name__)

_PAUSE = 0.5
"""Seconds until a coordinator that has died is asked again."""


class RolledReplica:
    """Serves what the replicas of an application serve together, and prepares what they will.

    It stands where a :class:`Follower` does, and says the same of itself.
    """

    def __init__(
        self,
        coordinator: CoordinatorClient,
        channel: ChannelSource,
        followed: RolledChannel,
        *,
        replica: str,
        options: LoadOptions,
        on_ready: Callable[[ServedRelease], None],
    ) -> None:
        """Say what is followed; nothing is read yet.

        Args:
            coordinator: of the application.
            channel: where releases are.
            followed: the same, for the coordinator.
            replica: the name of this replica's Ray actor.
            options: how releases are loaded.
            on_ready: as for :class:`Follower`.
        """
        self.refused: RefusedRelease | None = None
        """What the channel names now, where a replica refused it; what was served before goes on."""
        self.store_error: StoreFault | None = None
        """Why it is not known, or cannot be followed, what the channel names."""
        self.refusals = 0
        """How many releases were refused since this replica began."""
        self._coordinator, self._channel, self._followed = coordinator, channel, followed
        self._replica, self._options, self._on_ready = replica, options, on_ready
        self._served: ServedRelease | None = None
        self._state: ReplicaState | None = None
        self._reports = 0
        self._attempt = 0
        self._work: Future[ServedRelease] | None = None
        self._prepared: ServedRelease | None = None
        self._untrimmed = False
        self._closing: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="centra-roll", daemon=True)

    @property
    def follows(self) -> bool:
        """Always: what never moves is not rolled."""
        return True

    @property
    def served(self) -> ServedRelease:
        """What was loaded, or handed over, last."""
        assert self._served is not None, "load() comes first"
        return self._served

    def load(self) -> ServedRelease:
        """Load what the other replicas serve; the first loads what the channel names.

        Raises:
            CentraError: it cannot be served, or nobody serves and the store cannot be read.
            ClosedError: it was closed meanwhile.
        """
        try:
            return self._load()
        except BaseException:
            if self._served is not None:
                self._served.release.close()
            raise

    def _load(self) -> ServedRelease:
        pointer: ChannelPointer | None = None
        while True:
            order: Order = self._ask("join", self._replica, pointer)
            if order.step is Step.SERVE and pointer is not None:
                self._state = ReplicaState(serves=pointer)
                return self.served
            if order.step is Step.LOAD and order.pointer is not None:
                pointer = order.pointer
                before, self._served = self._served, self._make_ready(pointer)
                if before is not None and before.release is not self._served.release:
                    before.release.close()

    def start(self) -> None:
        """Roll with the others from now on, in a thread of its own."""
        self._thread.start()

    def check_now(self) -> None:
        """Let the coordinator look at the pointer now; it returns when what it names is served or refused."""
        self._ask("check_now")

    def close(self) -> None:
        """Roll no more, and be waited for no more. What is served stays with whom it was handed to."""
        if self._closing.done():
            return
        self._closing.set_result(None)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(TO_END)
        self._coordinator.call("leave", self._followed, self._replica)

    def _ask(self, method: str, *arguments: object) -> Any:
        """Ask the coordinator, until it answers.

        Raises:
            ClosedError: this was closed meanwhile.
            CentraError: the coordinator's refusal.
        """
        from ray.exceptions import RayActorError, RayTaskError

        while not self._closing.done():
            try:
                asked = self._coordinator.call(method, self._followed, *arguments)
                wait([asked, self._closing], return_when=FIRST_COMPLETED)
                if asked.done():
                    return asked.result()
            except RayTaskError as error:
                # Its own text is the coordinator's traceback.
                raise error.cause from error
            except RayActorError as error:
                _log.warning(
                    "the coordinator does not answer, and is asked again: %s", type(error).__name__
                )
                wait([self._closing], timeout=_PAUSE)
                self._coordinator.reopen()
        raise ClosedError("the server ends")

    def _run(self) -> None:
        while not self._closing.done():
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - rolling goes on, whatever a callback does
                _log.exception("rolling with the other replicas failed; it goes on")
                wait([self._closing], timeout=_PAUSE)
        self._give_back()

    def _turn(self) -> None:
        """Say how it stands, and do what is answered, unless there is something new to say first."""
        from ray.exceptions import RayActorError

        self._collect()
        self._reports += 1
        arguments = self._followed, self._replica, self._reports, self._state
        try:
            asked = self._coordinator.call("report", *arguments)
            busy = [self._work] if self._work else []
            wait([asked, self._closing, *busy], return_when=FIRST_COMPLETED)
            if self._closing.done() or not asked.done():
                return
            answer: Answer = asked.result()
        except RayActorError:
            wait([self._closing], timeout=_PAUSE)
            self._coordinator.reopen()
            return
        self._note(answer)
        self._heed(answer.order)

    def _note(self, answer: Answer) -> None:
        """Say of the channel what all say."""
        refused = answer.refused
        if refused is not None and (
            self.refused is None or self.refused.revision != refused.revision
        ):
            self.refusals += 1
            _log.error(
                "revision %d: release %d (sha256:%s) is refused, by all replicas; release %s goes on: %s",
                refused.revision,
                refused.release,
                refused.digest,
                self.served.number,
                refused.reason,
            )
        self.refused, self.store_error = refused, answer.store_error
        if answer.failure is not None:
            self._say(failure=answer.failure)

    def _heed(self, order: Order) -> None:
        pointer = order.pointer
        if order.step is Step.PREPARE and pointer is not None:
            self._attempt = order.attempt
            _log.info("revision %d: preparing release %d", pointer.revision, pointer.release)
            self._say(preparing=pointer)
            self._work = _in_thread(lambda: self._make_ready(pointer))
        elif order.step is Step.HAND_OVER and pointer is not None:
            self._hand_over(pointer)
        elif order.step is Step.ABANDON:
            self._abandon()
        elif self._untrimmed:
            # A while after another took over, the one before has gone.
            self._untrimmed = False
            trim_memory()

    def _make_ready(self, pointer: ChannelPointer) -> ServedRelease:
        """What a pointer names, loaded beside what is served."""
        base = self._served
        if base is not None and base.digest == pointer.manifest:
            return base.named_by(pointer)
        location = self._channel.locate(pointer)
        release = prepare_release(
            location, self._options, base=None if base is None else base.release
        )
        return ServedRelease.of(location, release)

    def _collect(self) -> None:
        """Take note of a preparation that has ended."""
        work, state = self._work, self._state
        if work is None or not work.done():
            return
        assert state is not None
        assert state.preparing is not None
        self._work = None
        error = work.exception()
        if error is None:
            self._prepared = work.result()
            self._say(preparing=None, prepared=state.preparing)
            return
        if not isinstance(error, CentraError):
            _log.error("a release could not be prepared", exc_info=error)
        failure = Failure(
            pointer=state.preparing,
            attempt=self._attempt,
            cause=_cause(error),
            reason=first_line(error),
            code=error_code(error),
        )
        self._say(preparing=None, failure=failure)

    def _hand_over(self, pointer: ChannelPointer) -> None:
        prepared, before = self._prepared, self.served
        assert prepared is not None
        if prepared.release is not before.release:
            prepared = replace(prepared, since=datetime.now(UTC))
            self._untrimmed = True
        self._served, self._prepared = prepared, None
        self._say(serves=pointer, prepared=None)
        _log.info(
            "channel %s, revision %s: release %s (sha256:%s) takes over in all replicas",
            prepared.channel,
            prepared.revision,
            prepared.number,
            prepared.digest,
        )
        self._on_ready(prepared)

    def _abandon(self) -> None:
        prepared, self._prepared = self._prepared, None
        self._say(prepared=None)
        if prepared is not None and prepared.release is not self.served.release:
            prepared.release.close()
            trim_memory()

    def _say(self, **changes: Any) -> None:
        assert self._state is not None
        self._state = replace(self._state, **changes)

    def _give_back(self) -> None:
        """Close what was to take over; a preparation that still runs does so when it ends."""
        self._abandon()
        if self._work is not None:
            served = self.served
            self._work.add_done_callback(lambda work: _close_result(work, served))


def _close_result(work: Future[ServedRelease], served: ServedRelease) -> None:
    if work.exception() is None and work.result().release is not served.release:
        work.result().release.close()


def _cause(error: BaseException) -> Cause:
    if isinstance(error, StoreError):
        return Cause.STORE
    return Cause.MENDABLE if may_be_mended(error) else Cause.FINAL


def _in_thread(function: Callable[[], ServedRelease]) -> Future[ServedRelease]:
    """Its result, later; nobody who ends waits for it."""
    future: Future[ServedRelease] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - who takes the result hears of it
            future.set_exception(error)

    threading.Thread(target=run, name="centra-preparing", daemon=True).start()
    return future
