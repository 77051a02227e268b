"""A release as a folder on disk, complete in itself.

::

    release.json                    the manifest; sha256sum of it is the release's digest
    SHA256SUMS                      every file's digest, as sha256sum -c reads it
    config.json                     with the index below, lets transformers load the trunk
    model.safetensors.index.json    the trunk's tensors and their files
    backbone/<id>/...               backbone.json, embeddings and layers up to the deepest tap
    tokenizer/<id>/...              tokenizer.json, tokenizer_config.json
    tasks/<name>.safetensors        the task modules, byte for byte as registered
    model.sig                       the first signature, where there is one
    signatures/2.sig ...            more of them

``config.json`` and the index are left out of a release with two backbones: their tensors have the
same names. Each ``<id>`` is the start of a backbone's digest. A signature covers every file but the
signatures, ``SHA256SUMS`` among them; see :mod:`centra.releases.signing`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    FormatError,
    StoreError,
    StoreNotWritableError,
)
from centra.formats.backbone import BackboneSpec
from centra.formats.documents import sha256
from centra.formats.manifest import ReleaseManifest
from centra.formats.strict_json import LARGEST
from centra.progress import Progress, silent
from centra.system.files import (
    check_utf8,
    file_digest,
    make_folder,
    replacing,
    sync_folder,
    temporary_for,
)
from centra.system.reading import check_links, read_regular

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from centra.store import BlobReader

__all__ = [
    "ACCESSORIES",
    "SIGNATURES",
    "ReleaseFolder",
    "check_target",
    "is_begun",
    "listing",
    "write_folder",
]

_log = logging.getLogger(__name__)

_MANIFEST, _SUMS = "release.json", "SHA256SUMS"
_CONFIG, _INDEX = "config.json", "model.safetensors.index.json"
ACCESSORIES = (_SUMS, _CONFIG, _INDEX)
"""What a folder holds for other programs' use; all of it follows from the manifest."""
_LARGEST_ACCESSORY = 1 << 28
"""Bytes of a file for other programs."""
_LINE = re.compile(
    r"([0-9a-f]{64})  ((?!\.)[A-Za-z0-9_.-]{1,255}(?:/(?!\.)[A-Za-z0-9_.-]{1,255}){0,7})"
)
"""Of the list of digests; no such path leads out of its folder."""
_NUMBER = re.compile("[0-9]{1,9}")
_FIRST, _MORE = "model.sig", "signatures"
SIGNATURES = (_FIRST, _MORE)
"""What a signature cannot cover."""
_MEND = "pull the release again"
_FOLDERS = ("backbone", "tokenizer", "tasks", _MORE)


class ReleaseFolder:
    """A release folder, opened for reading; it hands out its files by digest, verified."""

    def __init__(self, root: Path, manifest: ReleaseManifest, listing: dict[str, str]) -> None:
        self.root = root
        self.manifest = manifest
        self.listing = listing
        """Every file but the signatures, by path: the digest that it has or, for a blob, must have."""
        self._paths: dict[str, list[Path]] = {}
        for path, digest in manifest.files().items():
            self._paths.setdefault(digest, []).append(root / path)

    @classmethod
    def open(cls, root: Path) -> ReleaseFolder:
        """Open a folder and check every small file in it; blobs are checked when fetched.

        Raises:
            CorruptBlobError: a file does not match ``SHA256SUMS``.
            FormatError: a file is missing or malformed, or the format is of another major version;
                or it holds something else than files and folders of its own.
            UsageError: the folder's path is not UTF-8.
        """
        check_utf8(root.absolute())
        check_links(root, deep=True)
        sums = _read_sums(root)
        if _MANIFEST not in sums:
            raise FormatError(f"{root / _SUMS}: does not list {_MANIFEST}")
        if not (root / _MANIFEST).exists():
            raise FormatError(
                f"{root}: {_MANIFEST} is missing: it was not written to its end; {_MEND}"
            )
        data = _checked(root, _MANIFEST, sums[_MANIFEST], LARGEST)
        manifest = ReleaseManifest.from_bytes(data, str(root / _MANIFEST))
        blobs = manifest.files()
        if {**sums, **blobs} != sums:
            raise FormatError(f"{root / _SUMS}: does not list the files of {_MANIFEST}")
        for path in sorted(sums.keys() - blobs.keys() - {_MANIFEST}):
            _checked(root, path, sums[path], _LARGEST_ACCESSORY)
        return cls(root, manifest, {**sums, _SUMS: file_digest(root / _SUMS)})

    def fetch(self, digest: str) -> Path:
        """See :meth:`centra.store.BlobReader.fetch`."""
        paths = self._paths.get(digest, [])
        for path in paths:  # two tasks may have the same module
            if not path.is_file():
                raise BlobNotFoundError(digest, str(path), _MEND)
            actual = file_digest(path)
            if actual != digest:
                raise CorruptBlobError(digest, actual, str(path), _MEND)
        if not paths:
            raise BlobNotFoundError(digest, str(self.root))
        return paths[0]

    def signatures(self, manifest: str) -> list[bytes]:
        """See :meth:`centra.store.BlobReader.signatures`."""
        if manifest != self.manifest.digest:
            return []
        try:
            return [read_regular(path, LARGEST) for path in _signature_files(self.root)]
        except OSError as error:
            raise StoreError(f"cannot read {error.filename}: {error.strerror}") from error

    def verify(self) -> None:
        """Check every file of the folder.

        Raises:
            BlobNotFoundError, CorruptBlobError: the first file that is missing or damaged.
        """
        for digest in self._paths:
            self.fetch(digest)


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
    root = root.absolute()
    files = manifest.files()
    sums, small = _contents(manifest, reader)
    signatures = dict(zip(_signature_names(), reader.signatures(manifest.digest), strict=False))
    check_target(root)
    written = 0
    try:
        make_folder(root)
        with _alone(root):
            owned = check_target(root)
            _remove_temporaries(root, {*owned, *sums})
            needed = [path for path, digest in sums.items() if not _is_right(root / path, digest)]
            if needed:
                _withdraw(root, owned, sums)
                needed = [path for path in needed if path not in (_SUMS, _MANIFEST)]
                needed += [_SUMS, _MANIFEST]
            _remove(root, owned.keys() - sums.keys())
            for done, path in enumerate(needed, 1):
                if path == _SUMS:
                    # All that the manifest stands for is there for good before it is.
                    written += _place_signatures(root, signatures)
                    _settle(root, sums)
                source = small[path] if path in small else reader.fetch(files[path])
                written += _place(root / path, source)
                progress("write files", done, len(needed))
            written += _place_signatures(root, signatures)
            _settle(root, sums)
    except OSError as error:
        raise StoreNotWritableError(f"cannot write to {root}: {error.strerror}") from error
    return written


