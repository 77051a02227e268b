"""MLflow in a process of its own, asked for one operation after the other."""

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

_SCRIPT = Path(__file__).resolve().with_name("mlflow_worker.py")


class Worker:
    """The other end of ``mlflow_worker.py``; it does nothing unless asked."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self._answer()

    def ask(self, do: str, **arguments: object) -> tuple[float, list[str]]:
        """Have MLflow do something.

        Args:
            do: a method of the worker.
            arguments: its arguments.

        Returns:
            The seconds that it took, and the names that it found.

        Raises:
            BenchmarkError: MLflow failed; the message ends with what it said.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # There is no answer then either, and that is told.
        answer = self._answer()
        return float(answer["seconds"]), list(answer["found"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise BenchmarkError("MLflow failed:\n  " + "\n  ".join(said[-8:]))
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def running_worker(peers: Path, url: str, folder: Path) -> Iterator[Worker]:
    """MLflow on a database.

    Args:
        peers: the environment that has it.
        url: the database, empty.
        folder: a new one, for artifacts and the log.
    """
    folder.mkdir()
    log = folder / "log"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [str(peers / "bin" / "python"), str(_SCRIPT), url, str(folder)],
            cwd=folder,
            env=clean_environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        yield Worker(process, log)
