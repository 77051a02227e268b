"""What a forked process must find: nothing half done, and nothing that only its parent can use.

It has the thread that forked alone, and the memory of all as it was at that moment. So a fork waits
until no release is being computed or loaded, for the libraries below hold locks meanwhile that nobody
in the child would ever release; and whatever has threads or connections begins anew in the child.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["after_fork_in_child", "computing"]

T = TypeVar("T")


class _Computing:
    """A block in which no fork happens; threads enter it side by side, but not twice."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: set[int] = set()
        self._forks = 0

    def __enter__(self) -> None:
        with self._changed:
            while self._forks:
                self._changed.wait()
            self._inside.add(threading.get_ident())

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._inside.discard(threading.get_ident())
            if self._forks:
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Let nobody begin, and wait for those who have begun."""
        with self._changed:
            self._forks += 1
            # A signal's handler may fork in the middle of such a block, and cannot wait for it.
            while self._inside - {threading.get_ident()}:
                self._changed.wait()

    def after_fork(self) -> None:
        """Go on in the process that forked."""
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def renew(self) -> None:
        """Begin anew in the process that was forked."""
        mine = self._inside & {threading.get_ident()}
        self.__init__()  # type: ignore[misc]
        self._inside = mine


computing = _Computing()
"""Entered by whatever computes or loads; a fork waits for it."""

_renewals: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def after_fork_in_child(thing: T, renew: Callable[[T], None]) -> None:
    """While something lives, have it renewed in each process that is forked from this one.

    Args:
        thing: whatever holds threads or connections; it is not kept alive.
        renew: called with it in the forked process.
    """
    _renewals[thing] = renew


def _renew_all() -> None:
    computing.renew()
    for thing, renew in list(_renewals.items()):
        renew(thing)


os.register_at_fork(
    before=computing.before_fork,
    after_in_parent=computing.after_fork,
    after_in_child=_renew_all,
)
