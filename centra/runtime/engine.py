"""What a release needs of an engine: a trunk that gives hidden states, branches that give logits."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from centra.errors import UsageError
from centra.runtime.devices import check, has_gpu
from centra.system.processors import processors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from collections.abc import Set as AbstractSet

    import numpy as np

    from centra.data.inputs import Encoded
    from centra.formats.backbone import BackboneSpec
    from centra.formats.manifest import Precision
    from centra.formats.task_module import TaskSpec
    from centra.kinds.chain import Chain
    from centra.runtime.pool import Pool
    from centra.store.blobs import BlobReader

__all__ = [
    "ENGINES",
    "PROBE_INPUTS",
    "BranchEngine",
    "Engine",
    "LoadedTask",
    "Probe",
    "TrunkEngine",
    "default_engine",
    "engine_version",
    "open_engine",
]

ENGINES = ("onnx", "torch")
PROBE_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The fields of a probe's batch, and the tensors under ``probe.`` that hold them."""


class TrunkEngine(Protocol):
    """Computes the shared layers of one backbone."""

    def run(self, batch: Encoded, taps: Collection[int]) -> Iterator[tuple[int, Any]]:
        """Each tap with its hidden states, the lowest first, as soon as it is reached.

        The states have whatever form the branches of this engine take. Layers above the deepest
        tap are not computed, and none before it is asked for. Errors of the engine come through.
        """
        ...


class BranchEngine(Protocol):
    """Computes one task."""

    def run(self, hidden_states: Any) -> np.ndarray:
        """From what the trunk gives to logits ``(batch, outputs)`` or ``(batch, seq, outputs)``.

        Logits of padding mean nothing. Errors of the engine come through.
        """
        ...


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
        ((_, hidden),) = trunk.run(self.probe.batch, [self.spec.tap_layer])
        own, recorded = self.branch.run(hidden), self.probe.logits
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
    def pool(self) -> Pool:
        """The threads that trunks and branches run on."""
        ...

    def load_trunk(
        self,
        spec: BackboneSpec,
        reader: BlobReader,
        *,
        depth: int,
        precision: Precision = "fp32",
        held: AbstractSet[str] = frozenset(),
    ) -> TrunkEngine:
        """The first ``depth`` layers of a backbone.

        Args:
            spec: the backbone.
            reader: where its blobs are.
            depth: how many layers.
            precision: how they are computed; the reference computes in fp32 all the same.
            held: digests of blobs that need not be read again where what was made from them is
                still in use.

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
        precision: Precision = "fp32",
        held: AbstractSet[str] = frozenset(),
    ) -> LoadedTask:
        """The task module of a digest; see :meth:`load_trunk`."""
        ...


def default_engine(device: str | None = None, precision: str | None = None) -> str:
    """The engine that is used where none is named.

    ``"torch"`` on a GPU, and where a precision is named; else ``"onnx"`` where onnxruntime is
    installed.

    Args:
        device, precision: as for :func:`open_engine`; without a device, a GPU counts where torch
            sees one.
    """
    on_gpu = has_gpu() if device is None else device != "cpu"
    if on_gpu or precision is not None or importlib.util.find_spec("onnxruntime") is None:
        return "torch"
    return "onnx"


def engine_version(name: str) -> str:
    """The library that computes for an engine, and its version: ``onnxruntime 1.32.0``."""
    library = {"onnx": "onnxruntime", "torch": "torch"}[name]
    # Asked of the module, because several packages bring onnxruntime.
    return f"{library} {importlib.import_module(library).__version__}"


def open_engine(
    name: str | None = None,
    *,
    threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Engine:
    """An engine for a release to be loaded.

    On the CPU in float32 it is the same for the same choice.

    Args:
        name: ``"onnx"`` or ``"torch"``; see :func:`default_engine`.
        threads: how many processors to use; by default all that this process may. The torch engine
            takes torch's own setting instead.
        device: ``"cpu"``, or for the torch engine ``"cuda"`` or ``"cuda:1"``; by default its GPU
            where there is one.
        precision: of the torch engine, ``"fp32"``, ``"bf16"`` or ``"fp16"``; by default fp32 on the
            CPU and bf16 on a GPU. The onnx engine computes each task as its release says.

    Raises:
        UsageError: an unknown engine, device or precision, or one that is not here or not the
            engine's, or no thread.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    check(device, precision)
    match name or default_engine(device, precision):
        case "onnx":
            return _onnx(threads, device, precision)
        case "torch":
            from centra.runtime.torch.engine import torch_engine

            return torch_engine(device, precision)
    raise UsageError(f"unknown engine {name!r}; expected one of {', '.join(ENGINES)}")


def _onnx(threads: int | None, device: str | None, precision: str | None) -> Engine:
    if importlib.util.find_spec("onnxruntime") is None:
        raise UsageError("engine 'onnx' needs onnxruntime: pip install 'centra[serve]'")
    if device not in (None, "cpu"):
        raise UsageError(f"engine 'onnx' computes on the CPU; for {device!r} take engine 'torch'")
    if precision is not None:
        raise UsageError(
            f"engine 'onnx' computes each task as its release says (fp32 or int8); for "
            f"{precision!r} take engine 'torch'"
        )
    from centra.runtime.onnx.engine import onnx_engine

    return onnx_engine(threads or processors())
