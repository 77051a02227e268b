"""Load on a server, and what its clients see of it: how soon it answers at a rate, and at most how much."""

from __future__ import annotations

from centra.bench.load.calls import Call, Outcome, predict_calls
from centra.bench.load.client import Target
from centra.bench.load.generator import Load, run_load
from centra.bench.load.report import Latencies, LoadReport

__all__ = [
    "Call",
    "Latencies",
    "Load",
    "LoadReport",
    "Outcome",
    "Target",
    "predict_calls",
    "run_load",
]
