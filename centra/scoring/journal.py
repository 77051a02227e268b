"""How far a file of answers has come, on disk, so that a run goes on after a kill.

Beside the files of answers lies the folder ``.centra-scoring``, in it a folder for each of them::

    journal.json   what the file is made from, and how far it is
    rows           the bytes so far; what is beyond the journal's size does not count
    output         the file, where its format needs a last step

A chunk counts once its bytes are synced and the journal after it. The journal of a file that is done
stays, and tells a later run that there is nothing to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Self

from centra.errors import ConflictError, StoreNotWritableError, VerificationError
from centra.formats.documents import Count, DigestField, Document, FormattedDocument, sha256
from centra.system.files import file_digest, make_folder, replacing, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from centra.data.readers import Position

__all__ = ["WORK_FOLDER", "Journal", "MadeFrom", "Rows", "WorkFolder", "check_made_from"]

Finish = Callable[["BinaryIO", "BinaryIO"], None]
"""See :meth:`centra.scoring.writers.Writer.finish`."""

WORK_FOLDER = ".centra-scoring"
"""Beside the files of answers: what is kept of them."""


class MadeFrom(Document):
    """All that the bytes of a file of answers depend on."""

    input: DigestField
    """Of the input's bytes."""
    format: str
    columns: dict[str, str]
    encoding: str | None = None
    release: DigestField
    engine: str
    dtype: str | None
    tasks: tuple[str, ...]
    top_k: int | None
    flat: bool


class Journal(FormattedDocument):
    """How far a file of answers is."""

    FORMAT: ClassVar[str] = "centra/scoring"

    made_from: MadeFrom
    offset: Count
    """Of the input: where reading goes on; see :class:`centra.data.readers.Position`."""
    line: Count
    rows: Count = 0
    failed: Count = 0
    """Rows that have an error."""
    truncated: Count = 0
    """Rows of which not all was read."""
    written: Count
    """Bytes of ``rows`` that count."""
    written_digest: DigestField
    """Of these bytes."""
    output: DigestField | None = None
    """Of the file, once all of it is there."""

    @classmethod
    def begun(cls, made_from: MadeFrom, start: Position) -> Self:
        """Of a file that is begun.

        Args:
            made_from: what it is made from.
            start: before the first row of its input.
        """
        return cls(
            made_from=made_from,
            offset=start.offset,
            line=start.line,
            written=0,
            written_digest=sha256(b""),
        )


