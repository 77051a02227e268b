"""The parts of loaded releases, by what they were made from: releases that share a blob share them.

So do those of several channels. A unit is made from one blob, and from settings that its backbone's spec holds. So it cannot know
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
    from collections.abc import Set as AbstractSet

    from centra.store import BlobReader

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
        self._making: WeakValueDictionary[UnitKey, threading.Lock] = WeakValueDictionary()
        self._lock = threading.Lock()

    def get(self, key: UnitKey, make: Callable[[], T]) -> T:
        """The unit of a key, made where none is in use; asked for twice at once, it is made once."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            unit: T | None = self._units.get(key)
            if unit is None:
                unit = self._units[key] = make()
            return unit

    def of_blob(
        self,
        key: UnitKey,
        make: Callable[[], T],
        reader: BlobReader,
        *,
        checked: AbstractSet[str] = frozenset(),
    ) -> T:
        """The unit of a blob.

        The blob is read, and so checked, even where its unit is in use: a damaged release must not
        load.

        Args:
            key: whose digest is the blob's.
            make: reads the blob, and makes the unit of it.
            reader: where the blob is.
            checked: the digests of blobs that need not be read again.
        """
        made = False

        def making() -> T:
            nonlocal made
            made = True
            return make()

        unit = self.get(key, making)
        if not made and key.digest not in checked:
            reader.fetch(key.digest)
        return unit
