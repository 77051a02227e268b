"""Writing a release folder, so that it is a whole release or none at every moment."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import FormatError, StoreNotWritableError
from centra.formats.documents import sha256
from centra.progress import Progress, silent
from centra.releases.checksums import SUMS, read_sums, sums_text
from centra.releases.folder import (
    FIRST_SIGNATURE,
    MANIFEST,
    MORE_SIGNATURES,
    signature_files,
)
from centra.releases.transformers_files import transformers_files
from centra.system.files import (
    check_utf8,
    file_digest,
    make_folder,
    replacing,
    sync_folder,
    temporary_for,
)
from centra.system.locking import locked
from centra.system.reading import check_links

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from centra.formats.manifest import ReleaseManifest
    from centra.store import BlobReader

__all__ = ["check_target", "folder_contents", "listing", "signature_names", "write_folder"]

_log = logging.getLogger(__name__)

_FOLDERS = ("backbone", "tokenizer", "tasks", MORE_SIGNATURES)


def write_folder(
    manifest: ReleaseManifest, reader: BlobReader, root: Path, progress: Progress = silent
) -> int:
    """Materialise a release; files that are already right are left alone.

    Files of an earlier release in the same folder that this one does not have are removed, its
    signatures too, and what a killed write left; nothing else is. The manifest comes last, so an
    interrupted write is no release, and a rerun goes on where it stopped. Two processes that write
    the same folder take turns.

    Args:
        manifest: the release.
        reader: where its blobs are.
        root: the folder; made where it is missing.
        progress: told of each file.

    Returns:
        How many bytes had to be written.

    Raises:
        StoreNotWritableError: the folder cannot be written.
        BlobNotFoundError, CorruptBlobError, StoreError: a blob cannot be had.
        FormatError: the folder holds something that is no release.
    """
    start = time.perf_counter()
    root = root.absolute()
    files = manifest.files()
    sums, small_files = folder_contents(manifest, reader)
    signatures = dict(zip(signature_names(), reader.signatures(manifest.digest), strict=False))
    check_target(root)
    written = 0
    try:
        make_folder(root)
        with locked(root):
            earlier = check_target(root)
            _remove_temporaries(root, {*earlier, *sums})
            to_write = [path for path, digest in sums.items() if not _is_right(root / path, digest)]
            if to_write:
                _withdraw_manifest(root, earlier, sums)
                to_write = [path for path in to_write if path not in (SUMS, MANIFEST)]
                to_write += [SUMS, MANIFEST]
            _remove(root, earlier.keys() - sums.keys())
            for done, path in enumerate(to_write, 1):
                if path == SUMS:
                    # All that the manifest stands for is there for good before it is.
                    written += _place_signatures(root, signatures)
                    _make_durable(root, sums)
                source = small_files[path] if path in small_files else reader.fetch(files[path])
                written += _place(root / path, source)
                progress("write files", done, len(to_write))
            written += _place_signatures(root, signatures)
            _make_durable(root, sums)
    except OSError as error:
        raise StoreNotWritableError(
            f"cannot write to {root}: {error.strerror}",
            code="folder-not-writable",
            folder=str(root),
        ) from error
    seconds = time.perf_counter() - start
    _log.info(
        "wrote release sha256:%s to %s: %d bytes in %.2f s", manifest.digest, root, written, seconds
    )
    return written


def listing(manifest: ReleaseManifest, reader: BlobReader) -> dict[str, str]:
    """Every file that :func:`write_folder` writes, but the signatures: relative path to digest.

    Raises:
        BlobNotFoundError, CorruptBlobError, StoreError: a trunk's blob cannot be had.
    """
    return folder_contents(manifest, reader)[0]


def check_target(root: Path) -> dict[str, str]:
    """The files that an earlier release put into a folder; only those may be replaced.

    Raises:
        FormatError: the folder holds something that is no release, or a link that leads out of it.
        UsageError: its path is not UTF-8.
    """
    check_utf8(root.absolute())
    if (root / SUMS).is_file():
        check_links(root, deep=True)
        sums = read_sums(root)
        if MANIFEST in sums:
            return sums
    try:
        free = not root.exists() or (
            root.is_dir() and all(map(_is_of_begun_write, _paths_below(root)))
        )
    except OSError as error:
        raise FormatError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if not free:
        raise FormatError(
            f"{root}: exists and is not a release folder; give an empty or new one",
            code="not-a-release-folder",
            folder=str(root),
        )
    return {}


def folder_contents(
    manifest: ReleaseManifest, reader: BlobReader
) -> tuple[dict[str, str], dict[str, bytes]]:
    """The digest of every file but the signatures, and the bytes of those that are no blobs, by path.

    Raises:
        BlobNotFoundError, CorruptBlobError, StoreError: a trunk's blob cannot be had.
    """
    small_files = {**transformers_files(manifest, reader), MANIFEST: manifest.to_bytes()}
    sums: dict[str, str] = {
        **manifest.files(),
        **{path: sha256(data) for path, data in small_files.items()},
    }
    small_files[SUMS] = sums_text(sums)
    return {**sums, SUMS: sha256(small_files[SUMS])}, small_files


def signature_names() -> Iterator[str]:
    """Where signatures lie in a folder, in their order."""
    yield FIRST_SIGNATURE
    for number in count(2):
        yield f"{MORE_SIGNATURES}/{number}.sig"


def _paths_below(root: Path) -> Iterator[tuple[Path, bool]]:
    """Every path below a folder, from there, and whether it is a folder."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=refuse):
        place = Path(folder).relative_to(root)
        yield from ((place / name, True) for name in folders)
        yield from ((place / name, False) for name in files)


