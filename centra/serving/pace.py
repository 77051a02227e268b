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
        self._cost = _BatchCost()
        self._returning = 0.0
        self._size = self._arrived = 0
        self._until = 0.0

    def batch_done(self, inputs: int, seconds: float, now: float) -> None:
        """A batch of so many inputs took so long, and has just ended."""
        if self._size:
            share = self._arrived / self._size
            self._returning += _NEWEST * (share - self._returning)
        self._cost.observe(inputs, seconds)
        self._size, self._arrived = inputs, 0
        self._until = now + min(_SHARE * seconds, _LONGEST)

    def arrived(self, inputs: int, now: float) -> None:
        """So many inputs are ready to be computed."""
        if now <= self._until:
            self._arrived += inputs

    def pause(self, waiting: int, now: float) -> float:
        """For how long more inputs are worth waiting for.

        Each that comes in time spares what a batch of its own would cost beside it, and each that is
        there waits for it.

        Args:
            waiting: inputs that are there.
            now: the moment.
        """
        left = self._until - now
        expected = self._returning * self._size - self._arrived
        return left if left > 0 and expected * self._cost.of_none > waiting * left else 0.0


class _BatchCost:
    """How long batches take by their inputs: a line through those that were seen last."""

    def __init__(self) -> None:
        self._inputs = self._seconds = 0.0
        self._variance = self._covariance = 0.0
        self._seen = False

    def observe(self, inputs: int, seconds: float) -> None:
        if not self._seen:
            self._inputs, self._seconds, self._seen = inputs, seconds, True
            return
        more, longer = inputs - self._inputs, seconds - self._seconds
        self._inputs += _NEWEST * more
        self._seconds += _NEWEST * longer
        self._variance = (1 - _NEWEST) * (self._variance + _NEWEST * more * more)
        self._covariance = (1 - _NEWEST) * (self._covariance + _NEWEST * more * longer)

    @property
    def of_none(self) -> float:
        """What a batch costs before its first input; all of it, while all are of one size."""
        # Sizes that hardly differ tell nothing of it.
        slope = self._covariance / (self._variance + 1)
        return min(self._seconds, max(0.0, self._seconds - slope * self._inputs))