def listing(manifest: ReleaseManifest, reader: BlobReader) -> dict[str, str]:
    """Every file that :func:`write_folder` writes, but the signatures: relative path to digest.

    Raises:
        BlobNotFoundError, CorruptBlobError, StoreError: a trunk's blob cannot be had.
    """
    return _contents(manifest, reader)[0]


def _contents(
    manifest: ReleaseManifest, reader: BlobReader
) -> tuple[dict[str, str], dict[str, bytes]]:
    """The digest of every file, and the bytes of those that are no blobs, by path."""
    small = {**_transformers_files(manifest, reader), _MANIFEST: manifest.to_bytes()}
    sums: dict[str, str] = {
        **manifest.files(),
        **{path: sha256(data) for path, data in small.items()},
    }
    small[_SUMS] = _sums_text(sums)
    return {**sums, _SUMS: sha256(small[_SUMS])}, small


def _signature_names() -> Iterator[str]:
    yield _FIRST
    for number in count(2):
        yield f"{_MORE}/{number}.sig"


def _signature_files(root: Path) -> list[Path]:
    """The signatures of a folder, in their order."""
    more = sorted(
        (path for path in (root / _MORE).glob("*.sig") if _NUMBER.fullmatch(path.stem)),
        key=lambda path: int(path.stem),
    )
    return [path for path in (root / _FIRST, *more) if path.is_file()]


def _sums_text(sums: dict[str, str]) -> bytes:
    return "".join(f"{sums[path]}  {path}\n" for path in sorted(sums)).encode()


def check_target(root: Path) -> dict[str, str]:
    """The files that an earlier release put into a folder; only those may be replaced.

    Raises:
        FormatError: the folder holds something that is no release, or a link that leads out of it.
        UsageError: its path is not UTF-8.
    """
    check_utf8(root.absolute())
    if (root / _SUMS).is_file():
        check_links(root, deep=True)
        sums = _read_sums(root)
        if _MANIFEST in sums:
            return sums
    try:
        free = not root.exists() or (root.is_dir() and all(map(_is_begun, _below(root))))
    except OSError as error:
        raise FormatError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if not free:
        raise FormatError(f"{root}: exists and is not a release folder; give an empty or new one")
    return {}


def is_begun(root: Path) -> bool:
    """Whether a folder holds a release, or what is there of one whose writing was cut off."""
    try:
        names = [path.name for path in root.iterdir()]
    except OSError:
        return False
    return any(_SUMS in (name, temporary_for(name)) or name == _MANIFEST for name in names)


