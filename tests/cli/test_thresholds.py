"""``--thresholds``: a part of the module, that versions, differences, cards and answers show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.helpers import answers, centra, read, read_repeated, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def thresholds(home: Path, text: str) -> Path:
    path = home / "thresholds.toml"
    path.write_text(text)
    return path


def test_other_thresholds_are_an_update_of_the_same_weights(home: Path) -> None:
    file = thresholds(home, "rejection = 0.99")
    first, again = read_repeated("task", "update", "intent", "--thresholds", file)

    assert (first["version"], first["changed"], again["changed"]) == ("1.1", True, False)
    difference = read("task", "diff", "intent@1.0", "intent")
    assert difference["tensors_changed"] == []
    assert difference["decision"] == [{"field": "rejection", "from": None, "to": 0.99}]
    assert (first["decision"], again["decision"]) == (difference["decision"], [])
    assert (
        "decision rejection: none → 0.99" in centra("task", "diff", "intent@1.0", "intent").stdout
    )
    shown = read("task", "show", "intent@1.1")
    assert shown["card"]["rejection"] == 0.99
    # What was measured on other answers is no metric of these.
    assert shown["versions"][0]["metrics"] == {}
    assert "0.99" in centra("task", "show", "intent@1.1").stdout


def test_an_update_says_what_of_the_decision_gets_lost(
    home: Path, modules: dict[str, Path]
) -> None:
    centra("task", "update", "intent", "--thresholds", thresholds(home, "rejection = 0.99"))

    updated = centra("task", "update", "intent", modules["intent update"])

    assert "decided otherwise than before: rejection: 0.99 → none" in updated.stderr


def test_answers_are_by_the_thresholds(home: Path) -> None:
    before = answers("wake me up at seven", "--release", "1", "--task", "intent")
    assert before[0]["intent"]["label"] is not None
    centra("task", "update", "intent", "--thresholds", thresholds(home, "rejection = 0.999"))
    centra("compose", "--release")

    after = answers("wake me up at seven", "--release", "2", "--task", "intent")
    assert after[0]["intent"] == {**before[0]["intent"], "label": None}


def test_thresholds_go_with_new_weights_too(home: Path, modules: dict[str, Path]) -> None:
    centra("task", "register", "topics", modules["topics"])
    file = thresholds(home, "[threshold]\nmusic = 0.9")
    centra("task", "update", "topics", modules["no topics"], "--thresholds", file)

    (change,) = read("task", "diff", "topics@1.0", "topics")["decision"]
    assert change == {"field": "threshold", "from": 0.5, "to": [2.0, 0.9, 2.0]}


@pytest.mark.parametrize(
    ("words", "text", "code", "says"),
    [
        (("intent",), None, 2, "give FILE_OR_CHECKPOINT, or --thresholds FILE"),
        (("intent",), "threshold = 0.5", 1, "a classification task has no 'threshold'"),
        (("nobody",), "rejection = 0.5", 3, "nobody"),
        (("intent",), "reject = 0.5", 1, "expected 'threshold'"),
    ],
)
def test_thresholds_that_cannot_be_set_change_nothing(
    words: tuple[str, ...], text: str | None, code: int, says: str, home: Path
) -> None:
    given: tuple[Any, ...] = ("--thresholds", thresholds(home, text)) if text else ()
    refused("task", "update", *words, *given, code=code, says=says)
    assert read("task", "show", "intent")["current"] == "1.0"


def test_a_module_is_trained_and_distilled_with_thresholds(
    home: Path, tiny_data: Callable[[str], Path]
) -> None:
    file = thresholds(home, "rejection = 0.5")
    common = ("--task", "topic", "--backbone", "tiny", "--data", tiny_data("single"))
    quick = ("--epochs", "1", "--batch-size", "16", "--learning-rate", "3e-3")
    centra("train", *common, *quick, "--tap", "1", "--depth", "2", "--thresholds", file)
    student = ("--teacher", "topic.safetensors", "--layers", "1", "--output", "student.safetensors")
    centra("distill", *common, *quick, *student)
    other = thresholds(home, 'rejection = "none"')
    centra("distill", *common, *quick, *student[:-1], "sure.safetensors", "--thresholds", other)

    for name, rejection in (("topic", 0.5), ("student", 0.5), ("sure", None)):
        centra("task", "register", name, f"{name}.safetensors")
        shown = read("task", "show", f"{name}@1.0")
        assert shown["card"]["rejection"] == rejection
        assert shown["versions"][0]["metrics"]
