"""MLflow's own programs for the tests, from an environment of their own; see :mod:`tests.peers`."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.peers import peer_python
from tests.programs import free_port, running
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["mlflow_program"]


@contextmanager
def mlflow_program(folder: Path, *command: str, health: str) -> Iterator[str]:
    """Run a server of MLflow's; gives its address.

    Args:
        folder: an empty one.
        command: of ``mlflow``, with its options.
        health: the path that answers when it is ready.
    """
    python = peer_python("mlflow")
    port = str(free_port())
    address = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    program = [python, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", port]
    with running(program, folder / "mlflow.log", address + health, environment=environment):
        yield address