def _below(root: Path) -> Iterator[tuple[Path, bool]]:
    """Every path below a folder, from there, and whether it is a folder."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=refuse):
        place = Path(folder).relative_to(root)
        yield from ((place / name, True) for name in folders)
        yield from ((place / name, False) for name in files)


def _is_begun(found: tuple[Path, bool]) -> bool:
    """Whether this may lie in a folder where a first write was killed before anything was listed."""
    path, folder = found
    if folder:
        return path.parts[0] in _FOLDERS
    own = len(path.parts) > 1 or temporary_for(path.name) in (_SUMS, _MANIFEST)
    return own and temporary_for(path.name) is not None


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let no other process write a folder meanwhile; one that is killed lets go of it."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("%s: another process writes it; waiting", root)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass  # Some network file systems have no such locks.
        yield
    finally:
        os.close(handle)


def _withdraw(root: Path, owned: dict[str, str], sums: dict[str, str]) -> None:
    """Make of a folder one that is no release, but is known as ours."""
    (root / _MANIFEST).unlink(missing_ok=True)
    if owned and owned[_MANIFEST] != sums[_MANIFEST]:
        # Before the folder is known as the new release's, whose signatures they are not.
        _remove(root, [str(path.relative_to(root)) for path in _signature_files(root)])
    # Until the end it lists the earlier release's files too: a rerun knows what is ours.
    union = {path: digest for path, digest in {**owned, **sums}.items() if path != _SUMS}
    _place(root / _SUMS, _sums_text(union))


def _remove_temporaries(root: Path, listed: Collection[str]) -> None:
    """Remove what killed writes of these files, or of signatures, left beside them."""
    for folder in {root, root / _MORE, *((root / path).parent for path in listed)}:
        place = folder.relative_to(root)
        for path in folder.iterdir() if folder.is_dir() else ():
            target = temporary_for(path.name)
            name = str(place / target) if target else ""
            signature = name == _FIRST or (name and str(place) == _MORE)
            if signature or name == _SUMS or name in listed:
                path.unlink(missing_ok=True)


def _remove(root: Path, paths: Collection[str]) -> None:
    """Remove files, and the folders that are empty then."""
    for path in sorted(paths):
        (root / path).unlink(missing_ok=True)
    for folder in sorted({place for path in paths for place in Path(path).parents}, reverse=True):
        if folder != Path():
            with suppress(OSError):  # Not empty.
                (root / folder).rmdir()


def _settle(root: Path, paths: Collection[str]) -> None:
    """Make what is in a folder outlast a power cut, whoever wrote it."""
    places = {place for path in paths for place in Path(path).parents}
    for folder in {root.parent, *(root / place for place in places)}:
        sync_folder(folder)
    if (root / _MORE).is_dir():
        sync_folder(root / _MORE)


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


def _transformers_files(manifest: ReleaseManifest, reader: BlobReader) -> dict[str, bytes]:
    """``config.json`` and the index with which ``AutoModel.from_pretrained`` loads the trunk."""
    from safetensors import safe_open

    if len(manifest.trunks) != 1:
        return {}
    trunk = manifest.trunks[0]
    spec = BackboneSpec.fetch(trunk.spec, reader)
    layers = "n_layers" if "n_layers" in spec.config else "num_hidden_layers"
    config = {"model_type": spec.family, **spec.config, layers: len(trunk.layers)}
    weights: dict[str, str] = {}
    total = 0
    for path, digest in manifest.files().items():
        if path.startswith("backbone/") and path.endswith(".safetensors"):
            blob = reader.fetch(digest)
            total += blob.stat().st_size
            with safe_open(blob, framework="numpy") as file:
                weights |= dict.fromkeys(file.keys(), path)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weights.items()))}
    return {
        _CONFIG: _pretty(config),
        _INDEX: _pretty(index),
    }


def _pretty(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


def _read_sums(root: Path) -> dict[str, str]:
    try:
        *lines, end = read_regular(root / _SUMS, LARGEST).decode().split("\n")
    except FileNotFoundError as error:
        raise FormatError(f"{root / _SUMS}: missing; {_MEND}") from error
    except OSError as error:
        raise FormatError(f"{root / _SUMS}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{root / _SUMS}: is damaged; {_MEND}") from error
    sums: dict[str, str] = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            raise FormatError(f"{root / _SUMS}: malformed line {line[:90]!r}")
        digest, path = found.groups()
        if path in sums:
            raise FormatError(f"{root / _SUMS}: lists {path} twice")
        sums[path] = digest
    if end:
        raise FormatError(f"{root / _SUMS}: its last line is cut off")
    return sums


def _checked(root: Path, path: str, digest: str, largest: int) -> bytes:
    try:
        data = read_regular(root / path, largest)
    except FileNotFoundError as error:
        raise BlobNotFoundError(digest, str(root / path), _MEND) from error
    except OSError as error:
        raise FormatError(f"{root / path}: cannot be read ({error.strerror})") from error
    if sha256(data) != digest:
        raise CorruptBlobError(digest, sha256(data), str(root / path), _MEND)
    return data
