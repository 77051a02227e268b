"""A release as a folder on disk, complete in itself.

::

    release.json                    the manifest; sha256sum of it is the release's digest
    SHA256SUMS                      every file's digest, as sha256sum -c reads it
    config.json                     with the index below, lets transformers load the trunk
    model.safetensors.index.json    the trunk's tensors and their files
    backbone/<id>/...               backbone.json, embeddings and layers up to the deepest tap
    tokenizer/<id>/...              tokenizer.json, tokenizer_config.json
    tasks/<name>.safetensors        the task modules, byte for byte as registered

``config.json`` and the index are left out of a release with two backbones: their tensors have the
same names. Each ``<id>`` is the start of a backbone's digest.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from centra.backbone import BackboneSpec
from centra.blobs import file_digest, replacing
from centra.documents import sha256
from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    FormatError,
    StoreNotWritableError,
)
from centra.progress import Progress, silent
from centra.release import ReleaseManifest

if TYPE_CHECKING:
    from centra.blobs import BlobReader

__all__ = ["ReleaseFolder", "check_target", "write_folder"]

_MANIFEST, _SUMS = "release.json", "SHA256SUMS"


class ReleaseFolder:
    """A release folder, opened for reading; it hands out its files by digest, verified."""

    def __init__(self, root: Path, manifest: ReleaseManifest) -> None:
        self.root = root
        self.manifest = manifest
        self._paths: dict[str, list[Path]] = {}
        for path, digest in manifest.files().items():
            self._paths.setdefault(digest, []).append(root / path)

    @classmethod
    def open(cls, root: Path) -> ReleaseFolder:
        """Open a folder and check every small file in it; blobs are checked when fetched.

        Raises:
            CorruptBlobError: a file does not match ``SHA256SUMS``.
            FormatError: a file is missing or malformed, or the format is of another major version.
        """
        sums = _read_sums(root)
        if _MANIFEST not in sums:
            raise FormatError(f"{root / _SUMS}: does not list {_MANIFEST}")
        data = _checked(root, _MANIFEST, sums[_MANIFEST])
        manifest = ReleaseManifest.from_bytes(data, str(root / _MANIFEST))
        blobs = manifest.files()
        if {**sums, **blobs} != sums:
            raise FormatError(f"{root / _SUMS}: does not list the files of {_MANIFEST}")
        for path in sorted(sums.keys() - blobs.keys()):
            _checked(root, path, sums[path])
        return cls(root, manifest)

    def fetch(self, digest: str) -> Path:
        """See :meth:`centra.blobs.BlobReader.fetch`."""
        paths = self._paths.get(digest, [])
        for path in paths:  # two tasks may have the same module
            if not path.is_file():
                raise BlobNotFoundError(digest, str(path))
            actual = file_digest(path)
            if actual != digest:
                raise CorruptBlobError(digest, actual, str(path))
        if not paths:
            raise BlobNotFoundError(digest, str(self.root))
        return paths[0]

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

    Files of an earlier release in the same folder that this one does not have are removed, and
    nothing else is. The manifest comes last, so an interrupted write is no release.

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
    small = {**_transformers_files(manifest, reader), _MANIFEST: manifest.to_bytes()}
    sums = {**files, **{path: sha256(data) for path, data in small.items()}}
    small[_SUMS] = _sums_text(sums)
    owned = check_target(root)
    # Until the end it lists the earlier release's files too: a rerun knows what is ours.
    union = _sums_text({**owned, **sums})
    sums[_SUMS] = sha256(small[_SUMS])
    stale = owned.keys() - sums.keys()
    needed = [path for path, digest in sums.items() if not _is_right(root / path, digest)]
    written = 0
    try:
        if needed:
            root.mkdir(parents=True, exist_ok=True)
            (root / _MANIFEST).unlink(missing_ok=True)
            _place(root / _SUMS, union)
            last = (_SUMS, _MANIFEST)
            needed = [*(path for path in needed if path not in last), *last]
        for path in sorted(stale):
            (root / path).unlink(missing_ok=True)
        for done, path in enumerate(needed, 1):
            source = small[path] if path in small else reader.fetch(files[path])
            written += _place(root / path, source)
            progress("write files", done, len(needed))
    except OSError as error:
        raise StoreNotWritableError(f"cannot write to {root}: {error.strerror}") from error
    return written


def _sums_text(sums: dict[str, str]) -> bytes:
    return "".join(f"{sums[path]}  {path}\n" for path in sorted(sums)).encode()


def check_target(root: Path) -> dict[str, str]:
    """The files that an earlier release put into a folder; only those may be replaced.

    Raises:
        FormatError: the folder holds something that is no release.
    """
    if (root / _SUMS).is_file():
        sums = _read_sums(root)
        if _MANIFEST in sums:
            return sums
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FormatError(f"{root}: exists and is not a release folder; give an empty or new one")
    return {}


def _is_right(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def _place(path: Path, source: Path | bytes) -> int:
    """Put a file at a path in one step; returns the bytes written."""
    path.parent.mkdir(parents=True, exist_ok=True)
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
        "config.json": _pretty(config),
        "model.safetensors.index.json": _pretty(index),
    }


def _pretty(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


def _read_sums(root: Path) -> dict[str, str]:
    try:
        *lines, end = (root / _SUMS).read_bytes().decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{root / _SUMS}: missing or unreadable; pull the release again"
        ) from error
    sums = {}
    for line in lines:
        digest, separator, path = line.partition("  ")
        if not separator or Path(path).is_absolute() or ".." in Path(path).parts:
            raise FormatError(f"{root / _SUMS}: malformed line {line[:90]!r}")
        sums[path] = digest
    if end:
        raise FormatError(f"{root / _SUMS}: its last line is cut off")
    return sums


def _checked(root: Path, path: str, digest: str) -> bytes:
    try:
        data = (root / path).read_bytes()
    except OSError as error:
        raise BlobNotFoundError(digest, str(root / path)) from error
    if sha256(data) != digest:
        raise CorruptBlobError(digest, sha256(data), str(root / path))
    return data
