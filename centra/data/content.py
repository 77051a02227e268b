"""The bytes of files of data; of one that is missing what is in its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import DataError
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from centra.store.s3.path import S3Path

__all__ = ["read_content"]

_SHOWN = 5
"""So many names of files are shown."""


def read_content(file: Path | S3Path, expected: str = "expected a file of examples") -> bytes:
    """The bytes of a file of data.

    Args:
        file: of this machine, or in a bucket.
        expected: what errors say should be there.

    Raises:
        DataError: it is missing, or cannot be read.
        StoreError: a bucket cannot be reached.
    """
    if not isinstance(file, Path):
        data = file.read_bytes()
        if data is None:
            names = sorted({each.partition("/")[0] for each in file.parent.names()})
            raise DataError(
                f"{file}: no such file; {file.parent} holds {_shown(names)}; {expected}"
            )
        return data
    if file.is_dir():
        raise DataError(f"{file}: is a folder, and cannot be read; {expected}")
    try:
        return read_regular(file)
    except FileNotFoundError as error:
        raise _missing_file(file, expected) from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); {expected}") from error


def _missing_file(path: Path, expected: str) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        return DataError(f"{path}: no such file ({folder}: {what}); {expected}")
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return DataError(f"{path}: no such file; {folder} holds {_shown(names)}; {expected}")


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "") or "nothing"
