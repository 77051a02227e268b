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
VARIES = "nbval-ignore-output"
"""The tag of a cell whose output has scores, which differ from machine to machine."""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry but the notebook's own, and no files but in the test's folder."""
    for name in [name for name in os.environ if name.startswith("CENTRA_")]:
        monkeypatch.delenv(name)
    for name in ("CENTRA_CACHE", "IPYTHONDIR", "TMPDIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))


def output(cell: nbformat.NotebookNode) -> str:
    """What a cell printed, and the value that it ends with."""
    outputs = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
    return "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)


def test_it_runs_and_prints_what_it_shows(alone: None) -> None:
    shown = nbformat.read(NOTEBOOK, as_version=4)
    ran = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(ran, timeout=200, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    for before, after in zip(shown.cells, ran.cells, strict=True):
        if VARIES in before.metadata.get("tags", ()):
            assert output(before)
            assert output(after)
        else:
            assert output(after) == output(before)
