"""Answered chunks of a file, each a file by itself, until all are there and make the file of answers.

So it goes where nothing can be added to a file, as in S3, and where several workers answer one file.
The parts lie in the folder of the file's journal (see :mod:`centra.scoring.journal`); a part's name
says all that going on needs to know, so that one listing tells it, and a part that is written twice is
there once. The first part is the file's head.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

from centra.data.readers import Position
from centra.errors import ConflictError, NotFoundError, VerificationError
from centra.scoring.journal import WORK_FOLDER, Journal, check_made_from
from centra.store.files import LocalFolder
from centra.system.parallel import in_parallel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from centra.scoring.journal import Finish, MadeFrom
    from centra.store.files import Folder

__all__ = ["Part", "PartFolder", "PartRows"]

_NAME = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)-(\d+)-(\d+)")
_STREAMS = 8
"""How many parts are read, or removed, at once."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """An answered chunk."""

    number: int
    """Of the part in its file; 0 is the head."""
    end: Position
    """After its last row."""
    rows: int = 0
    failed: int = 0
    """How many of its rows have an error."""
    truncated: int = 0
    """How many were not read whole."""

    @property
    def name(self) -> str:
        """What its file is called."""
        numbers = (self.end.offset, self.end.line, self.rows, self.failed, self.truncated)
        return "-".join([f"{self.number:08d}", *map(str, numbers)])

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The part that a file's name tells of; None for any other name."""
        if found := _NAME.fullmatch(name):
            number, offset, line, rows, failed, truncated = map(int, found.groups())
            end = Position(offset=offset, line=line)
            return cls(number=number, end=end, rows=rows, failed=failed, truncated=truncated)
        return None


