"""What a rate of queries takes in machines and money, from what one small server was measured to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PAPER", "Assumptions", "Need", "Paper", "ServerRate", "needed", "sizing_rows"]

_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What is not measured."""

    rate: float = 4000
    """Queries a second, each one text for all tasks: the paper's."""
    core_price: float = 0.045
    """US dollars of one virtual CPU for an hour: what general-purpose x86 machines of the large clouds
    cost on demand, more or less."""
    gpu_price: float = 3.06
    """Likewise of a V100."""
    machine_cores: int = 32
    spare_machines: int = 1
    """That do nothing but be there when one dies."""


@dataclass(frozen=True, kw_only=True)
class ServerRate:
    """A server under a share of the load that it can bear."""

    name: str
    """Of what it serves."""
    cores: int
    saturated: float
    """Texts a second at most."""
    share: float
    """Of that, which it was asked for."""
    median: float
    """Seconds from when a text was due until it was answered."""
    p99: float


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a rate takes."""

    servers: int
    cores: int
    """Of all machines, those to spare among them."""
    machines: int
    hour: float
    """Dollars."""
    million: float
    """Dollars for a million queries."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What the paper says of its own 21 tasks (appendix E)."""

    gpus: int = 5
    """V100 at fp16, for 4,000 queries a second."""
    single_gpus: int = 42
    """Where each task has a model of its own."""
    rate: float = 4000
    p99: float = 0.032


PAPER = Paper()


def needed(measured: ServerRate, assumed: Assumptions) -> Need:
    """What it takes to answer at a rate by so many servers of this kind, each asked for the same share.

    Servers need nothing of each other, so that twice as many answer twice as much. Those of a machine
    share its memory's bandwidth, which is not counted.
    """
    servers = math.ceil(assumed.rate / (measured.share * measured.saturated))
    each = max(1, assumed.machine_cores // measured.cores)
    machines = math.ceil(servers / each) + assumed.spare_machines
    cores = machines * assumed.machine_cores
    hour = cores * assumed.core_price
    return Need(
        servers=servers,
        cores=cores,
        machines=machines,
        hour=hour,
        million=_million(hour, assumed.rate),
    )


def sizing_rows(measured: Sequence[ServerRate], assumed: Assumptions) -> list[list[str]]:
    """A row for each measurement, and two for what the paper says."""
    rows = []
    for one in measured:
        need = needed(one, assumed)
        rows.append(
            [
                f"{one.name}, {one.cores} processors a server, {one.share:.0%} of what it can do",
                f"{1000 * one.median:.0f}",
                f"{1000 * one.p99:.0f}",
                f"{need.servers}",
                f"{need.machines} of {assumed.machine_cores} CPUs",
                f"{need.hour:.2f}",
                f"{need.million:.2f}",
            ]
        )
    for name, gpus, p99 in (
        ("the paper: 21 tasks on shared layers", PAPER.gpus, f"{1000 * PAPER.p99:.0f}"),
        ("the paper: a model a task", PAPER.single_gpus, ""),
    ):
        hour = gpus * assumed.gpu_price
        million = _million(hour, PAPER.rate)
        rows.append([name, "", p99, "", f"{gpus} V100", f"{hour:.2f}", f"{million:.2f}"])
    return rows


def _million(hour: float, rate: float) -> float:
    return hour / (_HOUR * rate) * 1e6
