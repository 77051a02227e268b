"""Files of answers in parts: in S3, where nothing can be added to a file, and begun here or there."""

from __future__ import annotations

import hashlib
import json
from itertools import count
from typing import TYPE_CHECKING

import pytest

from centra.errors import ConflictError, DataError, UsageError, VerificationError
from centra.runtime import Release, load_release
from centra.scoring import score_files
from centra.scoring.journal import WORK_FOLDER
from centra.scoring.scorer import Scorer
from centra.store.files import LocalFolder, open_folder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.task_module import TaskModule

ROWS, CHUNK = 100, 32
TEXTS = ("wake me at seven", "play some jazz", "will it rain", "next song please")


@pytest.fixture(scope="module")
def release(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> Iterator[Release]:
    from centra.store import LocalStore

    store = LocalStore(tmp_path_factory.mktemp("store"))
    support.copy_backbone(tiny_backbone, store)
    manifest = support.put_release({"topic": make_module()}, [tiny_backbone.spec], store)
    with load_release(f"{store.root}#{manifest.digest}") as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("readers", "parquet"):
        monkeypatch.setattr(f"centra.data.{module}.CHUNK_ROWS", CHUNK)
    monkeypatch.setattr("centra.data.parquet.UNIT_ROWS", CHUNK)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with a file of each format; one row of each has no text."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    texts = [None if i == 40 else f"{TEXTS[i % 4]} {i}" for i in range(ROWS)]
    folder = tmp_path / "inputs"
    (folder / "day=1").mkdir(parents=True)
    table = pa.table({"id": [*range(ROWS)], "text": texts})
    with (folder / "a.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    csv.write_csv(table, folder / "b.csv")
    parquet.write_table(table, folder / "day=1" / "c.parquet")
    return folder


def upload(folder: Path, address: str) -> None:
    target = open_folder(address)
    for name in LocalFolder(folder).names():
        with target.replacing(name) as file:
            file.write((folder / name).read_bytes())


def below(address: str, path: str) -> str:
    place, mark, options = address.partition("?")
    return f"{place}/{path}{mark}{options}"


def contents(address: str | Path) -> dict[str, str]:
    """The digest of each file of answers."""
    folder = open_folder(address)
    digests = {}
    for name in folder.names():
        if WORK_FOLDER not in name:
            with folder.open(name) as file:
                digests[name] = hashlib.sha256(file.read()).hexdigest()
    return digests


def die_after(chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the release fail at the chunk after so many."""
    counted, answer = count(), Scorer.answer

    def failing(self, encoded):
        if next(counted) == chunks:
            raise ZeroDivisionError
        return answer(self, encoded)

    monkeypatch.setattr(Scorer, "answer", failing)


def test_files_in_a_bucket_have_the_answers_of_files_on_disk(
    release: Release, inputs: Path, tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = score_files(release, [inputs / "*.jsonl", inputs / "day=1"], tmp_path / "answers")
    upload(inputs, below(s3_url, "in"))
    places = [below(s3_url, "in/*.jsonl"), below(s3_url, "in/day=1/c.parquet")]
    with monkeypatch.context() as patch:
        die_after(2, patch)
        with pytest.raises(ZeroDivisionError):
            score_files(release, places, below(s3_url, "out"))
    assert contents(below(s3_url, "out")) == {}

    there = score_files(release, places, below(s3_url, "out"))

    assert [file.resumed for file in there] == [2 * CHUNK, 0]
    assert [file.digest for file in there] == [file.digest for file in here]
    assert [file.failed for file in there] == [1, 1]
    assert contents(below(s3_url, "out")) == contents(tmp_path / "answers")
    assert not [name for name in open_folder(below(s3_url, "out")).names() if "/parts/" in name]
    again = score_files(release, places, below(s3_url, "out"))
    assert [(file.changed, file.resumed) for file in again] == [(False, ROWS)] * 2


def test_what_is_begun_in_parts_is_ended_by_one_process(
    release: Release, inputs: Path, tmp_path: Path
) -> None:
    here = score_files(release, [inputs], tmp_path / "answers")
    begin_in_parts(release, inputs, tmp_path / "others", parts=(0, 1, 3))

    there = score_files(release, [inputs], tmp_path / "others")

    assert [file.resumed for file in there] == [2 * CHUNK] * 3
    assert [file.digest for file in there] == [file.digest for file in here]


def begin_in_parts(release: Release, inputs: Path, output: Path, *, parts: tuple[int, ...]) -> None:
    """Answer some chunks of each file, as several workers do."""
    from centra.scoring import files
    from centra.scoring.parts import Part
    from centra.scoring.plan import Question, named_columns, plan_outputs
    from centra.scoring.writers import make_writer

    scorer = Scorer(release)
    question = Question(
        release=release.digest,
        engine=release.engine,
        dtype=release.dtype,
        kinds=scorer.kinds,
        top_k=None,
        flat=False,
        columns=named_columns(None),
    )
    columns = question.answer_columns()
    for file in plan_outputs([inputs], output):
        made_from = question.made_from(file)
        assert file.parts.find(made_from) is None
        with file.source.folder.open(file.source.name) as opened:
            reader = question.open_reader(opened, file)
            writer = make_writer(reader, columns)
            file.parts.begin(made_from, reader.start, writer.head())
            for number, rows in enumerate(reader.read()):
                if number in parts:
                    answered = scorer.score(rows)
                    data = writer.encode(rows, [columns.cells(one) for one in answered])
                    part = Part(number=number + 1, end=rows.end, **files.answer_counts(answered))
                    file.parts.add(part, data)


def test_what_one_process_began_goes_on_in_parts(
    release: Release, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from centra.scoring.plan import PlannedFile

    here = score_files(release, [inputs], tmp_path / "answers")
    with monkeypatch.context() as patch:
        die_after(2, patch)
        with pytest.raises(ZeroDivisionError):
            score_files(release, [inputs], tmp_path / "others")
    monkeypatch.setattr(PlannedFile, "work", PlannedFile.parts)

    there = score_files(release, [inputs], tmp_path / "others")

    assert [file.resumed for file in there] == [2 * CHUNK, 0, 0]
    assert [file.digest for file in there] == [file.digest for file in here]


def test_an_end_that_was_cut_off_is_made_again(
    release: Release, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from centra.scoring.parts import PartFolder
    from centra.scoring.plan import PlannedFile

    here = score_files(release, [inputs], tmp_path / "answers")
    monkeypatch.setattr(PlannedFile, "work", PlannedFile.parts)
    with monkeypatch.context() as patch:
        write = PartFolder._write

        def die_at_the_end(self, journal):
            write(self, journal)
            if journal.output is not None:
                raise ZeroDivisionError

        patch.setattr(PartFolder, "_write", die_at_the_end)
        with pytest.raises(ZeroDivisionError):
            score_files(release, [inputs], tmp_path / "others")

    there = score_files(release, [inputs], tmp_path / "others")

    assert there[0].resumed == ROWS
    assert [file.digest for file in there] == [file.digest for file in here]


def test_others_files_are_not_written_over(
    release: Release, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from centra.scoring.plan import PlannedFile

    monkeypatch.setattr(PlannedFile, "work", PlannedFile.parts)
    output = tmp_path / "answers"
    output.mkdir()
    (output / "a.jsonl").write_text("mine")
    with pytest.raises(ConflictError, match="is no file that this run has made"):
        score_files(release, [inputs / "a.jsonl"], output)
    (output / "a.jsonl").unlink()
    score_files(release, [inputs / "a.jsonl"], output)
    with pytest.raises(ConflictError, match="flat was False, and is True"):
        score_files(release, [inputs / "a.jsonl"], output, flat=True)
    (output / "a.jsonl").write_text("changed")
    with pytest.raises(VerificationError, match="was changed after it was made"):
        score_files(release, [inputs / "a.jsonl"], output)


def test_a_folder_of_answers_below_that_of_the_inputs_is_none_of_them(
    release: Release, inputs: Path
) -> None:
    first = score_files(release, [inputs], inputs / "answers")

    again = score_files(release, [inputs], inputs / "answers")

    (inputs / "link").symlink_to(inputs)
    spelled = score_files(release, [inputs / "link"], inputs / "day=1" / ".." / "answers")

    for found in (again, spelled):
        assert len(found) == len(first)
        assert not any(file.changed for file in found)


@pytest.mark.parametrize("empty", ["input", "output"])
def test_an_empty_address_is_not_the_current_folder(
    release: Release, inputs: Path, empty: str
) -> None:
    addresses = {"input": str(inputs), "output": str(inputs / "answers"), empty: ""}
    with pytest.raises(UsageError, match="is empty; expected a path"):
        score_files(release, [addresses["input"]], addresses["output"])


def test_an_object_that_changes_meanwhile_is_refused(
    release: Release, inputs: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(inputs, below(s3_url, "in"))
    answer = Scorer.answer

    def changing(self, encoded):
        with open_folder(below(s3_url, "in")).replacing("a.jsonl") as file:
            file.write(b'{"text": "other"}\n')
        return answer(self, encoded)

    monkeypatch.setattr(Scorer, "answer", changing)
    with pytest.raises((ConflictError, DataError), match="while it was read"):
        score_files(release, [below(s3_url, "in/a.jsonl")], below(s3_url, "out"))
