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

from centra.families.table import family_of
from centra.formats.backbone import check_shard
from centra.formats.precision import Precision
from centra.formats.task_module import check_stored
from centra.formats.tensors import map_tensors, under
from centra.kinds.chain import Chain
from centra.runtime.engine import PROBE_INPUTS, LoadedTask, Probe
from centra.runtime.onnx import layers as onnx_layers
from centra.runtime.onnx.layers import Shape
from centra.runtime.onnx.parts import FirstLayer, Hidden, Layer
from centra.runtime.onnx.session import VERSION, Program
from centra.runtime.packing import Packed
from centra.runtime.pool import Pool
from centra.runtime.units import UnitCache, UnitKey
from centra.tokenization.text_encoder import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    import numpy as np

    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskSpec
    from centra.store import BlobReader

__all__ = ["OnnxBranch", "OnnxEngine", "OnnxTrunk", "onnx_engine"]

T = TypeVar("T")

_UNITS = UnitCache()


@cache
def onnx_engine(threads: int) -> OnnxEngine:
    """The process's engine with so many threads."""
    return OnnxEngine(threads)


class OnnxEngine:
    """See :class:`centra.runtime.engine.Engine`."""

    forks = True

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
        held: AbstractSet[str] = frozenset(),
    ) -> OnnxTrunk:
        """See :meth:`centra.runtime.engine.Engine.load_trunk`."""
        shape, prefix = Shape.of(spec), family_of(spec.family).layer_prefix

        def embeddings(path: Path) -> Program:
            check_shard(spec, 0, path)
            graph = onnx_layers.embeddings(map_tensors(path), shape)
            return Program(graph)

        def layer(index: int, path: Path) -> Layer:
            check_shard(spec, index + 1, path)
            weights = under(map_tensors(path), f"{prefix}{index}.")
            return Layer(weights, shape, precision=precision, pool=self.pool)

        def loaded_layer(index: int) -> Layer:
            return _unit(
                spec.layers[index],
                partial(layer, index),
                reader,
                precision=precision,
                settings=("layer", shape, self.pool.workers),
                held=held,
            )

        with ThreadPoolExecutor(self.pool.workers) as executor:
            below = executor.submit(
                _unit,
                spec.embeddings,
                embeddings,
                reader,
                precision=Precision.FP32,
                settings=("embeddings", shape),
                held=held,
            )
            layers = list(executor.map(loaded_layer, range(depth)))
            return OnnxTrunk(spec, below.result(), layers)

    def load_task(
        self,
        digest: str,
        backbone: BackboneSpec,
        reader: BlobReader,
        *,
        precision: Precision = Precision.FP32,
        held: AbstractSet[str] = frozenset(),
    ) -> LoadedTask:
        """See :meth:`centra.runtime.engine.Engine.load_task`."""
        shape = Shape.of(backbone)

        def task(path: Path) -> LoadedTask:
            spec, tensors = check_stored(path, digest, backbone).spec, map_tensors(path)
            inputs = {name: tensors[f"probe.{name}"].copy() for name in PROBE_INPUTS}
            return LoadedTask(
                spec=spec,
                branch=OnnxBranch(tensors, spec, shape, precision, self.pool),
                probe=Probe(Encoded(**inputs), tensors["probe.logits"].copy()),
                chain=_chain(tensors, spec),
            )

        settings = ("task", shape, self.pool.workers)
        return _unit(digest, task, reader, precision=precision, settings=settings, held=held)


class OnnxTrunk:
    """See :class:`centra.runtime.engine.TrunkEngine`."""

    def __init__(self, spec: BackboneSpec, embeddings: Program, layers: Sequence[Layer]) -> None:
        self._spec = spec
        self._embeddings = embeddings
        self._layers = layers

    def run(self, batch: Encoded, taps: Collection[int]) -> Iterator[tuple[int, Hidden]]:
        """See :meth:`centra.runtime.engine.TrunkEngine.run`."""
        packed = Packed.of(batch)
        known = {
            "input_ids": packed.input_ids,
            "token_type_ids": packed.token_type_ids,
            "positions": self._positions(batch, packed),
        }
        (states,) = self._embeddings(*(known[name] for name in self._embeddings.inputs))
        if 0 in taps:
            yield 0, Hidden(states, packed)
        for number, layer in enumerate(self._layers[: max(taps)], 1):
            states = layer(states, packed)
            if number in taps:
                yield number, Hidden(states, packed)

    def _positions(self, batch: Encoded, packed: Packed) -> np.ndarray:
        """Each token's position, ``(tokens,)``, as its family counts."""
        if not family_of(self._spec.family).position_offset:
            return packed.columns
        real = batch.input_ids != self._spec.pad_token_id
        positions = self._spec.pad_token_id + real.cumsum(axis=1) * real
        of_tokens: np.ndarray = positions[packed.rows, packed.columns]
        return of_tokens


class OnnxBranch:
    """See :class:`centra.runtime.engine.BranchEngine`."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        spec: TaskSpec,
        shape: Shape,
        precision: Precision,
        pool: Pool,
    ) -> None:
        head = {name: array for name, array in weights.items() if name.startswith("head.")}
        own = [under(weights, f"layers.{i}.") for i in range(1, spec.depth + 1)]
        layer = partial(Layer, shape=shape, precision=precision, pool=pool)
        self._every_token = spec.reads_every_token

        def last() -> Layer | FirstLayer | Program:
            if not own:
                return Program(onnx_layers.head_alone(head, shape, precision, spec.head))
            if self._every_token:
                return layer(own[-1] | head, head=spec.head)
            return FirstLayer(own[-1] | head, shape, precision=precision, head=spec.head)

        with ThreadPoolExecutor(pool.workers) as executor:
            compiled = executor.submit(last)
            self._layers = list(executor.map(layer, own[:-1]))
            self._last = compiled.result()

    def run(self, hidden_states: Hidden) -> np.ndarray:
        """See :meth:`centra.runtime.engine.BranchEngine.run`."""
        hidden = hidden_states
        for layer in self._layers:
            hidden = Hidden(layer(hidden.states, hidden.packed), hidden.packed)
        packed = hidden.packed
        match self._last:
            case FirstLayer() as first:
                logits = first(hidden)
            case Layer() as layer:
                logits = layer(hidden.states, packed)
            case Program() as head:
                known = {"states": hidden.states, "firsts": packed.firsts}
                (logits,) = head(*(known[name] for name in head.inputs))
        return packed.unpack_tokens(logits) if self._every_token else packed.unpack_inputs(logits)


def _unit(
    digest: str,
    make: Callable[[Path], T],
    reader: BlobReader,
    *,
    precision: Precision,
    settings: Hashable,
    held: AbstractSet[str],
) -> T:
    """The unit of a blob that is in use, or a new one."""
    key = UnitKey(
        digest=digest, precision=precision, engine=f"onnxruntime {VERSION}", settings=settings
    )
    # Read, and so checked, even where its unit is there: a damaged release must not load.
    checked = None if digest in held else reader.fetch(digest)
    return _UNITS.get(key, lambda: make(checked or reader.fetch(digest)))


def _chain(tensors: Mapping[str, np.ndarray], spec: TaskSpec) -> Chain | None:
    if not spec.head.crf:
        return None
    scores = {name: tensors[f"head.crf.{name}"] for name in ("start", "end", "transitions")}
    return Chain.bio(spec.labels, **scores)
