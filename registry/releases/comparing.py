"""Comparing two releases: what changed and how, and the proof that nothing else did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.releases.changes import list_changes, precision_change, released_versions
from registry.releases.reading import show
from registry.versions import compare_modules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.contract import ContractDifference
    from centra.formats.decision import DecisionChange
    from centra.formats.identities import Digest
    from centra.formats.manifest import LayerAccount, ReleaseManifest, TaskEntry
    from centra.formats.precision import Precision
    from registry.connection import Registry
    from registry.releases.changes import Change

__all__ = ["ModuleDifference", "ReleaseDifference", "Unchanged", "diff"]


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """A task whose module is the same file in both releases, and the proof that all it reads is."""

    task: str
    version: str
    digest: Digest
    layers: int
    """How many frozen layers it reads, above the embeddings."""
    identical: bool
    """Whether embeddings, tokenizer and each of these layers have the same digest in both."""
    differs: list[str]
    """What has not, where something has not: ``layer 2``."""


@dataclass(frozen=True, kw_only=True)
class ModuleDifference:
    """How a task's modules in two releases differ; before and after, where something does."""

    task: str
    backbone: tuple[str, str] | None
    tap_layer: tuple[int, int] | None
    depth: tuple[int, int] | None
    precision: tuple[Precision, Precision] | None
    contract: ContractDifference
    decision: list[DecisionChange]
    tensors_changed: list[str]
    """In both with other bytes, or in one alone."""
    tensors_same: int


@dataclass(frozen=True, kw_only=True)
class ReleaseDifference:
    """Two releases side by side."""

    before: int
    after: int
    changes: list[Change]
    modules: list[ModuleDifference]
    """Per changed task that both releases hold."""
    unchanged: list[Unchanged]
    layers_before: LayerAccount
    layers_after: LayerAccount


def diff(registry: Registry, before: str, after: str) -> ReleaseDifference:
    """Which tasks changed between two releases and how, and the proof for all others.

    The proof compares digests in the two manifests, which are themselves checked against theirs:
    equal digests are equal bytes, of the module and of every frozen layer below its tap. Modules
    are read only of tasks that changed.

    Raises:
        NotFoundError, CorruptBlobError, StoreError, DatabaseError: as :func:`show`.
        BlobNotFoundError: a changed task's module is missing.
    """
    old, new = show(registry, before), show(registry, after)
    changes = list_changes(
        released_versions(old.tasks, old.manifest), released_versions(new.tasks, new.manifest)
    )
    changed = {change.task for change in changes}
    names = old.backbones | new.backbones
    return ReleaseDifference(
        before=old.number,
        after=new.number,
        changes=changes,
        modules=[
            _compare_modules(
                registry, task, old.manifest.tasks[task], new.manifest.tasks[task], names
            )
            for task in sorted(changed & old.tasks.keys() & new.tasks.keys())
        ],
        unchanged=[
            _unchanged(old.manifest, new.manifest, task, new.tasks[task])
            for task in sorted(new.manifest.tasks.keys() - changed)
        ],
        layers_before=old.layers,
        layers_after=new.layers,
    )


def _compare_modules(
    registry: Registry, task: str, old: TaskEntry, new: TaskEntry, names: Mapping[str, str]
) -> ModuleDifference:
    """How a task's two modules differ; ``names`` are those of the backbones, by digest."""
    backbones = names.get(old.backbone, ""), names.get(new.backbone, "")
    modules = compare_modules(registry.store, old.digest, new.digest)
    return ModuleDifference(
        task=task,
        backbone=backbones if old.backbone != new.backbone else None,
        tap_layer=(old.tap_layer, new.tap_layer) if old.tap_layer != new.tap_layer else None,
        depth=(old.depth, new.depth) if old.depth != new.depth else None,
        precision=precision_change(old, new),
        contract=old.contract.difference(new.contract),
        decision=modules.decision,
        tensors_changed=modules.tensors_changed,
        tensors_same=modules.tensors_same,
    )


def _unchanged(old: ReleaseManifest, new: ReleaseManifest, task: str, version: str) -> Unchanged:
    """Hold all that a task reads in one release against the other."""
    before, after = old.tasks[task], new.tasks[task]
    differs = [name for name, value in before if value != getattr(after, name)]
    first, second = (
        next(trunk for trunk in manifest.trunks if trunk.spec == manifest.tasks[task].backbone)
        for manifest in (old, new)
    )
    differs += [
        part
        for part in ("embeddings", "tokenizer")
        if getattr(first, part) != getattr(second, part)
    ]
    # Slices, so that a layer which a trunk does not have counts as another.
    differs += [
        f"layer {number}"
        for number in range(1, after.tap_layer + 1)
        if first.layers[number - 1 : number] != second.layers[number - 1 : number]
    ]
    return Unchanged(
        task=task,
        version=version,
        digest=after.digest,
        layers=after.tap_layer,
        identical=not differs,
        differs=differs,
    )
