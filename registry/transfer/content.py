"""What a file of another registry holds, checked against itself before any of it is believed."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import FormatError, VerificationError
from registry.transfer import archive

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from centra.formats.backbone import BackboneSpec
    from centra.formats.identities import Digest
    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import ModuleFile
    from centra.progress import Progress
    from centra.store import LocalStore
    from registry.transfer.archive import Export

__all__ = ["Content", "read_content"]


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file's content, checked against itself."""

    export: Export
    digest: Digest
    store: LocalStore
    """Its blobs."""
    backbones: dict[Digest, BackboneSpec]
    modules: dict[str, ModuleFile]
    """By task; without their tensors, which may not all fit into memory."""
    manifest: ReleaseManifest | None
    signatures: dict[Digest, bytes]

    def proven(self, names: Sequence[str], progress: Progress) -> Content:
        """The same, with what running some of the modules on their probes has shown.

        Raises:
            ComposeError: a module does not give the logits that it recorded.
        """
        from centra.releases.parity import check_module_parity

        chosen = {name: self.modules[name] for name in names}
        parities = (
            check_module_parity(chosen, self.backbones, self.store, progress) if chosen else {}
        )
        proven = {
            name: dataclasses.replace(chosen[name], parity=parity)
            for name, parity in parities.items()
        }
        return dataclasses.replace(self, modules=self.modules | proven)

    @property
    def blobs(self) -> list[Digest]:
        """All that belongs into a store as a blob, which signatures do not."""
        return sorted(self.export.blobs.keys() - self.signatures.keys())


def read_content(
    file: Path, store: LocalStore, known: Collection[str], progress: Progress
) -> Content:
    """Read a file, and check that its parts fit each other and nothing else is there.

    Args:
        file: what :func:`registry.transfer.archive.write` wrote.
        store: an empty one of the caller's own, for the file's blobs.
        known: the digests of the backbones whose tokenizers have been tried before.
        progress: told of each blob and each module.

    Raises:
        NotFoundError: there is no such file.
        FormatError, IncompatibleError, CorruptBlobError, SignatureError: it is damaged, or
            contradicts itself.
        StoreError: there is no room to unpack it.
    """
    export, digest = archive.unpack(file, store, progress)
    if not export.tasks or not export.named() <= export.blobs.keys():
        raise FormatError(f"{file}: lacks blobs that it names, or names no task")
    backbones = _backbones(file, export, store, known)
    modules = _modules(file, export, store, backbones, progress)
    used = {module.spec.backbone for module in modules.values()}
    expected = export.named().union(*(backbones[digest].blobs() for digest in used))
    if used != backbones.keys() or expected != export.blobs.keys():
        raise FormatError(f"{file}: holds more than what its tasks and its release consist of")
    manifest, signatures = _release(file, export, store, modules, backbones)
    return Content(
        export=export,
        digest=digest,
        store=store,
        backbones=backbones,
        modules=modules,
        manifest=manifest,
        signatures=signatures,
    )


def _backbones(
    file: Path, export: Export, store: LocalStore, known: Collection[str]
) -> dict[Digest, BackboneSpec]:
    from centra.checkpoints.backbone import check_backbone
    from centra.formats.backbone import BackboneSpec

    specs = {}
    for digest, backbone in export.backbones.items():
        name = f"{file}: backbone {backbone.name}"
        with _naming(store.path(digest), name):
            spec = BackboneSpec.fetch(digest, store)
            if not spec.blobs() <= export.blobs.keys():
                raise FormatError(f"{file}: lacks blobs of backbone {backbone.name}")
            check_backbone(spec, store, tokenizer_tried=digest in known)
        specs[digest] = spec
    return specs


def _modules(
    file: Path,
    export: Export,
    store: LocalStore,
    backbones: Mapping[Digest, BackboneSpec],
    progress: Progress,
) -> dict[str, ModuleFile]:
    """Each task's module, without its tensors."""
    from centra.formats.task_module import check_fits, check_module

    modules = {}
    for done, (name, task) in enumerate(sorted(export.tasks.items()), 1):
        path = store.path(task.module)
        with _naming(path, f"{file}: task {name}"):
            module = check_module(path, task.module)
            digest = module.spec.backbone
            if digest not in backbones:
                raise FormatError(f"{path}: its backbone is not in the file")
            check_fits(module, backbones[digest], export.backbones[digest].name)
        modules[name] = dataclasses.replace(module, tensors={})
        progress("check modules", done, len(export.tasks))
    return modules


def _release(
    file: Path,
    export: Export,
    store: LocalStore,
    modules: Mapping[str, ModuleFile],
    backbones: Mapping[Digest, BackboneSpec],
) -> tuple[ReleaseManifest | None, dict[Digest, bytes]]:
    """The manifest, which must be what the modules merge to, and signatures of just that."""
    from centra.formats.manifest import ReleaseManifest
    from centra.releases.signing import check_subject

    if export.release is None:
        return None, {}
    data = store.fetch(export.release.manifest).read_bytes()
    manifest = ReleaseManifest.from_bytes(data, f"{file}: the manifest")
    merged = ReleaseManifest.build(
        {name: (module.digest, module.spec) for name, module in modules.items()},
        backbones,
        manifest.precisions,
    )
    if merged.model_dump() != manifest.model_dump():
        raise FormatError(f"{file}: the manifest is not what its tasks merge to")
    signatures = {digest: store.fetch(digest).read_bytes() for digest in export.release.signatures}
    for signature in signatures.values():
        check_subject(manifest, signature)
    return manifest, signatures


@contextmanager
def _naming(path: Path, name: str) -> Iterator[None]:
    """Say in errors what a file is, where its path means nothing to anybody."""
    try:
        yield
    except VerificationError as error:
        # A backbone is called by its digest, as its file is.
        text = str(error).replace(str(path), name)
        raise FormatError(text.replace(f"backbone sha256:{path.name}", name)) from error
