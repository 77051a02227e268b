"""Files in folders of this machine and under prefixes of buckets: the same for whoever uses them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from centra.errors import (
    DataError,
    InvalidNameError,
    NotFoundError,
    StoreError,
    StoreNotWritableError,
    UsageError,
)
from centra.store import files, open_path
from centra.store.files import find_files, open_folder
from tests.services import s3_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.store.files import Folder

SECRET = "AKIA-not-to-be-shown"


@pytest.fixture(params=["local", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "data") if request.param == "local" else request.getfixturevalue("s3_url")


@pytest.fixture
def folder(address: str) -> Folder:
    return open_folder(address)


def write(folder: Folder, *names: str, data: bytes = b"text") -> None:
    for name in names:
        with folder.replacing(name) as file:
            file.write(data)


def content(folder: Folder, name: str) -> bytes:
    with folder.open(name) as file:
        return file.read()


def below(address: str, path: str) -> str:
    """An address further down, whose options stay behind."""
    place, mark, options = address.partition("?")
    return f"{place}/{path}{mark}{options}"


def found(*addresses: str, suffixes: tuple[str, ...] = ("",)) -> list[str]:
    return [file.name for file in find_files(addresses, suffixes)]


def test_a_file_is_read_from_wherever_is_sought(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("centra.store.s3.path._AHEAD", 1000)
    data = os.urandom(5000)
    write(folder, "deep/down/file.bin", data=data)

    with folder.open("deep/down/file.bin") as file:
        assert file.read(10) == data[:10]
        assert file.seek(-7, io.SEEK_END) == 4993
        assert file.read() == data[-7:]
        assert file.read() == b""
        file.seek(3)
        assert file.read(2500) == data[3:2503]
    assert folder.stat("deep/down/file.bin").size == 5000


def test_a_file_appears_whole_or_not_at_all(folder: Folder) -> None:
    with pytest.raises(ZeroDivisionError), folder.replacing("half") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert folder.names() == []
    write(folder, "half", data=b"old")
    with pytest.raises(ZeroDivisionError), folder.replacing("half") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert content(folder, "half") == b"old"


def test_another_content_is_another_version(folder: Folder) -> None:
    write(folder, "file", data=b"one")
    before = folder.stat("file")
    write(folder, "file", data=b"two")

    assert before.size == folder.stat("file").size
    assert before.version != folder.stat("file").version


def test_what_is_missing_is_said_so(folder: Folder) -> None:
    assert folder.names() == []
    assert folder.stat("file") is None
    folder.remove("file")
    with pytest.raises(NotFoundError, match=r"file: there is no such file"):
        folder.open("file")
    with pytest.raises(NotFoundError):
        find_files([folder.address])


def test_what_is_removed_is_gone(folder: Folder) -> None:
    write(folder, "parts/1", "parts/2", "file")
    folder.remove("parts/1")
    folder.remove("parts/2")

    assert folder.names() == ["file"]


def test_names_may_be_listed_in_part(folder: Folder) -> None:
    write(folder, "part/1", "part/2", "parts", "file")

    assert folder.names() == ["file", "part/1", "part/2", "parts"]
    assert folder.names("part/") == ["part/1", "part/2"]
    assert folder.names("part") == ["part/1", "part/2", "parts"]
    assert folder.names("other/") == []


def test_files_are_found_by_name_folder_and_pattern(address: str) -> None:
    write(
        open_folder(address),
        "a.jsonl",
        "b.csv",
        "_SUCCESS",
        "day=1/a.jsonl",
        "day=2/a.jsonl",
        "day=2/.hidden/a.jsonl",
        "notes.txt",
        "day=1.jsonl",
    )
    data = (".jsonl", ".csv")

    assert found(below(address, "notes.txt"), suffixes=data) == ["notes.txt"]
    assert found(below(address, "_SUCCESS")) == ["_SUCCESS"]
    everything = ["a.jsonl", "b.csv", "day=1.jsonl", "day=1/a.jsonl", "day=2/a.jsonl"]
    assert found(address, suffixes=data) == everything
    assert found(below(address, ""), suffixes=data) == everything
    assert found(below(address, "*.jsonl")) == ["a.jsonl", "day=1.jsonl"]
    assert found(below(address, "day=*/a.jsonl")) == ["day=1/a.jsonl", "day=2/a.jsonl"]
    assert found(below(address, "day=1")) == ["a.jsonl"]
    assert found(below(address, "**/a.jsonl")) == ["a.jsonl", "day=1/a.jsonl", "day=2/a.jsonl"]
    assert found(below(address, "day=2/.hidden/*")) == ["a.jsonl"]
    assert found(below(address, "[ab].*"), below(address, "day=2")) == [
        "a.jsonl",
        "b.csv",
        "a.jsonl",
    ]
    with pytest.raises(NotFoundError, match=r"no folder with files that end in \.jsonl or \.csv"):
        find_files([below(address, "*.parquet")], data)


def test_a_name_that_looks_like_a_pattern_is_a_name_first(address: str) -> None:
    write(open_folder(address), "day[1].csv", "day1.csv")

    assert found(below(address, "day[1].csv")) == ["day[1].csv"]


def test_a_folder_is_opened_again_by_its_address(folder: Folder) -> None:
    write(folder, "file")

    assert open_folder(folder.address).names() == ["file"]


# Of this machine


def test_a_folder_counts_from_the_working_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = open_folder("data")
    write(folder, "a.csv")
    (file,) = find_files(["data/a.csv"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert file.shown == str(tmp_path / "data" / "a.csv")
    assert folder.names() == ["a.csv"]


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "", "a//b", "a\0b"])
def test_no_name_leaves_its_folder(tmp_path: Path, name: str) -> None:
    folder = open_folder(tmp_path / "data")
    for use in (folder.open, folder.stat, folder.remove, folder.shown, lambda n: write(folder, n)):
        with pytest.raises(InvalidNameError, match="stays in its folder"):
            use(name)
    assert not (tmp_path / "data").exists()


def test_what_cannot_be_read_or_written_is_said_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match="is a pipe, and no file"):
        open_folder(tmp_path).open("pipe")
    with pytest.raises(DataError, match="pipe: cannot be read"):
        find_files([tmp_path / "pipe"])[0].folder.open("pipe")
    with pytest.raises(StoreNotWritableError, match="cannot write"):
        write(open_folder(tmp_path), "file/below")
    with pytest.raises(NotFoundError):
        open_folder(tmp_path).open("file/below")


# In a bucket


def test_an_object_that_changes_while_it_is_read_is_refused(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("centra.store.s3.path._AHEAD", 1000)
    folder = open_folder(s3_url)
    write(folder, "file", data=b"1" * 3000)
    with folder.open("file") as file:
        file.read(1)
        write(folder, "file", data=b"2" * 3000)
        with pytest.raises(DataError, match=r"some/prefix/file: was changed or removed while"):
            file.read()


def test_folders_that_tools_make_are_no_files(s3_url: str) -> None:
    client = s3_client(s3_url)
    bucket = s3_url.split("/")[2]
    client.put_object(Bucket=bucket, Key="some/prefix/", Body=b"")
    client.put_object(Bucket=bucket, Key="some/prefixed", Body=b"")
    write(open_folder(s3_url), "file")

    assert open_folder(s3_url).names() == ["file"]
    assert found(s3_url) == ["file"]


def test_whoever_may_only_read_is_told_so(
    s3_url: str, become_s3_reader: Callable[[], None]
) -> None:
    write(open_folder(s3_url), "file")
    become_s3_reader()
    folder = open_folder(s3_url)

    assert content(folder, "file") == b"text"
    with pytest.raises(StoreNotWritableError, match="may not write"):
        write(folder, "other")
    with pytest.raises(StoreNotWritableError):
        folder.remove("file")


def test_a_bucket_that_is_not_there_is_said_so(s3_url: str) -> None:
    gone = s3_url.replace("s3://centra-", "s3://no-such-bucket-")
    with pytest.raises(StoreError, match="there is no bucket"):
        find_files([gone])


def test_messages_hold_no_secrets() -> None:
    for wrong in (f"gs://user:{SECRET}@bucket/x", f"s3://user:{SECRET}@bucket/x"):
        with pytest.raises(UsageError) as refusal:
            find_files([wrong])
        assert SECRET not in str(refusal.value)


def test_patterns_match_part_by_part() -> None:
    assert files._matches(["a", "b"], ["**", "*"])
    assert not files._matches(["a", "b"], ["*"])
    assert not files._matches(["a"], ["a", "*"])


@pytest.mark.parametrize("address", ["gs://bucket/key", "file:///tmp/x", "S4://bucket"])
@pytest.mark.parametrize("open_address", [open_folder, open_path, lambda a: find_files([a])])
def test_an_address_of_something_else_is_no_path_of_this_machine(
    address: str, open_address: Callable[[str], object]
) -> None:
    with pytest.raises(UsageError, match="expected a path or s3://BUCKET/PREFIX"):
        open_address(address)
