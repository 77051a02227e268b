"""Moving tasks or a release from one registry to another that shares nothing with it.

Importing reads straight down: unpack and check the whole file, decide, claim and store the blobs, decide
again inside the writing transaction, write all rows. What is there already stays as it is, so the
same file can be imported twice.
"""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import FormatError, UsageError, VerificationError
from centra.formats.names import parse_name, split_reference
from centra.progress import Progress, silent
from centra.runtime.loading import read_manifest
from centra.store import LocalStore
from centra.system.files import file_digest
from registry import archive, backbones, releases, tasks
from registry.audit import write_witness
from registry.storage.claims import storing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from centra.formats.backbone import BackboneSpec
    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import ModuleFile
    from registry.archive import Export
    from registry.connection import Registry
    from registry.database.models import TaskVersion
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "Exported",
    "Imported",
    "ImportedBackbone",
    "ImportedRelease",
    "ImportedTask",
    "export_file",
    "import_file",
]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written to a file."""

    digest: str
    """The file's own."""
    size: int
    """Bytes."""
    tasks: dict[str, str]
    """Per task the version."""
    release: int | None


@dataclass(frozen=True, kw_only=True)
class ImportedBackbone:
    """A backbone of a file, as it is called here."""

    backbone: str
    changed: bool
    """False where it was registered already."""


@dataclass(frozen=True, kw_only=True)
class ImportedTask:
    """A task of a file, and the version that it is here."""

    task: str
    version: str
    change: tasks.Way | None
    """How it became that version; None where it was registered already."""
    forced: bool
    current: str
    """The version that is current here: another one only where this was registered already."""
    state: str
    """The task's here: retired only where this was registered already."""


@dataclass(frozen=True, kw_only=True)
class ImportedRelease:
    """The release of a file, and its number here."""

    release: int
    digest: str
    changed: bool
    """False where it was published already."""
    signatures: int
    """How many it did not have before."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What importing a file led to."""

    digest: str
    """The file's own."""
    changed: bool
    backbones: list[ImportedBackbone]
    tasks: list[ImportedTask]
    release: ImportedRelease | None


@dataclass(frozen=True, kw_only=True)
class _Content:
    """A file's content, checked against itself."""

    export: Export
    digest: str
    store: LocalStore
    """Its blobs."""
    backbones: dict[str, BackboneSpec]
    modules: dict[str, ModuleFile]
    """By task; without their tensors, which may not all fit into memory."""
    manifest: ReleaseManifest | None
    signatures: dict[str, bytes]

    def proven(self, names: Sequence[str], progress: Progress) -> _Content:
        """The same, with what running some of the modules on their probes has shown.

        Raises:
            ComposeError: a module does not give the logits that it recorded.
        """
        from centra.releases.compose import prove

        chosen = {name: self.modules[name] for name in names}
        found = prove(chosen, self.backbones, self.store, progress) if chosen else {}
        proven = {
            name: dataclasses.replace(chosen[name], parity=parity) for name, parity in found.items()
        }
        return dataclasses.replace(self, modules=self.modules | proven)

    @property
    def blobs(self) -> list[str]:
        """All that belongs into a store as a blob, which signatures do not."""
        return sorted(self.export.blobs.keys() - self.signatures.keys())


