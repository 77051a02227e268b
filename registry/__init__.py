"""The registry: the database of tasks, versions, releases and channels, and the decisions on them.

Every use case is a function of one of the modules ``backbones``, ``tasks``, ``releases``,
``evaluations``, ``exports``, ``promotion``, ``channels``, ``policies``, ``signatures``, ``transfer``, ``cards``,
``graphs``, ``audit``, ``storage`` and ``doctor``; its first argument is a :class:`Registry`::

    from registry import Registry, releases, tasks

    registry = Registry.open(actor="nlu/ada")
    tasks.register(registry, "intent", "intent.safetensors", team="nlu")
    releases.compose(registry, publish=True)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.connection import Registry

__all__ = ["Registry"]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Imported when it is used, as settings are read by processes that have no use for a database.
    if name == "Registry":
        from registry.connection import Registry

        return Registry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
