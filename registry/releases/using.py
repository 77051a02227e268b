"""Using a release: verifying, pulling and loading it, from the registry or from an address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.formats.precision import Precision
from centra.progress import Progress, silent
from centra.releases.find import find_release, read_manifest
from centra.releases.parity import check_parity

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import centra.runtime
    from centra.formats.identities import Digest
    from centra.formats.manifest import ReleaseManifest
    from centra.store import BlobReader
    from registry.connection import Registry

__all__ = ["Verification", "address", "is_address", "load", "pull", "verify"]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A release whose every blob was hashed and every task run on its probe."""

    digest: Digest
    files: int
    size: int
    """Bytes."""
    parity: dict[str, float]
    """Per task the largest difference of logits."""
    int8: list[str]
    """The tasks that the release computes in int8; their parity, too, is that of float32."""
    signed_by: str | None = None
    """The fingerprint of the key, of those asked for, that signed it."""


def is_address(reference: str) -> bool:
    """Whether this names a release folder or a store, which needs no registry, not a release."""
    return any(mark in reference for mark in "/#") or reference in (".", "..")


def address(registry: Registry | None, reference: str) -> str:
    """Where a release can be loaded from without the registry: its store, and its digest.

    Args:
        registry, reference: as for :func:`verify`.

    Raises:
        NotFoundError: there is no such release.
        DatabaseError: the registry cannot be used.
    """
    if registry is None or is_address(reference):
        return reference
    with registry.read() as uow:
        return f"{registry.store.url}#{uow.release(reference).digest}"


def verify(
    registry: Registry | None,
    reference: str,
    progress: Progress = silent,
    *,
    keys: Sequence[str | Path] = (),
) -> Verification:
    """Hash every blob of a release and run every task on its probe.

    Args:
        registry: where; None where the reference is an address.
        reference: a number, a channel, the start of a digest, or the address of a release folder or
            a store, as :func:`centra.load_release` takes it; see :func:`is_address`.
        progress: told of each step.
        keys: public keys, as PEM; a valid signature by one of them is required.

    Raises:
        NotFoundError: there is no such release or key.
        SignatureError: keys are given, and the release is not signed by any of them.
        BlobNotFoundError, CorruptBlobError, FormatError: a file is missing or damaged.
        ComposeError: a task's parity fails.
        StoreError, DatabaseError: the registry cannot be used.
    """
    manifest, reader = _find(registry, reference)
    signed_by = None
    if keys:
        from centra.releases.signing import verify_release

        signed_by = verify_release(manifest, reader, [Path(key) for key in keys])
    files = manifest.files()
    size = 0
    for done, digest in enumerate(files.values(), 1):
        size += reader.fetch(digest).stat().st_size
        progress("hash files", done, len(files))
    parity = check_parity(manifest, reader, list(manifest.tasks), progress)
    return Verification(
        digest=manifest.digest,
        files=len(files),
        size=size,
        parity=parity,
        int8=[
            task for task, precision in manifest.precisions.items() if precision == Precision.INT8
        ],
        signed_by=signed_by,
    )


def pull(
    registry: Registry | None, reference: str, folder: str | Path, progress: Progress = silent
) -> tuple[str, int]:
    """Materialise a release as a folder; only files that are not there yet are copied.

    Returns:
        The release's digest, and the bytes written.

    Raises:
        NotFoundError: there is no such release.
        FormatError: the folder holds something that is no release.
        StoreNotWritableError: the folder cannot be written.
        BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: it cannot be read.
    """
    from centra.releases.folder_writing import write_folder

    manifest, reader = _find(registry, reference)
    return manifest.digest, write_folder(manifest, reader, Path(folder), progress)


def load(
    registry: Registry | None,
    reference: str,
    *,
    tasks: Collection[str] | None = None,
    engine: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: Progress = silent,
) -> centra.runtime.Release:
    """Load a release for answering.

    Args:
        registry, reference: as for :func:`verify`.
        tasks, engine, device, dtype: as for :func:`centra.load_release`.
        progress: told of each task.

    Raises:
        UsageError: there is no such engine, device or dtype here.
        NotFoundError: there is no such release or task.
        FormatError, BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: it cannot be
            read.
    """
    from centra.runtime import Release as Merged

    manifest, reader = _find(registry, reference)
    return Merged.load(
        manifest,
        reader,
        tasks=tasks,
        engine=engine,
        device=device,
        dtype=dtype,
        progress=progress,
    )


def _find(registry: Registry | None, reference: str) -> tuple[ReleaseManifest, BlobReader]:
    """A release by the address of a folder or store, or by its name in the registry."""
    if registry is None or is_address(reference):
        location = find_release(reference)
        return location.manifest, location.reader
    with registry.read() as uow:
        digest = uow.release(reference).digest
    return read_manifest(digest, registry.store), registry.store
