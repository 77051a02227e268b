"""How an application of a Ray cluster stands, for whoever has deployed it."""

from __future__ import annotations

import logging
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from centra.errors import first_line
from centra.serving.ray.coordinator import find_coordinator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.serving.ray.coordinator import ReplicaReport

__all__ = ["Standing", "applications", "last_line"]

_log = logging.getLogger(__name__)

_ANSWER_SECONDS = 10.0
"""How long the coordinator has to answer, until it is asked again."""


def applications() -> Mapping[str, Any]:
    """What Ray Serve says of each application of the cluster, by name."""
    from ray import serve

    return serve.status().applications


class Standing:
    """How an application stands, logged whenever that changes."""

    def __init__(self, name: str) -> None:
        """Nothing is asked yet.

        Args:
            name: the application's.
        """
        self._name = name
        self.trouble = ""
        """What Ray Serve says is amiss."""
        self._told: dict[str, str] = {}

    def look(self) -> None:
        """Ask Ray Serve."""
        try:
            found = applications().get(self._name)
        except Exception as error:  # noqa: BLE001 - of any sort, while Ray's head node is away
            text = f"Ray Serve does not say how it stands: {first_line(error)}"
            self._tell("trouble", logging.WARNING, text)
            return
        if found is None:
            if self._told:
                text = "it is not in the cluster any more: somebody has taken it down"
                self._tell("state", logging.ERROR, text)
            return
        deployments = found.deployments.values()
        replicas = sum((Counter(each.replica_states) for each in deployments), Counter[str]())
        counts = [f"{count} {state.lower()}" for state, count in sorted(replicas.items()) if count]
        state = f"{found.status.value.lower()}, replicas: {', '.join(counts) or 'none'}"
        self._tell("state", logging.INFO, state)
        messages = [*filter(None, (each.message for each in deployments))] or [found.message]
        self.trouble = "; ".join(map(last_line, messages))
        self._tell("trouble", logging.WARNING, self.trouble)

    def look_closely(self) -> None:
        """Ask the replicas, too, what they serve and what they refuse."""
        import ray

        self.look()
        try:
            reports: list[ReplicaReport] = ray.get(
                find_coordinator(self._name).replicas.remote(), timeout=_ANSWER_SECONDS
            )
        except Exception:  # noqa: BLE001 - of any sort, while it or Ray's head node is away
            return  # It is asked again.
        served = {(each.revision, each.digest) for each in reports}
        names = [
            f"sha256:{digest[:12]}" + ("" if revision is None else f", revision {revision}")
            for revision, digest in sorted(served, key=str)
        ]
        self._tell("serves", logging.INFO, f"serves {' and '.join(names)}" if names else "")
        refused = sorted({each.refused for each in reports if each.refused})
        self._tell("refused", logging.ERROR, f"refuses {'; '.join(refused)}" if refused else "")

    def _tell(self, what: str, level: int, text: str) -> None:
        if text != self._told.get(what, ""):
            self._told[what] = text
            if text:
                _log.log(level, "application %s: %s", self._name, text)


def last_line(text: str) -> str:
    """Of a traceback, what was raised."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    return re.sub(r"^centra\.[\w.]+: ", "", lines[-1]) if lines else ""
