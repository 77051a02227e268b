"""The work folder of a run in a bucket, so that the run goes on from there on any machine.

::

    state.json        which files the folder has, each with its digest
    files/<digest>    what is in them

A run works in a folder of its own on the machine that it is carried out on, which has the
checkpoints if it goes on, and not to tell what is known. After each epoch what is new there is uploaded,
and then the state replaced: who is killed in between leaves the epoch before. A state that cannot be
had whole, as after two machines were at the same run, counts for nothing, and the run begins anew.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator

from centra.errors import FormatError, StoreError, UnsupportedFormatError
from centra.formats.documents import DigestField, FormattedDocument, Text
from centra.store import cache_folder
from centra.system.files import file_digest, make_folder
from centra.system.locking import is_locked, locked
from centra.training.work_folder import WorkFolder, is_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from centra.formats.identities import Digest
    from centra.store.s3.path import S3Path

__all__ = ["LocalWork", "discard_checkpoints", "opened_work"]

_log = logging.getLogger(__name__)

_STATE = "state.json"
_FILES = "files"
_NEEDLESS = "training_args.bin"
"""Trainer writes its arguments as a pickle, which nobody reads."""


def _check_inside(name: str) -> str:
    if not set(name.split("/")).isdisjoint({"", ".", ".."}):
        raise ValueError(f"expected the path of a file in the folder, found {name!r}")
    return name


_Inside = Annotated[Text, AfterValidator(_check_inside)]


class _State(FormattedDocument):
    FORMAT: ClassVar[str] = "centra/run-state"

    files: dict[_Inside, DigestField]
    """Digests by the files' paths in the work folder."""


class LocalWork:
    """A run's work folder as it lies on this machine."""

    def __init__(self, path: Path, remote: S3Path | None = None) -> None:
        self.path = path
        self._remote = remote
        self._kept: dict[str, Digest] = {}

    def restore(self) -> None:
        """Bring what is kept in the bucket, if anything is, without checkpoints, which are large.

        Raises:
            StoreError: the bucket cannot be reached.
        """
        if self._remote is not None:
            self._kept = _read_state(self._remote)
            self._download([name for name in self._kept if not is_checkpoint(name)])

    def restore_checkpoints(self) -> None:
        """Bring the checkpoints, too, of the run that the folder is still of.

        What nobody refers to in the bucket is removed: somebody was killed who had just written it.

        Raises:
            StoreError: the bucket cannot be reached, or there is no room for them here.
            StoreNotWritableError: it cannot be written.
        """
        if self._remote is None:
            return
        brought = {name: digest for name, digest in self._kept.items() if not is_checkpoint(name)}
        if self._files().items() >= brought.items():
            self._download([name for name in self._kept if is_checkpoint(name)])
        for name in [*(self._remote / _FILES).names()]:
            if name not in self._kept.values():
                (self._remote / _FILES / name).unlink()

    def save(self) -> None:
        """Keep what is in the folder, also for other machines.

        Raises:
            StoreError: the bucket cannot be reached.
            StoreNotWritableError: it cannot be written.
        """
        if self._remote is None:
            return
        found = self._files()
        for name, digest in found.items():
            if digest not in self._kept.values():
                (self._remote / _FILES / digest).upload(self.path / name)
        _write_state(self._remote, found, self._kept)
        self._kept = found
        reports = self.path.parent / "runs"
        for path in reports.rglob("*"):
            if path.is_file():
                (self._remote.parent / path.relative_to(self.path.parent).as_posix()).upload(path)

    def _files(self) -> dict[str, Digest]:
        files = [path for path in self.path.rglob("*") if path.is_file() and path.name != _NEEDLESS]
        return {path.relative_to(self.path).as_posix(): file_digest(path) for path in files}

    def _download(self, names: Iterable[str]) -> None:
        """Bring some files, or remove all where they are not whole."""
        assert self._remote is not None
        for name in names:
            file, digest = self.path / name, self._kept[name]
            with _cache_errors():
                file.parent.mkdir(parents=True, exist_ok=True)
                whole = (self._remote / _FILES / digest).download(file, digest)
            if not whole:
                _log.warning("%s: %s is missing or damaged; begins anew", self._remote, name)
                shutil.rmtree(self.path)
                self._kept = {}
                return


@contextmanager
def opened_work(work: Path | S3Path) -> Iterator[LocalWork]:
    """A run's work folder, as it was left, on this machine.

    One in a bucket has no checkpoints before :meth:`LocalWork.restore_checkpoints`, and what is done
    here stays after :meth:`LocalWork.save` alone.

    Raises:
        StoreError: the bucket cannot be reached, or there is no room for it here.
        UnsupportedFormatError: another version of Centra left it.
    """
    if isinstance(work, Path):
        yield LocalWork(work)
        return
    root = cache_folder() / "work"
    with ExitStack() as stack:
        with _cache_errors():
            make_folder(root)
            with locked(root, logging.DEBUG):
                _remove_abandoned(root)
                scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=root))
                stack.enter_context(locked(Path(scratch)))
        local = LocalWork(Path(scratch) / work.name, work)
        local.restore()
        yield local


def discard_checkpoints(work: Path | S3Path) -> None:
    """Remove the checkpoints of a run that is given up.

    Raises:
        StoreError, StoreNotWritableError: as :meth:`LocalWork.save`.
    """
    if isinstance(work, Path):
        WorkFolder(work).discard_checkpoints()
        return
    before = _read_state(work)
    left = {name: digest for name, digest in before.items() if not is_checkpoint(name)}
    if left != before:
        _write_state(work, left, before)


@contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write to the cache {cache_folder()}: {error.strerror}. "
            "Check its permissions and free space.",
            code="cache-not-writable",
            folder=str(cache_folder()),
        ) from error


def _read_state(remote: S3Path) -> dict[str, Digest]:
    file = remote / _STATE
    data = file.read_bytes()
    if data is None:
        return {}
    try:
        state = _State.from_bytes(data, str(file))
    except UnsupportedFormatError:
        raise
    except FormatError as error:
        _log.warning("%s; begins anew", error)
        return {}
    return state.files


def _write_state(remote: S3Path, files: dict[str, Digest], before: dict[str, Digest]) -> None:
    """Say which files there are now, and remove those that were there before alone."""
    if files != before:
        (remote / _STATE).write_bytes(_State(files=files).to_bytes())
    for digest in {*before.values()} - {*files.values()}:
        (remote / _FILES / digest).unlink()


def _remove_abandoned(root: Path) -> None:
    """Remove the folders of runs that were killed here."""
    for folder in root.iterdir():
        with suppress(OSError):
            if folder.is_dir() and not is_locked(folder):
                shutil.rmtree(folder)
