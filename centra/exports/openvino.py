"""``openvino``: the graph as OpenVINO's IR, with its manifest and the tokenizer's files.

``openvino_model.xml`` and ``openvino_model.bin``, as optimum-intel and the OpenVINO Model Server look for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.errors import IncompatibleError, first_line
from centra.exports.base import ExportPrecision, Format, Package, Written
from centra.exports.onnx import (
    GRAPH_PACKAGES,
    reading_notes,
    write_manifest,
    write_merged,
    write_tokenizer,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from centra.exports.base import Source
    from centra.exports.graphs.merged import MergedGraph
    from centra.progress import Progress

__all__ = ["OPENVINO"]


def _write(source: Source, folder: Path, precision: ExportPrecision, progress: Progress) -> Written:
    import openvino

    between = folder / "between"
    # What is of 16 bits in IR is the weights alone, and comes out of the exact ones.
    merged, _ = write_merged(source, between / "model.onnx", ExportPrecision.FP32, progress)
    try:
        model = openvino.convert_model(between / "model.onnx")
        path = folder / "openvino_model.xml"
        openvino.save_model(model, path, compress_to_fp16=precision == ExportPrecision.FP16)
    except Exception as error:
        raise IncompatibleError(
            f"openvino cannot convert the graph: {first_line(error)}"
        ) from error
    del model
    for file in between.iterdir():
        file.unlink()
    between.rmdir()
    parity = _check(path, merged, precision, progress)
    write_tokenizer(source, folder)
    write_manifest(source, merged, precision, folder)
    return Written(parity=parity, notes=reading_notes(source, merged, precision))


def _check(
    path: Path, merged: MergedGraph, precision: ExportPrecision, progress: Progress
) -> dict[str, float]:
    """Compare the files' answers on a CPU, in the precision that they are asked for in."""
    import openvino

    from centra.exports.checking import check_answers

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", exact)

    def run(inputs: Mapping[str, np.ndarray], task: str) -> np.ndarray:
        found: np.ndarray = compiled(dict(inputs))[merged.outputs[task]]
        return found

    return check_answers(
        run, merged.modules, merged.graph.inputs, precision, peer="openvino", progress=progress
    )


OPENVINO = Format(
    name="openvino",
    summary="the graph as OpenVINO's IR",
    several=True,
    write=_write,
    packages=(*GRAPH_PACKAGES, Package(module="openvino", install="openvino>=2025.0")),
    precisions=(ExportPrecision.FP32, ExportPrecision.FP16),
)
