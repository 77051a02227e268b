"""A release as a graph, to draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, Layers, schema

if TYPE_CHECKING:
    from registry import graphs

__all__ = ["Branch", "FrozenLayer", "Graph", "Trunk"]


class FrozenLayer(Document):
    """One layer of a backbone."""

    number: int
    """From 1."""
    digest: str | None
    """Null for a layer above the deepest tap: the release does not hold it."""


class Branch(Document):
    """A task: what it adds above its tap."""

    task: str
    version: str
    kind: str
    input: str
    """``single`` or ``pair``: whether it takes one text or two."""
    label_count: int
    """How many labels it has."""
    tap_layer: int
    depth: int
    precision: str
    """``fp32`` or ``int8``."""
    digest: str
    """Of the module."""

    @classmethod
    def of(cls, branch: graphs.Branch) -> Branch:
        """The document of a branch."""
        return cls(
            task=branch.task,
            version=branch.version,
            kind=branch.kind,
            input=branch.input,
            label_count=branch.labels,
            tap_layer=branch.tap_layer,
            depth=branch.depth,
            precision=branch.precision,
            digest=branch.digest,
        )


class Trunk(Document):
    """A backbone with the tasks that stand on it."""

    backbone: str
    digest: str
    """Of the backbone's description."""
    embeddings: str
    """The digest of layer 0."""
    layers: list[FrozenLayer]
    """All of the backbone, also those that the release does not need."""
    branches: list[Branch]
    """By tap, and then by the task's name."""

    @classmethod
    def of(cls, trunk: graphs.Trunk) -> Trunk:
        """The document of a trunk."""
        return cls(
            backbone=trunk.backbone,
            digest=trunk.digest,
            embeddings=trunk.embeddings,
            layers=[
                FrozenLayer(number=layer.number, digest=layer.digest) for layer in trunk.layers
            ],
            branches=[Branch.of(branch) for branch in trunk.branches],
        )


class Graph(Document):
    """A release to draw."""

    schema_: str = schema("graph")
    release: int
    digest: str
    """Of the release's manifest."""
    layers: Layers
    trunks: list[Trunk]

    @classmethod
    def of(cls, graph: graphs.Graph) -> Graph:
        """The document of a graph."""
        return cls(
            release=graph.release,
            digest=graph.digest,
            layers=Layers.of(graph.layers),
            trunks=[Trunk.of(trunk) for trunk in graph.trunks],
        )
