"""What both torch engines make of blobs, and share between the releases of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

from centra.runtime.engine import PROBE_INPUTS, LoadedTask, Probe
from centra.runtime.units import UnitCache, UnitKey
from centra.tokenization.text_encoder import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from collections.abc import Set as AbstractSet

    from centra.formats.task_module import TaskModule
    from centra.modeling.branch import Branch
    from centra.runtime.engine import BranchEngine
    from centra.store import BlobReader

__all__ = ["loaded_task", "shared_unit"]

T = TypeVar("T")

_UNITS = UnitCache()


def shared_unit(
    digest: str,
    make: Callable[[], T],
    reader: BlobReader,
    *,
    settings: Hashable,
    checked: AbstractSet[str],
) -> T:
    """What is made of a blob, the same for all releases that are loaded.

    Args:
        digest: the blob's.
        make: reads it, and makes of it what is never changed again.
        reader: where it is.
        settings: what else it is made with: the part it plays, its backbone, device and dtype.
        checked: the digests of blobs that need not be read again.
    """
    key = UnitKey(
        digest=digest, precision="", engine=f"torch {torch.__version__}", settings=settings
    )
    return _UNITS.of_blob(key, make, reader, checked=checked)


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
