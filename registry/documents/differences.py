"""Two releases side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, Layers, from_field, schema
from registry.documents.compositions import Change
from registry.documents.versions import ContractDifference, DecisionChange

if TYPE_CHECKING:
    from registry import releases

__all__ = ["LayersDifference", "ModuleDifference", "ReleaseDifference", "UnchangedTask"]


class ModuleDifference(Document):
    """How a task's modules in two releases differ; pairs where something does, else null."""

    task: str
    backbone: tuple[str, str] | None
    tap_layer: tuple[int, int] | None
    depth: tuple[int, int] | None
    precision: tuple[str, str] | None
    contract: ContractDifference
    decision: list[DecisionChange]
    """How logits become answers, where that differs."""
    tensors_changed: list[str]
    """The names of those that are in both with other bytes, or in one alone."""
    tensors_same: int
    """How many are the same."""

    @classmethod
    def of(cls, difference: releases.ModuleDifference) -> ModuleDifference:
        """The document of a difference."""
        return cls(
            task=difference.task,
            backbone=difference.backbone,
            tap_layer=difference.tap_layer,
            depth=difference.depth,
            precision=difference.precision,
            contract=ContractDifference.of(difference.contract),
            decision=[DecisionChange.of(change) for change in difference.decision],
            tensors_changed=difference.tensors_changed,
            tensors_same=difference.tensors_same,
        )


class UnchangedTask(Document):
    """A task whose module is the same file in both releases, and the proof that all it reads is."""

    task: str
    version: str
    digest: str
    """Of the module."""
    layers: int
    """How many frozen layers it reads, above the embeddings."""
    identical: bool
    """Whether embeddings, tokenizer and each of these layers have the same digest in both."""
    differs: list[str]
    """What has not, where something has not: ``layer 2``."""

    @classmethod
    def of(cls, task: releases.Unchanged) -> UnchangedTask:
        """The document of a task that did not change."""
        return cls(
            task=task.task,
            version=task.version,
            digest=task.digest,
            layers=task.layers,
            identical=task.identical,
            differs=task.differs,
        )


class LayersDifference(Document):
    """What two releases compute."""

    from_: Layers = from_field()
    to: Layers


class ReleaseDifference(Document):
    """Two releases side by side."""

    schema_: str = schema("release-difference")
    from_: int = from_field()
    """The release before."""
    to: int
    """The release after."""
    changes: list[Change]
    modules: list[ModuleDifference]
    """Of each changed task that both releases hold."""
    unchanged: list[UnchangedTask]
    layers: LayersDifference

    @classmethod
    def of(cls, difference: releases.ReleaseDifference) -> ReleaseDifference:
        """The document of a difference."""
        return cls(
            from_=difference.before,
            to=difference.after,
            changes=[Change.of(change) for change in difference.changes],
            modules=[ModuleDifference.of(module) for module in difference.modules],
            unchanged=[UnchangedTask.of(task) for task in difference.unchanged],
            layers=LayersDifference(
                from_=Layers.of(difference.layers_before), to=Layers.of(difference.layers_after)
            ),
        )