@dataclass(frozen=True, kw_only=True)
class PartFolder:
    """What is kept of one file of answers."""

    output: Folder
    name: str
    """Of the file of answers."""

    @property
    def folder(self) -> str:
        """Where it is kept, for people."""
        return self.output.shown(self._place.removesuffix("/"))

    def locked(self) -> AbstractContextManager[None]:
        """Let others write there meanwhile: of the same they write the same."""
        return nullcontext()

    def find(self, made_from: MadeFrom) -> Journal | None:
        """How far the file is; None where nothing is there yet.

        Args:
            made_from: what it is to be made from.

        Raises:
            ConflictError: a file is there that no run made, or that was made, or begun, from
                something else; nothing is written over.
            VerificationError: the file, or what there is of it, is not what was written. In S3 a
                file that is there is not read again.
            FormatError: the journal cannot be read.
            StoreError: the folder cannot be read.
        """
        journal, target = self.read(), self.output.shown(self.name)
        there = self.output.stat(self.name) is not None
        if there and (journal is None or journal.output is None):
            raise ConflictError(
                f"{target}: exists, and is no file that this run has made; remove it, or give another "
                "folder",
                code="output-exists",
                path=target,
            )
        if journal is None:
            return None
        if there:
            check_made_from(journal, made_from, target, target)
            self._verify(journal)
            return journal
        parts = self._whole()
        if not parts and (journal.output is not None or not journal.written):
            return None  # It was taken away, so it is wanted again.
        check_made_from(journal, made_from, target, self.folder)
        return self._how_far(journal, parts or [self._adopt(journal)])

    def read(self) -> Journal | None:
        """The journal, if there is one.

        Raises:
            FormatError: it is none.
        """
        name = f"{self._place}journal.json"
        try:
            with self.output.open(name) as file:
                data = file.read()
        except NotFoundError:
            return None
        return Journal.from_bytes(data, self.output.shown(name))

    def parts(self) -> dict[int, Part]:
        """The parts that are there, by their numbers."""
        names = (name.rpartition("/")[2] for name in self.output.names(f"{self._place}parts/"))
        return {part.number: part for name in names if (part := Part.parse(name))}

    def begin(self, made_from: MadeFrom, start: Position, head: bytes) -> PartRows:
        """Begin a file; see :meth:`centra.scoring.journal.WorkFolder.begin`."""
        self._remove_parts()
        # The journal comes after it: without a head nothing goes on.
        self.add(Part(number=0, end=start), head)
        journal = Journal.begun(made_from, start)
        self._write(journal)
        return PartRows(self, journal, 1)

    def go_on(self, journal: Journal) -> PartRows:
        """Go on with a file that was begun; see :meth:`centra.scoring.journal.WorkFolder.go_on`."""
        return PartRows(self, journal, len(self._whole()))

    def add(self, part: Part, data: bytes) -> None:
        """Keep a part.

        Raises:
            StoreNotWritableError, StoreError: it cannot be written.
        """
        with self.output.replacing(self._path(part)) as file:
            file.write(data)

    def end(self, journal: Journal, finish: Finish | None) -> Journal:
        """Make the file of all its parts. Done again, it makes the same.

        Args:
            journal: how far it is.
            finish: makes it of the parts; None where they are the file already.

        Raises:
            StoreNotWritableError, StoreError: something cannot be read or written.
        """
        journal = self._how_far(journal, parts := self._whole())
        with self.output.replacing(self.name) as file:
            pieces = in_parallel(self._read_part, parts, _STREAMS)
            with cast("BinaryIO", io.BufferedReader(_Joined(pieces))) as source:
                (finish or _copy)(source, file)
            file.flush()
            file.seek(0)
            digest = hashlib.file_digest(cast("Any", file), "sha256").hexdigest()
            journal = journal.model_copy(update={"output": digest})
            # Before the file: one that nothing tells of would be taken for somebody else's.
            self._write(journal)
        return journal

    def publish(self, _journal: Journal) -> bool:
        """Remove what is no more needed of a file that is there.

        Returns:
            Whether there was something.
        """
        return self._remove_parts()

    def size(self) -> int:
        """Bytes of the file of answers."""
        stat = self.output.stat(self.name)
        return 0 if stat is None else stat.size

    @property
    def _place(self) -> str:
        above, slash, last = self.name.rpartition("/")
        return f"{above}{slash}{WORK_FOLDER}/{last}/"

    def _path(self, part: Part) -> str:
        return f"{self._place}parts/{part.name}"

    def _whole(self) -> list[Part]:
        """The parts as far as none is missing."""
        parts: Mapping[int, Part] = self.parts()
        whole: list[Part] = []
        while (part := parts.get(len(whole))) is not None:
            whole.append(part)
        return whole

    def _how_far(self, journal: Journal, parts: list[Part]) -> Journal:
        end = parts[-1].end
        return journal.model_copy(
            update={
                "offset": end.offset,
                "line": end.line,
                "rows": sum(part.rows for part in parts),
                "failed": sum(part.failed for part in parts),
                "truncated": sum(part.truncated for part in parts),
                "output": None,
            }
        )

    def _adopt(self, journal: Journal) -> Part:
        """Make a part of the rows of a file that one process has begun."""
        part = Part(
            number=0,
            end=Position(offset=journal.offset, line=journal.line),
            rows=journal.rows,
            failed=journal.failed,
            truncated=journal.truncated,
        )
        digest, left = hashlib.sha256(), journal.written
        with (
            self.output.open(f"{self._place}rows") as rows,
            self.output.replacing(self._path(part)) as file,
        ):
            while left and (data := rows.read(min(left, 2**20))):
                file.write(data)
                digest.update(data)
                left -= len(data)
            if left or digest.hexdigest() != journal.written_digest:
                raise VerificationError(
                    f"{self.folder}: holds other rows than were written there; remove it to begin "
                    "again",
                    code="rows-changed",
                    path=self.folder,
                )
        return part

    def _verify(self, journal: Journal) -> None:
        if not isinstance(self.output, LocalFolder):
            return
        with self.output.open(self.name) as file:
            digest = hashlib.file_digest(cast("Any", file), "sha256").hexdigest()
        if digest != journal.output:
            target = self.output.shown(self.name)
            raise VerificationError(
                f"{target}: was changed after it was made; remove it to make it again, or give another "
                "folder",
                code="output-changed",
                path=target,
            )

    def _read_part(self, part: Part) -> bytes:
        with self.output.open(self._path(part)) as file:
            return file.read()

    def _remove_parts(self) -> bool:
        names = self.output.names(f"{self._place}parts/")
        for _ in in_parallel(self.output.remove, names, _STREAMS):
            pass
        if isinstance(self.output, LocalFolder):
            self.output.remove(f"{self._place}rows")
        return bool(names)

    def _write(self, journal: Journal) -> None:
        with self.output.replacing(f"{self._place}journal.json") as file:
            file.write(journal.to_bytes())


class PartRows:
    """The rows of a file of answers so far, to which chunks are added."""

    def __init__(self, folder: PartFolder, journal: Journal, number: int) -> None:
        self._folder, self._number = folder, number
        self.journal = journal
        """How far it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def add(
        self, data: bytes, end: Position, *, rows: int = 0, failed: int = 0, truncated: int = 0
    ) -> None:
        """Add a chunk; see :meth:`centra.scoring.journal.Rows.add`."""
        counts = {"rows": rows, "failed": failed, "truncated": truncated}
        self._folder.add(Part(number=self._number, end=end, **counts), data)
        self._number += 1
        so_far = self.journal.model_dump(include={*counts})
        self.journal = self.journal.model_copy(
            update={
                "offset": end.offset,
                "line": end.line,
                **{name: so_far[name] + count for name, count in counts.items()},
            }
        )


class _Joined(io.RawIOBase):
    """Pieces one after the other."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._rest = memoryview(b"")
        self._pieces = pieces

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    shutil.copyfileobj(source, target, 2**20)
