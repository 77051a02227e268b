"""Files that others bring and take: in folders of this machine, or under prefixes of S3 buckets.

A file is a folder and a name in it, with ``/`` where it lies deeper. What a folder is opened from,
its ``address``, opens it again in another process or on another machine.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from centra.errors import (
    DataError,
    InvalidNameError,
    NotFoundError,
    StoreNotWritableError,
)
from centra.store.address import is_in_bucket
from centra.system.files import make_folder, replacing
from centra.system.reading import open_regular
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

__all__ = ["FileStat", "Folder", "FoundFile", "LocalFolder", "find_files", "open_folder"]

_HIDDEN = (".", "_")
"""How the names begin of what lies beside data and is none: ``.cache``, ``_SUCCESS``."""


@dataclass(frozen=True, kw_only=True)
class FileStat:
    """What a listing tells of a file."""

    size: int
    """Bytes."""
    version: str
    """Another one whenever the file was written anew: an S3 object's ETag, or size and time."""


class Folder(Protocol):
    """Where files lie."""

    address: str
    """What :func:`open_folder` opens again."""

    def shown(self, name: str) -> str:
        """The address of a file for people, without secrets.

        Raises:
            InvalidNameError: the name would leave the folder.
        """
        ...

    def names(self, below: str = "") -> list[str]:
        """The names of all files, however deep they lie, sorted.

        Args:
            below: only those whose names begin with this, up to a ``/`` or all of it.

        Raises:
            DataError, StoreError: the folder cannot be listed.
        """
        ...

    def stat(self, name: str) -> FileStat | None:
        """Size and version of a file; None where there is none.

        Raises:
            DataError, StoreError: it cannot be looked at.
        """
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file to read its bytes, from wherever is sought; whoever opens it closes it.

        Raises:
            NotFoundError: there is none.
            DataError, StoreError: it cannot be read; while it is read, too.
        """
        ...

    def replacing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file to write, and to read again, which takes its place whole when the block ends, and not where it fails.

        Raises:
            StoreNotWritableError, StoreError: it cannot be written.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            StoreNotWritableError, StoreError: it cannot be removed.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A file that was looked for."""

    folder: Folder
    name: str
    """In the folder: of a glob and of a prefix all that follows the folder that was named."""

    @property
    def shown(self) -> str:
        """Its address for people."""
        return self.folder.shown(self.name)


