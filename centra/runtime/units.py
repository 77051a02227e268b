"""The parts of loaded releases, by what they were made from: releases that share a blob share them.

A unit is made from one blob, and from settings that its backbone's spec holds. So it cannot know
which release it serves, which other tasks are there, or which was loaded first; and a release that
differs from a loaded one in one task compiles that task alone. A unit lives as long as a release
that uses it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["UnitCache", "UnitKey"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class UnitKey:
    """Everything that a unit depends on."""

    digest: str
    """Of the blob with its weights."""
    precision: str
    engine: str
    """The engine's name and version."""
    settings: Hashable
    """What else it was made with: the part it plays, its backbone's shape, its threads."""


class UnitCache:
    """The units in use, by key."""

    def __init__(self) -> None:
        self._units: WeakValueDictionary[UnitKey, Any] = WeakValueDictionary()
        self._making: dict[UnitKey, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: UnitKey, make: Callable[[], T]) -> T:
        """The unit of a key, made where none is in use; asked for twice at once, it is made once."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        try:
            with making:
                unit: T | None = self._units.get(key)
                if unit is None:
                    unit = self._units[key] = make()
                return unit
        finally:
            with self._lock:
                self._making.pop(key, None)
