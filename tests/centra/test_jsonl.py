"""Files that should be JSON lines, and what they are instead."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from centra.data.rows import PartRows, read_file
from centra.data.source import DataSource
from centra.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def read_jsonl(path: Path) -> list[tuple[str, Any]]:
    """The values of a file, with their places."""
    return PartRows.of([read_file(path, DataSource(place=path))]).rows


ROW = '{"text": "a", "label": "x"}'


@pytest.mark.parametrize("text", [f"{ROW}\n{ROW}", f"\ufeff{ROW}\r\n\r\n{ROW}\r\n"])
def test_each_line_is_a_value_with_its_place(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode())

    found = list(read_jsonl(path))

    assert [value["label"] for _, value in found] == ["x", "x"]
    assert found[0][0] == f"{path}:1"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"[{ROW}, {ROW}]", "is one JSON array of 2 items; write each on a line of its own"),
        (f"[\n{ROW},\n{ROW}\n]\n", "is one JSON array of 2 items"),
        ('{\n "text": "a",\n "label": "x"\n}\n', "is one JSON object over several lines"),
        ('{"text": "a",\n "label": "x"}\n', "is one JSON object over several lines"),
        ('{\n "text": "a"\n}\n{\n "text": "b"\n}\n', ":1: not JSON: a value goes on over several"),
        ("text,label\na,x\n", ":1: not JSON: 'text,label' looks like a table or plain text"),
        ("text\tlabel\na\tx\n", ":1: not JSON: .* looks like a table"),
        (f"{ROW}\nplain\n", ":2: not JSON: 'plain' looks like"),
        (f"{ROW}{ROW}\n", ":1: not JSON .*Extra data"),
        (f"{ROW},\n{ROW}\n", ":1: not JSON .*Extra data"),
        (gzip.compress(ROW.encode(), mtime=0), "is compressed by gzip: unpack it"),
        (b"PK\x03\x04rest", "is a zip archive, or a spreadsheet"),
        (b"PAR1rest", "is a Parquet file"),
        (ROW.encode("utf-16-le"), "holds NUL characters, as UTF-16 without a byte-order mark"),
        (b"caf\xe9", "cannot be read as UTF-8 text"),
    ],
)
def test_another_sort_of_file_is_told_what_it_is(
    content: str | bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(DataError, match=says) as caught:
        list(read_jsonl(path))

    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith("expected JSON lines: one object a line, in UTF-8")


def test_what_is_in_place_of_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(DataError, match=r"train\.jsonl: no such file; .* holds train\.json;"):
        list(read_jsonl(tmp_path / "train.jsonl"))
    with pytest.raises(DataError, match=r"no such file \(.*nowhere: there is no such folder\)"):
        list(read_jsonl(tmp_path / "nowhere" / "train.jsonl"))
    with pytest.raises(DataError, match=r"is a folder, and cannot be read"):
        list(read_jsonl(tmp_path))
