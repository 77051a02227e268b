"""A merged model as a graph of plain values, to draw it: trunks, their layers, branches at taps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from centra.formats.manifest import LayerAccount, TrunkEntry
    from centra.formats.precision import Precision
    from registry.releases import ReleaseDetail

__all__ = ["Branch", "FrozenLayer", "Graph", "Trunk", "build"]


@dataclass(frozen=True, kw_only=True)
class FrozenLayer:
    """One layer of a backbone."""

    number: int
    """From 1."""
    digest: str | None
    """None for a layer above the deepest tap: the release does not hold it."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A task: what it adds above its tap."""

    task: str
    version: str
    kind: str
    input: str
    labels: int
    """How many."""
    tap_layer: int
    depth: int
    precision: Precision
    digest: str


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """A backbone with the tasks that stand on it, by tap and then by name."""

    backbone: str
    """``name@version``."""
    digest: str
    embeddings: str
    """The digest of layer 0."""
    layers: list[FrozenLayer]
    """All of the backbone, also those that the release does not need."""
    branches: list[Branch]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A release to draw."""

    release: int
    digest: str
    layers: LayerAccount
    trunks: list[Trunk]


def build(release: ReleaseDetail) -> Graph:
    """The graph of a release."""
    return Graph(
        release=release.number,
        digest=release.digest,
        layers=release.layers,
        trunks=[_trunk(release, trunk) for trunk in release.manifest.trunks],
    )


def _trunk(release: ReleaseDetail, trunk: TrunkEntry) -> Trunk:
    held = dict(enumerate(trunk.layers, 1))
    branches = [
        Branch(
            task=name,
            version=release.tasks[name],
            kind=entry.kind,
            input=entry.input,
            labels=len(entry.labels),
            tap_layer=entry.tap_layer,
            depth=entry.depth,
            precision=entry.precision,
            digest=entry.digest,
        )
        for name, entry in release.manifest.tasks.items()
        if entry.backbone == trunk.spec
    ]
    return Trunk(
        backbone=release.backbones[trunk.spec],
        digest=trunk.spec,
        embeddings=trunk.embeddings,
        layers=[
            FrozenLayer(number=number, digest=held.get(number))
            for number in range(1, trunk.num_layers + 1)
        ],
        branches=sorted(branches, key=lambda branch: (branch.tap_layer, branch.task)),
    )
