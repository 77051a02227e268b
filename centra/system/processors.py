"""How many processors a process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import math
import os

from centra.system.cgroups import cpu_quota

__all__ = ["affinity", "bound_torch", "processors"]


def processors() -> int:
    """How many processors this process may use.

    The quota of a container is rounded up: with half a processor there is one.
    """
    quota = cpu_quota()
    return affinity() if quota is None else max(1, min(affinity(), math.ceil(quota)))


def affinity() -> int:
    """How many processors this process may run on, whatever its share of their time.

    It is what libraries that count by themselves take.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bound_torch() -> None:
    """Let torch have no more threads than there are processors; it does not see a quota by itself."""
    import torch

    if torch.get_num_threads() > processors():
        torch.set_num_threads(processors())
