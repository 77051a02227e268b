"""The fast engine on the CPU: ONNX Runtime over graphs made straight from the blobs.

Needs neither torch nor transformers. Every unit, that is the embeddings, a layer or a task's
branch, is compiled from its own blob alone, so what a task answers cannot depend on which other
tasks there are. Layers are compiled for each precision that tasks ask for, from the same blobs;
embeddings serve both. Sessions have one thread each. What runs side by side are branches, the trunk
beside them, and parts of a batch where threads would have nothing to do.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from centra.families import family_named
from centra.formats.backbone import check_shard
from centra.formats.head import Head
from centra.formats.precision import Precision
from centra.formats.task_module import check_stored
from centra.formats.tensors import map_tensors, under
from centra.kinds.chain import Chain
from centra.runtime.engine import PROBE_INPUTS, LoadedTask, Probe, deepest_taps
from centra.runtime.onnx import layer_graphs
from centra.runtime.onnx.blocks import FirstLayer, Hidden, Layer
from centra.runtime.onnx.disentangled import distance_embeddings
from centra.runtime.onnx.elementwise import check_layer
from centra.runtime.onnx.session import VERSION, Program
from centra.runtime.onnx.shared_state import PositionTables, SharedState
from centra.runtime.packing import Packed
from centra.runtime.pool import Pool
from centra.runtime.units import UnitCache, UnitKey
from centra.tokenization.text_encoder import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from centra.families.description import Embeddings
    from centra.formats.backbone import BackboneSpec
    from centra.formats.head import HeadSteps
    from centra.formats.task_module import TaskSpec
    from centra.runtime.engine import Inputs
    from centra.store import BlobReader

__all__ = ["OnnxBranch", "OnnxEngine", "OnnxTrunk", "onnx_engine"]

T = TypeVar("T")

_UNITS = UnitCache()


@cache
def onnx_engine(threads: int) -> OnnxEngine:
    """The process's engine with so many threads."""
    return OnnxEngine(threads)


class OnnxEngine:
    """The onnx engine: it loads trunks and branches as ONNX Runtime sessions."""

    forks = True
    dtype = None

    def __init__(self, threads: int) -> None:
        self.pool = Pool(threads)
        """The threads that trunks and branches run on."""

    def load_trunk(
        self,
        spec: BackboneSpec,
        reader: BlobReader,
        *,
        depth: int,
        precision: Precision = Precision.FP32,
        checked: AbstractSet[str] = frozenset(),
        workers: int = 1,
    ) -> OnnxTrunk:
        description = spec.description
        layers = {number: spec.layer(number) for number in range(1, depth + 1)}
        for described in layers.values():
            check_layer(described, f"backbone sha256:{spec.digest}")

        distances = distance_embeddings(spec, reader)

        def embeddings(path: Path) -> OnnxEmbeddings:
            check_shard(spec, 0, path)
            return OnnxEmbeddings(map_tensors(path), description, spec.max_length)

        def layer(number: int, path: Path) -> Layer:
            check_shard(spec, number, path)
            return Layer(
                spec.within_layer(map_tensors(path), number),
                layers[number],
                precision=precision,
                pool=self.pool,
                distances=distances,
            )

        def loaded_layer(number: int) -> Layer:
            return _unit(
                spec.layers[number - 1],
                partial(layer, number),
                reader,
                precision=precision,
                settings=(
                    *("layer", layers[number], self.pool.workers),
                    *(() if distances is None else (spec.embeddings,)),
                ),
                checked=checked,
            )

        with ThreadPoolExecutor(workers) as executor:
            below = executor.submit(
                _unit,
                spec.embeddings,
                embeddings,
                reader,
                precision=Precision.FP32,
                settings=("embeddings", description, spec.max_length),
                checked=checked,
            )
            loaded = list(executor.map(loaded_layer, layers))
            return OnnxTrunk(spec, below.result(), loaded)

    def load_task(
        self,
        digest: str,
        backbone: BackboneSpec,
        reader: BlobReader,
        *,
        precision: Precision = Precision.FP32,
        checked: AbstractSet[str] = frozenset(),
        workers: int = 1,
    ) -> LoadedTask:

        def task(path: Path) -> LoadedTask:
            spec, tensors = check_stored(path, digest, backbone).spec, map_tensors(path)
            inputs = {name: tensors[f"probe.{name}"].copy() for name in PROBE_INPUTS}
            return LoadedTask(
                spec=spec,
                branch=OnnxBranch(
                    tensors,
                    spec,
                    backbone,
                    precision=precision,
                    pool=self.pool,
                    distances=distance_embeddings(backbone, reader),
                    workers=workers,
                ),
                probe=Probe(Encoded(**inputs), tensors["probe.logits"].copy()),
                chain=_chain(tensors, spec),
            )

        settings = ("task", backbone.digest, self.pool.workers)
        return _unit(digest, task, reader, precision=precision, settings=settings, checked=checked)


