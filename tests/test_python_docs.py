"""docs/python.md as a reader follows it: every block, in its order, in one folder."""

from __future__ import annotations

import logging
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SMALLER = {"tap=4, depth=2": "tap=1, depth=2", "epochs=3": "epochs=1"}
"""What suits an encoder of three layers, and a test."""


@pytest.fixture
def folder(
    make_encoder: Callable[[str], Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Holds the files that the page takes for granted."""
    shutil.copytree(tiny_data("single"), tmp_path / "data" / "intent")
    encoder = tmp_path / "sentence-transformers" / "all-MiniLM-L6-v2"
    shutil.copytree(make_encoder("bert"), encoder)
    (tmp_path / "intent.toml").write_text(
        'task = "intent"\nbackbone = "minilm"\ndata = "data/intent"\n'
        "[search]\nlayers = [2, 2]\nlearning_rates = [3e-4]\n"
        "[distill]\nlayers = [1]\n[training]\nepochs = 1\n"
    )
    for name in ("CENTRA_DATABASE_URL", "CENTRA_STORE", "CENTRA_ACTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    logger = logging.getLogger("centra")
    level = logger.level
    yield
    logger.setLevel(level)


def test_a_reader_who_follows_it_gets_there(
    folder: Path, logging_as_before: None, capsys: pytest.CaptureFixture[str]
) -> None:
    names: list[dict[str, Any]] = []
    for block in BLOCKS:
        code = block
        for large, small in SMALLER.items():
            code = code.replace(large, small)
        names.append({})
        exec(compile(code, "docs/python.md", "exec"), names[-1])

    training, fitting, _, registering, releasing, measuring, answering, following, *_ = names
    assert training["student"].spec.depth == 1
    assert fitting["fitted"].path.is_file()
    assert registering["done"].changed
    assert releasing["production"].release == 1
    assert measuring["measured"].report.all.rows
    assert measuring["exported"].parity.keys() == {"intent"}
    assert answering["answer"].keys() == {"intent"}
    assert (following["now"].channel, following["now"].revision) == ("production", 1)
    printed = capsys.readouterr().out.splitlines()
    for line in re.findall(r"^# (\w+Error .*)$", TEXT, re.MULTILINE):
        assert line in printed


def test_every_public_name_is_shown() -> None:
    import centra

    assert [name for name in centra.__all__ if not re.search(rf"\b{name}\b", TEXT)] == []
