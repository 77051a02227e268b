"""``centra data``: what a check prints, its exit codes, and training that warns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from cli.data import places_text
from tests.cli.helpers import centra, read, refused
from tests.support import write_jsonl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROWS = [{"text": f"{what} {i}", "label": what} for what in ("go", "stop") for i in range(8)]
QUICK = ("--tap", "2", "--depth", "1", "--epochs", "1", "--feature-cache", "off")


def write(folder: Path, train: Sequence[object], dev: Sequence[object]) -> Path:
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "dev.jsonl", dev)
    return folder


def test_a_check_says_what_there_is_and_what_is_wrong(tmp_path: Path) -> None:
    bad = [{"text": "GO  1", "label": "stop"}, {"text": "", "label": "go"}]
    data = write(tmp_path / "data", [*ROWS, ROWS[0]], [*bad, {"text": "x", "label": "wait"}])
    shown = centra("data", "check", data, code=1).stdout
    for line in (
        "SPLIT  ROWS  ENCODING  WORDS: MEDIAN  95 %  LONGEST",
        "train  17    utf-8     2              2     2",
        "go     9      52.9%  0    0.0%",
        "problem  empty-text         1 row without a text",
        "problem  label-not-in-train 1 label is only in dev, and cannot be learnt: wait",
        "warning  leak               1 of 2 rows of dev are in train, too",
        f"{'':<27} {data / 'dev.jsonl'}:1",
        "problems: 2, warnings: 4",
    ):
        assert line in shown

    result = centra("data", "check", data, "--json", code=1)
    found = json.loads(result.stdout)
    assert found["rows"] == {"train": 17, "dev": 3}
    assert found["labels"][0] == {
        "label": "go",
        "counts": {"train": 9, "dev": 0},
        "only_in": "train",
    }
    assert found["truncated"] is None
    assert [group["text"] for group in found["duplicates"]] == ["go 0"]
    rows = [
        {"split": "train", "place": f"{data}/train.jsonl:2", "label": "go"},
        {"split": "dev", "place": f"{data}/dev.jsonl:1", "label": "stop"},
    ]
    assert found["leaks"] == [{"text": "go 1", "text_pair": None, "rows": rows}]
    assert found["contradictions"] == found["leaks"]


def test_lengths_are_counted_in_tokens_of_a_backbone(
    home: Path, encoder: Path, tiny_data: Callable[[str], Path]
) -> None:
    data = tiny_data("single")
    named = read("data", "check", data, "--backbone", "tiny")
    assert (named["unit"], named["max_length"], named["findings"]) == ("tokens", 64, [])
    assert read("data", "check", data, "--backbone", encoder) == named
    cut = read("data", "check", data, "--backbone", "tiny@1", "--max-length", "5")
    assert cut["max_length"] == 5
    assert cut["truncated"]["train"]["rows"] > 0
    assert cut["lengths"] == named["lengths"]
    words = read("data", "check", data)
    assert words["lengths"]["train"]["largest"] < named["lengths"]["train"]["largest"]
    refused("data", "check", data, "--backbone", "other", code=3, says="backbone")


def test_a_check_needs_no_registry_and_says_what_it_lacks(tmp_path: Path) -> None:
    data = write(tmp_path, ROWS, ROWS[:1])
    assert read("data", "check", data / "train.jsonl")["rows"] == {"train": 16}
    refused("data", "check", tmp_path / "none", code=1, says="no such file")
    says = "--max-length needs --backbone"
    refused("data", "check", data, "--max-length", "9", code=2, says=says)
    refused("data", "check", data, "--backbone", "no/where", code=2, says="there is no such folder")


def test_many_labels_are_shown_from_both_ends(tmp_path: Path) -> None:
    rows = [
        {"text": f"{i} {j}", "label": f"label-{i:02}"} for i in range(40) for j in range(60 - i)
    ]
    result = centra("data", "check", write_jsonl(tmp_path / "rows.jsonl", rows))
    shown = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("label-")]
    assert shown == [f"label-{i:02}" for i in (*range(20), *range(30, 40))]
    assert "10 labels between the commonest and the rarest are not shown" in result.stderr


def test_labels_can_be_given(tmp_path: Path) -> None:
    rows = [{"tokens": ["to", f"rome{i}"], "labels": [0, 1]} for i in range(8)]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert "the tags are numbers" in centra("data", "check", file, code=1).stdout
    found = read("data", "check", file, "--labels", "O,B-city,I-city")
    assert (found["kind"], found["labels"][0]["counts"]) == ("tagging", {"rows": 8})
    assert centra("data", "split", file, "--labels", "O,B-city", "--output", "parts")


def test_what_was_split_can_be_trained_on(home: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "mine.jsonl", ROWS)
    words = ("data", "split", file, "--output", "parts", "--dev", "0.25")
    assert centra(*words).stdout == ("parts/train.jsonl: 12 rows\nparts/dev.jsonl: 4 rows\n")
    assert read(*words)["changed"] is False
    refused(*words, "--seed", "1", code=5, says="parts/dev.jsonl holds other data")
    result = centra("train", "--task", "t", "--backbone", "tiny", "--data", "parts", *QUICK)
    assert "centra data check" not in result.stderr


def test_training_warns_shortly(home: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data", ROWS, [ROWS[0], {"text": "GO 1", "label": "stop"}])
    result = centra("train", "--task", "t", "--backbone", "tiny", "--data", data, *QUICK)
    (line,) = [line for line in result.stderr.splitlines() if "centra data check" in line]
    assert line == (
        "2 of 2 rows of dev are in train, too: what is measured on dev is partly learnt by heart "
        f"({data}/dev.jsonl:1); 1 text has different labels in different rows (2 rows) "
        f"({data}/train.jsonl:2); all of it: centra data check DIR"
    )


def test_a_page_shows_it_with_plots(home: Path, tmp_path: Path) -> None:
    hostile = {"text": "<script>alert(1)</script>", "label": "<b>go</b>"}
    data = write(tmp_path / "data", [*ROWS, hostile, ROWS[1]], [hostile, ROWS[0]])
    centra(
        "data", "check", data, "--backbone", "tiny", "--max-length", "4", "--html", "out/page.html"
    )
    page = Path("out/page.html").read_text()
    assert page.count("<svg") == 2
    assert "<script" not in page
    for part in ("&lt;script&gt;", "Texts in several splits: 2", "Repeated rows: 1", "kept: 4"):
        assert part in page
    assert "train.jsonl:17 &lt;b&gt;go&lt;/b&gt;, dev.jsonl:1" in page
    refused("data", "check", data, "--html", "page.pdf", code=2, says="ends in .html")
    numbers = [{"text": f"{i}", "label": i / 4} for i in range(8)]
    centra("data", "check", write(tmp_path / "b", numbers, numbers[:1]), "--html", "numbers.html")
    assert "largest value" in Path("numbers.html").read_text()
    empty = write(tmp_path / "c", [], [])
    centra("data", "check", empty, "--html", "empty.html", code=1)
    assert "Problems: 2" in Path("empty.html").read_text()


def test_places_of_one_file_are_shown_together() -> None:
    places = ["a/b.jsonl:1", "a/b.jsonl:7", "c.jsonl:2", "c.jsonl:3", "c.jsonl:4"]
    assert places_text(places, 4) == "a/b.jsonl:1, 7; c.jsonl:2, 3, and 1 more"
    assert places_text(places[:1], 4) == "a/b.jsonl:1"


def test_tables_are_read_as_they_are_said_to_be(tmp_path: Path) -> None:
    text = "utterance;intent\n" + "".join(f"{row['text']} ü;{row['label']}\n" for row in ROWS)
    file = tmp_path / "calls.csv"
    file.write_text(text, encoding="latin-1")
    said = ("--column", "text=utterance", "--column", "label=intent", "--encoding", "latin-1")
    found = read("data", "check", file, *said)
    assert (found["rows"], found["files"][0]["encoding"]) == ({"calls": 16}, "latin-1")
    says = "--column text=NAME"
    assert says in refused("data", "check", file, code=1, says="it has utterance, intent")
    broken = centra("data", "check", file, *said[:4], code=1).stdout
    assert "16 rows that cannot be used; the first is" in broken
    assert "say which encoding it is in" in broken
    shown = centra("data", "split", file, *said, "--output", tmp_path / "parts", "--dev", "0.25")
    assert shown.stdout.endswith("dev.jsonl: 4 rows\n")
    assert read("data", "check", tmp_path / "parts")["rows"] == {"train": 12, "dev": 4}


def test_one_file_is_not_trained_on(home: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "mine.jsonl", ROWS)
    message = refused(
        *("train", "--task", "t", "--backbone", "tiny", "--data", file, *QUICK),
        code=1,
        says="is a file; expected a folder with train.jsonl and dev.jsonl",
    )
    assert "centra data split DATA --output FOLDER" in message
