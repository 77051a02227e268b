"""Whether to wait for more inputs before a batch begins: where they come back soon, it is worth it.

Taking all that waits whenever the last batch is done makes batches grow with the load by itself. It
fails where clients answer to answers: those of the last batch ask again a moment later, and find that
the few who waited have begun without them; so two halves take turns for ever. What was seen after the
last batches tells such clients from others.
"""

from __future__ import annotations

__all__ = ["Pace"]

_SHARE = 0.5
"""Of a batch's time is waited for at most."""
_LONGEST = 0.01
"""Seconds."""
_NEWEST = 0.2
"""How much the newest batch counts beside those before."""


class Pace:
    """Remembers how soon inputs came after the batches before. Times are in seconds.

    The moment after a batch is watched whether somebody waits or not, so that what is learnt does not
    depend on what was done with it. In a quiet time that moment has passed, and nobody is kept waiting.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._returning = 0.0
        self._size = self._arrived = 0
        self._until = 0.0

    def batch_done(self, inputs: int, seconds: float, now: float) -> None:
        """A batch of so many inputs took so long, and has just ended."""
        if self._size:
            share = self._arrived / self._size
            self._returning += _NEWEST * (share - self._returning)
        known = self._seconds or seconds
        self._seconds = known + _NEWEST * (seconds - known)
        self._size, self._arrived = inputs, 0
        self._until = now + min(_SHARE * seconds, _LONGEST)

    def arrived(self, inputs: int, now: float) -> None:
        """So many inputs are ready to be computed."""
        if now <= self._until:
            self._arrived += inputs

    def pause(self, waiting: int, now: float) -> float:
        """For how long more inputs are worth waiting for.

        Each that comes in time is spared a whole batch, and each that is there waits for it.

        Args:
            waiting: inputs that are there.
            now: the moment.
        """
        left = self._until - now
        expected = self._returning * self._size - self._arrived
        return left if left > 0 and expected * self._seconds > waiting * left else 0.0
