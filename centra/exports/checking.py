"""What a peer computes on every task's probe, held against the logits that the modules recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from centra.errors import IncompatibleError, first_line
from centra.exports.base import ExportPrecision
from centra.formats.tensors import map_tensors
from centra.runtime.engine import PROBE_INPUTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from centra.exports.graphs.merged import MergedGraph
    from centra.formats.task_module import ModuleFile
    from centra.progress import Progress

__all__ = ["Peer", "check_answers", "check_difference", "check_graph"]

_TOLERANCE = 1e-4
"""As a release's own parity: what counts as rounding."""


Peer = Callable[[Mapping[str, np.ndarray], str], np.ndarray]
"""From inputs ``(batch, length)`` by name to the logits of a task."""


def check_graph(
    path: Path, merged: MergedGraph, precision: ExportPrecision, progress: Progress
) -> dict[str, float]:
    """:func:`check_answers` of a graph's file in ONNX Runtime, loaded as its users load it.

    Raises:
        IncompatibleError: it cannot be loaded, or answers otherwise.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise IncompatibleError(
            f"onnxruntime cannot load the graph: {first_line(error)}"
        ) from error

    def run(inputs: Mapping[str, np.ndarray], task: str) -> np.ndarray:
        found: np.ndarray = session.run([merged.outputs[task]], dict(inputs))[0]
        return found

    return check_answers(
        run, merged.modules, merged.graph.inputs, precision, peer="onnxruntime", progress=progress
    )


def check_answers(
    run: Peer,
    modules: Mapping[str, ModuleFile],
    names: Sequence[str],
    precision: ExportPrecision,
    *,
    peer: str,
    progress: Progress,
) -> dict[str, float]:
    """Hold what a peer computes on the probes against the logits that the modules recorded.

    Each probe is computed as one batch, and its first input by itself and without padding.

    Args:
        run: the peer.
        modules: by task.
        names: of the inputs that the peer takes.
        precision: in fp32 the difference must be rounding; the others' is told.
        peer: what to call it in errors.
        progress: told of each task.

    Returns:
        Per task the largest difference.

    Raises:
        IncompatibleError: a task's logits are others, or no numbers.
    """
    found = {}
    for done, (task, module) in enumerate(modules.items(), 1):
        tensors = map_tensors(module.path)
        given = {name: np.array(tensors[f"probe.{name}"]) for name in PROBE_INPUTS}
        inputs = {name: given[name] for name in names}
        recorded = np.array(tensors["probe.logits"])
        length = int(given["attention_mask"][0].sum())
        alone = {name: array[:1, :length] for name, array in inputs.items()}
        computed = [run(inputs, task), run(alone, task)]
        expected = [recorded, recorded[:1]]
        if module.spec.reads_every_token:
            real = given["attention_mask"][:, :, None]
            computed[0], expected = computed[0] * real, [recorded * real, recorded[:1, :length]]
        found[task] = max(
            check_difference(task, own, theirs, precision, peer=peer)
            for own, theirs in zip(computed, expected, strict=True)
        )
        progress(f"compare with {peer}", done, len(modules))
    return found


def check_difference(
    task: str, computed: np.ndarray, recorded: np.ndarray, precision: ExportPrecision, *, peer: str
) -> float:
    """The largest difference of logits, of any one shape; in fp32 it must be rounding.

    Args:
        task, precision, peer: see :func:`check_answers`.
        computed, recorded: what the peer made of a probe, and what the module recorded.

    Raises:
        IncompatibleError: it is more, or ``computed`` are no numbers.
    """
    difference = float(np.abs(computed - recorded).max(initial=0.0))
    exact = precision == ExportPrecision.FP32
    good = np.allclose(computed, recorded, rtol=_TOLERANCE, atol=_TOLERANCE)
    if (exact and not good) or not np.isfinite(computed).all():
        raise IncompatibleError(
            f"task {task}: in {precision}, {peer} answers its probe with logits that differ by up to "
            f"{difference:.3g} from those that its module recorded"
            + (f" (allowed: {_TOLERANCE:g})" if exact else ""),
            code="export-parity",
            task=task,
            peer=peer,
        )
    return difference
