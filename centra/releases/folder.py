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

import re
from typing import TYPE_CHECKING

from centra.errors import BlobNotFoundError, CorruptBlobError, FormatError, StoreError
from centra.formats.documents import sha256
from centra.formats.manifest import ReleaseManifest
from centra.formats.strict_json import LARGEST
from centra.releases.checksums import PULL_AGAIN, SUMS, read_sums
from centra.system.files import check_utf8, file_digest, temporary_for
from centra.system.reading import check_links, read_regular

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ACCESSORIES",
    "CONFIG",
    "FIRST_SIGNATURE",
    "INDEX",
    "MANIFEST",
    "MORE_SIGNATURES",
    "SIGNATURES",
    "ReleaseFolder",
    "is_begun",
    "signature_files",
]

MANIFEST = "release.json"
CONFIG, INDEX = "config.json", "model.safetensors.index.json"
ACCESSORIES = (SUMS, CONFIG, INDEX)
"""What a folder holds for other programs' use; all of it follows from the manifest."""
FIRST_SIGNATURE, MORE_SIGNATURES = "model.sig", "signatures"
SIGNATURES = (FIRST_SIGNATURE, MORE_SIGNATURES)
"""What a signature cannot cover."""

_LARGEST_ACCESSORY = 1 << 28
"""Bytes of a file for other programs."""
_NUMBER = re.compile("[0-9]{1,9}")


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
        sums = read_sums(root)
        if MANIFEST not in sums:
            raise FormatError(
                f"{root / SUMS}: does not list {MANIFEST}", code="folder-damaged", folder=str(root)
            )
        if not (root / MANIFEST).exists():
            raise FormatError(
                f"{root}: {MANIFEST} is missing: it was not written to its end; {PULL_AGAIN}",
                code="folder-incomplete",
                folder=str(root),
            )
        data = _read_checked(root, MANIFEST, sums[MANIFEST], LARGEST)
        manifest = ReleaseManifest.from_bytes(data, str(root / MANIFEST))
        blobs = manifest.files()
        if {**sums, **blobs} != sums:
            raise FormatError(
                f"{root / SUMS}: does not list the files of {MANIFEST}",
                code="folder-damaged",
                folder=str(root),
            )
        for path in sorted(sums.keys() - blobs.keys() - {MANIFEST}):
            _read_checked(root, path, sums[path], _LARGEST_ACCESSORY)
        return cls(root, manifest, {**sums, SUMS: file_digest(root / SUMS)})

    def fetch(self, digest: str) -> Path:
        paths = self._paths.get(digest, [])
        for path in paths:  # two tasks may have the same module
            if not path.is_file():
                raise BlobNotFoundError(digest, str(path), PULL_AGAIN)
            actual = file_digest(path)
            if actual != digest:
                raise CorruptBlobError(digest, actual, str(path), PULL_AGAIN)
        if not paths:
            raise BlobNotFoundError(digest, str(self.root))
        return paths[0]

    def signatures(self, manifest: str) -> list[bytes]:
        if manifest != self.manifest.digest:
            return []
        try:
            return [read_regular(path, LARGEST) for path in signature_files(self.root)]
        except OSError as error:
            raise StoreError(f"cannot read {error.filename}: {error.strerror}") from error

    def verify(self) -> None:
        """Check every file of the folder.

        Raises:
            BlobNotFoundError, CorruptBlobError: the first file that is missing or damaged.
        """
        for digest in self._paths:
            self.fetch(digest)


def is_begun(root: Path) -> bool:
    """Whether a folder holds a release, or what is there of one whose writing was cut off."""
    try:
        names = [path.name for path in root.iterdir()]
    except OSError:
        return False
    return any(SUMS in (name, temporary_for(name)) or name == MANIFEST for name in names)


def signature_files(root: Path) -> list[Path]:
    """The signatures of a folder, in their order."""
    more = sorted(
        (path for path in (root / MORE_SIGNATURES).glob("*.sig") if _NUMBER.fullmatch(path.stem)),
        key=lambda path: int(path.stem),
    )
    return [path for path in (root / FIRST_SIGNATURE, *more) if path.is_file()]


def _read_checked(root: Path, path: str, digest: str, largest: int) -> bytes:
    try:
        data = read_regular(root / path, largest)
    except FileNotFoundError as error:
        raise BlobNotFoundError(digest, str(root / path), PULL_AGAIN) from error
    except OSError as error:
        raise FormatError(f"{root / path}: cannot be read ({error.strerror})") from error
    if sha256(data) != digest:
        raise CorruptBlobError(digest, sha256(data), str(root / path), PULL_AGAIN)
    return data
