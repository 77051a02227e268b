"""A registry whose SQLite file, folder or disk cannot be written: it can be read all the same."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from registry import audit, channels, releases, tasks
from registry.errors import DatabaseError
from tests.registry.helpers import opened, rows, url_of
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry import Registry
    from tests.registry.helpers import Sqlite


@pytest.fixture
def filled(
    sqlite_databases: Sqlite, template_store: Path, module: Callable[..., Path], tmp_path: Path
) -> Iterator[Registry]:
    """A registry on SQLite with something in it."""
    shutil.copytree(template_store, tmp_path / "store")
    with (
        sqlite_databases.migrated(tmp_path) as url,
        opened(url, tmp_path / "store") as registry,
    ):
        tasks.register(registry, "intent", module())
        releases.compose(registry, publish=True)
        registry.engine.dispose()
        yield registry


def file_of(registry: Registry) -> Path:
    return Path(url_of(registry).removeprefix("sqlite:///"))


class Disk:
    """A small file system of its own, which can be full or mounted for reading alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)

    def fill(self) -> Path:
        """Leave no byte; gives the file that takes them."""
        filler = self.folder / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        return filler


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root, and a machine that allows it")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


def reads(registry: Registry) -> None:
    """Everything that a reader may want works."""
    assert [row.name for row in tasks.list(registry)] == ["intent"]
    assert tasks.show(registry, "intent").current == version_number("1.0")
    assert [row.number for row in releases.list(registry)] == [1]
    assert channels.show(registry, "latest").release == 1
    assert audit.verify(registry).events == 5


def writes_nothing(registry: Registry) -> None:
    """A change is refused, says what can be done, and leaves nothing behind."""
    before = rows(registry)
    active = tasks.show(registry, "intent").state == "active"
    with pytest.raises(DatabaseError, match=r"Nothing was changed\. Look for space") as caught:
        (tasks.retire if active else tasks.restore)(registry, "intent")
    assert str(file_of(registry)) in str(caught.value)
    assert rows(registry) == before


@contextmanager
def on(disk: Disk, filled: Registry) -> Iterator[Registry]:
    """The registry with its database, and what lies beside it, on this disk."""
    for file in file_of(filled).parent.glob(f"{file_of(filled).name}*"):
        shutil.copy(file, disk.folder)
    place = disk.folder / file_of(filled).name
    with opened(f"sqlite:///{place}", Path(filled.store.url)) as registry:
        yield registry


def test_a_database_on_a_disk_for_reading_alone_is_read(disk: Disk, filled: Registry) -> None:
    with on(disk, filled) as registry:
        assert [path.suffix for path in disk.folder.iterdir()] == [".db"]
        disk.read_only()
        reads(registry)
        writes_nothing(registry)
        reads(registry)


def test_what_a_killed_writer_left_in_its_log_is_read_there_too(
    disk: Disk, filled: Registry
) -> None:
    with closing(sqlite3.connect(file_of(filled))) as holding:
        holding.execute("SELECT count(*) FROM tasks").fetchone()  # So that the log stays.
        tasks.retire(filled, "intent")
        filled.engine.dispose()
        with on(disk, filled) as registry:
            assert len(list(disk.folder.iterdir())) == 3
            disk.read_only()
            assert tasks.show(registry, "intent").state == "retired"
            writes_nothing(registry)


def test_a_log_that_cannot_be_read_is_not_left_out_without_a_word(
    disk: Disk, filled: Registry
) -> None:
    with closing(sqlite3.connect(file_of(filled))) as holding:
        holding.execute("SELECT count(*) FROM tasks").fetchone()
        tasks.retire(filled, "intent")
        filled.engine.dispose()
        with on(disk, filled) as registry:
            next(disk.folder.glob("*-shm")).unlink()
            disk.read_only()
            with pytest.raises(DatabaseError, match="mounted for writing"):
                tasks.show(registry, "intent")


def test_a_database_on_a_full_disk_is_read_and_written_again_once_there_is_space(
    disk: Disk, filled: Registry
) -> None:
    with on(disk, filled) as registry:
        filler = disk.fill()
        reads(registry)
        writes_nothing(registry)
        filler.unlink()
        assert tasks.retire(registry, "intent").changed
        assert audit.verify(registry).events == 6


def test_a_disk_that_fills_while_it_is_written_leaves_no_damage(
    disk: Disk, filled: Registry
) -> None:
    with on(disk, filled) as registry, registry.read():  # So that the log is there.
        filler = disk.fill()
        before = rows(registry)
        with pytest.raises(DatabaseError, match=r"Nothing was changed\. Look for space"):
            for _ in range(200):
                tasks.retire(registry, "intent")
                tasks.restore(registry, "intent")
        audit.verify(registry)
        assert len(rows(registry)["tasks"]) == len(before["tasks"])
        filler.unlink()
        tasks.retire(registry, "intent")
        tasks.restore(registry, "intent")
        audit.verify(registry)
        with registry.engine.connect() as connection:
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"


def test_a_read_that_another_wrote_into_without_a_lock_is_refused(
    disk: Disk, filled: Registry
) -> None:
    with on(disk, filled) as registry:
        disk.read_only()
        with (
            pytest.raises(DatabaseError, match="was written while it was read"),
            registry.read() as uow,
        ):
            assert uow.task("intent").state == "active"
            subprocess.run(["mount", "-o", "remount,rw", disk.folder], check=True)
            with closing(sqlite3.connect(file_of(registry))) as other:
                other.execute("UPDATE tasks SET state = 'retired'")
                other.commit()
        assert tasks.show(registry, "intent").state == "retired"


def test_a_file_that_is_no_database_is_still_named(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"not a database, and long enough to tell" * 100)
    with (
        opened(f"sqlite:///{tmp_path}/registry.db", tmp_path / "store") as registry,
        pytest.raises(DatabaseError, match="file is not a database"),
    ):
        tasks.list(registry)