def _is_of_begun_write(entry: tuple[Path, bool]) -> bool:
    """Whether this may lie in a folder where a first write was killed before anything was listed."""
    path, is_folder = entry
    if is_folder:
        return path.parts[0] in _FOLDERS
    ours = len(path.parts) > 1 or temporary_for(path.name) in (SUMS, MANIFEST)
    return ours and temporary_for(path.name) is not None


def _withdraw_manifest(root: Path, earlier: dict[str, str], sums: dict[str, str]) -> None:
    """Make of a folder one that is no release, but is known as ours."""
    (root / MANIFEST).unlink(missing_ok=True)
    if earlier and earlier[MANIFEST] != sums[MANIFEST]:
        # Before the folder is known as the new release's, whose signatures they are not.
        _remove(root, [str(path.relative_to(root)) for path in signature_files(root)])
    # Until the end it lists the earlier release's files too: a rerun knows what is ours.
    union = {path: digest for path, digest in {**earlier, **sums}.items() if path != SUMS}
    _place(root / SUMS, sums_text(union))


def _remove_temporaries(root: Path, listed: Collection[str]) -> None:
    """Remove what killed writes of these files, or of signatures, left beside them."""
    for folder in {root, root / MORE_SIGNATURES, *((root / path).parent for path in listed)}:
        place = folder.relative_to(root)
        for path in folder.iterdir() if folder.is_dir() else ():
            target = temporary_for(path.name)
            name = str(place / target) if target else ""
            signature = name == FIRST_SIGNATURE or (name and str(place) == MORE_SIGNATURES)
            if signature or name == SUMS or name in listed:
                path.unlink(missing_ok=True)


def _remove(root: Path, paths: Collection[str]) -> None:
    """Remove files, and the folders that are empty then."""
    for path in sorted(paths):
        (root / path).unlink(missing_ok=True)
    for folder in sorted({place for path in paths for place in Path(path).parents}, reverse=True):
        if folder != Path():
            with suppress(OSError):  # Not empty.
                (root / folder).rmdir()


def _make_durable(root: Path, paths: Collection[str]) -> None:
    """Make what is in a folder outlast a power cut, whoever wrote it."""
    places = {place for path in paths for place in Path(path).parents}
    for folder in {root.parent, *(root / place for place in places)}:
        sync_folder(folder)
    if (root / MORE_SIGNATURES).is_dir():
        sync_folder(root / MORE_SIGNATURES)


def _is_right(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def _place_signatures(root: Path, signatures: dict[str, bytes]) -> int:
    """Put those that are not there; returns the bytes written."""
    return sum(
        _place(root / name, data)
        for name, data in signatures.items()
        if not _is_right(root / name, sha256(data))
    )


def _place(path: Path, source: Path | bytes) -> int:
    """Put a file at a path in one step; returns the bytes written."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        if isinstance(source, bytes):
            temporary.write_bytes(source)
        else:
            shutil.copyfile(source, temporary)
    return path.stat().st_size
