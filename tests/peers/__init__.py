"""Programs of other people's that read what Centra exports, from environments of their own.

Their packages want other versions than Centra's, or are large. ``make peers`` makes an environment in
``build/peers`` from each list here, and ``make test`` asks for all.

======================= =================================================================
``CENTRA_TEST_MLFLOW``  the Python of an environment with ``mlflow``
``CENTRA_TEST_OPTIMUM`` the same with ``optimum-onnx``
``CENTRA_TEST_TRITON``  the same with ``nvidia-pytriton``
======================= =================================================================

Each environment must find what Centra needs, too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import ROOT

__all__ = ["peer_python"]


def peer_python(name: str) -> Path:
    """The Python of a peer's environment; a test that asks for one that is not there is skipped."""
    variable = f"CENTRA_TEST_{name.upper()}"
    if given := os.environ.get(variable):
        return Path(given)
    folder = ROOT / "build" / "peers" / name
    if not (folder / "ready").exists():
        pytest.skip(
            f"no {name}: run make peers, or name the Python of an environment in {variable}"
        )
    return folder / "bin" / "python"
