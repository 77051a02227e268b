"""What `study.py` studies on a backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.tools.common import ROOT
from benchmarks.tools.real import minilm, mpnet_base

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from benchmarks.tools.real import Backbone

__all__ = [
    "HEAD_EPOCHS",
    "HEAD_RATE",
    "JOINT_RATE",
    "MAX_LENGTH",
    "METHODS",
    "SETUPS",
    "Setup",
]

METHODS = ("from-backbone", "joint", "leave-one-out")
"""What may be left out."""
MAX_LENGTH = 64
JOINT_RATE = 1e-4
HEAD_RATE, HEAD_EPOCHS = 1e-3, 20


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is studied on a backbone."""

    title: str
    open: Callable[[Path], Backbone]
    results: Path
    tasks: tuple[str, ...]
    rows: int
    layers: tuple[int, int]
    """The fewest and the most of the teachers."""
    students: tuple[int, ...]
    thresholds: tuple[str, ...]
    """Points of the metric that an added layer must gain: the more, the fewer layers."""
    share: float
    """Of full fine-tuning's layers: what the goal allows."""
    rates: tuple[float, ...]
    """Among which full fine-tuning and the teachers choose."""
    student_rates: tuple[float, ...]
    epochs: int = 4
    batch_size: int = 32
    metrics: Mapping[str, str] = field(default_factory=dict)
    """By task, where it is not the first of its kind."""
    without: tuple[str, ...] = ()
    paper: bool = False
    """Whether the paper's own figures stand beside it."""


SETUPS = {
    "minilm": Setup(
        title="The paper's study on MiniLM",
        open=minilm,
        results=ROOT / "benchmarks" / "STUDY_MINILM.md",
        tasks=(
            *("domain", "emotion", "intent_snips", "slots_restaurant", "slots_snips"),
            *("sst2", "stsb", "trec"),
        ),
        rows=1000,
        layers=(2, 5),
        students=(1, 2),
        thresholds=("1", "2", "3", "4"),
        share=0.4,
        rates=(1e-4, 3e-4),
        student_rates=(4e-4, 8e-4),
    ),
    "mpnet-base": Setup(
        title="The paper's study on MPNet, twelve layers",
        open=mpnet_base,
        results=ROOT / "benchmarks" / "STUDY.md",
        tasks=(
            *("cola", "mrpc", "rte", "stsb"),
            *("intent", "slots_snips", "banking_intent", "emotion"),
        ),
        rows=500,
        layers=(4, 10),
        students=(1, 2, 3),
        thresholds=("1", "2", "3"),
        share=0.343,
        rates=(1e-4,),
        student_rates=(2e-4,),
        epochs=5,
        # Few rows make few steps otherwise.
        batch_size=16,
        metrics={"cola": "matthews"},
        without=METHODS,
        paper=True,
    ),
}
