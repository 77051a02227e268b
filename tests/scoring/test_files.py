"""Files of inputs, answered: what goes in comes out, row by row, and a kill changes nothing of it."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centra.data.readers import Rows, open_reader
from centra.errors import (
    CentraError,
    ConflictError,
    DataError,
    NotFoundError,
    StoreNotWritableError,
    UsageError,
    VerificationError,
)
from centra.runtime import Release
from centra.scoring import ScoredFile, score_files
from centra.scoring.answers import AnswerColumns
from centra.scoring.writers import make_writer
from centra.store import LocalStore
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pa = pytest.importorskip("pyarrow")
from pyarrow import fs as arrow_fs  # noqa: E402
from pyarrow import parquet  # noqa: E402

TASKS = {
    "intent": ("classification", "single"),
    "slots": ("tagging", "single"),
    "stars": ("regression", "single"),
    "topics": ("multilabel", "single"),
    "same": ("classification", "pair"),
}
WORDS = ["wake", "me", "up", "at", "seven", "and", "play", "some", "jazz", "in", "new", "york"]
TEXTS = [" ".join((WORDS * 2)[i % 11 : i % 11 + 1 + i % 7]) for i in range(40)]
SMALL = 16
"""Rows of a chunk, where a test wants several chunks."""


@pytest.fixture(scope="module")
def release(
    tiny_backbone: support.Backbone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Release]:
    """All kinds, single texts and pairs."""
    store = LocalStore(tmp_path_factory.mktemp("store"))
    support.copy_backbone(tiny_backbone, store)
    modules = {
        name: support.make_module(
            kind, tiny_backbone.spec, tiny_backbone.store, form=form, seed=seed
        )
        for seed, (name, (kind, form)) in enumerate(TASKS.items())
    }
    manifest = support.put_release(modules, [tiny_backbone.spec], store)
    with Release.load(manifest, store, engine="onnx", threads=1) as release:
        yield release


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("readers", "parquet"):
        monkeypatch.setattr(f"centra.data.{module}.CHUNK_ROWS", SMALL)
    monkeypatch.setattr("centra.data.parquet.UNIT_ROWS", SMALL // 2)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same texts in each format."""
    found = {form: tmp_path / "in" / f"calls.{form}" for form in ("jsonl", "csv", "parquet")}
    found["txt"] = tmp_path / "in" / "lines.txt"
    found["jsonl"].parent.mkdir()
    rows = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
    found["jsonl"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    found["csv"].write_text("id,text\n" + "".join(f"{r['id']},{r['text']}\n" for r in rows))
    parquet.write_table(pa.Table.from_pylist(rows), found["parquet"], row_group_size=25)
    found["txt"].write_text("\n".join(TEXTS) + "\n")
    return found


def read(output: Path | str) -> list[dict[str, Any]]:
    """The rows of a file of answers; of JSON in columns its values."""
    path = Path(output)
    match path.suffix:
        case ".jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        case ".parquet":
            rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        case suffix:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = [*csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",")]
    for row in rows:
        if row.get("answers"):
            row["answers"] = json.loads(row["answers"])
    return rows


