"""What a release needs of an engine: a trunk that gives hidden states, branches that give logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from centra.formats.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskSpec
    from centra.kinds.chain import Chain
    from centra.runtime.pool import Pool
    from centra.store import BlobReader
    from centra.tokenization.text_encoder import Encoded

__all__ = [
    "PROBE_INPUTS",
    "BranchEngine",
    "Engine",
    "Inputs",
    "LoadedTask",
    "Probe",
    "TrunkEngine",
    "deepest_taps",
]

PROBE_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The fields of a probe's batch, and the tensors under ``probe.`` that hold them."""


Inputs = np.ndarray
"""Some inputs of a batch, ``(n,)``: their places from 0, ascending."""


class TrunkEngine(Protocol):
    """Computes the shared layers of one backbone."""

    def run(
        self, batch: Encoded, readers: Mapping[int, Sequence[Inputs]]
    ) -> Iterator[tuple[int, Any]]:
        """Each tap with its hidden states, the lowest first, as soon as it is reached.

        The states have whatever form the branches of this engine take. Nothing is computed before
        it is asked for. Errors of the engine come through.

        Args:
            batch: the inputs, with padding behind their tokens.
            readers: by tap, what each branch there reads; together they read every input. No input
                needs to be computed above the deepest tap that reads it.
        """
        ...


class BranchEngine(Protocol):
    """Computes one task."""

    def run(self, hidden_states: Any, inputs: Inputs) -> np.ndarray:
        """From what the trunk gives to logits ``(n, outputs)`` or ``(n, seq, outputs)``.

        Logits of padding mean nothing; ``seq`` is the batch's. Errors of the engine come through.

        Args:
            hidden_states: at the task's tap.
            inputs: those of the batch that ask for the task, as the trunk was told.
        """
        ...


def deepest_taps(inputs: int, readers: Mapping[int, Sequence[Inputs]]) -> np.ndarray:
    """The deepest tap that reads each of so many inputs; see :meth:`TrunkEngine.run`."""
    deepest = np.zeros(inputs, dtype=np.int64)
    for tap in sorted(readers):
        for places in readers[tap]:
            deepest[places] = tap
    return deepest


@dataclass(frozen=True)
class Probe:
    """The inputs that a module carries, and its own logits for them."""

    batch: Encoded
    logits: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedTask:
    """A task module, ready to run."""

    spec: TaskSpec
    branch: BranchEngine
    probe: Probe
    chain: Chain | None
    """What decodes, for a head with a CRF."""

    def probe_logits(self, trunk: TrunkEngine) -> tuple[np.ndarray, np.ndarray]:
        """Its logits on its probe over a trunk, and the ones that the module recorded of itself.

        Padding is cut out of tagging logits. Equal up to rounding means parity.
        """
        every = np.arange(len(self.probe.batch.input_ids))
        ((_, hidden),) = trunk.run(self.probe.batch, {self.spec.tap_layer: [every]})
        own, recorded = self.branch.run(hidden, every), self.probe.logits
        if self.spec.reads_every_token:
            tokens = self.probe.batch.attention_mask.astype(bool)
            return own[tokens], recorded[tokens]
        return own, recorded


class Engine(Protocol):
    """One way to compute releases on this machine."""

    @property
    def forks(self) -> bool:
        """Whether a process that is forked from this one can compute with what is loaded."""
        ...

    @property
    def dtype(self) -> str | None:
        """The floating-point type that it computes in; None where each task's precision says it."""
        ...

    @property
    def pool(self) -> Pool:
        """The threads that trunks and branches run on."""
        ...

    def load_trunk(
        self,
        spec: BackboneSpec,
        reader: BlobReader,
        *,
        depth: int,
        precision: Precision = Precision.FP32,
        checked: AbstractSet[str] = frozenset(),
        workers: int = 1,
    ) -> TrunkEngine:
        """The first ``depth`` layers of a backbone.

        Args:
            spec: the backbone.
            reader: where its blobs are.
            depth: how many layers.
            precision: how they are computed; the reference computes in fp32 all the same.
            checked: digests of blobs that need not be read again where what was made from them is
                still in use.
            workers: how many threads may be taken to load its layers side by side.

        Raises:
            IncompatibleError: the engine cannot compute such layers.
            FormatError, BlobNotFoundError, CorruptBlobError, StoreError: a blob cannot be had.
        """
        ...

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
        """The task module of a digest; see :meth:`load_trunk`."""
        ...
