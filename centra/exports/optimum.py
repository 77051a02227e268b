"""``optimum``: a task as ``hf`` has it, with its graph in ``onnx/model.onnx``.

TEI and ``ORTModelFor…`` of optimum serve such a folder unchanged. The graph's one output is ``logits``. A task
that no class of transformers computes has the graph alone, and a ``config.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.errors import IncompatibleError
from centra.exports.base import ExportPrecision, Format, Written
from centra.exports.hf import check_checkpoint, write_one_manifest
from centra.exports.onnx import GRAPH_PACKAGES

if TYPE_CHECKING:
    from pathlib import Path

    from centra.exports.base import Source
    from centra.progress import Progress

__all__ = ["OPTIMUM"]


def _write(source: Source, folder: Path, precision: ExportPrecision, progress: Progress) -> Written:
    from centra.exports.checking import check_graph
    from centra.exports.checkpoint import (
        NO_CLASS,
        Checkpoint,
        write_checkpoint,
        write_config,
        write_own_tokenizer,
    )
    from centra.exports.graphs.files import write_graph
    from centra.exports.graphs.merged import merged_graph

    checkpoint = Checkpoint.of(source)
    notes = [*checkpoint.notes()]
    write_own_tokenizer(checkpoint, source, folder)
    try:
        write_checkpoint(checkpoint, source, folder)
    except IncompatibleError as error:
        if error.code != NO_CLASS:
            raise
        notes.append("there is no model.safetensors: no class of transformers has its head")
        write_config(checkpoint, folder)
    else:
        check_checkpoint(checkpoint, source, folder, ExportPrecision.FP32, progress)
    merged = merged_graph(source, precision, output=lambda _: "logits", progress=progress)
    path = folder / "onnx" / "model.onnx"
    write_graph(merged.graph, path)
    parity = check_graph(path, merged, precision, progress)
    write_one_manifest(checkpoint, source, folder, precision)
    return Written(parity=parity, notes=tuple(notes))


OPTIMUM = Format(
    name="optimum",
    summary="the same with onnx/model.onnx, as optimum and TEI take it",
    several=False,
    write=_write,
    packages=GRAPH_PACKAGES,
    precisions=(ExportPrecision.FP32, ExportPrecision.FP16, ExportPrecision.INT8),
)