class LocalFolder:
    """A folder of this machine; it is made when the first file is written."""

    def __init__(self, path: Path) -> None:
        self.root = path.absolute()
        self.address = str(self.root)

    def shown(self, name: str) -> str:
        return str(self._path(name))

    def names(self, below: str = "") -> list[str]:
        above = below.rpartition("/")[0]
        start = self._path(above) if above else self.root
        found = []
        try:
            for folder, _, files in os.walk(start, onerror=_raise):
                place = Path(folder).relative_to(self.root)
                found += [(place / name).as_posix() for name in files]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise DataError(f"{self.root}: cannot be listed ({error.strerror})") from error
        return sorted(name for name in found if name.startswith(below))

    def stat(self, name: str) -> FileStat | None:
        path = self._path(name)
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        return FileStat(size=found.st_size, version=f"{found.st_size}-{found.st_mtime_ns}")

    def open(self, name: str) -> BinaryIO:
        path = self._path(name)
        try:
            return open_regular(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _missing(str(path)) from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    @contextmanager
    def replacing(self, name: str) -> Iterator[BinaryIO]:
        path = self._path(name)
        with _writing(path):
            make_folder(path.parent)
            with replacing(path) as temporary, temporary.open("w+b") as file:
                yield file

    def remove(self, name: str) -> None:
        """Folders that are left empty go with it, up to this one."""
        path = self._path(name)
        with _writing(path):
            path.unlink(missing_ok=True)
        try:
            while (path := path.parent) != self.root:
                path.rmdir()
        except OSError:
            pass  # Something lies in it.

    def _path(self, name: str) -> Path:
        parts = name.removesuffix("/").split("/")
        if "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise InvalidNameError("file name", name, "one that stays in its folder")
        return self.root / name


def open_folder(address: str | os.PathLike[str]) -> Folder:
    """Open a folder from its address.

    Args:
        address: a path, or ``s3://bucket/prefix``, with the options of :func:`centra.store.open_store`.

    Raises:
        UsageError: another scheme, or an S3 address without a bucket or with unknown options.
    """
    address = os.fspath(address)
    if is_in_bucket(address):
        from centra.store.s3.files import S3Folder

        return S3Folder(address)
    return LocalFolder(Path(address))


def find_files(
    addresses: Sequence[str | os.PathLike[str]], suffixes: Sequence[str] = ("",)
) -> list[FoundFile]:
    """The files that addresses name.

    Args:
        addresses: of a file; of a folder or prefix, which stands for all files in it, but those
            whose names begin with ``.`` or ``_``; or with ``*``, ``**`` or ``[…]`` in it. In S3
            ``?`` begins the options.
        suffixes: how files must end that are not named one by one.

    Returns:
        In the order of the addresses, and by name where one stands for several.

    Raises:
        UsageError: see :func:`open_folder`.
        NotFoundError: an address leads to no file.
        DataError, StoreError: a folder cannot be listed.
    """
    return [file for address in addresses for file in _find(os.fspath(address), tuple(suffixes))]


def _find(address: str, suffixes: tuple[str, ...]) -> list[FoundFile]:
    place, mark, options = address, "", ""
    if is_in_bucket(address):
        place, mark, options = address.partition("?")
    above, _, last = place.rpartition("/")
    if last and not above.endswith("/"):  # Else it is a bucket alone.
        folder = open_folder((above or ("/" if place.startswith("/") else ".")) + mark + options)
        # A name may hold what stands for others elsewhere.
        if _is_file(folder, last):
            return [FoundFile(folder=folder, name=last)]
    fixed, pattern = _split_pattern(place)
    folder = open_folder((fixed or ".") + mark + options)
    found = [
        FoundFile(folder=folder, name=name)
        for name in folder.names(re.split(r"[*?\[]", pattern[0])[0])
        if name.endswith(suffixes) and _matches(name.split("/"), pattern)
    ]
    if not found:
        raise _missing(redacted(address, address), suffixes)
    return found


def _is_file(folder: Folder, name: str) -> bool:
    if isinstance(folder, LocalFolder):
        return not (folder.root / name).is_dir() and (folder.root / name).exists()
    return name in folder.names(name)  # One request, which needs no second one to be believed.


def _split_pattern(place: str) -> tuple[str, list[str]]:
    """The folder that a pattern begins with, and what follows it; ``**`` where nothing does."""
    parts = place.rstrip("/").split("/") if place.strip("/") else [place]
    fixed = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts))
    return "/".join(parts[:fixed]) or "/" * place.startswith("/"), parts[fixed:] or ["**", "*"]


def _matches(name: list[str], pattern: list[str]) -> bool:
    if not pattern or not name:
        return not name and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(name, pattern[1:]) or (
            not name[0].startswith(_HIDDEN) and _matches(name[1:], pattern)
        )
    if name[0].startswith(_HIDDEN) and not pattern[0].startswith(_HIDDEN):
        return False
    return fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def _missing(shown: str, suffixes: Sequence[str] = ("",)) -> NotFoundError:
    ends = " or ".join(suffix for suffix in suffixes if suffix)
    what = "there is no such file" + (
        f", and no folder with files that end in {ends}" if ends else ""
    )
    return NotFoundError(f"{shown}: {what}", code="no-such-file", address=shown)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreNotWritableError(f"cannot write {path}: {error.strerror}") from error


def _raise(error: OSError) -> None:
    raise error
