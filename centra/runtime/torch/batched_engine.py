"""The torch engine for GPUs, and for bf16 and fp16 anywhere: tasks in groups, shapes in buckets.

Branches with the same tap, depth and sort of head are a group. Their weights are stacked, and the
group is computed in one go when the first of them is asked for, whether the others are or not, and on
all inputs that are there. Batches are padded to few shapes, since on a GPU each embedding, layer and group is captured as a CUDA graph
for every shape. So the last digits of an answer may depend on its neighbours, in the batch and in the
release, which the onnx engine and the reference rule out.

It computes in one number type whatever precision a release gives a task; heads are float32.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from centra.formats.head import Head
from centra.formats.precision import Precision
from centra.formats.task_module import TaskModule, TaskSpec, check_stored
from centra.modeling.branch import Branch
from centra.modeling.shards import backbone_layer
from centra.modeling.shared_state import PositionTables
from centra.modeling.trunk import Trunk
from centra.runtime.engine import deepest_taps
from centra.runtime.packing import padded_length
from centra.runtime.pool import Pool
from centra.runtime.torch.batched_branches import Branches, BranchWeights
from centra.runtime.torch.batched_layers import Layer
from centra.runtime.torch.cuda_graphs import Graphs
from centra.runtime.torch.loading import loaded_task, shared_unit
from centra.runtime.torch.shared_layout import SharedLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from centra.formats.backbone import BackboneSpec
    from centra.runtime.engine import Inputs, LoadedTask
    from centra.store import BlobReader
    from centra.tokenization.text_encoder import Encoded

__all__ = ["BatchedBranch", "BatchedEngine", "BatchedTrunk"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_WAITING = 16
"""Threads for a GPU. Most of them wait for answers, while one hands the GPU what is next."""


@cache
def _pool(device: torch.device) -> Pool:
    return Pool(1 if device.type == "cpu" else _WAITING)


class BatchedEngine:
    """The engine for GPUs and for bf16 and fp16. Each release has one of its own."""

    def __init__(self, device: torch.device, dtype: str) -> None:
        """Make an engine.

        Args:
            device: ``cpu``, or a GPU with its number.
            dtype: one of :data:`centra.runtime.devices.DTYPES`.
        """
        self.pool = _pool(device)
        """The threads that trunks and branches run on, the same for all releases on a device."""
        self.forks = device.type == "cpu"
        self.dtype = dtype
        self._device, self._dtype = device, _DTYPES[dtype]
        self._graphs = Graphs(device)
        self._groups: dict[Hashable, _Group] = {}
        self._lock = threading.Lock()

    def load_trunk(
        self,
        spec: BackboneSpec,
        reader: BlobReader,
        *,
        depth: int,
        precision: Precision = Precision.FP32,  # noqa: ARG002 - the engine's own
        checked: AbstractSet[str] = frozenset(),
        workers: int = 1,  # noqa: ARG002 - loading is copying
    ) -> BatchedTrunk:
        # Graphs are of one release alone; the weights that they read may be of several.
        where = spec.digest, self._device, self._dtype
        embeddings = shared_unit(
            spec.embeddings,
            lambda: Trunk(spec, reader, depth=0).to(self._device, self._dtype),
            reader,
            settings=("embeddings", *where),
            checked=checked,
        )

        layout = SharedLayout(spec, embeddings.shared_state.tables)

        def layer(number: int) -> Layer:
            return shared_unit(
                spec.layers[number - 1],
                lambda: Layer(
                    [self._placed(backbone_layer(spec, reader, number))], spec.layer(number), layout
                ),
                reader,
                settings=("layer", spec.layer(number), *where),
                checked=checked,
            )

        return BatchedTrunk(
            spec,
            self._graphs.unit(embeddings.embed),
            [self._graphs.unit(layer(number)) for number in range(1, depth + 1)],
            layout.tensors,
            device=self._device,
            dtype=self._dtype,
        )

    def load_task(
        self,
        digest: str,
        backbone: BackboneSpec,
        reader: BlobReader,
        *,
        precision: Precision = Precision.FP32,
        checked: AbstractSet[str] = frozenset(),  # noqa: ARG002 - branches are stacked anew
        workers: int = 1,  # noqa: ARG002 - loading is copying
    ) -> LoadedTask:
        path = reader.fetch(digest)
        check_stored(path, digest, backbone)
        module = TaskModule.read(path)
        spec, branch = module.spec, Branch(backbone, module.spec).load(module.weights)
        own = BranchWeights(
            layers=[self._placed(layer.state_dict()) for layer in branch.layers],
            head={f"head.{n}": t.to(self._device) for n, t in branch.head.state_dict().items()},
        )
        # Those of another precision or form read other inputs than these.
        key = (
            backbone.digest,
            precision,
            spec.input,
            spec.tap_layer,
            spec.depth,
            *(spec.head.activation, spec.head.dense_bias, spec.head.dense_norm),
            spec.decision.pooling,
        )
        with self._lock:
            if key not in self._groups:
                tables = PositionTables.load(backbone, reader).to(self._device, self._dtype)
                layout = SharedLayout(backbone, tables.tables)
                self._groups[key] = _Group(spec, backbone, layout, self._graphs)
            group = self._groups[key]
            place = group.add(own)
        return loaded_task(module, branch, BatchedBranch(group, place, spec.outputs))

    def _placed(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: t.to(self._device, self._dtype) for name, t in weights.items()}


@dataclass(frozen=True, eq=False)
class _Hidden:
    """A batch at a tap, and what its groups answered."""

    states: torch.Tensor
    """``(1, rows, length, hidden)``, with padding in both."""
    shared: tuple[torch.Tensor, ...]
    """What all layers share; see :class:`centra.runtime.torch.shared_layout.SharedLayout`."""
    inputs: Inputs
    """The inputs that are there, in the first rows."""
    tokens: int
    """The batch's length without padding to a bucket."""
    _answers: dict[_Group, torch.Tensor] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def only(self, inputs: Inputs) -> _Hidden:
        """Those of some inputs, where these fill a smaller bucket."""
        rows = _bucket(len(inputs))
        if rows == self.states.shape[1]:
            return self
        chosen = np.zeros(rows, dtype=np.int64)
        chosen[: len(inputs)] = np.searchsorted(self.inputs, inputs)
        places = torch.from_numpy(chosen).to(self.states.device)
        padding, *rest = self.shared
        return _Hidden(self.states[:, places], (padding[places], *rest), inputs, self.tokens)

    def answers(self, group: _Group) -> torch.Tensor:
        """A group's logits, computed when they are first asked for."""
        with self._lock:
            if group not in self._answers:
                self._answers[group] = group(self.states, *self.shared)
            return self._answers[group]


