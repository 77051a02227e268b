"""Taking in weights: from a module file or a fine-tuned checkpoint to a checked, stored module."""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from centra.errors import ConflictError, NotFoundError, UsageError
from centra.progress import Progress, Remark, unheard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.data.tags import Scheme
    from centra.data.words import Segmentation
    from centra.formats.task_module import ModuleFile
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
    remark: Remark = unheard
    """Told what was taken for granted."""

    @property
    def declared(self) -> bool:
        """Whether anything is said of the checkpoint."""
        said = (
            *(self.backbone, self.tap, self.form, self.kind, self.labels),
            *(self.tags, self.words),
        )
        return any(value is not None for value in said)


@contextmanager
def checked_module(
    registry: Registry, name: str, source: Path, checkpoint: Checkpoint | None, progress: Progress
) -> Iterator[ModuleFile]:
    """A module that has been checked throughout, and run on its registered backbone.

    Args:
        registry: where the backbone is registered.
        name: the task's, for errors.
        source: a task module file, or a fine-tuned Hugging Face checkpoint's folder. All is done
            with a private copy, so a file that is replaced meanwhile changes nothing.
        checkpoint: how to read a folder.
        progress: told of a checkpoint's conversion.

    Raises:
        NotFoundError: there is no such file, or its backbone is not registered.
        UsageError: something is declared of a file, or contradicts the checkpoint.
        DataError: the labels file cannot be used.
        FormatError, IncompatibleError: it cannot be used.
        ComposeError: on its probe it does not give the logits that it recorded.
        ConflictError: its backbone is retired.
        StoreError, DatabaseError: the registry cannot be used, or there is no room for the copy.
    """
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import check_fits, check_module
    from centra.releases.compose import prove
    from centra.system.snapshot import called, copy_file

    if not source.exists():
        raise NotFoundError(f"{source}: no such file or folder")
    with tempfile.TemporaryDirectory() as scratch, called(_module_in(scratch), source):
        path = _module_in(scratch)
        if source.is_dir():
            _convert(registry, source, checkpoint or Checkpoint(), path, progress)
        elif checkpoint and checkpoint.declared:
            raise UsageError(
                f"{source}: is a file, and a task module says all of itself; a backbone, tap, "
                "input, kind or labels is declared for checkpoint folders"
            )
        else:
            copy_file(source, path)
        module = check_module(path)
        with registry.read() as uow:
            row = uow.backbone_by_digest(module.spec.backbone)
            if row is None:
                known = ", ".join(row.reference for row in uow.backbones()) or "none"
                raise NotFoundError(
                    f"{source}: was made for backbone sha256:{module.spec.backbone[:12]}, which is "
                    f"not registered here (registered: {known}); register it first"
                )
            check_open(row)
            reference = row.reference
        backbone = BackboneSpec.fetch(module.spec.backbone, registry.store)
        check_fits(module, backbone, reference)
        parity = prove({name: module}, {backbone.digest: backbone}, registry.store)
        yield dataclasses.replace(module, parity=parity[name])


def _module_in(scratch: str) -> Path:
    return Path(scratch) / "module.safetensors"


def check_open(backbone: Backbone) -> None:
    """Refuse a backbone that was retired: what is on it does not come back to life.

    Raises:
        ConflictError: it is retired.
    """
    if backbone.state == "retired":
        raise ConflictError(
            f"backbone {backbone.reference} is retired; make the module on another, or bring it "
            f"back: centra backbone restore {backbone.reference}"
        )


def _convert(
    registry: Registry, folder: Path, options: Checkpoint, path: Path, progress: Progress
) -> None:
    from centra.checkpoints.conversion import convert
    from centra.data.labels import read_labels
    from centra.formats.backbone import BackboneSpec

    with registry.read() as uow:
        rows = [uow.backbone(options.backbone)] if options.backbone else uow.backbones()
        rows.sort(key=lambda row: row.state == "retired")
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
        remark=options.remark,
        progress=progress,
    )
    module.write(path)