def score(release: Release, file: Path, content: str | bytes, **options: Any) -> list[Any]:
    """Answer a file with some content; the rows of the output."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    (scored,) = score_files(release, [file], file.parent / "out", **options)
    return read(scored.output)


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def plain(answers: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(answers))


# Answers


def test_a_line_of_a_text_file_is_a_text_whatever_it_begins_with(
    release: Release, tmp_path: Path
) -> None:
    source = tmp_path / "in" / "lines.txt"
    source.parent.mkdir()
    lines = ['{"text": "wake me"}', "{rain", "[snow]"]
    source.write_text("\n".join(lines) + "\n")

    score_files(release, [source], tmp_path / "out")

    found = read(tmp_path / "out" / "lines.jsonl")
    assert [row["text"] for row in found] == lines
    assert all(row["error"] is None for row in found)


def test_each_format_has_the_answers_of_predict_and_keeps_its_columns(
    release: Release, files: dict[str, Path], tmp_path: Path, small_chunks: None
) -> None:
    expected = plain(release.predict(TEXTS))
    scored = score_files(release, [*files.values()], tmp_path / "out")
    assert [Path(file.output).name for file in scored] == [
        *("calls.jsonl", "calls.csv", "calls.parquet", "lines.jsonl")
    ]
    for file in scored:
        assert (file.rows, file.failed, file.truncated, file.resumed) == (len(TEXTS), 0, 0, 0)
        rows = read(file.output)
        assert [row["answers"] for row in rows] == expected
        assert [row["text"] for row in rows] == TEXTS
        assert {row["error"] or None for row in rows} == {None}
        if Path(file.output).stem == "calls":
            assert [int(row["id"]) for row in rows] == [*range(len(TEXTS))]
            assert [*rows[0]] == ["id", "text", "answers", "error"]


def test_inputs_are_texts_pairs_and_tokens(release: Release, tmp_path: Path) -> None:
    inputs = [
        {"text": "is there snow", "text_pair": "yes it is"},
        {"tokens": ["play", "jazz"]},
        {"text": "go", "text_pair": None},
    ]
    expected = plain([release.predict(one) for one in inputs])
    rows = score(release, tmp_path / "a.jsonl", jsonl(*inputs))
    assert [row["answers"] for row in rows] == expected
    assert rows[0]["answers"].keys() == {"same"}

    columns = {name: [one.get(name) for one in inputs] for name in ("text", "text_pair", "tokens")}
    table = io.BytesIO()
    parquet.write_table(pa.table(columns), table)
    rows = score(release, tmp_path / "a.parquet", table.getvalue())
    assert [row["answers"] for row in rows] == expected

    text = "text,text_pair,tokens\nis there snow,yes it is,1\ngo,,2\n"
    rows = score(release, tmp_path / "a.csv", text)
    assert [row["answers"] for row in rows] == [expected[0], expected[2]]


def test_columns_may_have_other_names(release: Release, tmp_path: Path) -> None:
    options: Any = {"columns": {"text": "utterance"}, "tasks": "intent"}
    expected = release.predict("go", "intent")
    rows = score(release, tmp_path / "a.jsonl", jsonl({"utterance": "go", "text": 1}), **options)
    assert rows[0]["answers"] == expected
    rows = score(release, tmp_path / "a.csv", "text,utterance\n1,go\n", **options)
    assert rows[0]["answers"] == expected
    with pytest.raises(DataError, match="has no column 'utterance'; it has id, text"):
        score(release, tmp_path / "b.csv", "id,text\n1,go\n", **options)
    with pytest.raises(UsageError, match="'words' is no field of an input"):
        score(release, tmp_path / "b.csv", "id,text\n1,go\n", columns={"words": "text"})


def test_flat_has_columns_for_each_task_with_types(
    release: Release, files: dict[str, Path], tmp_path: Path
) -> None:
    inputs = [files[form] for form in ("jsonl", "csv", "parquet")]
    scored = score_files(release, inputs, tmp_path / "out", flat=True, top_k=2)
    lines, table, typed = (read(file.output) for file in scored)
    assert [*lines[0]] == [*table[0]] == [*typed[0]]
    assert [*lines[0]][2:] == [
        *("intent.label", "intent.score", "intent.top", "same.label", "same.score", "same.top"),
        *("slots.spans", "stars.value", "topics.labels", "topics.scores", "topics.top"),
        *("truncated", "error"),
    ]
    answers = release.predict(TEXTS, top_k=2)
    for line, cells, row, answer in zip(lines, table, typed, answers, strict=True):
        assert line["intent.label"] == row["intent.label"] == cells["intent.label"]
        assert line["intent.score"] == row["intent.score"] == float(cells["intent.score"])
        assert line["intent.score"] == answer["intent"]["score"]
        assert line["stars.value"] == answer["stars"]["value"] == float(cells["stars.value"])
        labels = [found["label"] for found in answer["topics"]["labels"]]
        assert line["topics.labels"] == row["topics.labels"] == labels
        assert json.loads(cells["topics.labels"]) == labels
        assert json.loads(cells["slots.spans"]) == line["slots.spans"] == row["slots.spans"]
        assert line["slots.spans"] == plain(answer["slots"]["spans"])
        assert line["intent.top"] == plain(answer["intent"]["top"]) == json.loads(row["intent.top"])
        assert (line["same.label"], cells["same.label"], row["same.label"]) == (None, "", None)
    schema = parquet.read_schema(scored[2].output)
    assert (schema.field("id").type, schema.field("intent.score").type) == (
        pa.int64(),
        pa.float64(),
    )


def test_what_is_not_read_of_a_row_is_said(release: Release, tmp_path: Path) -> None:
    long = "go " * 100
    (tmp_path / "a.jsonl").write_text(jsonl({"text": "go"}, {"text": long}))
    (file,) = score_files(release, [tmp_path / "a.jsonl"], tmp_path / "out", tasks="intent")
    assert (file.truncated, file.failed) == (1, 0)
    cut = read(file.output)[1]["answers"]["intent"]["truncated"]
    assert cut == release.predict(long, "intent")["intent"]["truncated"]
    (file,) = score_files(
        release, [tmp_path / "a.jsonl"], tmp_path / "flat", tasks="intent", flat=True
    )
    assert [row["truncated"] for row in read(file.output)] == [None, cut["tokens"] - cut["kept"]]


# Rows that fail


def test_a_row_of_json_that_fails_says_why_and_the_others_go_on(
    release: Release, tmp_path: Path
) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "go", "n": 1.10}',
        b"",
        b'{"text": "go"',
        b"[1]",
        b'{"id": 5, "text": " "}',
        b'{"text": "go", "text": "no"}',
        b'{"text": "\xff"}',
        b'{"id": 8, "text": "go", "error": "mine"}',
        b'{"text": "go", "tokens": ["go"]}',
        b'{"id": 10, "text": "is it", "text_pair": "no"}',
        b'{"text": "go", "n": 12345678901234567890}\r',
    ]
    source = tmp_path / "a.jsonl"
    source.write_bytes(b"\n".join(lines))
    # Keys of the answers are refused where the first rows have them: these are not the first.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("centra.data.readers.CHUNK_ROWS", 4)
        (file,) = score_files(release, [source], tmp_path / "out", tasks="intent")
    rows = read(file.output)
    assert (file.rows, file.failed) == (10, 8)
    assert [(row["error"] or "").partition(" ")[0] for row in rows] == [
        *("", "a.jsonl:3:", "a.jsonl:4:", "a.jsonl:5:", "a.jsonl:6:", "a.jsonl:7:", "a.jsonl:8:"),
        *("a.jsonl:9:", "a.jsonl:10:", ""),
    ]
    for row, says in zip(
        rows[1:9],
        (
            "not JSON",
            "expected a JSON object, found '[1]'",
            "the text is empty",
            "stands twice",
            "cannot be read as UTF-8",
            "has 'error', which the answers have, too",
            "either 'text'",
            "task intent takes a single text",
        ),
        strict=True,
    ):
        assert says in row["error"]
        assert row["answers"] is None
    assert (rows[3]["id"], rows[6]["id"], rows[8]["id"]) == (5, 8, 10)
    text = Path(file.output).read_text()
    assert '"n": 1.10,' in text
    assert '"n": 12345678901234567890,' in text


def test_a_row_of_a_table_that_fails_says_why_and_the_others_go_on(
    release: Release, tmp_path: Path
) -> None:
    text = (
        "\ufeffid,text,note\r\n"
        '1,"go\nnow","a, ""b"""\r\n'
        "\r\n"
        "2,go\r\n"
        "3,go,a,b\r\n"
        '4,"go"now,c\r\n'
        '5,go,5" wide\r\n'
        '6,"open,x\r\n'
        "7,,x\r\n"
        "8,go,x\r\n"
        "9,g\ro,x"
    )
    rows = score(release, tmp_path / "a.csv", text, tasks="intent")
    assert [row["id"] for row in rows] == [*"123456789"]
    assert [row["id"] for row in rows if row["answers"]] == [*"158"]
    errors = [row["error"] for row in rows if row["error"]]
    assert [error.partition(" ")[0] for error in errors] == [
        *("a.csv:5:", "a.csv:6:", "a.csv:7:", "a.csv:9:", "a.csv:10:", "a.csv:12:")
    ]
    for error, says in zip(
        errors,
        ("has 2 cells", "has 4 cells", "not CSV", "not CSV", "has no text", "not CSV"),
        strict=True,
    ):
        assert says in error
    written = (tmp_path / "out" / "a.csv").read_bytes()
    assert written.startswith("\ufeffid,text,note,answers,error\r\n".encode())
    assert b'1,"go\nnow","a, ""b""",' in written, "byte for byte"


