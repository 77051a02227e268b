"""Writing releases and tasks in the files of other engines; see :mod:`centra.exports`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.exports import Source, format_named, write_export
from centra.formats.manifest import ReleaseManifest
from centra.formats.names import parse_task_reference
from centra.progress import Progress, silent
from centra.releases.find import find_release, read_manifest
from registry.releases import is_address

if TYPE_CHECKING:
    from pathlib import Path

    from centra.exports import Export
    from registry.connection import Registry

__all__ = ["export_release", "export_task"]


def export_release(
    registry: Registry | None,
    reference: str,
    output: str | Path,
    *,
    form: str,
    precision: str | None = None,
    progress: Progress = silent,
) -> Export:
    """Write a release to a new folder in a format, checked in the peer that reads it.

    Args:
        registry: where; None where the reference is an address.
        reference: a number, a channel, the start of a digest, or the address of a release folder or
            a store.
        output: the folder, which must not be there yet; or an address, where the format has one.
        form: the format's name.
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``; by default the format's usual one.
        progress: told of each step.

    Raises:
        NotFoundError: there is no such release.
        UsageError, ConflictError, IncompatibleError, StoreNotWritableError: see
            :func:`centra.exports.write_export`.
        BlobNotFoundError, CorruptBlobError, FormatError, StoreError, DatabaseError: it cannot be read.
    """
    known = format_named(form)
    source = _release(registry, reference)
    return write_export(source, known, output, precision=precision, progress=progress)


def export_task(
    registry: Registry,
    reference: str,
    output: str | Path,
    *,
    form: str,
    precision: str | None = None,
    progress: Progress = silent,
) -> Export:
    """Write a version of a task to a new folder in a format.

    Args:
        registry: where.
        reference: ``name``, its current version, or ``name@major.minor``.
        output, form, precision, progress: as for :func:`export_release`.

    Raises:
        NotFoundError: there is no such task or version.
        UsageError, ConflictError, IncompatibleError, StoreNotWritableError: see
            :func:`centra.exports.write_export`.
        BlobNotFoundError, CorruptBlobError, FormatError, StoreError, DatabaseError: it cannot be read.
    """
    known = format_named(form)
    source = _task(registry, reference)
    return write_export(source, known, output, precision=precision, progress=progress)


def _release(registry: Registry | None, reference: str) -> Source:
    if registry is None or is_address(reference):
        found = find_release(reference)
        return Source(
            manifest=found.manifest,
            reader=found.reader,
            release=found.release,
            versions=found.versions,
        )
    with registry.read() as uow:
        row = uow.release(reference)
        versions = {name: str(v.number) for name, v in uow.versions_of(row).items()}
        number, digest = row.number, row.digest
    manifest = read_manifest(digest, registry.store)
    return Source(manifest=manifest, reader=registry.store, release=number, versions=versions)


def _task(registry: Registry, reference: str) -> Source:
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import read_spec

    name, number = parse_task_reference(reference)
    with registry.read() as uow:
        version = uow.version(name, number)
        digest, versions = version.digest, {str(name): str(version.number)}
    spec = read_spec(registry.store.fetch(digest))
    backbone = BackboneSpec.fetch(spec.backbone, registry.store)
    manifest = ReleaseManifest.build({name: (digest, spec)}, {backbone.digest: backbone})
    return Source(manifest=manifest, reader=registry.store, task=name, versions=versions)
