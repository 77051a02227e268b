"""What a change of a task led to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.rules.lifecycle import TaskState

if TYPE_CHECKING:
    from centra.formats.decision import DecisionChange
    from centra.formats.identities import TaskName, VersionNumber
    from centra.store import BlobProblem

__all__ = ["TaskOutcome"]


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """What a change of a task led to."""

    task: TaskName
    version: VersionNumber
    changed: bool
    """False where the registry said so already."""
    forced: bool = False
    state: TaskState = TaskState.ACTIVE
    """The task's: a retired one stays out of the live set, whatever version is current."""
    mended: BlobProblem | None = None
    """What was wrong with the version's file, which has been put back."""
    decision: tuple[DecisionChange, ...] = ()
    """How an update's logits become answers otherwise than those of the version before."""