def test_a_row_of_parquet_that_fails_says_why(release: Release, tmp_path: Path) -> None:
    table = io.BytesIO()
    parquet.write_table(pa.table({"text": ["go", None, ""], "n": [1, 2, 3]}), table)
    rows = score(release, tmp_path / "a.parquet", table.getvalue())
    assert [row["error"] for row in rows] == [
        None,
        "a.parquet: row 2: has no text",
        "a.parquet: row 3: the text is empty",
    ]
    assert [row["n"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["string", "large_string", "tokens"])
def test_a_row_of_parquet_that_is_no_utf_8_costs_itself(
    release: Release, tmp_path: Path, kind: str
) -> None:
    large = kind == "large_string"
    broken = pa.array([b"go", b"\xff", b"go"], pa.large_binary() if large else pa.binary())
    texts = pa.Array.from_buffers(pa.large_string() if large else pa.string(), 3, broken.buffers())
    if kind == "tokens":
        texts = pa.ListArray.from_arrays([0, 1, 2, 3], texts)
    table = pa.table({"tokens" if kind == "tokens" else "text": texts})
    parquet.write_table(table, tmp_path / "a.parquet")
    (scored,) = score_files(release, [tmp_path / "a.parquet"], tmp_path / "out", tasks="intent")
    assert parquet.read_table(scored.output)["error"].to_pylist() == [
        None,
        "a.parquet: row 2: cannot be read as UTF-8 text",
        None,
    ]


def test_parquet_that_is_damaged_or_ambiguous_is_refused(release: Release, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table([["go"], ["up"]], names=["text", "text"]), file)
    with pytest.raises(DataError, match="two columns 'text'"):
        score_files(release, [file], tmp_path / "out")
    parquet.write_table(pa.table({"text": ["go"], "note": [1]}), file, store_schema=False)
    file.write_bytes(file.read_bytes().replace(b"note", b"n\xffte"))
    with pytest.raises(DataError, match="is no Parquet file"):
        score_files(release, [file], tmp_path / "out")


def test_a_line_that_is_too_long_is_an_error_of_its_row(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("lines", "csv_rows"):
        monkeypatch.setattr(f"centra.data.{module}.LARGEST_ROW", 1000)
    rows = score(
        release, tmp_path / "a.jsonl", jsonl({"text": "go"}, {"text": "x" * 5000}, {"text": "go"})
    )
    assert [row["error"] for row in rows] == [None, "a.jsonl:2: is longer than 1,000 bytes", None]
    rows = score(release, tmp_path / "a.csv", f"id,text\n1,{'x' * 5000}\n2,go\n")
    assert [bool(row["error"]) for row in rows] == [True, False]
    # A quotation mark that nothing closes takes no other row with it.
    rows = score(release, tmp_path / "b.csv", 'id,text\n1,"x\n' + "2,go\n" * 500)
    assert (len(rows), [row["id"] for row in rows if row["error"]]) == (501, ["1"])


@settings(max_examples=30)
@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), min_size=2, max_size=2
        )
    ),
    st.sampled_from([",", ";", "\t"]),
)
def test_cells_of_a_table_stay_what_they_are(table: list[list[str]], delimiter: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([["text", "other"], *table])
    columns = AnswerColumns({"intent": "classification"})
    reader = open_reader(io.BytesIO(text.getvalue().encode()), "csv", "a.csv")
    maker = make_writer(reader, columns)
    written = maker.head() + b"".join(
        maker.encode(rows, [columns.cells("an, error")] * len(rows)) for rows in reader.read()
    )
    rows = [*csv.reader(io.StringIO(written.decode(), newline=""), delimiter=delimiter)]
    assert rows[1:] == [[*row, "", "an, error"] for row in table]


def test_a_file_of_any_encoding_is_answered(release: Release, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text;id\nröd;1\nblå;2\n".encode("utf-16"))
    (tmp_path / "b.csv").write_bytes("text;id\nröd;1\nblå;2\n".encode("latin-1"))
    score_files(release, [tmp_path / "a.csv"], tmp_path / "out", tasks="stars")
    score_files(release, [tmp_path / "b.csv"], tmp_path / "out", tasks="stars", encoding="latin-1")
    written = (tmp_path / "out" / "a.csv").read_text("utf-8")
    assert [row.split(";")[:2] for row in written.splitlines()[1:]] == [["röd", "1"], ["blå", "2"]]
    assert (tmp_path / "out" / "b.csv").read_text("utf-8") == written


def test_json_and_conll_are_answered_as_json_lines(release: Release, tmp_path: Path) -> None:
    rows = [{"id": 1, "text": "go"}, {"id": 2, "text": ""}, {"id": 3, "text": "left"}]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "b.conll").write_text("go O\nleft B-X\n\nright O\n")
    found = score_files(
        release, [tmp_path / "a.json", tmp_path / "b.conll"], tmp_path / "out", tasks="stars"
    )
    assert [(Path(one.output).name, one.rows, one.failed) for one in found] == [
        ("a.jsonl", 3, 1),
        ("b.jsonl", 2, 0),
    ]
    written = [json.loads(line) for line in (tmp_path / "out" / "a.jsonl").read_text().splitlines()]
    assert [row["id"] for row in written] == [1, 2, 3]
    assert written[1]["error"] == "a.json:6: the text is empty"
    tagged = [json.loads(line) for line in (tmp_path / "out" / "b.jsonl").read_text().splitlines()]
    assert [row["tokens"] for row in tagged] == [["go", "left"], ["right"]]


def test_what_datasets_saved_is_answered_into_parquet(
    release: Release, tmp_path: Path, small_chunks: None
) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict(
        {"text": TEXTS, "label": [i % 2 for i in range(len(TEXTS))]},
        features=datasets.Features(
            text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
        ),
    )
    saved = tmp_path / "saved"
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(
        str(saved), num_shards={"train": 2, "test": 1}
    )
    (saved / "train" / "cache-0123456789abcdef.arrow").write_bytes(b"what a map left")
    scored = score_files(release, [saved], tmp_path / "out", tasks="stars")
    assert [Path(one.output).relative_to(tmp_path / "out").as_posix() for one in scored] == [
        "test/data-00000-of-00001.parquet",
        "train/data-00000-of-00002.parquet",
        "train/data-00001-of-00002.parquet",
    ]
    assert [one.rows for one in scored] == [40, 20, 20]
    expected = plain(release.predict(TEXTS, "stars"))
    assert [row["answers"] for row in read(scored[0].output)] == expected
    again = datasets.load_dataset(
        "parquet", data_files=scored[0].output, cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert again[1]["label"] == 1
    assert json.loads(again[1]["answers"]) == expected[1]
    # And what is stopped goes on.
    source = saved / "test" / "data-00000-of-00001.arrow"
    (whole,) = score_files(release, [source], tmp_path / "whole")
    stopped(release, source, tmp_path / "stopped")
    (file,) = score_files(release, [source], tmp_path / "stopped")
    assert file.resumed
    assert file.digest == whole.digest


def test_a_file_of_arrow_is_answered(release: Release, tmp_path: Path) -> None:
    table = pa.table({"text": TEXTS})
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as to,
    ):
        to.write_table(table, max_chunksize=7)
    (scored,) = score_files(release, [tmp_path / "a.arrow"], tmp_path / "out", tasks="stars")
    assert [row["text"] for row in read(scored.output)] == TEXTS
    (tmp_path / "b.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-40])
    with pytest.raises(DataError, match=r"b\.arrow: is no Arrow file"):
        score_files(release, [tmp_path / "b.arrow"], tmp_path / "out")


# Files that are refused


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xml", "{}", "the suffix .xml stands for no format that is read"),
        ("a.json", "[", "not JSON"),
        ("a.conll", "go\n", "a.conll:1: has one column; expected a token and its tag a line"),
        ("a.jsonl.gz", "{}", "compressed; unpack it first"),
        ("a", "{}", "has no suffix"),
        ("a.jsonl", b"\xff\xfe{\0}\0\0", "a.jsonl:1: column 3 cannot be read as UTF-8 text"),
        ("a.csv", "text\ngo\n".encode("utf-16-le"), "NUL characters, as UTF-16"),
        ("a.csv", b"PK\x03\x04rest", "a zip archive, or a spreadsheet"),
        ("a.csv", "", "expected the names of the columns"),
        ("a.csv", "id,words\n1,go\n", "has no column 'text'; it has id, words"),
        ("a.csv", "id,tokens\n1,go\n", "has no column 'text'"),
        ("a.csv", "text,text\n1,go\n", "two columns 'text'"),
        ("a.csv", 'text,"no\nte"\ngo,1\n', "expected the names of the columns, on one line"),
        ("a.csv", "id,text\r1,go\r", "expected the names of the columns, on one line"),
        ("a.csv", "text,answers\n1,go\n", "has a column 'answers', which the answers have, too"),
        ("a.jsonl", jsonl({"id": 1}), "has no column 'text', nor 'tokens'; it has id"),
        ("a.jsonl", jsonl({"text": "a", "error": 1}), "has a column 'error'"),
        ("a.parquet", "text\n", "is no Parquet file"),
    ],
)
def test_a_file_is_refused_before_anything_is_computed(
    release: Release,
    files: dict[str, Path],
    tmp_path: Path,
    name: str,
    content: str | bytes,
    says: str,
) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CentraError) as refused:
        score_files(release, [files["txt"], tmp_path / name], tmp_path / "out")
    assert says in str(refused.value)
    assert name in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_parquet_needs_columns_of_texts(release: Release, tmp_path: Path) -> None:
    for column, says in (
        (pa.array([1]), "column 'text' is int64; expected strings"),
        (pa.array([["go"]]), "column 'text' is list<"),
    ):
        parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=says):
            score_files(release, [tmp_path / "a.parquet"], tmp_path / "out")


