"""A peer in a process of its own, asked for one operation after the other."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tools.common import BenchmarkError, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Worker", "running_worker"]

_TOOLS = Path(__file__).resolve().parent


class Worker:
    """The other end of a ``…_worker.py``; that does nothing unless asked."""

    def __init__(self, process: subprocess.Popen[str], script: str, log: Path) -> None:
        self._process = process
        self._script = script
        self._log = log
        self._answer()

    def ask(self, **request: object) -> dict[str, Any]:
        """Have the peer do something.

        Args:
            request: as the worker describes it.

        Returns:
            Its answer, with the ``seconds`` that it took.

        Raises:
            BenchmarkError: the peer failed; the message ends with what it said.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # There is no answer then either, and that is told.
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise BenchmarkError(f"{self._script} failed:\n  " + "\n  ".join(said[-8:]))
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def running_worker(python: Path, script: str, *arguments: object, folder: Path) -> Iterator[Worker]:
    """A worker, until the block ends.

    Args:
        python: the interpreter that has the peer.
        script: beside this file.
        arguments: of the script.
        folder: for the log, and where it runs; made if need be.
    """
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [str(python), str(_TOOLS / script), *map(str, arguments)],
            cwd=folder,
            env=clean_environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        yield Worker(process, script, log)
