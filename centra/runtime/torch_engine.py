"""The reference engine: transformers' layers under torch, on the CPU in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from centra.data import Encoded
from centra.encoder import Branch, Trunk
from centra.runtime.engine import Probe
from centra.task_module import TaskModule

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import numpy as np

    from centra.backbone import BackboneSpec
    from centra.blobs import BlobReader
    from centra.chain_decoding import Chain

__all__ = ["TorchBranch", "TorchTrunk", "load_branch", "load_trunk"]


class TorchTrunk:
    """See :class:`centra.runtime.engine.TrunkEngine`."""

    def __init__(self, trunk: Trunk) -> None:
        self._trunk = trunk

    @torch.inference_mode()
    def run(self, batch: Encoded, taps: Collection[int]) -> dict[int, torch.Tensor]:
        """Hidden states ``(batch, seq, hidden)`` at the taps."""
        states: dict[int, torch.Tensor] = self._trunk(
            torch.from_numpy(batch.input_ids),
            torch.from_numpy(batch.attention_mask),
            torch.from_numpy(batch.token_type_ids),
            taps,
        )
        return states


class TorchBranch:
    """See :class:`centra.runtime.engine.BranchEngine`."""

    def __init__(self, branch: Branch) -> None:
        self._branch = branch.eval()

    @torch.inference_mode()
    def run(self, hidden_states: torch.Tensor, batch: Encoded) -> np.ndarray:
        """Logits ``(batch, outputs)``, or ``(batch, seq, outputs)`` for tagging."""
        logits: torch.Tensor = self._branch(hidden_states, torch.from_numpy(batch.attention_mask))
        array: np.ndarray = logits.numpy()
        return array


def load_trunk(spec: BackboneSpec, reader: BlobReader, *, depth: int) -> TorchTrunk:
    """The first ``depth`` layers of a backbone; errors as :class:`centra.encoder.Trunk`."""
    return TorchTrunk(Trunk(spec, reader, depth=depth))


def load_branch(backbone: BackboneSpec, path: Path) -> tuple[TorchBranch, Probe, Chain | None]:
    """A task module's branch, its probe, and the chain of a head with a CRF, from its verified file.

    The branch gives logits all the same; the chain decodes them.
    """
    module = TaskModule.read(path)
    branch = Branch(backbone, module.spec).load(module.weights)
    probe = {name: module.tensors[f"probe.{name}"].numpy() for name in _PROBE_INPUTS}
    chain = None if branch.chain is None else branch.chain.numpy(module.spec.labels)
    logits = module.tensors["probe.logits"].numpy()
    return TorchBranch(branch), Probe(Encoded(**probe), logits), chain


_PROBE_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