def test_outputs_take_no_files_place(
    release: Release, files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (tmp_path / "lines.jsonl").write_text(jsonl({"text": "go"}))
    with pytest.raises(ConflictError, match="would be the output of 2 inputs"):
        score_files(release, [files["txt"], tmp_path / "lines.jsonl"], out)
    with pytest.raises(ConflictError, match="its output would take its place"):
        score_files(release, [files["csv"]], files["csv"].parent)
    out.mkdir()
    (out / "calls.csv").write_text("mine")
    with pytest.raises(ConflictError, match="exists, and is no file that this run has made"):
        score_files(release, [files["csv"]], out)
    assert (out / "calls.csv").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file; expected a folder"):
        score_files(release, [files["csv"]], files["txt"])
    with pytest.raises(NotFoundError, match="there is no such file"):
        score_files(release, [tmp_path / "none.csv"], tmp_path / "other")


# Going on


def test_what_is_done_is_not_done_again(
    release: Release, files: dict[str, Path], tmp_path: Path
) -> None:
    inputs, out = [*files.values()], tmp_path / "out"
    first = score_files(release, inputs, out)
    before = {file.output: (Path(file.output).stat().st_mtime_ns, file.digest) for file in first}
    again = score_files(release, inputs, out)
    assert [(file.changed, file.resumed) for file in first] == [(True, 0)] * 4
    assert [(file.changed, file.resumed) for file in again] == [(False, len(TEXTS))] * 4
    assert before == {
        file.output: (Path(file.output).stat().st_mtime_ns, file.digest) for file in again
    }
    # What was taken away is wanted again.
    Path(first[2].output).unlink()
    (made,) = score_files(release, inputs[2:3], out)
    assert (made.changed, made.digest) == (True, first[2].digest)
    # And what was changed is nobody's to write over.
    Path(first[0].output).write_text("mine")
    with pytest.raises(VerificationError, match="was changed after it was made"):
        score_files(release, inputs, out)


@pytest.mark.parametrize("finished", [False, True])
def test_another_input_release_or_option_is_refused(
    release: Release,
    files: dict[str, Path],
    tmp_path: Path,
    small_chunks: None,
    finished: bool,
) -> None:
    out, source = tmp_path / "out", files["jsonl"]
    if finished:
        score_files(release, [source], out)
    else:
        stopped(release, source, out)
    for options, says in (
        ({"flat": True}, "flat was False, and is True"),
        ({"top_k": 2}, "top k was none, and is 2"),
        ({"tasks": ["stars", "intent"]}, "and is intent, stars"),
        ({"columns": {"tokens": "id"}}, "tokens=id"),
    ):
        with pytest.raises(ConflictError, match="from something else") as refused:
            score_files(release, [source], out, **options)  # type: ignore[arg-type]
        assert says in str(refused.value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Release, "digest", "0" * 64)
        with pytest.raises(ConflictError, match=r"release was .*, and is 0000"):
            score_files(release, [source], out)
    with source.open("a") as file:
        file.write(jsonl({"text": "go"}))
    with pytest.raises(ConflictError, match="the input had another content") as refused:
        score_files(release, [source], out)
    assert f"remove {refused_path(refused.value)}" in str(refused.value)


def refused_path(error: CentraError) -> str:
    target = Path(error.data["path"])
    return str(target if target.exists() else target.parent / ".centra-scoring" / target.name)


def stopped(release: Release, source: Path, out: Path) -> None:
    """Score a file until the disk is full, after its first chunk."""
    calls = 0

    def full(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 9:
            raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreNotWritableError, match=r"cannot write .*No space left"):
            score_files(release, [source], out)
    assert not (out / source.name).exists()


def test_a_disk_that_was_full_is_gone_on_with(
    release: Release, files: dict[str, Path], tmp_path: Path, small_chunks: None
) -> None:
    for source in files.values():
        (whole,) = score_files(release, [source], tmp_path / "whole")
        if source.suffix != ".txt":
            stopped(release, source, tmp_path / "out")
        (again,) = score_files(release, [source], tmp_path / "out")
        assert Path(again.output).read_bytes() == Path(whole.output).read_bytes()
        assert source.suffix == ".txt" or 0 < again.resumed < len(TEXTS)


def test_rows_so_far_that_were_changed_are_refused(
    release: Release, files: dict[str, Path], tmp_path: Path, small_chunks: None
) -> None:
    stopped(release, files["jsonl"], tmp_path / "out")
    (rows,) = (tmp_path / "out").rglob("rows")
    rows.write_bytes(b"x" + rows.read_bytes()[1:])
    with pytest.raises(VerificationError, match="is not what was written there"):
        score_files(release, [files["jsonl"]], tmp_path / "out")


def test_an_input_that_changes_meanwhile_is_refused(
    release: Release, files: dict[str, Path], tmp_path: Path
) -> None:
    def change(*_: object) -> None:
        files["csv"].write_text("id,text\n1,go\n")

    with pytest.raises(ConflictError, match="has changed while it was read"):
        score_files(release, [files["csv"]], tmp_path / "out", progress=change)
    assert not (tmp_path / "out" / "calls.csv").exists()


CALLS = ("fsync", "replace", "rename", "unlink")
"""What a file of answers goes through on its way."""


@pytest.mark.parametrize(("form", "step"), [("jsonl", 1), ("parquet", 3)])
def test_killed_at_any_call_it_goes_on_to_the_same_bytes(
    release: Release,
    files: dict[str, Path],
    tmp_path: Path,
    small_chunks: None,
    form: str,
    step: int,
) -> None:
    source = files[form]

    def work(out: Path) -> ScoredFile:
        (file,) = score_files(release, [source], out, tasks="intent")
        return file

    expected = Path(work(tmp_path / "whole").output).read_bytes()
    resumed = set()
    for call in range(1, 200, step):
        out = tmp_path / f"out-{call}"
        if not killed(lambda out=out: work(out), at=call):  # type: ignore[misc]
            break
        # What no call had synced may be anything after a power cut.
        for rows in [] if out in ended(out) else out.rglob("rows"):
            with rows.open("ab") as file:
                file.write(b"\0half a row")
        again = work(out)
        assert Path(again.output).read_bytes() == expected, call
        assert {path.name for path in out.iterdir()} == {".centra-scoring", source.name}
        kept = {path.name for path in (out / ".centra-scoring" / source.name).iterdir()}
        assert {name for name in kept if not name.startswith(".journal")} == {"journal.json"}
        resumed.add(again.resumed)
    else:
        pytest.fail("it never came to its end")
    assert call > 30
    assert len(resumed) > 3


def ended(out: Path) -> list[Path]:
    """The folder, where all of its file is there, be it in its place or not."""
    journals = [json.loads(path.read_text()) for path in out.rglob("journal.json")]
    return [out for journal in journals if journal["output"]]


def killed(work: Callable[[], object], at: int) -> bool:
    """Do something in a process that is killed before one of its calls; whether it came to that."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return call

        try:
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def test_two_processes_do_not_write_one_file(
    release: Release, files: dict[str, Path], tmp_path: Path
) -> None:
    refusals = []

    def other(*_: object) -> None:
        with pytest.raises(ConflictError, match="another process is writing it") as refused:
            score_files(release, [files["csv"]], tmp_path / "out")
        refusals.append(refused)

    score_files(release, [files["csv"]], tmp_path / "out", progress=other)
    assert refusals


# Size and speed


def test_memory_is_that_of_a_few_chunks(
    release: Release, tmp_path: Path, small_chunks: None
) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl(*({"text": "go"} for _ in range(SMALL * 12))))
    alive = []
    gc.collect()  # What tests before this one left.

    def count(*_: object) -> None:
        gc.collect()  # The suite collects cycles more seldom than Python itself does.
        alive.append(sum(isinstance(thing, Rows) for thing in gc.get_objects()))

    score_files(release, [tmp_path / "a.jsonl"], tmp_path / "out", tasks="stars", progress=count)
    assert len(alive) > 12
    assert max(alive) <= 4


def test_progress_tells_of_bytes_and_rows(
    release: Release, files: dict[str, Path], tmp_path: Path, small_chunks: None
) -> None:
    for source in files.values():
        told: list[tuple[str, int, int]] = []

        def tell(*report: Any, told: list[Any] = told) -> None:
            told.append(report)

        score_files(release, [source], tmp_path / "out", tasks="stars", progress=tell)
        size = source.stat().st_size
        assert told[-1][0].startswith(f"{source.name}: 40 rows, ")
        assert told[-1][1:] == (size, size)
        assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_reader_takes_files_of_pyarrows_file_systems(
    files: dict[str, Path], small_chunks: None
) -> None:
    local = arrow_fs.LocalFileSystem()
    for form in ("jsonl", "csv", "parquet", "txt"):
        reader = open_reader(local.open_input_file(str(files[form])), form, "a")  # type: ignore[arg-type]
        chunks = [*reader.read()]
        inputs = [one for rows in chunks for one in rows.inputs]
        assert [one.text for one in inputs if not isinstance(one, str)] == TEXTS
        # From the end of a chunk the same ones follow.
        later = [*reader.read(chunks[1].end)]
        assert [rows.end for rows in later] == [rows.end for rows in chunks[2:]]


def test_an_empty_file_has_an_empty_output(release: Release, tmp_path: Path) -> None:
    empty = io.BytesIO()
    parquet.write_table(pa.table({"text": pa.array([], pa.string())}), empty)
    for name, content in (("a.jsonl", ""), ("a.csv", "text\n"), ("a.parquet", empty.getvalue())):
        assert score(release, tmp_path / name, content) == []


def test_a_scored_file_says_what_it_is(
    release: Release, files: dict[str, Path], tmp_path: Path
) -> None:
    (scored,) = score_files(release, [str(files["csv"])], str(tmp_path / "out"))
    assert isinstance(scored, ScoredFile)
    assert scored.size == Path(scored.output).stat().st_size
    assert scored.input == str(files["csv"])