def export_file(
    registry: Registry,
    file: Path,
    *,
    references: Sequence[str] = (),
    release: str | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write tasks, or a release with its tasks and signatures, and their backbones to a file.

    Args:
        registry: where from.
        file: where to; replaced if it exists.
        references: the tasks: ``name``, its current version, or ``name@major.minor``.
        release: or else a release: number, channel, or the start of a digest.
        progress: told of each blob.

    Raises:
        UsageError: neither is given, or both, or two versions of one task.
        NotFoundError: there is no such task, version or release.
        StoreNotWritableError: the file cannot be written.
        BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: the registry cannot be used.
    """
    from centra.formats.backbone import BackboneSpec

    if bool(references) == (release is not None):
        raise UsageError("say what to export: tasks, or one release")
    store = registry.store
    with registry.read() as uow:
        found = uow.release(release) if release is not None else None
        versions = uow.released(found) if found else _versions(uow, references)
        number, manifest = (found.number, found.digest) if found else (None, None)
        named = {
            version.backbone.digest: archive.ExportedBackbone(
                name=version.backbone.name, source=version.backbone.source
            )
            for version in versions.values()
        }
        modules = {
            name: archive.ExportedTask(team=version.task.team, module=version.digest)
            for name, version in versions.items()
        }
        numbers = {name: version.number for name, version in versions.items()}
    blobs = {module.module for module in modules.values()}
    for digest in named:
        blobs |= BackboneSpec.fetch(digest, store).blobs()
    signatures: dict[str, bytes] = {}
    if manifest is not None:
        blobs.add(manifest)
        signatures = _readable(store.signatures(manifest), read_manifest(manifest, store))
    export = archive.Export.sealed(
        backbones=named,
        tasks=modules,
        release=archive.ExportedRelease(manifest=manifest, signatures=tuple(signatures))
        if manifest is not None
        else None,
        blobs={digest: store.fetch(digest).stat().st_size for digest in blobs}
        | {digest: len(data) for digest, data in signatures.items()},
    )
    archive.write(file, export, store, signatures=signatures, progress=progress)
    return Exported(
        digest=file_digest(file), size=file.stat().st_size, tasks=numbers, release=number
    )


def import_file(
    registry: Registry,
    file: Path,
    *,
    team: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Imported:
    """Take over what a file holds: backbones, tasks, and the release if there is one.

    A backbone that is not there becomes its name's next version. A task that is not there becomes
    1.0 of its team's, other bytes become the next version. A release keeps its digest and gets the
    next number; no channel moves. All of it happens, or nothing.

    Args:
        registry: where to.
        file: what :func:`export_file` wrote.
        team: the owner of tasks that are not there; default the team that owned them there.
        force: act for other teams.
        progress: told of each step.

    Raises:
        InvalidNameError: the team's name is not acceptable.
        NotFoundError: there is no such file.
        FormatError, IncompatibleError, CorruptBlobError, SignatureError: the file is damaged, or
            contradicts itself; nothing is stored.
        ComposeError: a task fails parity; nothing is stored.
        NotOwnerError: the actor is of another team.
        ConflictError: a task or a backbone is retired here.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    if team is not None:
        parse_name(team, "team name")
    registry.check_store()  # What cannot be used must show before the long work does.
    with registry.read() as uow:
        known = {row.digest for row in uow.backbones()}
    with tempfile.TemporaryDirectory() as folder:
        content = _unpack(file, LocalStore(Path(folder)), known, progress)
        owners = {name: team or task.team for name, task in content.export.tasks.items()}
        with registry.read() as uow:
            for name, module in content.modules.items():
                tasks.way_in(uow, name, module, team=owners[name], force=force)
            unproven = _unproven(uow, content)
        content = content.proven(unproven, progress)
        added = _add_signatures(registry, content)
        sources = {digest: content.store.path(digest) for digest in content.blobs}
        with storing(registry, sources, progress) as uow:
            imported = _record(uow, content, owners, force=force, signatures=added)
        if imported.release is not None:
            write_witness(registry, imported.release.release)
        return imported


def _versions(uow: UnitOfWork, references: Sequence[str]) -> dict[str, TaskVersion]:
    versions: dict[str, TaskVersion] = {}
    for reference in references:
        name, number = split_reference(reference, "task name")
        if name in versions:
            raise UsageError(f"task {name} is named twice; a file holds one version of a task")
        versions[name] = uow.version(name, number)
    return versions


def _readable(signatures: Sequence[bytes], manifest: ReleaseManifest) -> dict[str, bytes]:
    """Those that are what they claim to be, by digest: a damaged one is no use elsewhere."""
    from centra.formats.documents import sha256
    from centra.releases.signing import SignatureError, check_subject

    found = {}
    for data in signatures:
        with suppress(SignatureError):
            check_subject(manifest, data)
            found[sha256(data)] = data
    return found


def _unpack(file: Path, store: LocalStore, known: Collection[str], progress: Progress) -> _Content:
    """Read a file, and check that its parts fit each other and nothing else is there.

    The tokenizers of backbones that are known here have been tried before.
    """
    from centra.formats.backbone import BackboneSpec, check_backbone
    from centra.formats.task_module import check_fits, check_module
    from centra.tokenization.trial import try_tokenizer

    export, digest = archive.unpack(file, store, progress)
    if not export.tasks or not export.named() <= export.blobs.keys():
        raise FormatError(f"{file}: lacks blobs that it names, or names no task")
    specs = {}
    for encoder, backbone in export.backbones.items():
        with _called(store.path(encoder), f"{file}: backbone {backbone.name}"):
            specs[encoder] = BackboneSpec.fetch(encoder, store)
            if not specs[encoder].blobs() <= export.blobs.keys():
                raise FormatError(f"{file}: lacks blobs of backbone {backbone.name}")
            # Before anything else reads its tokenizer here.
            if encoder not in known:
                tokenizer = store.fetch(specs[encoder].tokenizer["tokenizer.json"])
                try_tokenizer(tokenizer.read_bytes(), f"{file}: backbone {backbone.name}")
            check_backbone(specs[encoder], store)
    modules = {}
    for done, (name, task) in enumerate(sorted(export.tasks.items()), 1):
        path = store.path(task.module)
        with _called(path, f"{file}: task {name}"):
            module = check_module(path)
            if module.spec.backbone not in specs:
                raise FormatError(f"{path}: its backbone is not in the file")
            called = export.backbones[module.spec.backbone].name
            check_fits(module, specs[module.spec.backbone], called)
        modules[name] = dataclasses.replace(module, tensors={})
        progress("check modules", done, len(export.tasks))
    used = {module.spec.backbone for module in modules.values()}
    needed = export.named().union(*(specs[encoder].blobs() for encoder in used))
    if used != specs.keys() or needed != export.blobs.keys():
        raise FormatError(f"{file}: holds more than what its tasks and its release consist of")
    manifest, signatures = _release(file, export, store, modules, specs)
    return _Content(
        export=export,
        digest=digest,
        store=store,
        backbones=specs,
        modules=modules,
        manifest=manifest,
        signatures=signatures,
    )


def _release(
    file: Path,
    export: Export,
    store: LocalStore,
    modules: Mapping[str, ModuleFile],
    specs: Mapping[str, BackboneSpec],
) -> tuple[ReleaseManifest | None, dict[str, bytes]]:
    """The manifest, which must be what the modules merge to, and signatures of just that."""
    from centra.formats.manifest import ReleaseManifest
    from centra.releases.signing import check_subject

    if export.release is None:
        return None, {}
    data = store.fetch(export.release.manifest).read_bytes()
    manifest = ReleaseManifest.from_bytes(data, f"{file}: the manifest")
    merged = ReleaseManifest.build(
        {name: (module.digest, module.spec) for name, module in modules.items()},
        specs,
        manifest.precisions,
    )
    if merged.model_dump() != manifest.model_dump():
        raise FormatError(f"{file}: the manifest is not what its tasks merge to")
    signatures = {digest: store.fetch(digest).read_bytes() for digest in export.release.signatures}
    for signature in signatures.values():
        check_subject(manifest, signature)
    return manifest, signatures


@contextmanager
def _called(path: Path, name: str) -> Iterator[None]:
    """Say in errors what a file is, where its path means nothing to anybody."""
    try:
        yield
    except VerificationError as error:
        # A backbone is called by its digest, as its file is.
        text = str(error).replace(str(path), name)
        raise FormatError(text.replace(f"backbone sha256:{path.name}", name)) from error


def _unproven(uow: UnitOfWork, content: _Content) -> list[str]:
    """The tasks whose very bytes have not been proven here yet."""
    known = {
        name: version
        for name, module in content.modules.items()
        if (task := uow.find_task(name))
        for version in task.versions
        if version.digest == module.digest
    }
    proven = uow.proven(known.values())
    return [n for n in content.modules if n not in known or known[n].id not in proven]


def _add_signatures(registry: Registry, content: _Content) -> list[str]:
    """Store the signatures that are not there; their digests."""
    if content.manifest is None:
        return []
    there = registry.store.signatures(content.manifest.digest)
    added = {d: data for d, data in content.signatures.items() if data not in there}
    for data in added.values():
        registry.store.write_signature(content.manifest.digest, data)
    return list(added)


def _record(
    uow: UnitOfWork,
    content: _Content,
    owners: Mapping[str, str],
    *,
    force: bool,
    signatures: Sequence[str],
) -> Imported:
    """Write the rows of what has been stored."""
    found_backbones, found_tasks, ids = [], [], {}
    for digest, spec in sorted(content.backbones.items()):
        known = uow.backbone_by_digest(digest)
        exported = content.export.backbones[digest]
        row = known or backbones.add(uow, exported.name, spec, source=exported.source)
        found_backbones.append(ImportedBackbone(backbone=row.reference, changed=known is None))
    for name, module in content.modules.items():
        version, way, forced = tasks.admit(uow, name, module, team=owners[name], force=force)
        ids[name] = (version.task_id, version.id)
        found_tasks.append(
            ImportedTask(
                task=name,
                version=version.number,
                change=way,
                forced=forced,
                current=uow.current(version.task).number,
                state=version.task.state,
            )
        )
    found_release = None
    if content.manifest:
        digest = content.manifest.digest
        published = uow.release_by_digest(digest)
        release = published or releases.add(uow, content.manifest, ids)
        found_release = ImportedRelease(
            release=release.number,
            digest=digest,
            changed=published is None,
            signatures=len(signatures),
        )
    imported = Imported(
        digest=content.digest,
        changed=bool(signatures)
        or any(one.changed for one in found_backbones)
        or any(one.change for one in found_tasks)
        or (found_release is not None and found_release.changed),
        backbones=found_backbones,
        tasks=found_tasks,
        release=found_release,
    )
    if imported.changed:
        uow.record(
            "registry:import",
            f"sha256:{content.digest}",
            {
                "backbones": [one.backbone for one in found_backbones if one.changed],
                "tasks": {one.task: one.version for one in found_tasks if one.change},
                "release": found_release.release if found_release else None,
                "signatures": list(signatures),
            },
            forced=any(one.forced for one in found_tasks),
        )
    return imported
