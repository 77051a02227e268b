"""The torch engine: on the CPU in float32 the reference, transformers' own layers.

It computes in float32 whatever precision a release gives a task: it is what all other ways' answers
are held against. On a GPU and in bf16 or fp16 the engine is another one; see
:mod:`centra.runtime.torch.batched_engine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import nn

from centra.formats.precision import Precision
from centra.formats.task_module import TaskModule, check_stored
from centra.modeling.branch import Branch
from centra.modeling.shards import backbone_layer
from centra.modeling.trunk import Trunk, frozen_layer
from centra.runtime.devices import choose_device
from centra.runtime.pool import Pool
from centra.runtime.torch.loading import loaded_task, shared_unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import numpy as np

    from centra.formats.backbone import BackboneSpec
    from centra.modeling.shared_state import SharedState
    from centra.runtime.engine import Engine, Inputs, LoadedTask
    from centra.store import BlobReader
    from centra.tokenization.text_encoder import Encoded

__all__ = ["Hidden", "TorchBranch", "TorchEngine", "TorchTrunk", "torch_engine"]


def torch_engine(device: str | None = None, dtype: str | None = None) -> Engine:
    """The engine for a device and a dtype; see :func:`centra.runtime.devices.choose_device`.

    Raises:
        UsageError: an unknown name, or a device that is not there.
    """
    chosen, dtype = choose_device(device, dtype)
    if (chosen.type, dtype) == ("cpu", "fp32"):
        return _reference()
    from centra.runtime.torch.batched_engine import BatchedEngine

    return BatchedEngine(chosen, dtype)


@cache
def _reference() -> TorchEngine:
    """The process's engine."""
    return TorchEngine()


class TorchEngine:
    """The reference engine on the CPU, in float32."""

    forks = True
    dtype = "fp32"

    def __init__(self) -> None:
        self.pool = Pool(1)
        """One thread; torch has its own inside each operator."""

    def load_trunk(
        self,
        spec: BackboneSpec,
        reader: BlobReader,
        *,
        depth: int,
        precision: Precision = Precision.FP32,  # noqa: ARG002 - the reference is always this
        checked: AbstractSet[str] = frozenset(),
        workers: int = 1,  # noqa: ARG002 - loading is copying
    ) -> TorchTrunk:
        embeddings = shared_unit(
            spec.embeddings,
            lambda: Trunk(spec, reader, depth=0),
            reader,
            settings=("embeddings", spec.digest),
            checked=checked,
        )

        def layer(number: int) -> nn.Module:
            return shared_unit(
                spec.layers[number - 1],
                lambda: frozen_layer(backbone_layer(spec, reader, number), spec, number),
                reader,
                settings=("layer", spec.digest, spec.layer(number)),
                checked=checked,
            )

        return TorchTrunk(embeddings, [layer(number) for number in range(1, depth + 1)])

    def load_task(
        self,
        digest: str,
        backbone: BackboneSpec,
        reader: BlobReader,
        *,
        precision: Precision = Precision.FP32,  # noqa: ARG002 - the reference is always this
        checked: AbstractSet[str] = frozenset(),
        workers: int = 1,  # noqa: ARG002 - loading is copying
    ) -> LoadedTask:

        def task() -> LoadedTask:
            path = reader.fetch(digest)
            check_stored(path, digest, backbone)
            module = TaskModule.read(path)
            branch = Branch(backbone, module.spec).load(module.weights)
            return loaded_task(module, branch, TorchBranch(branch))

        settings = ("task", backbone.digest)
        return shared_unit(digest, task, reader, settings=settings, checked=checked)


class TorchTrunk:
    """Embeddings and frozen layers as torch modules."""

    def __init__(self, embeddings: Trunk, layers: Sequence[nn.Module]) -> None:
        """Put them together; other releases may have them, too."""
        self._embeddings, self._layers = embeddings, layers

    def run(
        self, batch: Encoded, readers: Mapping[int, Sequence[Inputs]]
    ) -> Iterator[tuple[int, Hidden]]:
        # All layers in one go, on all inputs: this engine is for comparing, not for speed.
        with torch.inference_mode():
            shared = self._embeddings.shared_state(torch.from_numpy(batch.attention_mask))
            states = [
                self._embeddings.embed(
                    torch.from_numpy(batch.input_ids), torch.from_numpy(batch.token_type_ids)
                )
            ]
            for layer in self._layers[: max(readers)]:
                states.append(layer(states[-1], shared))
        for tap in sorted(readers):
            yield tap, Hidden(states[tap], shared)


@dataclass(frozen=True)
class Hidden:
    """Hidden states at a tap."""

    states: torch.Tensor
    """``(batch, seq, hidden)``."""
    shared: SharedState
    """What all layers share of the batch."""

    def only(self, inputs: Inputs) -> Hidden:
        """Those of some inputs."""
        if len(inputs) == len(self.states):
            return self
        places = torch.from_numpy(inputs)
        return Hidden(self.states[places], self.shared.only(places))


class TorchBranch:
    """A task's own layers and head as a torch module."""

    def __init__(self, branch: Branch) -> None:
        self._branch = branch.eval()

    @torch.inference_mode()
    def run(self, hidden_states: Hidden, inputs: Inputs) -> np.ndarray:
        hidden = hidden_states.only(inputs)
        logits: torch.Tensor = self._branch(hidden.states, hidden.shared)
        array: np.ndarray = logits.numpy()
        return array
