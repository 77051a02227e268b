"""``centra bench``: what it measures, as table, JSON and picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.helpers import centra, read, state

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("small_floor")

ONE = ("--batch", "1", "--length", "8", "--rounds", "1")
NUMBER = int | float


def test_json_has_the_times_of_every_size_and_of_every_part(home: Path) -> None:
    before = state(home)
    found = read("bench", "1", "--batch", "1,3", "--length", "8", "--rounds", "1", "--threads", "1")

    digest = read("release", "show", "1")["digest"]
    assert (found["digest"], found["tasks"]) == (digest, ["intent", "slots"])
    assert (found["engine"], found["threads"]) == ("onnx", 1)
    assert found["floor"].keys() == {"flops", "bandwidth"}
    for size, batch in zip(found["sizes"], (1, 3), strict=True):
        assert (size.pop("batch"), size.pop("length")) == (batch, 8)
        assert (size.pop("singles_median"), size.pop("singles_ratio")) == (None, None)
        assert size.keys() == {
            "requests",
            "median",
            "p95",
            "inputs_per_second",
            "answers_per_second",
            "floor",
            "floor_share",
        }
        assert all(isinstance(value, NUMBER) and value > 0 for value in size.values())
    parts = found["parts"]
    assert (parts["batch"], parts["length"], parts["shared"] > 0) == (1, 8, True)
    assert [(part["task"], part["tap_layer"], part["depth"]) for part in parts["tasks"]] == [
        ("intent", 1, 1),
        ("slots", 2, 1),
    ]
    assert all(part["median"] > 0 for part in parts["tasks"])
    assert state(home) == before


def test_without_a_release_production_is_timed_or_else_latest(home: Path) -> None:
    assert "taking release 1, which latest serves" in centra("bench", *ONE, "--json").stderr
    centra("promote", "1", "--to", "production")
    assert "taking release 1, which production serves" in centra("bench", *ONE, "--json").stderr


def test_the_tables_have_a_row_for_each_size_and_for_each_part(home: Path) -> None:
    result = centra("bench", "latest", *ONE, "--length", "8,9", "--singles")

    assert result.stderr.splitlines()[-1].startswith("measure (")
    blocks = [block.splitlines() for block in result.stdout.split("\n\n")]
    head, sizes, parts = blocks
    assert "2 tasks: intent, slots" in head[0]
    assert "Gflop/s" in head[1]
    assert sizes[0].split("  ")[:2] == ["BATCH", "LENGTH"]
    assert sizes[0].endswith("OF THE FLOOR  SINGLES MS  FASTER")
    assert [line.split()[:2] for line in sizes[1:3]] == [["1", "8"], ["1", "9"]]
    assert all(line.endswith(" times") for line in sizes[1:3])
    assert sizes[3].startswith("singles: a full model per task")
    assert parts[0] == "part by part, batch 1, length 8"
    assert [line.split()[0] for line in parts[1:]] == ["TASK", "(shared)", "intent", "slots"]
    assert [line.split()[1:3] for line in parts[3:]] == [["1", "1"], ["2", "1"]]


def test_in_another_precision_there_is_no_floor(home: Path) -> None:
    result = centra("bench", "1", *ONE, "--device", "cpu", "--dtype", "bf16")

    assert "torch engine, bf16 on cpu, torch's threads; 2 tasks" in result.stdout
    assert "Gflop/s" not in result.stdout
    assert result.stdout.splitlines()[3].split()[-1] == "-"


@pytest.mark.parametrize("reference", ["latest", "./out", ".centra/store#latest"])
def test_a_release_is_found_as_for_predict(home: Path, reference: str) -> None:
    centra("release", "pull", "1", "--output", "out")
    found = read("bench", reference, *ONE, "--task", "same")
    assert (found["digest"], found["tasks"]) == (read("release", "show", "1")["digest"], ["same"])


@pytest.mark.parametrize("options", [(), ("--singles",)], ids=["alone", "with singles"])
def test_a_plot_is_a_picture(home: Path, options: tuple[str, ...]) -> None:
    centra("bench", "1", *ONE, "--batch", "1,2", "--plot", "bench.png", *options)
    assert (home / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_costs_no_figures(home: Path) -> None:
    (home / "file").touch()
    result = centra("bench", "1", *ONE, "--plot", "file/bench.png", code=4)
    assert "part by part" in result.stdout
    assert "cannot write file/bench.png" in result.stderr
