"""What is to be answered, by which release, and into which files: the same for all engines."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from centra.data.formats import SUFFIXES, format_of, output_name
from centra.data.readers import FIELDS, open_reader
from centra.data.source import HubData
from centra.errors import ConflictError, DataError, NotFoundError, UsageError
from centra.formats.documents import sha256
from centra.scoring.answers import AnswerColumns
from centra.scoring.journal import MadeFrom, WorkFolder
from centra.scoring.parts import PartFolder
from centra.store.files import Folder, FoundFile, LocalFolder, find_files, open_folder
from centra.system.files import file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.data.readers import Reader
    from centra.formats.identities import Digest

_BETWEEN = re.compile(r"(^|/)(cache|tmp)[-0-9a-z_]*\.arrow$")
"""The names of what ``datasets`` computes beside the files of a data set."""

__all__ = ["PlannedFile", "Question", "named_columns", "plan_outputs"]


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """A file of inputs, and the file of its answers."""

    source: FoundFile
    output: Folder
    name: str
    """Of the file of answers."""

    @property
    def target(self) -> str:
        """The address of the file of answers, for people."""
        return self.output.shown(self.name)

    @property
    def work(self) -> WorkFolder | PartFolder:
        """What is kept of the file of answers until it is there, and of its end."""
        if isinstance(self.output, LocalFolder) and not self.parts.parts():
            return WorkFolder(Path(self.target))
        return self.parts

    @property
    def parts(self) -> PartFolder:
        """The same for several workers."""
        return PartFolder(output=self.output, name=self.name)

    def input_digest(self) -> Digest:
        """A digest that is another one whenever the input is.

        Of a file of this machine it is that of its bytes; of an object in S3 that of the ETag, which
        S3 makes of them.

        Raises:
            NotFoundError: it is not there.
            DataError, StoreError: it cannot be read.
        """
        folder, name = self.source.folder, self.source.name
        if isinstance(folder, LocalFolder):
            path = Path(self.source.shown)
            try:
                return file_digest(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        stat = folder.stat(name)
        if stat is None:
            shown = self.source.shown
            raise NotFoundError(
                f"{shown}: there is no such file", code="no-such-file", address=shown
            )
        return sha256(f"{stat.version} {stat.size}".encode())


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a release about each row; plain values, which can be sent to other machines."""

    release: str
    """Its digest."""
    engine: str
    dtype: str | None
    """What the engine computes in; None where each task's precision says it."""
    kinds: Mapping[str, str]
    """The kind of each task that may answer."""
    top_k: int | None
    flat: bool
    columns: Mapping[str, str]
    """See :func:`named_columns`."""
    encoding: str | None = None
    """Of text; see :func:`centra.data.readers.open_reader`."""

    def answer_columns(self) -> AnswerColumns:
        """The columns that each row gets."""
        return AnswerColumns(self.kinds, flat=self.flat, top_k=self.top_k)

    def made_from(self, file: PlannedFile) -> MadeFrom:
        """All that the bytes of a file of answers depend on.

        Raises:
            CentraError: as for :meth:`PlannedFile.input_digest`.
        """
        return MadeFrom.model_validate(
            {
                "input": file.input_digest(),
                "format": format_of(file.source.name),
                "columns": self.columns,
                "encoding": self.encoding,
                "release": self.release,
                "engine": self.engine,
                "dtype": self.dtype,
                "tasks": tuple(self.kinds),
                "top_k": self.top_k,
                "flat": self.flat,
            }
        )

    def open_reader(self, file: BinaryIO, planned: PlannedFile) -> Reader:
        """Open a file of inputs.

        Args:
            file: its bytes.
            planned: what it is.

        Raises:
            DataError, ConflictError, UsageError: see :func:`centra.data.readers.open_reader`.
        """
        # By its name alone: errors become a part of the output, which is the same from any folder.
        name = planned.source.name.rpartition("/")[2]
        reserved = self.answer_columns().names
        return open_reader(
            file,
            format_of(name),
            name,
            columns=self.columns,
            reserved=reserved,
            encoding=self.encoding,
        )


def named_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    """The column of each field of an input.

    Args:
        columns: of those whose column has another name.
    """
    return {**dict(zip(FIELDS, FIELDS, strict=True)), **(columns or {})}


def plan_outputs(
    inputs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]
) -> list[PlannedFile]:
    """Each input with its output.

    Args:
        inputs: addresses of files, folders, prefixes and patterns, see
            :func:`centra.store.files.find_files`; or ``hf://ORG/NAME``, of which each split is a file.
        output: of a folder or prefix.

    Raises:
        UsageError: a file of no format that is read, or the folder is a file, or no address; an
            empty one, too, which would be the current folder.
        NotFoundError: an address leads to no file.
        ConflictError: an input would be its own output, or two have one.
        StoreError: a bucket cannot be listed.
    """
    if not os.fspath(output) or not all(map(os.fspath, inputs)):
        raise UsageError(
            "an input or the folder of the outputs is empty; expected a path or an address",
            code="empty-address",
        )
    folder = open_folder(output)
    if isinstance(folder, LocalFolder) and folder.root.exists() and not folder.root.is_dir():
        raise UsageError(f"{folder.root}: is a file; expected a folder", code="not-a-folder")
    plan = [
        PlannedFile(source=source, output=folder, name=_output_name(source.name))
        for source in _found(inputs)
        if not _is_answer(source, folder)
    ]
    counts = Counter(file.name for file in plan)
    for file in plan:
        if counts[file.name] > 1:
            others = ", ".join(other.source.shown for other in plan if other.name == file.name)
            raise ConflictError(
                f"{file.target}: would be the output of {counts[file.name]} inputs: {others}; give "
                "them one by one, each with a folder of its own",
                code="same-output",
                path=file.target,
            )
        if _is_its_own_output(file):
            raise ConflictError(
                f"{file.source.shown}: lies in the folder of the outputs, and its output would take "
                "its place; give another folder",
                code="output-is-input",
                path=file.source.shown,
            )
    return plan


def _found(inputs: Sequence[str | os.PathLike[str]]) -> list[FoundFile]:
    """The files of inputs: of a data set of the hub those that ``datasets`` keeps of it."""
    found = []
    for address in inputs:
        if os.fspath(address).startswith("hf://"):
            from centra.data.hub import kept_files

            found += [
                FoundFile(folder=LocalFolder(path.parent), name=path.name)
                for path in kept_files(HubData.parse(os.fspath(address)))
            ]
        else:
            files = find_files([address], SUFFIXES)
            found += files if len(files) == 1 else [f for f in files if not _BETWEEN.search(f.name)]
    return found


def _output_name(name: str) -> str:
    above, slash, last = name.rpartition("/")
    return f"{above}{slash}{output_name(last)}"


def _is_answer(source: FoundFile, output: Folder) -> bool:
    """Whether a file was found in the folder of the outputs, which lies below that of the inputs."""
    if isinstance(source.folder, LocalFolder) and isinstance(output, LocalFolder):
        # A folder may be spelled in several ways.
        above = output.root.resolve()
        lies = Path(source.shown).parent.resolve().is_relative_to(above)
        return lies and not source.folder.root.resolve().is_relative_to(above)
    prefix = output.shown("x").removesuffix("x")
    return source.shown.startswith(prefix) and not source.folder.shown("x").startswith(prefix)


def _is_its_own_output(file: PlannedFile) -> bool:
    source, target = Path(file.source.shown), Path(file.target)
    if isinstance(file.source.folder, LocalFolder) and isinstance(file.output, LocalFolder):
        return target.exists() and target.samefile(source)
    return file.source.shown == file.target
