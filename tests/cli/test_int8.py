"""``centra compose --precision int8``, and where a precision is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.cli.helpers import answers, centra, read, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule


@pytest.fixture
def mood(home: Path, make_module: Callable[..., TaskModule]) -> Path:
    """Labelled data that ``mood`` answers rightly in fp32; release 2 holds it."""
    make_module("classification", fragile=True).write(home / "mood.safetensors")
    centra("task", "register", "mood", "mood.safetensors")
    centra("compose", "--release")
    texts = ["wake me at seven", "play some jazz", "is there snow"]
    found = [answers(text, "--task", "mood")[0] for text in texts]
    rows = [
        {"text": text, "label": answer["mood"]["label"]}
        for text, answer in zip(texts, found, strict=True)
    ]
    return support.write_jsonl(home / "mood" / "dev.jsonl", rows).parent


def test_a_table_tells_what_int8_does_to_each_task(mood: Path) -> None:
    shown = centra(
        "compose", "--precision", "int8", "--data", f"mood={mood}", "--release"
    ).stdout.splitlines()

    table = {line.split()[0]: line.split()[1:] for line in shown if line.strip()}
    assert table["TASK"] == [
        "PRECISION",
        "PROBE",
        "LOGITS",
        "DEV",
        "METRIC",
        "FP32",
        "INT8",
        "LOSS",
    ]
    for task in ("intent", "same", "slots"):
        assert table[task][:2] == ["int8", "100.0%"]
        assert table[task][3:] == ["-"] * 5
    (row,) = (line.split() for line in shown if line.startswith("mood  "))
    assert row[1:3] == ["fp32", "33.3%"]
    assert row[5:7] == ["accuracy", "1.0000"]
    (reason,) = (line for line in shown if line.startswith("mood stays in fp32: "))
    assert reason == f"mood stays in fp32: accuracy falls by {row[8]} points, and 1 are allowed"
    assert "shared layers are computed twice: for the tasks in fp32, and for those in int8" in shown
    assert "  updated    intent 1.0 → 1.0, fp32 → int8" in shown
    assert shown[-1].startswith("published release 3  sha256:")


def test_scripts_read_the_same_as_json(mood: Path) -> None:
    options = ("--precision", "int8", "--data", f"mood={mood}", "--max-loss", "100")
    found = read("compose", "--set", "mood@1.0", *options, "--release")

    assert found["precisions"] == {
        "intent": "fp32",
        "mood": "int8",
        "same": "fp32",
        "slots": "fp32",
    }
    (one,) = found["int8"]
    assert (one["task"], one["refused"], one["dev"]["metric"]) == ("mood", None, "accuracy")
    assert one["dev"]["loss"] == pytest.approx(
        100 * (one["dev"]["fp32"] - one["dev"]["int8"]), abs=1e-3
    )
    assert found["changes"] == [
        {
            "task": "mood",
            "change": "updated",
            "from": "1.0",
            "to": "1.0",
            "precision": ["fp32", "int8"],
        }
    ]
    assert read("release", "show", "latest")["precisions"] == found["precisions"]


def test_what_is_not_computed_in_int8_is_said(home: Path) -> None:
    centra("compose", "--set", "intent@1.0", "--precision", "int8", "--release")
    said = "the torch engine does not compute in int8: intent\n"
    words = ("predict", "hi", "--release", "2")
    assert said in centra(*words, "--dtype", "fp32").stderr
    assert said not in centra(*words).stderr
    lines = centra("release", "verify", "2").stdout.splitlines()
    told = [line.split()[0] for line in lines if "in float32, though it is served in int8" in line]
    assert told == ["intent"]
    assert read("release", "verify", "2")["int8"] == ["intent"]


def test_precision_is_shown_where_it_is_not_fp32(
    home: Path, tiny_data: Callable[[str], Path]
) -> None:
    before = centra("release", "show", "1").stdout
    assert "int8" not in before
    assert "int8" not in centra("task", "show", "intent@1.0").stdout
    centra("compose", "--set", "intent@1.0", "--precision", "int8", "--release")

    assert "intent@1.0  classification, 3 labels, int8" in centra("release", "show", "2").stdout
    assert "precision fp32 → int8" in centra("release", "diff", "1", "2").stdout
    assert (
        "(int8): accuracy"
        in centra(
            "release", "evaluate", "2", "--task", "intent", "--data", tiny_data("single")
        ).stdout
    )
    card = " ".join(centra("task", "show", "intent@1.0").stdout.split())
    assert "in int8 2 " in card
    assert "in release 2 (int8), " in card


def test_answers_come_in_int8_by_default(home: Path) -> None:
    (before,) = answers("wake me at seven", "--task", "intent")
    centra("compose", "--precision", "int8", "--release")
    (after,) = answers("wake me at seven", "--task", "intent")

    own, other = (found["intent"] for found in (after, before))
    assert own["label"] == other["label"]
    assert own["score"] == pytest.approx(other["score"], abs=0.01)
    assert own["score"] != other["score"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--data", "intent"), "expected TASK=DIR, not 'intent'"),
        (("--data", "a=x", "--data", "a=y"), "a is named twice"),
        (("--data", "intent=x"), "data for 'intent'"),
        (("--precision", "int4"), "'int4' is not one of 'fp32', 'int8'"),
        (("--precision", "int8", "--max-loss", "-1"), "is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused(home: Path, options: tuple[str, ...], says: str) -> None:
    refused("compose", *options, code=2, says=says)
