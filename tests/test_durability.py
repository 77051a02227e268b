"""A power cut takes nothing away that was reported: files, renames and folders are synced in order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from centra.releases.folder_writing import write_folder
from centra.store import LocalStore
from registry.settings import write_config
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from centra.formats.task_module import TaskModule


class Disk:
    """What would be lost by a power cut now, as calls to the system tell it."""

    def __init__(self) -> None:
        self.unsynced: dict[str, set[str]] = defaultdict(set)
        """By folder: the names in it that may not last."""
        self.written: set[str] = set()
        """Files whose content may not."""
        self.lasted: list[str] = []
        """The files that took their place, in order."""

    def mkdir(self, path: str) -> None:
        self.unsynced[str(Path(path).parent)].add(path)

    def replace(self, source: str, target: str) -> None:
        assert source not in self.written, f"{source} takes its place before it is synced"
        if target.endswith(("/release.json", "/SHA256SUMS")):
            others = {name: left for name, left in self.unsynced.items() if left}
            assert not others, f"{target} stands for what may not last: {others}"
        self.unsynced[str(Path(target).parent)].add(target)
        self.lasted.append(target)

    def sync(self, path: str) -> None:
        self.written.discard(path)
        self.unsynced.pop(path, None)

    def check(self) -> None:
        """Assert that nothing would be lost."""
        assert not {name: left for name, left in self.unsynced.items() if left}
        assert not self.written


@contextmanager
def watched() -> Iterator[Disk]:
    """Follow what a block does to files."""
    disk = Disk()
    mkdir, replace, fsync = os.mkdir, os.replace, os.fsync
    mkstemp = tempfile.mkstemp

    def opening(*args: Any, **options: Any) -> tuple[int, str]:
        handle, path = mkstemp(*args, **options)
        disk.written.add(path)
        return handle, path

    def making(path: Any, *args: Any, **options: Any) -> None:
        mkdir(path, *args, **options)
        disk.mkdir(str(Path(path).absolute()))

    def replacing(source: Any, target: Any) -> None:
        disk.replace(str(Path(source).absolute()), str(Path(target).absolute()))
        replace(source, target)

    def syncing(file: int) -> None:
        fsync(file)
        disk.sync(str(Path(f"/proc/self/fd/{file}").readlink()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", opening)
        patch.setattr(os, "mkdir", making)
        patch.setattr(os, "replace", replacing)
        patch.setattr(os, "fsync", syncing)
        yield disk


def test_a_blob_a_pointer_and_their_folders_last(tmp_path: Path) -> None:
    with watched() as disk:
        store = LocalStore(tmp_path / "some" / "store")
        store.put(b"frozen layers")
        disk.check()
        store.write_pointer("production", b"{}")
        disk.check()
        store.write_signature("ab" * 32, b"{}")
        disk.check()
    assert len(disk.lasted) == 3


def test_a_blob_that_is_there_lasts_though_another_wrote_it(tmp_path: Path) -> None:
    """The other may have been killed before its folders were synced, or not be that far yet."""
    store = LocalStore(tmp_path / "store")
    path = store.path(store.put(b"frozen layers"))
    with watched() as disk:
        for place in (path, *path.parents[:4]):
            disk.unsynced[str(place.parent)].add(str(place))
        store.put(b"frozen layers")
        disk.check()
    assert disk.lasted == []


def test_a_pull_lasts_and_its_manifest_stands_for_nothing_that_does_not(
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
    tmp_path: Path,
) -> None:
    first, second = (
        support.put_release({"intent": make_module(seed=s)}, [tiny_backbone.spec], backbone_store)
        for s in (1, 2)
    )
    for release in (first, second):
        backbone_store.write_signature(release.digest, b"{}")
        with watched() as disk:
            write_folder(release, backbone_store, tmp_path / "some" / "release")
            disk.check()
        assert disk.lasted[-1].endswith("release.json")
    with watched() as disk:  # Of what another wrote, and may not have synced.
        for folder, _, names in os.walk(tmp_path / "some" / "release"):
            disk.unsynced[folder] |= set(names)
        write_folder(second, backbone_store, tmp_path / "some" / "release")
        disk.check()


def test_a_module_and_settings_last(make_module: Callable[..., TaskModule], tmp_path: Path) -> None:
    with watched() as disk:
        make_module().write(tmp_path / "new" / "folder" / "intent.safetensors")
        disk.check()
        write_config(tmp_path, database=None, store=None)
        disk.check()
    assert [Path(path).name for path in disk.lasted] == [
        "intent.safetensors",
        "centra.toml",
    ]


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_row_is_committed_when_its_blob_lasts(
    make_module: Callable[..., TaskModule], make_encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    """And SQLite syncs the folder of its write-ahead log."""
    make_module().write(tmp_path / "intent.safetensors")
    (tmp_path / "home").mkdir()
    script = (
        "import cli, sys\n"
        "for words in sys.argv[1].split(';'):\n"
        "    cli.main(words.split(), standalone_mode=False)\n"
        "    print('DONE', words, flush=True)\n"
    )
    commands = (
        f"init;backbone register tiny {make_encoder('bert')};"
        f"task register intent {tmp_path / 'intent.safetensors'}"
    )
    python = [sys.executable, "-c", script, commands]
    calls = "mkdir,mkdirat,rename,renameat,renameat2,fsync,fdatasync"
    result = subprocess.run(
        [
            "strace",
            "--seccomp-bpf",
            *["-f", "-y", "-qq", "-s", "16", "-o", "trace.log", "-e"],
            f"trace={calls}",
            *python,
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path / "home",
        env={**os.environ, "PYTHONPATH": str(support.ROOT), "CENTRA_ACTOR": "nlu/ada"},
    )
    if "PTRACE" in result.stderr or "ptrace" in result.stderr:
        pytest.skip("strace may not trace here")
    assert result.returncode == 0, result.stderr
    home = str(tmp_path / "home")
    disk, commits, log = Disk(), 0, f"{home}/.centra/registry.db-wal"
    for line in (tmp_path / "home" / "trace.log").read_text(errors="replace").splitlines():
        call = re.match(r"\d+ +(\w+)\((.*)\) += 0", line)
        if not call or home not in line:
            continue
        name, arguments = call.groups()
        quoted = [str(Path(home, path)) for path in re.findall(r'"([^"]*)"', arguments)]
        opened = re.match(r"\d+<(.*?)>", arguments)
        if name.startswith("mkdir"):
            disk.mkdir(quoted[-1])
        elif name.startswith("rename"):
            disk.replace(*quoted)
        elif name.endswith("sync") and opened:
            if opened[1] == log:
                disk.check()
                commits += 1
            disk.sync(opened[1])
    assert commits >= 2
    assert any("/blobs/" in path for path in disk.lasted)
    disk.check()
    synced = (tmp_path / "home" / "trace.log").read_text(errors="replace")
    assert re.search(rf"sync\(\d+<{re.escape(home)}/\.centra>", synced)


def test_what_is_removed_from_a_store_stays_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, synced = LocalStore(tmp_path), []
    digest = store.put(b"garbage")
    monkeypatch.setattr(
        "centra.store.local.sync_folder", lambda path: synced.append((path, store.has(digest)))
    )
    store.remove(digest)
    assert synced == [(store.path(digest).parent, False)]
    store.remove(digest)  # Nobody waits for a disk where nothing was removed.
    assert len(synced) == 1
