"""The notebook runs from its first cell to its last, and is kept as it ran."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NOTEBOOK = ROOT / "examples" / "tour.ipynb"


@pytest.fixture
def kernels(tmp_path: Path, warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are forks of the warm Python, which has imported torch already."""
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    start = [str(warm_python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": start, "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("CENTRA_")]:
        if name != "CENTRA_CACHE":
            monkeypatch.delenv(name)


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell printed."""
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    return ["".join(output.get("text", "") for output in cell) for cell in outputs]


def test_it_runs_and_prints_what_it_shows(kernels: None) -> None:
    shown = nbformat.read(NOTEBOOK, as_version=4)
    ran = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(ran, timeout=200, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    assert printed(ran) == printed(shown)