class OnnxEmbeddings:
    """A backbone's embeddings, and the tables among them that all layers share."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], description: Embeddings, positions: int
    ) -> None:
        """Compile them; see :func:`centra.runtime.onnx.layer_graphs.embeddings`."""
        self.program = Program(layer_graphs.embeddings(weights, description))
        biases = {bias.table: weights[bias.table].copy() for bias in description.relative_biases}
        self.positions = PositionTables(biases, positions)


class OnnxTrunk:
    """Embeddings and frozen layers as sessions."""

    def __init__(
        self, spec: BackboneSpec, embeddings: OnnxEmbeddings, layers: Sequence[Layer]
    ) -> None:
        self._spec = spec
        self._embeddings = embeddings
        self._layers = layers

    def run(
        self, batch: Encoded, readers: Mapping[int, Sequence[Inputs]]
    ) -> Iterator[tuple[int, Hidden]]:
        packed = Packed.of(batch)
        known = {
            "input_ids": packed.input_ids,
            "token_type_ids": packed.token_type_ids,
            "positions": self._positions(batch, packed),
        }
        program = self._embeddings.program
        (states,) = program(*(known[name] for name in program.inputs))
        shared = SharedState(packed, self._embeddings.positions)
        hidden = Hidden(states, shared, readers.get(0, ()))
        deepest = deepest_taps(len(batch.input_ids), readers)
        if 0 in readers:
            yield 0, hidden
        for number, layer in enumerate(self._layers[: max(readers)], 1):
            hidden = hidden.only(np.nonzero(deepest >= number)[0])
            states = layer(hidden.states, hidden.shared)
            hidden = Hidden(states, hidden.shared, readers.get(number, ()))
            if number in readers:
                yield number, hidden

    def _positions(self, batch: Encoded, packed: Packed) -> np.ndarray:
        """Each token's position, ``(tokens,)``, as its family counts."""
        if not family_named(self._spec.family).position_offset:
            return packed.columns
        real = batch.input_ids != self._spec.pad_token_id
        positions = self._spec.pad_token_id + real.cumsum(axis=1) * real
        of_tokens: np.ndarray = positions[packed.rows, packed.columns]
        return of_tokens


class OnnxBranch:
    """A task's own layers and head as sessions."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        spec: TaskSpec,
        backbone: BackboneSpec,
        *,
        precision: Precision,
        pool: Pool,
        distances: np.ndarray | None,
        workers: int,
    ) -> None:
        head = {name: array for name, array in weights.items() if name.startswith("head.")}
        own = [under(weights, f"layers.{i}.") for i in range(1, spec.depth + 1)]
        described = [backbone.layer(spec.tap_layer + i) for i in range(1, spec.depth + 1)]
        for one in described:
            check_layer(one, f"backbone sha256:{backbone.digest}")
        layer = partial(Layer, precision=precision, pool=pool, distances=distances)
        ending = Head.of(spec, backbone)
        self._pooling = ending.pooling
        on_tokens, on_rows = ending.on_tokens or None, ending.on_rows or None

        def last() -> Layer | FirstLayer | Program | None:
            if not own:
                return alone(on_tokens)
            if ending.reads_first:
                return FirstLayer(
                    own[-1] | head,
                    described[-1],
                    precision=precision,
                    distances=distances,
                    head=ending.on_rows,
                )
            return layer(own[-1] | head, described[-1], head=on_tokens)

        def alone(steps: HeadSteps | None) -> Program | None:
            if steps is None:
                return None
            hidden = backbone.hidden_size
            return Program(layer_graphs.head_alone(head, hidden, precision, steps))

        with ThreadPoolExecutor(workers) as executor:
            compiled = executor.submit(last)
            self._layers = list(executor.map(layer, own[:-1], described[:-1]))
            self._last = compiled.result()
        self._on_rows = None if isinstance(self._last, FirstLayer) else alone(on_rows)

    def run(self, hidden_states: Hidden, inputs: Inputs) -> np.ndarray:
        hidden = hidden_states.read(inputs)
        packed, shared = hidden.packed, hidden.shared
        for layer in self._layers:
            hidden = Hidden(layer(hidden.states, shared), shared)
        match self._last:
            case FirstLayer() as first:
                return packed.unpack_inputs(first(hidden))
            case Layer() as layer:
                hidden = Hidden(layer(hidden.states, shared), shared)
            case Program() as program:
                (states,) = program(hidden.states)
                hidden = Hidden(states, shared)
        if self._pooling is None:
            return packed.unpack_tokens(hidden.states)
        rows = hidden.pooled(self._pooling)
        if self._on_rows is not None:
            (rows,) = self._on_rows(rows)
        return packed.unpack_inputs(rows)


def _unit(
    digest: str,
    make: Callable[[Path], T],
    reader: BlobReader,
    *,
    precision: Precision,
    settings: Hashable,
    checked: AbstractSet[str],
) -> T:
    """The unit of a blob that is in use, or a new one."""
    key = UnitKey(
        digest=digest, precision=precision, engine=f"onnxruntime {VERSION}", settings=settings
    )
    return _UNITS.of_blob(key, lambda: make(reader.fetch(digest)), reader, checked=checked)


def _chain(tensors: Mapping[str, np.ndarray], spec: TaskSpec) -> Chain | None:
    if not spec.head.crf:
        return None
    scores = {name: tensors[f"head.crf.{name}"] for name in ("start", "end", "transitions")}
    return Chain.bio(spec.labels, **scores)
