"""``python -m tests.torture``: what becomes of parts that hold, fail, lose or are not there."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from tests.torture import __main__ as runner
from tests.torture import losses

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the parts by functions, by their names."""
    monkeypatch.setattr(losses, "LOSSES", losses.LOSSES)
    losses.LOSSES.clear()

    def replace(**functions: Callable[[float, int], dict[str, int]]) -> None:
        module = ModuleType("tests.torture.made_up")
        module.__spec__ = pytest.__spec__  # Only that there is one.
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        made = [runner.Part(name=n, module="made_up", function=n, share=1) for n in functions]
        monkeypatch.setattr(runner, "PARTS", (*made, _MISSING))

    return replace


_MISSING = runner.Part(name="elsewhere", module="nobody_wrote_it", share=1)


def test_what_was_done_and_lost_is_written_down(
    parts: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fine(seconds: float, seed: int) -> dict[str, int]:
        return {"rounds": round(seconds), "seed": seed, "losses": 0}

    def loses(seconds: float, seed: int) -> dict[str, int]:
        losses.lose("a blob is missing", "do it again")
        return {"rounds": 1, "losses": 1}

    def fails(seconds: float, seed: int) -> dict[str, int]:
        raise AssertionError("not as it was")

    def skips(seconds: float, seed: int) -> dict[str, int]:
        pytest.skip("no servers")

    parts(fine=fine, loses=loses, fails=fails, skips=skips)
    page, data = tmp_path / "page.md", tmp_path / "data.json"
    code = runner.main(
        ["--minutes", "5", "--seed", "7", "--json", str(data), "--report", str(page)]
    )

    assert code == 1
    found = json.loads(data.read_text())
    by_name = {part["part"]: part for part in found["parts"]}
    assert by_name["fine"]["counts"] == {"rounds": 60, "seed": 7}
    assert by_name["fine"]["command"] == "python -m tests.torture --part fine --minutes 1 --seed 7"
    assert (by_name["fails"]["losses"], by_name["loses"]["losses"]) == (1, 1)
    assert by_name["skips"]["not_done"] == "no servers"
    assert by_name["elsewhere"]["not_done"] == "it did not start"
    assert [loss["repeat"] for loss in found["losses"]] == [
        "do it again",
        "python -m tests.torture --part fails --minutes 2 --seed 7",
        "python -m tests.torture --part elsewhere --minutes 5 --seed 7",
    ]
    text = page.read_text()
    assert "**Losses: 3**" in text
    assert "| fine | 0 | rounds 60; seed 7 | 0 |" in text
    assert "a blob is missing; again: `do it again`" in text
    assert "not as it was" in text
    assert "not done: no servers" in text
    assert "LOSS: a blob is missing" in capsys.readouterr().err


def test_a_run_without_losses_ends_with_0(parts: Callable[..., None], tmp_path: Path) -> None:
    parts(fine=lambda seconds, seed: {"rounds": 1})
    page = tmp_path / "page.md"
    assert runner.main(["--hours", "1", "--part", "fine", "--report", str(page)]) == 0
    assert "**Losses: none**" in page.read_text()


def test_all_parts_that_are_here_can_run() -> None:
    import importlib

    for part in runner.PARTS:
        module = importlib.import_module(f"tests.torture.{part.module}")
        assert callable(getattr(module, part.function))
