"""What a release is compared with: a full model for each of its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from centra.formats.backbone import BackboneSpec
from centra.formats.manifest import ReleaseManifest
from centra.formats.task_module import TaskModule
from centra.store import LocalStore

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from centra.store import BlobReader

__all__ = ["single_models"]


def single_models(
    manifest: ReleaseManifest, reader: BlobReader, tasks: Collection[str], folder: Path
) -> tuple[ReleaseManifest, BlobReader]:
    """A release whose tasks each stand on all layers of their backbone and have none of their own.

    Asked for one task alone, it computes what a full model of that task computes. Its answers mean
    nothing: a layer's time does not depend on its weights, so the layers above the deepest tap,
    which a release does not hold, are made up.

    Args:
        manifest: of the release to compare with.
        reader: where its blobs are.
        tasks: which of its tasks.
        folder: an empty one, for what is made up.

    Returns:
        The manifest and where the blobs are, for :meth:`centra.runtime.Release.load`. The folder
        may go when it is loaded.

    Raises:
        BlobNotFoundError, CorruptBlobError, FormatError, StoreError: a blob cannot be had.
        StoreNotWritableError: the folder cannot be written.
    """
    store = LocalStore(folder)
    backbones = {}
    for trunk in manifest.trunks:
        backbone = BackboneSpec.fetch(trunk.spec, reader)
        missing = range(len(trunk.layers), backbone.num_layers)
        made = tuple(store.put(_made_up_layer(backbone, index)) for index in missing)
        backbones[trunk.spec] = backbone.model_copy(update={"layers": trunk.layers + made})
        store.put(backbones[trunk.spec].to_bytes())
    modules = {}
    for name in tasks:
        module = TaskModule.read(reader.fetch(manifest.tasks[name].digest))
        backbone = backbones[module.spec.backbone]
        place = {"backbone": backbone.digest, "tap_layer": backbone.num_layers, "depth": 0}
        spec = module.spec.model_copy(update=place)
        kept = {n: t for n, t in module.tensors.items() if not n.startswith("layers.")}
        modules[name] = store.put(TaskModule(spec, kept).to_bytes()), spec
    specs = {backbone.digest: backbone for backbone in backbones.values()}
    return ReleaseManifest.build(modules, specs), _Reader(store, reader)


@dataclass(frozen=True)
class _Reader:
    """What was made up, over what a release holds. A :class:`centra.store.BlobReader`."""

    made: LocalStore
    held: BlobReader

    def fetch(self, digest: str) -> Path:
        return (self.made if self.made.has(digest) else self.held).fetch(digest)

    def signatures(self, manifest: str) -> list[bytes]:
        return self.made.signatures(manifest)


def _made_up_layer(spec: BackboneSpec, index: int) -> bytes:
    """The shard of a layer, counted from 0, with small random weights."""
    from safetensors.numpy import save

    source = np.random.default_rng(index)
    return save(
        {
            name: 0.02 * source.standard_normal(shape, dtype=np.float32)
            for name, shape in spec.shapes(index + 1).items()
        }
    )
