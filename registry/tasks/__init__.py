"""Tasks and their versions: registering, updating, redefining, retiring, pinning, and reading them."""

from __future__ import annotations

from registry.rules.lifecycle import TaskState, VersionChange
from registry.tasks.calibrating import Calibrated, LabelThreshold, calibrate
from registry.tasks.changing import redefine, register, update
from registry.tasks.comparing import ChangedRow, Comparison, compare
from registry.tasks.intake import Checkpoint
from registry.tasks.outcome import TaskOutcome
from registry.tasks.reading import TaskDetail, TaskDifference, TaskRow, diff, history, show
from registry.tasks.reading import list_tasks as list  # noqa: A004 - it is said tasks.list
from registry.tasks.state import pin, restore, retire

__all__ = [
    "Calibrated",
    "ChangedRow",
    "Checkpoint",
    "Comparison",
    "LabelThreshold",
    "TaskDetail",
    "TaskDifference",
    "TaskOutcome",
    "TaskRow",
    "TaskState",
    "VersionChange",
    "calibrate",
    "compare",
    "diff",
    "history",
    "list",
    "pin",
    "redefine",
    "register",
    "restore",
    "retire",
    "show",
    "update",
]
