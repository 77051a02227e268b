"""Files that take another's place, and what they may not take the place of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from centra.errors import StoreNotWritableError
from centra.system.files import check_writable, replacing


def test_what_is_no_regular_file_keeps_its_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (Path("/dev/null"), *tmp_path.iterdir()):
        with pytest.raises(OSError, match="no regular file"), replacing(path):
            pass
        with pytest.raises(StoreNotWritableError, match="no regular file"):
            check_writable(path)
    assert Path("/dev/null").is_char_device()


def test_a_file_is_writable_where_its_folder_is(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    (tmp_path / "old").touch()
    check_writable(tmp_path / "old")
    with pytest.raises(StoreNotWritableError, match="cannot write"):
        check_writable(tmp_path / "missing" / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
