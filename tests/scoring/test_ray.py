"""Files scored by a Ray cluster: the bytes of one process, whatever is killed on the way."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from centra.data.readers import Position, Rows
from centra.errors import BlobNotFoundError, CentraError, DataError, NotFoundError, UsageError
from centra.runtime import load_release
from centra.scoring import score_files
from centra.scoring.journal import WORK_FOLDER
from centra.scoring.plan import Question, named_columns
from centra.scoring.ray_engine import WorkerSize, score_files_on_ray
from centra.scoring.ray_workers import Answerer, Loading, packed, unpacked
from centra.store import LocalStore
from centra.store.files import open_folder
from centra.system.ray import connect_to_ray
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.formats.task_module import TaskModule

pytest.importorskip("ray")

ROWS = {"calls.jsonl": 7000, "mails.csv": 7000, "notes.parquet": 6000}
TEXTS = ("wake me at seven", "play some jazz", "will it rain", "next song please")

_KILLED = """
from __future__ import annotations
import os, signal, sys
from pathlib import Path
from centra.scoring.ray_engine import score_files_on_ray

DESCENDANTS

def kill(what, done, total):
    for process in [*descendants(os.getpid()), os.getpid()]:
        os.kill(process, signal.SIGKILL)

if __name__ == "__main__":
    score_files_on_ray(sys.argv[1], [sys.argv[2]], sys.argv[3], progress=kill)
"""
"""A driver that kills its cluster and itself when the first chunk is answered."""


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has just ended.
        parents.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def answerers() -> list[int]:
    """The processes that answer."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"Answerer" in command.read_bytes():
                found.append(int(command.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> str:
    """A release in a store, for all processes."""
    store = LocalStore(tmp_path_factory.mktemp("store"))
    support.copy_backbone(tiny_backbone, store)
    modules = {"topic": make_module(), "cities": make_module("tagging", tap=2, depth=0)}
    manifest = support.put_release(modules, [tiny_backbone.spec], store)
    return f"{store.root}#{manifest.digest}"


@pytest.fixture
def cluster(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of its own settings
        connect_to_ray()


def write_inputs(folder: Path, rows: dict[str, int]) -> Path:
    """Files of so many rows; each hundredth has no text."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    folder.mkdir()
    for name, count in rows.items():
        texts = [f"{TEXTS[i % 4]} {i % 50}" if i % 100 else None for i in range(count)]
        table = pa.table({"id": [*range(count)], "text": texts})
        match Path(name).suffix:
            case ".jsonl":
                lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
                (folder / name).write_text(lines)
            case ".csv":
                csv.write_csv(table, folder / name)
            case _:
                parquet.write_table(table, folder / name)
    return folder


def answered_rows(output: Path) -> int:
    """The rows of all parts that are there whole."""
    return sum(int(part.name.split("-")[3]) for part in output.glob(f"{WORK_FOLDER}/*/parts/[!.]*"))


def begun_often(times: int, source: str) -> dict[str, object]:
    """What a worker says of a chunk that was begun so many times."""
    import ray

    start = Position(offset=0, line=0)
    rows = Rows(inputs=["?"], places=["calls.jsonl:1"], given=[b"{}"], end=start, bytes_read=2)
    begin = SimpleNamespace(remote=lambda file, number: ray.put(times))
    question = Question(
        release="",
        engine="onnx",
        dtype=None,
        kinds={},
        top_k=None,
        flat=False,
        columns=named_columns(None),
    )
    loading = Loading(source=source, tasks=None, engine="onnx", threads=1, device="cpu", dtype=None)
    row = {"file": 0, "number": 1, "read": 0, "chunk": packed((("", ""), None, rows))}
    return Answerer(loading, question, SimpleNamespace(begin=begin))(row)


def test_a_run_that_is_killed_ends_with_the_bytes_of_one_process(
    source: str, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, output = write_inputs(tmp_path / "inputs", ROWS), tmp_path / "answers"
    with load_release(source) as release:
        alone = score_files(release, [inputs], tmp_path / "alone")
    script = _KILLED.replace("DESCENDANTS", inspect.getsource(descendants))
    # It starts a cluster of its own.
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    killed = subprocess.run(
        [sys.executable, "-c", script, source, inputs, output], check=False, env=own
    )
    assert killed.returncode == -signal.SIGKILL
    before = answered_rows(output)
    assert 0 < before < sum(ROWS.values())
    lost: list[int] = []

    def kill_a_worker(what: str, done: int, total: int) -> None:
        if not lost:
            lost.append(answerers()[0])
            os.kill(lost[0], signal.SIGKILL)

    monkeypatch.setattr("centra.scoring.ray_engine._WORTH_A_WORKER", 2**18)  # Two, and not one.
    scored = score_files_on_ray(source, [inputs], output, progress=kill_a_worker)

    assert lost
    assert sum(file.resumed for file in scored) == before
    assert [file.rows for file in scored] == [*ROWS.values()]
    assert [file.failed for file in scored] == [70, 70, 60]
    assert [file.digest for file in scored] == [file.digest for file in alone]
    for name in ROWS:
        assert (output / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert not [*output.glob(f"{WORK_FOLDER}/*/parts")]
    again = score_files_on_ray(source, [inputs], output)
    assert not any(file.changed for file in again)


def test_files_in_a_bucket_are_scored_into_it(
    source: str, ray_with_s3: str, cluster: None, s3_url: str, tmp_path: Path
) -> None:
    inputs = write_inputs(tmp_path / "inputs", {"calls.jsonl": 10, "notes.parquet": 10})
    bucket = open_folder(s3_url)
    for path in inputs.iterdir():
        with bucket.replacing(f"in/{path.name}") as file:
            file.write(path.read_bytes())
    with load_release(source) as release:
        alone = score_files(release, [inputs], tmp_path / "alone", flat=True)
    place, _, options = s3_url.partition("?")

    scored = score_files_on_ray(
        source, [f"{place}/in/*?{options}"], f"{place}/out?{options}", flat=True
    )

    assert [file.output for file in scored] == [
        f"{place}/out/calls.jsonl",
        f"{place}/out/notes.parquet",
    ]
    for file in alone:
        name = Path(file.output).name
        with bucket.open(f"out/{name}") as answers:
            assert answers.read() == Path(file.output).read_bytes()


def test_what_cannot_be_done_is_refused_with_its_reason(
    source: str, cluster: None, tmp_path: Path
) -> None:
    inputs = write_inputs(tmp_path / "inputs", {"calls.jsonl": 10})
    store, _, digest = source.partition("#")
    shutil.copytree(store, tmp_path / "store")
    broken = LocalStore(tmp_path / "store")
    for blob in [*broken.blobs()]:
        if blob.digest != digest:
            broken.remove(blob.digest)
    address = f"{tmp_path / 'store'}#{digest}"

    with pytest.raises(BlobNotFoundError, match="is missing from"):
        score_files_on_ray(address, [inputs], tmp_path / "answers")
    with pytest.raises(NotFoundError, match="no task 'mood'"):
        score_files_on_ray(source, [inputs], tmp_path / "answers", tasks="mood")
    with pytest.raises(UsageError, match="is to have 1000 of CPU, and the cluster has"):
        score_files_on_ray(source, [inputs], tmp_path / "answers", worker=WorkerSize(cpus=1000))
    # A chunk whose worker was ended again and again.
    with pytest.raises(CentraError, match=r"from calls\.jsonl:1 on were begun 5 times"):
        unpacked(begun_often(5, source)["result"])
    (inputs / "calls.jsonl").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="is compressed by gzip"):
        score_files_on_ray(source, [inputs], tmp_path / "others")
