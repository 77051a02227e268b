"""The notebook runs from its first cell to its last, and is kept as it ran."""

from __future__ import annotations

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
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry but the notebook's own, and no files but in the test's folder."""
    for name in [name for name in os.environ if name.startswith("CENTRA_")]:
        monkeypatch.delenv(name)
    for name in ("CENTRA_CACHE", "IPYTHONDIR", "TMPDIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell printed."""
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    return ["".join(o["text"] for o in cell if o.get("name") == "stdout") for cell in outputs]


def test_it_runs_and_prints_what_it_shows(alone: None) -> None:
    shown = nbformat.read(NOTEBOOK, as_version=4)
    ran = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(ran, timeout=200, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    assert printed(ran) == printed(shown)
