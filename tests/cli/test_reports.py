"""``release evaluate --report`` and ``--slice``: what a team learns of a task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.helpers import Arg, centra, read, refused

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

ROWS = [
    {"text": "wake me up at seven", "label": "alarm", "source": "web"},
    {"text": "<b>play</b> a song", "label": "music", "source": "web"},
    {"text": "will it rain", "label": "weather", "source": "phone"},
    {"text": "will it rain tomorrow in the town by the sea", "label": "alarm", "source": None},
]


@pytest.fixture
def rows(home: Path) -> Path:
    file = home / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def evaluate(rows: Path, *words: Arg) -> tuple[Arg, ...]:
    return ("release", "evaluate", "1", "--task", "intent", "--data", rows, *words)


def test_a_report_says_of_each_label_and_slice_what_was_answered(rows: Path) -> None:
    report = read(*evaluate(rows, "--slice", "length,source"))

    assert (report["changed"], report["all"]["rows"], report["examples"]) == (True, 4, 4)
    assert {one["value"]: one["rows"] for one in report["slices"]["source"]} == {
        "web": 2,
        "phone": 1,
        "-": 1,
    }
    assert [one["value"] for one in report["slices"]["length"]] == [
        "1 to 20 characters",
        "21 to 50 characters",
    ]
    wanted = {one["label"]: one["wanted"] for one in report["all"]["classes"]}
    assert sum(wanted.values()) == 4
    assert wanted["alarm"] == 2
    assert sum(pair["count"] for pair in report["confusion"]) == 4
    right = sum(pair["count"] for pair in report["confusion"] if pair["wanted"] == pair["answered"])
    assert report["all"]["metrics"]["accuracy"] == right / 4
    assert report["errors"] == len(report["worst"]) == 4 - right
    assert sum(one["count"] for one in report["all"]["calibration"]) == 4
    assert (report["all"]["kept"][0]["coverage"], report["all"]["kept"][0]["accuracy"]) == (
        1.0,
        right / 4,
    )
    # A report of what is on record measures nothing anew, and says the same.
    assert read(*evaluate(rows, "--slice", "length,source")) == report | {"changed": False}


def test_a_report_is_a_page_that_a_browser_shows(rows: Path, browser: Browser) -> None:
    centra(*evaluate(rows, "--report", rows.parent / "report.html", "--slice", "source"))
    said: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.goto((rows.parent / "report.html").as_uri())
    assert (said, page.locator("h1").inner_text()) == ([], "intent@1.0")
    assert page.get_by_role("img", name="Confusion matrix").count() == 1
    assert {"Labels", "Calibration", "Thresholds", "By source", "Worst errors"} <= {
        *page.locator("h2").all_inner_texts()
    }
    texts = page.locator("td.text").all_inner_texts()
    assert {*texts} <= {row["text"] for row in ROWS}
    page.close()


@pytest.mark.parametrize(
    ("task", "row", "heading"),
    [
        ("slots", {"tokens": ["to", "Paris"], "labels": ["O", "B-city"]}, "Labels"),
        ("topics", {"text": "a song", "labels": ["music"]}, "Calibration"),
        ("stars", {"text": "fine", "label": 3.5}, "Deviations"),
    ],
)
def test_every_kind_has_a_report(
    task: str, row: dict[str, object], heading: str, home: Path, modules: dict[str, Path]
) -> None:
    if task not in {found["task"] for found in read("task", "list")}:
        centra("task", "register", task, modules[task])
    centra("compose", "--release")
    data, page = home / "data.jsonl", home / "page.html"
    data.write_text(json.dumps(row) + "\n")
    words = ("--task", task, "--data", data, "--slice", "length", "--report", page)
    report = read("release", "evaluate", "latest", *words)
    assert f">{heading}</h2>" in page.read_text()
    # Of numbers none is quite right.
    assert ("rows with an error" in page.read_text()) == (task != "stars")
    assert report["all"]["metrics"] == report["slices"]["length"][0]["metrics"]


def test_what_cannot_be_reported_is_refused_before_anything_is_measured(rows: Path) -> None:
    refused(*evaluate(rows, "--slice", "sauce"), code=2, says="'sauce' to slice by; there are")
    refused(*evaluate(rows, "--slice", "a,,b"), code=2, says="between two commas")
    refused(*evaluate(rows, "--report", "page.pdf"), code=2, says="ends in .html")
    assert read("task", "show", "intent@1.0")["card"]["evaluations"] == []
