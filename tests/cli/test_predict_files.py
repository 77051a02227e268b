"""``centra predict --output``: files of answers."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.helpers import centra, refused
from tests.support import ROOT

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

CALLS = [{"id": 1, "text": "wake me at seven"}, {"id": 2, "text": "play jazz"}]


@pytest.fixture
def calls(home: Path) -> Path:
    """Two files of the same inputs."""
    (home / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CALLS))
    (home / "calls.csv").write_text(
        "id,text\n" + "".join(f"{r['id']},{r['text']}\n" for r in CALLS)
    )
    return home


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_guide_s_commands_give_what_it_says(calls: Path) -> None:
    (calls / "calls.csv").rename(calls / "chats.csv")
    table = pa.Table.from_pylist([{"utterance": row["text"], "id": row["id"]} for row in CALLS])
    parquet.write_table(table, calls / "mails.parquet")
    guide = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    section = re.findall(r"^## Scoring files$(.*?)^## ", guide, re.MULTILINE | re.DOTALL)[0]
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    for line in blocks["bash"].splitlines():
        centra(*shlex.split(line)[1:])
    shown = json.loads(blocks["json"])
    first = lines(calls / "answers" / "calls.jsonl")[0]
    assert first.keys() == shown.keys()
    assert first["answers"].keys() == shown["answers"].keys()  # type: ignore[attr-defined]
    assert first["answers"]["intent"].keys() == shown["answers"]["intent"].keys()  # type: ignore[index]
    with (calls / "flat" / "chats.csv").open() as file:
        (row, _) = csv.DictReader(file)
    for task, kind in (("intent", "classification"), ("slots", "tagging")):
        said = re.findall(rf"^\| {kind} \| (.*) \|$", section, re.MULTILINE)[0]
        columns = {name.partition(".")[2] for name in row if name.startswith(f"{task}.")}
        assert columns <= {*re.findall(r"`(\w+)`", said)}
    typed = parquet.read_table(calls / "answers" / "mails.parquet")
    assert typed.schema.names == ["utterance", "id", "answers", "error"]
    assert len(json.loads(typed["answers"][0].as_py())["intent"]["top"]) == 2


def test_files_get_answers_and_are_not_answered_twice(calls: Path) -> None:
    inputs = ("--input", "calls.jsonl", "--input", "calls.csv")
    done = centra("predict", "--release", "1", *inputs, "--output", "out")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["OUTPUT", "ROWS", "FAILED", "TRUNCATED"],
        [str(calls / "out" / "calls.jsonl"), "2", "0", "0"],
        [str(calls / "out" / "calls.csv"), "2", "0", "0"],
    ]
    assert "calls.csv: 2 rows, " in done.stderr
    printed = centra("predict", "--release", "1", "--input", "calls.jsonl", "--json").stdout
    expected = [json.loads(line) for line in printed.splitlines()]
    found = lines(calls / "out" / "calls.jsonl")
    assert [{"id": row["id"], **row["answers"]} for row in found] == expected  # type: ignore[dict-item]
    again = centra("predict", "--release", "1", *inputs, "--output", "out")
    assert again.stdout == done.stdout
    assert again.stderr.count("was done already") == 2
    message = refused(
        *("predict", "--release", "1", *inputs, "--output", "out", "--flat"),
        code=5,
        says="was made from something else: flat was False, and is True",
    )
    assert f"remove {calls / 'out' / 'calls.jsonl'}" in message


def test_progress_tells_rows_rate_and_the_time_that_is_left(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.output._SILENCE", 0)
    monkeypatch.setattr("centra.data.readers.CHUNK_ROWS", 1)
    (calls / "calls.jsonl").write_text('{"text": "play jazz"}\n' * 6)
    done = centra("predict", "--release", "1", "--input", "calls.jsonl", "--output", "out")
    told = [line for line in done.stderr.splitlines() if line.startswith("calls.jsonl: ")]
    assert len(told) > 3
    assert all(re.match(r"calls\.jsonl: \d rows, [\d,]+ a second \(\d+/132", line) for line in told)
    assert re.search(r", \d:\d\d:\d\d left\)$", told[2])


def test_flat_and_columns(calls: Path) -> None:
    (calls / "other.tsv").write_text("utterance\tn\nwake me\t1\n")
    centra(
        *("predict", "--release", "1", "--input", "other.tsv", "--output", "out", "--flat"),
        *("--column", "text=utterance", "--task", "intent"),
    )
    with (calls / "out" / "other.tsv").open() as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert [*row] == ["utterance", "n", "intent.label", "intent.score", "truncated", "error"]
    assert float(row["intent.score"]) > 0


def test_rows_that_fail_end_the_command_with_1(calls: Path) -> None:
    with (calls / "calls.jsonl").open("a") as file:
        file.write('{"id": 3, "text": ""}\n{"id": 4, "text": "' + "go " * 100 + '"}\n')
    words = ("predict", "--release", "1", "--input", "calls.jsonl", "--output", "out")
    for _ in range(2):
        ended = centra(*words, code=1)
        assert (
            "1 of 4 rows could not be answered; each says why in its column 'error'" in ended.stderr
        )
        assert "calls.jsonl: truncated: 1 of 4 rows" in ended.stderr
    (document,) = map(json.loads, centra(*words, "--json", code=1).stdout.splitlines())
    assert (document["rows"], document["failed"], document["changed"]) == (4, 1, False)
    assert lines(calls / "out" / "calls.jsonl")[2]["error"] == "calls.jsonl:3: the text is empty"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("hello --output out", "--output belongs to --input"),
        ("--input - --output out", "--output DIR needs files with names"),
        ("--input calls.csv", "--input calls.csv is a table"),
        ("--input calls.jsonl --input calls.csv", "several files of --input need --output DIR"),
        ("hello --flat", "--flat belongs to --output DIR"),
        ("hello --column text=a", "--column belongs to --output DIR"),
        ("--input calls.csv --output out --column text", "expected FIELD=NAME"),
        ("--input centra.toml --output out", "the suffix .toml stands for no format that is read"),
        ("--input none.txt", "File 'none.txt' does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_release_is_loaded(
    calls: Path, words: str, says: str
) -> None:
    refused("predict", "--release", "none", *words.split(), code=2, says=says)
    assert not (calls / "out").exists()


def test_two_files_of_one_name_are_refused_before_a_release_is_loaded(calls: Path) -> None:
    (calls / "more").mkdir()
    (calls / "more" / "calls.csv").write_text("text\ngo\n")
    words = ("--input", "calls.csv", "--input", "more/calls.csv", "--output", "out")
    refused("predict", "--release", "none", *words, code=5, says="the output of 2 inputs")


def test_a_cluster_answers_files_alone(calls: Path) -> None:
    refused("predict", "hello", "--engine", "ray", code=2, says="it needs --output DIR")
    refused(
        *("predict", "--input", "calls.csv", "--output", "out", "--worker-cpus", "2"),
        code=2,
        says="belong to --engine ray",
    )
