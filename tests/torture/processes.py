"""Running commands as processes of their own that can be broken at a system call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests import warm
from tests.torture import shim

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.torture.shim import Call, Fault

__all__ = ["Done", "run", "run_installed"]

_PROGRAM = "from tests.torture import shim; shim.arm(); import cli; cli.run()"


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has ended."""

    code: int
    """Its exit code; minus the signal that ended it."""
    out: str
    err: str
    calls: list[Call]
    """The changing system calls that it made, or was about to make."""

    @property
    def killed(self) -> bool:
        """Whether its fault killed it."""
        return self.code == -signal.SIGKILL


def run(
    python: Path,
    argv: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    fault: Fault | None = None,
    clock: int = 0,
    paused: Callable[[], None] | None = None,
) -> Done:
    """Run ``centra ARGV``, forked from a warm Python.

    Args:
        python: see :func:`tests.warm.start`.
        argv: the command's words.
        folder: where; changes below it are counted, and what is sent to sockets.
        environment: all of it.
        fault: what to do at which call.
        clock: seconds by which its clock is ahead.
        paused: called while the process stands still at the call of a ``pause``.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="centra-run-")))
        log, out, err = scratch / "log", scratch / "out", scratch / "err"
        given = {
            "TORTURE_LOG": str(log),
            "TORTURE_WATCH": str(folder),
            "TORTURE_CLOCK": str(clock),
            "TMPDIR": str(scratch),
        }
        if fault:
            given |= {"TORTURE_MODE": fault.mode, "TORTURE_CALL": str(fault.call)}
        streams = [
            stack.enter_context(path.open(mode)).fileno()
            for path, mode in ((Path(os.devnull), "rb"), (out, "wb"), (err, "wb"))
        ]
        if paused:
            stack.enter_context(_Watching(log, paused))
        code = warm.call(python, ["-c", _PROGRAM, *argv], folder, {**environment, **given}, streams)
        return Done(
            code=code,
            out=out.read_text(errors="replace"),
            err=err.read_text(errors="replace"),
            calls=shim.read_log(log),
        )


def run_installed(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], *, kill_after: float
) -> Done:
    """Run the installed program ``centra ARGV``, and kill it if it takes longer.

    Args:
        argv: the command's words.
        folder: where.
        environment: all of it.
        kill_after: seconds.
    """
    program = Path(sys.executable).with_name("centra")
    with (
        tempfile.TemporaryDirectory(prefix="centra-run-") as scratch,
        subprocess.Popen(
            [program, *argv],
            cwd=folder,
            env={**environment, "TMPDIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            out, err = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
    return Done(code=process.returncode, out=out, err=err, calls=[])


class _Watching:
    """Calls something when a process stands still, and lets it go on."""

    def __init__(self, log: Path, paused: Callable[[], None]) -> None:
        import threading

        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(log, paused))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self, log: Path, paused: Callable[[], None]) -> None:
        while not self._over.is_set():
            text = log.read_text() if log.exists() else ""
            # Not the last line alone: another thread may have written one since.
            line = next((line for line in text.splitlines() if line.startswith("paused ")), None)
            if line is not None:
                pid = int(line.split()[1])
                # To go on before it stands still would leave it standing for good.
                while not _stands_still(pid) and not self._over.is_set():
                    time.sleep(0.002)
                try:
                    paused()
                finally:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                return
            time.sleep(0.002)


def _stands_still(pid: int) -> bool:
    """Whether a process was stopped by a signal, or has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    # The state is what follows the program's name, which may hold anything.
    return stat.rpartition(")")[2].split()[0] in "TZX"