class WorkFolder:
    """What is kept of one file of answers."""

    def __init__(self, target: Path) -> None:
        """Name it; nothing is written yet.

        Args:
            target: the file of answers.
        """
        self.target = target
        self.folder = target.parent / WORK_FOLDER / target.name
        self._journal = self.folder / "journal.json"
        self._rows = self.folder / "rows"
        self._output = self.folder / "output"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and let no other process write there meanwhile.

        Raises:
            ConflictError: another process does.
            StoreNotWritableError: it cannot be written.
        """
        with self.writing():
            make_folder(self.folder)
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(
                    f"{self.target}: another process is writing it", code="being-written"
                ) from None
            except OSError:
                pass  # Some network file systems have no such locks.
            yield
        finally:
            os.close(handle)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Translate what a disk says that takes nothing.

        Raises:
            StoreNotWritableError: it does so.
        """
        try:
            yield
        except OSError as error:
            raise StoreNotWritableError(
                f"cannot write {self.target}: {error.strerror}", code="folder-not-writable"
            ) from error

    def find(self, made_from: MadeFrom) -> Journal | None:
        """How far the file is; None where nothing is there yet.

        Args:
            made_from: what it is to be made from.

        Raises:
            ConflictError: a file is there that no run made, or that was made, or begun, from
                something else; nothing is written over.
            VerificationError: the file, or what there is of it, is not what was written.
            FormatError: the journal cannot be read.
        """
        journal = self.read()
        there = self.target.exists()
        if journal is None or journal.output is None:
            if there:
                raise ConflictError(
                    f"{self.target}: exists, and is no file that this run has made; remove it, or "
                    "give another folder",
                    code="output-exists",
                    path=str(self.target),
                )
            if journal is not None:
                check_made_from(journal, made_from, self.target, self.folder)
            return journal
        if not there and self._made(journal) is None:
            return None  # It was taken away, so it is wanted again.
        check_made_from(journal, made_from, self.target, self.target)
        if there and file_digest(self.target) != journal.output:
            raise VerificationError(
                f"{self.target}: was changed after it was made; remove it to make it again, or give "
                "another folder",
                code="output-changed",
                path=str(self.target),
            )
        return journal

    def read(self) -> Journal | None:
        """The journal, if there is one.

        Raises:
            FormatError: it is none.
        """
        try:
            data = self._journal.read_bytes()
        except FileNotFoundError:
            return None
        return Journal.from_bytes(data, str(self._journal))

    def begin(self, made_from: MadeFrom, start: Position, head: bytes) -> Rows:
        """Begin a file.

        Args:
            made_from: what it is made from.
            start: before the first row of the input.
            head: what it begins with.

        Returns:
            Its bytes so far, to be closed.

        Raises:
            StoreNotWritableError: it cannot be written.
        """
        with self.writing():
            self._output.unlink(missing_ok=True)
            rows = Rows(
                self, self._rows.open("wb"), Journal.begun(made_from, start), hashlib.sha256()
            )
        try:
            rows.add(head, start)
        except BaseException:
            rows.close()
            raise
        return rows

    def go_on(self, journal: Journal) -> Rows:
        """Go on with a file that was begun.

        Args:
            journal: how far it is.

        Returns:
            Its bytes so far, to be closed.

        Raises:
            VerificationError: they are not what was written.
            StoreNotWritableError: they cannot be written.
        """
        with self.writing():
            self._rows.touch()
            file = self._rows.open("r+b")
        try:
            return Rows(self, file, journal, self._hashed(file, journal))
        except BaseException:
            file.close()
            raise

    def _hashed(self, file: BinaryIO, journal: Journal) -> hashlib._Hash:
        """What was hashed of the rows so far; what lies beyond is cut off."""
        digest, left = hashlib.sha256(), journal.written
        while left and (data := file.read(min(left, 2**20))):
            digest.update(data)
            left -= len(data)
        if left or digest.hexdigest() != journal.written_digest:
            raise VerificationError(
                f"{self._rows}: is not what was written there; remove {self.folder} to begin again",
                code="rows-changed",
                path=str(self.folder),
            )
        file.truncate(journal.written)
        return digest

    def write(self, journal: Journal) -> None:
        """Say how far the file is, so that it outlasts a power cut."""
        with replacing(self._journal) as temporary:
            temporary.write_bytes(journal.to_bytes())

    def end(self, journal: Journal, finish: Finish | None) -> Journal:
        """Say that all of the file is there.

        Args:
            journal: how far it is.
            finish: makes the file of its rows; None where they are the file already.

        Raises:
            StoreNotWritableError: it cannot be written.
        """
        digest = journal.written_digest
        with self.writing():
            if finish is not None:
                with self._rows.open("rb") as rows, self._output.open("wb") as output:
                    finish(rows, output)
                    output.flush()
                    os.fsync(output.fileno())
                digest = file_digest(self._output)
            journal = journal.model_copy(update={"output": digest})
            self.write(journal)
        return journal

    def publish(self, journal: Journal) -> bool:
        """Put the file, all of which is there, in its place. Doing it again does no harm.

        Args:
            journal: of its end.

        Returns:
            Whether it was not there yet.

        Raises:
            StoreNotWritableError: it cannot be put there.
        """
        with self.writing():
            missing = not self.target.exists()
            if missing:
                made = self._made(journal)
                assert made is not None
                made.rename(self.target)
                sync_folder(self.target.parent)
            self._output.unlink(missing_ok=True)
            self._rows.unlink(missing_ok=True)
        return missing

    def size(self) -> int:
        """Bytes of the file of answers."""
        return self.target.stat().st_size

    def _made(self, journal: Journal) -> Path | None:
        """Where the file is before it is in its place."""
        for path in (self._output, self._rows):
            if path.exists() and file_digest(path) == journal.output:
                return path
        return None


class Rows:
    """The bytes of a file of answers so far, to which chunks are added."""

    def __init__(
        self, folder: WorkFolder, file: BinaryIO, journal: Journal, digest: hashlib._Hash
    ) -> None:
        self._folder, self._file, self._digest = folder, file, digest
        self.journal = journal
        """How far it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._folder.writing():
            self._file.close()

    def add(
        self, data: bytes, end: Position, *, rows: int = 0, failed: int = 0, truncated: int = 0
    ) -> None:
        """Add a chunk; when this returns, it outlasts a power cut.

        Args:
            data: its bytes.
            end: where its rows end in the input.
            rows: how many it has.
            failed, truncated: how many of them have an error, and how many were not read whole.

        Raises:
            StoreNotWritableError: the disk takes it not; what was there before counts.
        """
        with self._folder.writing():
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._digest.update(data)
            so_far = self.journal
            self.journal = so_far.model_copy(
                update={
                    "offset": end.offset,
                    "line": end.line,
                    "rows": so_far.rows + rows,
                    "failed": so_far.failed + failed,
                    "truncated": so_far.truncated + truncated,
                    "written": so_far.written + len(data),
                    "written_digest": self._digest.hexdigest(),
                }
            )
            self._folder.write(self.journal)


def check_made_from(
    journal: Journal, made_from: MadeFrom, target: Path | str, removed: Path | str
) -> None:
    """Refuse to go on with what was made from something else.

    Args:
        journal: of what is there.
        made_from: what it is to be made from.
        target: the file of answers, for people.
        removed: what can be removed to begin again.

    Raises:
        ConflictError: they differ.
    """
    before, now = journal.made_from.model_dump(), made_from.model_dump()
    changed = [name for name, value in now.items() if before[name] != value]
    if not changed:
        return
    verb, again = ("begun", "begin") if journal.output is None else ("made", "make it")
    shown = "; ".join(_difference(name, before[name], now[name]) for name in changed)
    raise ConflictError(
        f"{target}: was {verb} from something else: {shown}. Give another folder, or remove {removed} "
        f"to {again} again",
        code="made-from-other",
        path=str(target),
        changed=changed,
    )


def _difference(name: str, before: object, now: object) -> str:
    if name == "input":
        return "the input had another content"
    return f"{name.replace('_', ' ')} was {_shown(before)}, and is {_shown(now)}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={part}" for key, part in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
