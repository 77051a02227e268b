"""Private copies of what users give: what is checked is what is read, stored and recorded.

A file can be replaced, or written to, by whoever gave it while it is read. So each is opened once, and
all that is done with it is done with the copy. A copy of a model's folder holds what is read of one,
and no program: whatever a checkpoint brings along, no library ever sees it.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from centra.errors import CentraError, FormatError, NotFoundError, StoreError
from centra.system.reading import check_links, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["called", "copy_file", "copy_model", "is_read", "opened"]

_READ = re.compile(
    r".*\.(json|safetensors|model|spm|jinja)|(vocab|merges|dict)\.txt|bpe\.codes", re.DOTALL
)
"""The files of a model that are read: settings, weights and whatever makes a tokenizer."""
_READ_BELOW = re.compile(r"trainer_state\.json")
_SHOWN_BELOW = re.compile(r"(adapter_)?config\.json")
"""By what refusals tell what lies in a folder below: a trainer's checkpoint, an adapter, a model."""
_PROGRAM = re.compile(r".*\.(py|pyc|pyd|so|pth)", re.DOTALL | re.IGNORECASE)
_MOST = 1000
"""So many names of other things are kept, for refusals to name."""


def is_read(name: str) -> bool:
    """Whether a file of a model is read: settings, weights, or whatever makes a tokenizer."""
    return _READ.fullmatch(name) is not None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of the user's, opened to be read once.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is no regular file, cannot be read, or was written to meanwhile.
    """
    try:
        source = open_regular(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    with source as file:
        before = os.fstat(file.fileno())
        yield file
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _changed(path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file of the user's to a private place.

    Raises:
        NotFoundError, FormatError: see :func:`opened`.
        StoreError: there is no room for it.
    """
    with opened(source) as file:
        try:
            out = target.open("xb")
        except OSError as error:
            raise _no_room(target, error) from error
        with out:
            while data := _part(file, source):
                try:
                    out.write(data)
                except OSError as error:
                    raise _no_room(target, error) from error


@contextmanager
def copy_model(source: str) -> Iterator[str]:
    """A private copy of what is read of a model's folder; errors still name the folder.

    Args:
        source: a folder. Anything else, such as a name on the hub, is passed on as it is: what comes
            from there is private already.

    Raises:
        FormatError: it holds a pipe or a device, or a link to a file outside or to none; or a file was
            changed meanwhile.
        StoreError: there is no room for it.
    """
    folder = Path(source)
    if not folder.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="centra-") as scratch:
        copy = Path(scratch) / "model"
        with called(copy, source):
            try:
                _copy_model(folder, copy)
            except OSError as error:
                raise FormatError(f"{source}: cannot be read ({error.strerror})") from error
            yield str(copy)


@contextmanager
def called(copy: Path, name: str | Path) -> Iterator[None]:
    """Say in errors what a copy is of, where its own path means nothing to anybody."""
    try:
        yield
    except CentraError as error:

        def renamed(value: Any) -> Any:
            return value.replace(str(copy), str(name)) if isinstance(value, str) else value

        error.args = tuple(map(renamed, error.args))
        error.data = {key: renamed(value) for key, value in error.data.items()}
        raise


def _copy_model(folder: Path, copy: Path) -> None:
    copy.mkdir()
    entries = sorted(folder.iterdir())
    read = [path for path in entries if is_read(path.name) and not path.is_dir()]
    before = {path: _state(path) for path in read}
    # Here, since a copy has no links: what they lead to would be taken in.
    check_links(folder)
    for path in read:
        copy_file(path, copy / path.name)
    for path in read:
        if _state(path) != before[path]:
            raise _changed(path)
    for path in [path for path in entries if path not in before][:_MOST]:
        if path.is_dir():
            _sketch(path, copy / path.name)
        elif path.is_file() and not _PROGRAM.fullmatch(path.name):
            (copy / path.name).touch()


def _sketch(folder: Path, copy: Path) -> None:
    """A folder below a model's, with the files by which refusals tell what it is."""
    copy.mkdir()
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # It is not ours to read, and nothing of it would be.
        return
    for path in entries:
        if _SHOWN_BELOW.fullmatch(path.name):
            (copy / path.name).touch()
        elif _READ_BELOW.fullmatch(path.name) and path.is_file():
            copy_file(path, copy / path.name)


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes with a file's bytes, and when another takes its place; None where it is missing."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _part(file: BinaryIO, source: Path) -> bytes:
    try:
        return file.read(1 << 20)
    except OSError as error:
        raise FormatError(f"{source}: cannot be read ({error.strerror})") from error


def _changed(path: Path) -> FormatError:
    return FormatError(
        f"{path}: was changed while it was being read; try again when it is complete"
    )


def _no_room(target: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot copy to {target.parent}: {error.strerror}. Set TMPDIR to a folder with room for it."
    )
