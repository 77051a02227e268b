"""Taking in weights: from a module file or a fine-tuned checkpoint to a module that has been checked.

Everything is done with one private copy, so a file that is replaced meanwhile changes nothing.
"""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from centra.errors import ConflictError, NotFoundError, UsageError
from centra.formats.template import PLAIN
from centra.progress import Progress, Remark, unheard
from registry.rules.lifecycle import BackboneState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.data.tags import Scheme
    from centra.data.words import Segmentation
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import ModuleFile
    from centra.formats.thresholds import Thresholds
    from registry.connection import Registry
    from registry.database.models import Backbone

__all__ = ["Checkpoint", "check_open", "checked_module"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """How to read a Hugging Face checkpoint folder; see :func:`centra.checkpoints.conversion.convert`."""

    backbone: str | None = None
    """Its backbone's name; None tries all that are registered."""
    tap: int | None = None
    form: Literal["single", "pair"] | None = None
    kind: str | None = None
    labels: Path | None = None
    """A file with its labels; see :func:`centra.data.labels.read_labels`."""
    tags: Scheme | None = None
    words: Segmentation | None = None
    template: str | tuple[str, str] = PLAIN
    remark: Remark = unheard
    """Told what was taken for granted."""

    def is_declared(self) -> bool:
        """Whether anything is said of the checkpoint."""
        return self != Checkpoint(remark=self.remark)


@contextmanager
def checked_module(
    registry: Registry,
    task: str,
    source: str | Path,
    checkpoint: Checkpoint | None,
    progress: Progress,
    *,
    thresholds: Thresholds | None = None,
) -> Iterator[ModuleFile]:
    """A module that has been checked throughout, and run on its registered backbone.

    Args:
        registry: where the backbone is registered.
        task: what it is to be a version of, for errors.
        source: a task module file, or a fine-tuned Hugging Face checkpoint's folder, here or where
            :func:`centra.checkpoints.sources.fetched` finds it. All is done with a private copy, so a
            file that is replaced meanwhile changes nothing.
        checkpoint: how to read a folder.
        progress: told of a checkpoint's conversion.
        thresholds: become part of the module's decision.

    Raises:
        NotFoundError: there is no such file or model, or its backbone is not registered.
        UsageError: something is declared of a file, or contradicts the checkpoint; or an address is
            malformed, or needs a package that is missing.
        DataError: the labels file cannot be used, or the thresholds do not suit the module.
        FormatError, IncompatibleError: it cannot be used.
        ComposeError: on its probe it does not give the logits that it recorded.
        ConflictError: its backbone is retired.
        StoreError, DatabaseError: the registry cannot be used, or there is no room for the copy.
    """
    from centra.checkpoints.sources import fetched
    from centra.formats.task_module import check_fits, check_module
    from centra.releases.parity import check_module_parity
    from centra.system.snapshot import called

    with (
        fetched(source) as found,
        _private_copy(registry, found.path, checkpoint, progress) as path,
        called(path, found.path),
    ):
        if thresholds is not None:
            _decide(path, thresholds)
        module = check_module(path)
        backbone, name = _backbone_of(registry, module, found.path)
        check_fits(module, backbone, name)
        parity = check_module_parity({task: module}, {backbone.digest: backbone}, registry.store)
        yield dataclasses.replace(module, parity=parity[task], source=found.source)


def check_open(backbone: Backbone) -> None:
    """Refuse a backbone that was retired: what is on it does not come back to life.

    Raises:
        ConflictError: it is retired.
    """
    if backbone.state == BackboneState.RETIRED:
        raise ConflictError(
            f"backbone {backbone.reference} is retired; no module on it can be taken in",
            code="backbone-retired",
            backbone=backbone.reference,
        )


@contextmanager
def _private_copy(
    registry: Registry, source: Path, checkpoint: Checkpoint | None, progress: Progress
) -> Iterator[Path]:
    """A module file that nobody else can change: a copy, or what a checkpoint was converted to."""
    from centra.system.snapshot import called, copy_file

    if not source.exists():
        raise NotFoundError(f"{source}: no such file or folder", code="file-missing")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.safetensors"
        with called(path, source):
            if source.is_dir():
                _convert(registry, source, checkpoint or Checkpoint(), path, progress)
            elif checkpoint and checkpoint.is_declared():
                raise UsageError(
                    f"{source}: is a file, and a task module says all of itself; a backbone, tap, "
                    "input, kind, labels or template is declared for checkpoint folders",
                    code="not-a-checkpoint",
                )
            else:
                copy_file(source, path)
        yield path


def _decide(path: Path, thresholds: Thresholds) -> None:
    """Write a module again with thresholds, where they change anything."""
    from centra.formats.task_module import TaskModule, check_module

    before = check_module(path).spec
    after = thresholds.decide(before)
    if after is not before:
        TaskModule(after, TaskModule.read(path).tensors).write(path)


def _backbone_of(registry: Registry, module: ModuleFile, source: Path) -> tuple[BackboneSpec, str]:
    """The spec of a module's backbone, and what it is called here."""
    from centra.formats.backbone import BackboneSpec

    with registry.read() as uow:
        backbone = uow.backbone_by_digest(module.spec.backbone)
        if backbone is None:
            known = [row.reference for row in uow.backbones()]
            raise NotFoundError(
                f"{source}: was made for backbone sha256:{module.spec.backbone[:12]}, which is "
                f"not registered here (registered: {', '.join(known) or 'none'}); register it first",
                code="backbone-not-registered",
                digest=module.spec.backbone,
                registered=known,
            )
        check_open(backbone)
        reference = backbone.reference
    return BackboneSpec.fetch(module.spec.backbone, registry.store), reference


def _convert(
    registry: Registry, folder: Path, options: Checkpoint, path: Path, progress: Progress
) -> None:
    from centra.checkpoints.conversion import convert
    from centra.data.labels import read_labels
    from centra.formats.backbone import BackboneSpec

    with registry.read() as uow:
        rows = [uow.backbone(options.backbone)] if options.backbone else uow.backbones()
        rows.sort(key=lambda row: row.state == BackboneState.RETIRED)
        digests = {row.reference: row.digest for row in rows}
    backbones = {
        name: BackboneSpec.fetch(digest, registry.store) for name, digest in digests.items()
    }
    module = convert(
        folder,
        backbones,
        registry.store,
        tap=options.tap,
        form=options.form,
        kind=options.kind,
        labels=None if options.labels is None else read_labels(options.labels),
        tags=options.tags,
        words=options.words,
        template=options.template,
        remark=options.remark,
        progress=progress,
    )
    module.write(path)
