"""Servers in processes of their own, that are asked over HTTP."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tools.common import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Server", "free_port", "peak_memory", "running_server"]

_READY = 300
"""Seconds that a server has to become ready."""
_GONE = 20
"""Seconds that it has to end."""


@dataclass(frozen=True)
class Server:
    """A running one."""

    url: str
    process: subprocess.Popen[bytes]
    seconds: float
    """That it took to become ready."""

    def memory(self) -> int:
        """Bytes that it and its children have in memory now."""
        return sum(_memory(pid, "VmRSS") for pid in _family(self.process.pid))

    def get(self, path: str) -> str:
        """What a path gives.

        Raises:
            BenchmarkError: the server does not answer, or with an error.
        """
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310 - ours
                return str(answer.read().decode())
        except OSError as error:
            raise BenchmarkError(f"{self.url}{path}: {error}") from error

    def metric(self, name: str) -> float:
        """The value of a Prometheus series, summed up over its labels.

        Raises:
            BenchmarkError: there is none of this name.
        """
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)", self.get("/metrics"), re.MULTILINE)
        if not values:
            raise BenchmarkError(f"{self.url}/metrics has no {name}")
        return sum(map(float, values))


def peak_memory(pid: int) -> int:
    """Bytes that a process has had in memory at most; 0 where it has ended."""
    return _memory(pid, "VmHWM")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


@contextmanager
def running_server(
    argv: Sequence[str],
    port: int,
    *,
    ready: str,
    folder: Path,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Server]:
    """A server that is ready, until the block ends.

    Args:
        argv: what starts it on this machine's loopback.
        port: where it listens.
        ready: a path that answers 200 when it can be asked.
        folder: for its log, and where it runs; made if need be.
        environment: its variables.

    Raises:
        BenchmarkError: it ended, or did not become ready.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    url = f"http://127.0.0.1:{port}"
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env={**environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not _answers(url + ready):
            if process.poll() is not None or time.perf_counter() - start > _READY:
                said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise BenchmarkError(
                    f"{Path(argv[0]).name} did not become ready:\n  " + "\n  ".join(said[-12:])
                )
            time.sleep(0.05)
        yield Server(url, process, time.perf_counter() - start)
    finally:
        _end(process)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - ours
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GONE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # Workers that it left behind.
    process.wait()


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def _memory(pid: int, kind: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    kilobytes = re.search(rf"{kind}:\s+(\d+)", status)
    return 1024 * int(kilobytes[1]) if kilobytes else 0
