"""From threads to the event loop: many calls in one wakeup."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from centra.serving.failures import log_failure

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Mailbox"]

_log = logging.getLogger(__name__)


class Mailbox:
    """Calls that threads leave for an event loop; it makes them in the order in which they came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._woken = False

    def post(self, call: Callable[[], object], *, wake: bool = True) -> None:
        """Leave a call.

        Args:
            call: one that raises is logged, and keeps no other from being made.
            wake: make it soon; otherwise with the next one for which this is set.
        """
        self._calls.append(call)
        if wake and not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._make_calls)
            except RuntimeError:
                # The loop was closed under us; nobody is left to be told.
                self._calls.clear()

    def _make_calls(self) -> None:
        # In this order: what comes while they are made is either among them or wakes the loop again.
        self._woken = False
        while self._calls:
            call = self._calls.popleft()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whoever comes next is not to blame
                log_failure(_log, "a call on the event loop failed", error)
