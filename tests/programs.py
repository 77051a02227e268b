"""Servers of other people's for the tests, which end with the test, also when pytest itself is killed."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.error import HTTPError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["free_port", "running"]

# The group of processes is ended when the pipe is closed, by whomever; what has not gone after ten
# seconds is killed.
_END = """
read -r _
kill -s TERM -- "-$1"
for _ in $(seq 100); do kill -s 0 -- "-$1" || exit 0; sleep 0.1; done
kill -s KILL -- "-$1"
"""


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    health: str,
    *,
    environment: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Run a server for as long as the block lasts.

    Args:
        command: the program and its arguments.
        log: a file that takes what it prints.
        health: the URL that answers, whatever it says, when the server is ready.
        environment: its variables; None for this process's own.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    end = subprocess.Popen(
        ["sh", "-c", _END, "sh", str(process.pid)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(health, process, log)
        yield
    finally:
        assert end.stdin is not None
        end.stdin.close()
        process.wait(30)  # Until somebody asks for its end, it counts as running.
        end.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until somebody answers."""
    until = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except HTTPError:
            return  # It wants a login.
        except OSError:
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-4000:]
            time.sleep(0.05)
