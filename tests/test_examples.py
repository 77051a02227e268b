"""The examples run as a user runs them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from centra.data.inputs import read_examples
from tests.support import ROOT

DATA = Path(os.environ.get("CENTRA_DATA", ROOT.parent / "shared" / "data"))


@pytest.mark.skipif(
    not (DATA / "intent").is_dir(), reason=f"no labelled data sets in {DATA} (see CENTRA_DATA)"
)
def test_five_real_tasks_stay_apart_bit_for_bit(tmp_path: Path, warm_python: Path) -> None:
    """On the first rows of real data, real MiniLM, through training, merging and three changes."""
    done = subprocess.run(
        [
            *(str(warm_python), str(ROOT / "examples" / "isolation.py")),
            *("--data", str(DATA), "--work", str(tmp_path), "--rows", "16"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every comparison held." in done.stdout
    merged = re.findall(r"(\w+) merged and alone: (\d+) inputs, identical to the bit", done.stdout)
    after = re.findall(r"(\w+) before and after: (\d+) inputs, identical to the bit", done.stdout)
    assert {name for name, _ in merged} == {"intent", "slots_snips", "stsb", "mrpc", "emotion"}
    assert {name for name, _ in after} == {"intent", "stsb"}
    assert all(int(count) > 16 for _, count in merged)
    assert "mrpc: updated 1.0 → 1.1" in done.stdout
    assert "emotion: redefined 1.0 → 2.0" in done.stdout
    assert "slots_snips: removed 1.0 → None" in done.stdout


def test_the_demo_runs_to_its_end(tmp_path: Path, warm_python: Path) -> None:
    """With fewer epochs and rows than a user sees; what they are of is the demo's own."""
    corpus = tmp_path / "corpus"
    for file in (ROOT / "examples" / "assistant").glob("*/*.jsonl"):
        assert [*read_examples(file)]
        few = corpus / file.parent.name / file.name
        few.parent.mkdir(parents=True, exist_ok=True)
        few.write_text("".join(file.read_text().splitlines(keepends=True)[::3]))
    run = (
        "import sys, pathlib, cli.demo, _centra_command; "
        "cli.demo._corpus = lambda corpus=pathlib.Path(sys.argv.pop()): corpus; "
        "_centra_command.run()"
    )
    done = subprocess.run(
        [
            *(str(warm_python), "-c", run),
            *("demo", "--folder", str(tmp_path / "demo"), "--epochs", "1", str(corpus)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "published release 3",
        "  identical  emotion 1.0  sha256:",
        "  identical  slots 1.0  sha256:",
        "  identical  intent 1.1  sha256:",
        "  redefined  emotion 1.0 → 2.0",
        "  removed    slots 1.0",
        "every digest is right",
        " layer  5   ┃━●─[▒]─▶ emotion@2.0  classification, 3 labels",
    ):
        assert line in done.stdout