class BatchedTrunk:
    """Embeddings and frozen layers, in shapes that are padded to few sizes."""

    def __init__(
        self,
        spec: BackboneSpec,
        embed: Callable[..., torch.Tensor],
        layers: Sequence[Callable[..., torch.Tensor]],
        share: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._spec = spec
        self._embed = embed
        self._layers = layers
        self._share = share
        self._device, self._dtype = device, dtype

    def run(
        self, batch: Encoded, readers: Mapping[int, Sequence[Inputs]]
    ) -> Iterator[tuple[int, _Hidden]]:
        deepest = deepest_taps(len(batch.input_ids), readers)
        # Never across a yield: the mode is the thread's.
        with torch.inference_mode():
            hidden = self._begin(batch)
        for number in range(max(readers) + 1):
            if number:
                with torch.inference_mode():
                    below = hidden.only(np.nonzero(deepest >= number)[0])
                    states = self._layers[number - 1](below.states, *below.shared)
                    hidden = replace(below, states=states, _answers={}, _lock=threading.Lock())
            if number in readers:
                yield number, hidden

    def _begin(self, batch: Encoded) -> _Hidden:
        """The embeddings of a batch padded to its bucket."""
        inputs, tokens = batch.input_ids.shape
        rows = _bucket(inputs)
        length = max(tokens, min(padded_length(tokens), self._spec.max_length))
        padded = np.zeros((3, rows, length), dtype=np.int64)
        padded[0] = self._spec.pad_token_id
        for own, given in zip(
            padded, (batch.input_ids, batch.token_type_ids, batch.attention_mask), strict=True
        ):
            own[:inputs, :tokens] = given
        # No row without a token to look at: its softmax would have nothing to share out.
        padded[2, :, 0] = 1
        ids, types, mask = torch.from_numpy(padded).to(self._device)
        least = torch.finfo(self._dtype).min
        bias = torch.zeros(rows, 1, 1, length, device=self._device, dtype=self._dtype)
        bias.masked_fill_(mask[:, None, None] == 0, least)
        states = self._embed(ids, types)[None]
        return _Hidden(states, self._share(bias), np.arange(inputs), tokens)


class BatchedBranch:
    """A task's place in the group of tasks that are computed together."""

    def __init__(self, group: _Group, place: int, outputs: int) -> None:
        """Take a task's part of what its group answers."""
        self._group, self._place, self._outputs = group, place, outputs

    @torch.inference_mode()
    def run(self, hidden_states: _Hidden, inputs: Inputs) -> np.ndarray:
        logits = hidden_states.answers(self._group)[self._place]
        own = logits if logits.ndim == 2 else logits[:, : hidden_states.tokens]
        array: np.ndarray = own[..., : self._outputs].cpu().numpy()
        return array[np.searchsorted(hidden_states.inputs, inputs)]


def _bucket(inputs: int) -> int:
    """To how many rows so many inputs are padded."""
    return 1 << (inputs - 1).bit_length()


class _Group:
    """Branches with the same tap, depth and sort of head."""

    def __init__(
        self,
        spec: TaskSpec,
        backbone: BackboneSpec,
        layout: SharedLayout,
        graphs: Graphs,
    ) -> None:
        """Make one without branches, for such as one that is given.

        Args:
            spec: of any of them.
            backbone: what they stand on.
            layout: of what all layers share.
            graphs: what captures the group.
        """
        self._stack = partial(
            Branches,
            head=Head.of(spec, backbone),
            described=[backbone.layer(spec.tap_layer + i) for i in range(1, spec.depth + 1)],
            layout=layout,
        )
        self._graphs = graphs
        self._branches: list[BranchWeights] = []
        self._stacked: Callable[..., torch.Tensor] | None = None
        self._lock = threading.Lock()

    def add(self, branch: BranchWeights) -> int:
        """Take in a branch, before the group is first computed; its place in the answers."""
        assert self._stacked is None
        self._branches.append(branch)
        return len(self._branches) - 1

    def __call__(self, states: torch.Tensor, *shared: torch.Tensor) -> torch.Tensor:
        """From a tap's states to the logits of all, ``(tasks, …, most outputs)`` in float32."""
        with self._lock:
            if self._stacked is None:
                self._stacked = self._graphs.unit(self._stack(self._branches))
                self._branches = []
        return self._stacked(states, *shared)
