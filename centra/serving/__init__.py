"""Serving: requests of many clients become batches, and releases change under them.

Importing it imports nothing heavy; each name is loaded when it is first used::

    async with centra.serving.Batcher("s3://models/centra#production") as batcher:
        await batcher.predict("wake me at seven")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from centra.runtime.queries import Query
    from centra.serving.batcher import Batcher
    from centra.serving.limits import Limits

__all__ = ["Batcher", "Limits", "Query"]

_PLACES = {
    "Batcher": "centra.serving.batcher",
    "Limits": "centra.serving.limits",
    "Query": "centra.runtime.queries",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
