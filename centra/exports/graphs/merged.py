"""The graph of a release: the layers that its tasks share, and behind each tap their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import IncompatibleError
from centra.exports.graphs.batch import Batch
from centra.exports.graphs.layers import LayerGraph
from centra.exports.graphs.portable import PortableGraph
from centra.families.heads import Pooling  # noqa: TC001 - a cast names it
from centra.formats.backbone import BackboneSpec, check_shard
from centra.formats.head import Head
from centra.formats.task_module import ModuleFile, check_stored
from centra.formats.tensors import map_tensors, under
from centra.runtime.onnx.disentangled import distance_embeddings
from centra.runtime.onnx.elementwise import unknown_activation
from centra.runtime.onnx.layer_parts import embedded, headed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from centra.exports.base import ExportPrecision, Source
    from centra.families.description import Layer
    from centra.progress import Progress

__all__ = ["MergedGraph", "merged_graph"]


@dataclass(frozen=True, kw_only=True)
class MergedGraph:
    """A graph, and what it was made of."""

    graph: PortableGraph
    backbone: BackboneSpec
    modules: dict[str, ModuleFile]
    """By task."""
    outputs: dict[str, str]
    """Per task the output with its logits, ``(batch, outputs)`` or ``(batch, length, outputs)``."""


def merged_graph(
    source: Source,
    precision: ExportPrecision,
    *,
    output: Callable[[str], str],
    progress: Progress,
) -> MergedGraph:
    """Build the graph of a release whose tasks stand on one backbone.

    Args:
        source: the release.
        precision: of its weights.
        output: what the output of a task is called.
        progress: told of each task.

    Raises:
        IncompatibleError: two backbones, or an activation that no graph is known for.
        FormatError, BlobNotFoundError, CorruptBlobError, StoreError: a part cannot be had.
    """
    backbone = _backbone(source)
    modules = {
        name: check_stored(source.reader.fetch(entry.digest), entry.digest, backbone)
        for name, entry in source.manifest.tasks.items()
    }
    graph = PortableGraph("centra", precision)
    trunk = _Trunk(source, backbone, graph)
    outputs = {}
    for done, (name, module) in enumerate(modules.items(), 1):
        logits = _branch(trunk, name, module)
        shape = ["batch", *(["length"] if module.spec.reads_every_token else [])]
        outputs[name] = graph.named(output(name), graph.cast(logits, "float32"))
        graph.output(outputs[name], "float32", [*shape, module.spec.outputs])
        progress("build the graph", done, len(modules))
    return MergedGraph(graph=graph, backbone=backbone, modules=modules, outputs=outputs)


def _backbone(source: Source) -> BackboneSpec:
    trunks = source.manifest.trunks
    if len(trunks) != 1:
        raise IncompatibleError(
            f"the release stands on {len(trunks)} backbones, with a tokenizer each, and one graph reads "
            "the ids of one; export its tasks each by itself, or a release on one backbone",
            code="export-of-two-backbones",
        )
    backbone = BackboneSpec.fetch(trunks[0].spec, source.reader)
    source.manifest.check_trunk(backbone)
    return backbone


class _Trunk:
    """The shared layers of a graph, each built when a task first reads it or one above."""

    def __init__(self, source: Source, backbone: BackboneSpec, graph: PortableGraph) -> None:
        self.graph, self.backbone = graph, backbone
        self._reader = source.reader
        path = source.reader.fetch(backbone.embeddings)
        check_shard(backbone, 0, path)
        self.distances = distance_embeddings(backbone, source.reader)
        with graph.within("embeddings"):
            tensors = map_tensors(path)
            self.batch = Batch(graph, backbone, tensors)
            self._states = [embedded(graph, tensors, backbone.description, self.batch.ids)]

    def at(self, tap: int) -> str:
        """Hidden states ``(batch * length, hidden)`` at a tap."""
        while len(self._states) <= tap:
            number = len(self._states)
            digest = self.backbone.layers[number - 1]
            path = self._reader.fetch(digest)
            check_shard(self.backbone, number, path)
            weights = self.backbone.within_layer(map_tensors(path), number)
            # Layers that are one set of weights are one blob, and have one name here.
            first = self.backbone.layers.index(digest) + 1
            part = f"layers/{first}"
            self._states.append(self.layer(part, number, self._states[-1], weights))
        return self._states[tap]

    def layer(self, part: str, number: int, states: str, weights: Mapping[str, np.ndarray]) -> str:
        """A layer of a number with some weights, which are called as a part."""
        described = self.backbone.layer(number)
        _check(described)
        built = LayerGraph(
            graph=self.graph,
            batch=self.batch,
            layer=described,
            weights=weights,
            distances=self.distances,
        )
        with self.graph.within(part):
            return built.add(states)


def _branch(trunk: _Trunk, name: str, module: ModuleFile) -> str:
    """A task's logits."""
    graph, batch, spec = trunk.graph, trunk.batch, module.spec
    weights, hidden = map_tensors(module.path), trunk.backbone.hidden_size
    states = trunk.at(spec.tap_layer)
    for i in range(1, spec.depth + 1):
        own = under(weights, f"layers.{i}.")
        states = trunk.layer(f"tasks/{name}/layers/{i}", spec.tap_layer + i, states, own)
    head = Head.of(spec, trunk.backbone)
    with graph.within(f"tasks/{name}"):
        if head.on_tokens:
            states = headed(graph, states, weights, head.on_tokens, precision=graph.products)
        if head.pooling is None:
            return batch.by_input(states, spec.outputs)
        rows = _pooled(trunk, batch.by_input(states, hidden), head.pooling)
        return headed(graph, rows, weights, head.on_rows, precision=graph.products)


def _pooled(trunk: _Trunk, states: str, pooling: Pooling) -> str:
    """One row of the tokens of each input, from ``(batch, length, hidden)`` to ``(batch, hidden)``."""
    graph = trunk.graph
    if pooling == "first":
        return graph.node("Gather", states, graph.number_of(0), axis=1)
    real, along = trunk.batch.real(0, -1, 1), graph.numbers(1)
    if pooling == "max":
        least = graph.node("Where", real, states, graph.number(-60_000.0))
        return graph.node("ReduceMax", least, along, keepdims=0)
    # In 32 bits: a sum of many may be more than 16 hold.
    wide = graph.cast(real, "float32")
    kept = graph.node("Mul", graph.cast(states, "float32"), wide)
    total = graph.node("ReduceSum", kept, along, keepdims=0)
    count = graph.node("ReduceSum", wide, along, keepdims=0)
    return graph.cast(graph.node("Div", total, count), graph.float_type)


def _check(layer: Layer) -> None:
    if name := unknown_activation(layer):
        raise IncompatibleError(
            f"its layers have the activation {name!r}, for which no graph is known",
            code="activation-unknown-to-format",
            activation=name,
        )
