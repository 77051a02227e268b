"""What both torch engines make of a task module that has been read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.runtime.engine import PROBE_INPUTS, LoadedTask, Probe
from centra.tokenization.text_encoder import Encoded

if TYPE_CHECKING:
    from centra.formats.task_module import TaskModule
    from centra.modeling.branch import Branch
    from centra.runtime.engine import BranchEngine

__all__ = ["loaded_task"]


def loaded_task(module: TaskModule, branch: Branch, engine: BranchEngine) -> LoadedTask:
    """A task of a module.

    Args:
        module: as it was read.
        branch: with its weights, for the head's CRF.
        engine: what computes it.
    """
    inputs = {name: module.tensors[f"probe.{name}"].numpy() for name in PROBE_INPUTS}
    return LoadedTask(
        spec=module.spec,
        branch=engine,
        probe=Probe(Encoded(**inputs), module.tensors["probe.logits"].numpy()),
        chain=None if branch.chain is None else branch.chain.numpy(module.spec.labels),
    )
