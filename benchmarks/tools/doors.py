"""Servers of a release, and the addresses at which they can be asked: a plain one, and Ray Serve's."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.tools.common import ROOT, BenchmarkError
from benchmarks.tools.servers import free_port, running_server
from benchmarks.tools.serving_peers import centra_command
from centra.bench.load import Load, Target, predict_calls, run_load
from centra.system.processors import processors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.tools.servers import Server
    from centra.bench.load import Call, Latencies, LoadReport

__all__ = ["CLIENTS", "PLAIN", "Asked", "Door", "plain_server", "ray_command", "ray_server"]

CLIENTS = 32
"""Of a saturated server, with one text each."""
PLAIN = "plain server"


@dataclass(kw_only=True)
class Asked:
    """What came of asking, by round."""

    rates: list[float] = field(default_factory=list)
    """Requests a second, saturated."""
    alone: list[float] = field(default_factory=list)
    """Median seconds of a request at one client."""
    p99: list[float] = field(default_factory=list)
    """Of a saturated server, in seconds."""
    memory: int = 0
    """Bytes of all its processes, at last."""
    ready: float = 0
    """Seconds from the start of the command."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """An address at which a server answers."""

    name: str
    url: str
    calls: Sequence[Call]
    server: Server | None = None
    token: str | None = None

    def ask(self, found: Asked, seconds: float, warm_up: float, alone: float) -> float:
        """Ask by one client, then by many.

        Args:
            found: is added to.
            seconds: by many.
            warm_up: before that.
            alone: seconds by one.

        Returns:
            Requests a second, saturated.

        Raises:
            BenchmarkError: not every request was answered.
        """
        latency = self._load(Load(seconds=alone, warm_up=alone / 4, clients=1)).latency
        answered = self._load(Load(seconds=seconds, warm_up=warm_up, clients=CLIENTS))
        if latency is None or answered.latency is None:
            raise BenchmarkError(f"{self.name} answered nothing in {min(alone, seconds):g} s")
        found.alone.append(latency.median)
        found.rates.append(answered.requests_per_second)
        found.p99.append(answered.latency.p99)
        if self.server:
            found.memory, found.ready = self.server.memory(), self.server.seconds
        return answered.requests_per_second

    def saturated(self, seconds: float, warm_up: float) -> float:
        """Requests a second by many clients.

        Raises:
            BenchmarkError: not every request was answered.
        """
        load = Load(seconds=seconds, warm_up=warm_up, clients=CLIENTS)
        return self._load(load).requests_per_second

    def at_rate(self, rate: float, seconds: float, warm_up: float) -> Latencies:
        """Ask at moments drawn by chance; the time from when a request was due.

        Raises:
            BenchmarkError: not every request was answered.
        """
        load = Load(seconds=seconds, warm_up=warm_up, clients=4 * CLIENTS, rate=rate)
        found = self._load(load).latency
        if found is None:
            raise BenchmarkError(f"{self.name} was asked nothing in {seconds:g} s")
        return found

    def _load(self, load: Load) -> LoadReport:
        target = Target.parse(self.url, token=self.token)
        found = asyncio.run(run_load(target, self.calls, load))
        if found.failed or found.rejected:
            raise BenchmarkError(
                f"{self.name}: {found.failed + found.rejected} of {found.planned} requests were not "
                f"answered: {found.first_error}"
            )
        return found


@contextmanager
def plain_server(release: str, texts: Sequence[str], folder: Path) -> Iterator[Door]:
    """``centra serve`` on all processors, until the block ends.

    Args:
        release: its address.
        texts: what is asked, one a request.
        folder: for its log.
    """
    port = free_port()
    command = centra_command(release, port, "--threads", str(processors()))
    with running_server(
        command, port, ready="/v1/release", folder=folder, environment=_environment()
    ) as server:
        yield Door(name=PLAIN, url=server.url, calls=predict_calls(inputs=texts), server=server)


@contextmanager
def ray_server(
    release: str, texts: Sequence[str], replicas: int, folder: Path
) -> Iterator[tuple[Door, Door]]:
    """``centra serve --engine ray`` on a cluster of its own, until the block ends.

    The replicas share the processors.

    Returns:
        Ray's proxy, and the replicas' own port.
    """
    port, own = free_port(), free_port()
    command = ray_command(release, port, own, replicas)
    name = f"{replicas} replica{'s' * (replicas > 1)}"
    with running_server(
        command, port, ready="/v1/release", folder=folder, environment=_environment()
    ) as server:
        calls = predict_calls(inputs=texts)
        yield (
            Door(name=f"{name}, Ray's proxy", url=server.url, calls=calls, server=server),
            Door(
                name=f"{name}, own port",
                url=f"http://127.0.0.1:{own}",
                calls=calls,
                server=server,
            ),
        )


def ray_command(release: str, port: int, own: int, replicas: int) -> list[str]:
    """Our own server on a cluster of its own, whose replicas share the processors.

    Args:
        release: its address.
        port: of Ray's proxy.
        own: of the replicas.
        replicas: how many.
    """
    return centra_command(
        release,
        port,
        *("--engine", "ray", "--replicas", str(replicas), "--replica-port", str(own)),
        # Ray places by what replicas say that they need, and would give the proxy's to nobody.
        *("--threads", str(max(1, processors() // replicas)), "--replica-cpus", "0.1"),
    )


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return kept | {"PYTHONPATH": str(ROOT)}
