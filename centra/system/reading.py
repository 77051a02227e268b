"""Reading files that others made: regular ones alone, none longer than it can be, none from elsewhere.

Opening a pipe waits for whoever writes to it, and a device never ends. A link in a folder that came
from elsewhere may lead to any file of this machine, whose content would then be taken in and shared.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

__all__ = ["check_links", "kind_of", "open_regular", "read_regular"]

_COPY = "copy files, not links (cp -L)"
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def kind_of(mode: int) -> str | None:
    """What something is by its ``st_mode``, for people; None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes, without waiting for anything.

    Raises:
        OSError: it cannot be opened, or is a pipe, a socket, a device or a folder.
    """
    try:
        _check_regular(path, os.stat(path))  # noqa: PTH116 - opening some devices does something
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except ValueError as error:
        raise OSError(errno.EINVAL, "no file can have this name", ascii(str(path))) from error
    try:
        _check_regular(path, os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, largest: int | None = None) -> bytes:
    """All bytes of a file.

    Args:
        path: the file.
        largest: so many bytes it may have; None for as many as there are.

    Raises:
        OSError: see :func:`open_regular`; or it is longer.
    """
    with open_regular(path) as file:
        if largest is None:
            return file.read()
        data = file.read(largest + 1)
    if len(data) > largest:
        raise OSError(errno.EFBIG, f"has more than {largest:,} bytes", str(path))
    return data


def check_links(folder: Path, *, deep: bool = False) -> None:
    """Refuse a folder in which something is neither a file nor a folder of its own.

    A link that stays inside is as good as what it leads to. Inside counts from the folder itself; of
    a snapshot in a Hugging Face hub cache, whose files are links to blobs beside it, from the cache's
    folder of that repository.

    Args:
        folder: one that is there; it may be a link itself.
        deep: look at the folders inside it, too, and into them.

    Raises:
        FormatError: it holds a pipe, a socket or a device, or a link that leads out or nowhere; it
            is named.
    """
    home = Path(os.path.realpath(folder))
    base = home.parent.parent if home.parent.name == "snapshots" else home
    for entry in _entries(home, deep=deep):
        path = f"{folder}/{os.path.relpath(entry.path, home)}"
        link = entry.is_symlink()
        try:
            kind = kind_of(entry.stat().st_mode)
        except FileNotFoundError:
            if link:
                raise FormatError(f"{path}: is a link to a missing file; {_COPY}") from None
            continue  # It has just been removed.
        except OSError as error:
            raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
        if kind == "a folder" and not deep:
            continue
        if kind not in (None, "a folder"):
            raise FormatError(f"{path}: is {kind}; expected files and folders alone")
        if link and not (target := Path(os.path.realpath(entry.path))).is_relative_to(base):
            raise FormatError(f"{path}: is a link to {target}, outside of its folder; {_COPY}")


def _entries(folder: Path, *, deep: bool) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise FormatError(f"{folder}: cannot be read ({error.strerror})") from error
    for entry in found:
        yield entry
        # A link to a folder inside is seen where it leads, and may lead to itself.
        if deep and entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path), deep=True)


def _check_regular(path: Path, found: os.stat_result) -> None:
    kind = kind_of(found.st_mode)
    if kind == "a folder":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind is not None:
        raise OSError(errno.EINVAL, f"is {kind}, and no file", str(path))
