"""``task diff --data`` and ``task calibrate``: what two versions answer, and scores that are as they say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.helpers import (
    TEXTS,
    answers,
    centra,
    nearly_right_rows,
    read,
    read_repeated,
    refused,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def rows(home: Path) -> Path:
    return nearly_right_rows(home / "rows.jsonl")


def test_versions_are_compared_row_by_row(home: Path, rows: Path, modules: dict[str, Path]) -> None:
    centra("task", "update", "intent", modules["intent update"])
    words = ("task", "diff", "intent@1.0", "intent", "--data", rows)
    found = read(*words)["comparison"]

    loaded = [
        {text: label["intent"]["label"] for text, label in zip(TEXTS, said, strict=True)}
        for said in (self_answers(version) for version in ("1.0", "1.1"))
    ]
    differs = [text for text in TEXTS if loaded[0][text] != loaded[1][text]]
    assert [row["text"] for row in found["changed"]] == differs
    wanted = {row["text"]: row["label"] for row in map(json.loads, rows.read_text().splitlines())}
    for row in found["changed"]:
        right = loaded[0][row["text"]], loaded[1][row["text"]]
        before, after = (label == wanted[row["text"]] for label in right)
        assert row["change"] == ("other" if before == after else "won" if after else "lost")
    won, lost = (sum(r["change"] == c for r in found["changed"]) for c in ("won", "lost"))
    assert (found["test"]["won"], found["test"]["lost"]) == (won, lost)
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["after"] - accuracy["before"] == pytest.approx((won - lost) / len(TEXTS))
    assert accuracy["low"] <= accuracy["after"] - accuracy["before"] <= accuracy["high"]
    assert f"{len(differs)} of 6 rows are answered differently" in centra(*words).stdout
    # Without data nothing is asked.
    assert read(*words[:4])["comparison"] is None
    same = read("task", "diff", "intent@1.1", "intent", "--data", rows)["comparison"]
    assert (same["changed"], same["test"]["p_value"]) == ([], 1.0)
    assert not any(change["significant"] for change in same["metrics"].values())


def self_answers(version: str) -> list[dict[str, dict[str, str]]]:
    """What a version answers in a release of its own."""
    centra("task", "pin", f"intent@{version}")
    centra("compose", "--release")
    return [answers(text, "--release", "latest", "--task", "intent")[0] for text in TEXTS]


def test_calibrating_is_an_update_that_answers_the_same_labels(home: Path, rows: Path) -> None:
    first, again = read_repeated("task", "calibrate", "intent", "--data", rows)

    assert (first["change"]["version"], again["change"]) == ("1.1", None)
    assert (first["temperature"] != 1, again["temperature"]) == (True, 1.0)
    assert again["error_before"] == pytest.approx(first["error_after"], abs=1e-4)
    difference = read("task", "diff", "intent@1.0", "intent", "--data", rows)
    assert difference["comparison"]["changed"] == []
    assert difference["tensors_changed"] == ["head.out.bias", "head.out.weight", "probe.logits"]
    training = read("task", "show", "intent@1.1")["card"]["training"]
    assert training["calibration"]["temperature"] == first["temperature"]
    centra("compose", "--release")
    centra("release", "verify", "latest")


def test_a_table_is_measured_compared_and_calibrated_on_as_its_rows_are(
    home: Path, rows: Path
) -> None:
    table = home / "rows.tsv"
    found = map(json.loads, rows.read_text().splitlines())
    lines = [f"{row['label']}\t{row['text']}\tshop {i % 2}" for i, row in enumerate(found)]
    table.write_text("\n".join(["intent\tutterance\tsource", *lines]), encoding="utf-16")
    data = ("--data", table, "--column", "text=utterance", "--column", "label=intent")
    evaluate = ("release", "evaluate", "1", "--task", "intent")
    first, again = read(*evaluate, "--data", rows), read(*evaluate, *data, "--slice", "source")
    assert (again["data"], again["changed"]) == (first["data"], False)
    assert [one["value"] for one in again["slices"]["source"]] == ["shop 0", "shop 1"]
    assert read("task", "calibrate", "intent", *data)["change"]["version"] == "1.1"
    diff = ("task", "diff", "intent@1.0", "intent")
    compared, other = (read(*diff, *words)["comparison"] for words in (data, ("--data", rows)))
    assert (compared["data"], compared["metrics"]) == (first["data"], other["metrics"])
    refused(*diff, "--column", "text=utterance", code=2, says="give --data, too")


def test_a_wanted_precision_sets_a_rejection(rows: Path) -> None:
    found = read("task", "calibrate", "intent", "--data", rows, "--precision", "0.2")
    (one,) = found["thresholds"]
    assert one["precision"] >= 0.2
    assert read("task", "show", "intent@1.1")["card"]["rejection"] == one["threshold"]
    again = read("task", "calibrate", "intent", "--data", rows, "--precision", "0.2")
    assert again["change"] is None


def test_a_wanted_precision_sets_a_threshold_for_each_label(
    home: Path, modules: dict[str, Path]
) -> None:
    centra("task", "register", "topics", modules["topics"])
    centra("compose", "--release")
    data = home / "topics.jsonl"
    labels = read("task", "show", "topics")["versions"][0]["labels"]
    said = [answers(text, "--release", "latest", "--task", "topics")[0]["topics"] for text in TEXTS]
    made = (
        {
            "text": text,
            "labels": [one["label"] for one in answer["labels"]] if i % 3 else labels[:1],
        }
        for i, (text, answer) in enumerate(zip(TEXTS, said, strict=True))
    )
    data.write_text("".join(json.dumps(row) + "\n" for row in made))
    words = ("task", "calibrate", "topics", "--data", data)
    plain = read(*words)
    assert (
        read("task", "diff", "topics@1.0", "topics", "--data", data)["comparison"]["changed"] == []
    )
    found = read(*words, "--precision", "0.3")
    assert [one["label"] for one in found["thresholds"]] == labels
    assert all(one["precision"] >= 0.3 for one in found["thresholds"] if one["threshold"])
    assert plain["thresholds"] == []


def test_what_cannot_be_compared_or_calibrated_is_refused(
    home: Path, rows: Path, modules: dict[str, Path]
) -> None:
    centra("task", "register", "stars", modules["stars"])
    refused("task", "calibrate", "stars", "--data", rows, code=2, says="no probabilities of labels")
    refused("task", "calibrate", "intent", "--data", "nope", code=1, says="no such file")
    words = ("task", "calibrate", "intent", "--data", rows, "--precision")
    refused(*words, "1.5", code=2, says="1.5")
    refused("task", "diff", "intent@1.0", "intent", "--data", "nope", code=1, says="no such file")
    assert read("task", "show", "intent")["current"] == "1.0"
