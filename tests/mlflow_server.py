"""MLflow's own programs for the tests, from an environment of their own: its packages want other versions.

======================= ============================================================================
``CENTRA_TEST_MLFLOW``  the Python of an environment with ``mlflow`` that also finds Centra's packages
======================= ============================================================================
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.programs import free_port, running
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["mlflow_program"]


@contextmanager
def mlflow_program(folder: Path, *command: str, health: str) -> Iterator[str]:
    """Run a server of MLflow's; gives its address.

    Args:
        folder: an empty one.
        command: of ``mlflow``, with its options.
        health: the path that answers when it is ready.
    """
    python = os.environ.get("CENTRA_TEST_MLFLOW")
    if python is None:
        pytest.skip("no mlflow: name the Python of an environment with it in CENTRA_TEST_MLFLOW")
    port = str(free_port())
    address = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    program = [python, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", port]
    with running(program, folder / "mlflow.log", address + health, environment=environment):
        yield address
