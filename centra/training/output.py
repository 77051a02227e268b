"""Where a search or a fit leaves what it comes to: a folder of this machine, or one in a bucket."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.store.s3.path import S3Path

__all__ = ["Output", "opened_output"]


@dataclass(frozen=True, kw_only=True)
class Output:
    """A folder of results."""

    place: Path | S3Path
    """Where they stay."""
    folder: Path
    """Where they are written, on this machine."""

    @property
    def work(self) -> Path | S3Path:
        """Where runs keep what they need to go on."""
        return self.place / "work"


@contextmanager
def opened_output(place: Path | S3Path) -> Iterator[Output]:
    """A folder of results; what is written for one in a bucket goes there at the end, if all went well.

    Raises:
        StoreError: the bucket cannot be reached.
        StoreNotWritableError: it cannot be written.
    """
    if isinstance(place, Path):
        yield Output(place=place, folder=place)
        return
    with tempfile.TemporaryDirectory(prefix="centra-") as scratch:
        folder = Path(scratch)
        yield Output(place=place, folder=folder)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            (place / file.relative_to(folder).as_posix()).upload(file)
