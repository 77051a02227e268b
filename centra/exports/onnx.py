"""``onnx``: one graph of all tasks over the layers that they share, with what says how to read it.

``model.onnx``, ``manifest.json`` and the tokenizer's files. A task's output is ``TASK.logits`` for good.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from centra.exports.base import ExportPrecision, Format, Package, Written

if TYPE_CHECKING:
    from pathlib import Path

    from centra.exports.base import Source
    from centra.exports.graphs.merged import MergedGraph
    from centra.progress import Progress

__all__ = [
    "GRAPH_PACKAGES",
    "ONNX",
    "reading_notes",
    "write_manifest",
    "write_merged",
    "write_tokenizer",
]

GRAPH_PACKAGES = (Package(module="onnxruntime", install="onnxruntime>=1.22"),)
"""What graphs are checked with."""


def _write(source: Source, folder: Path, precision: ExportPrecision, progress: Progress) -> Written:
    merged, parity = write_merged(source, folder / "model.onnx", precision, progress)
    write_tokenizer(source, folder)
    write_manifest(source, merged, precision, folder)
    return Written(parity=parity, notes=reading_notes(source, merged, precision))


def write_merged(
    source: Source, path: Path, precision: ExportPrecision, progress: Progress
) -> tuple[MergedGraph, dict[str, float]]:
    """Write a release's graph, and check it; see :func:`centra.exports.checking.check_graph`."""
    from centra.exports.checking import check_graph
    from centra.exports.graphs.files import write_graph
    from centra.exports.graphs.merged import merged_graph

    merged = merged_graph(source, precision, output="{}.logits".format, progress=progress)
    write_graph(merged.graph, path)
    return merged, check_graph(path, merged, precision, progress)


def write_tokenizer(source: Source, folder: Path) -> None:
    """Put the tokenizer's files of a release on one backbone into a folder."""
    (trunk,) = source.manifest.trunks
    for name, digest in trunk.tokenizer.items():
        shutil.copyfile(source.reader.fetch(digest), folder / name)


def write_manifest(
    source: Source, merged: MergedGraph, precision: ExportPrecision, folder: Path
) -> None:
    """Write ``manifest.json`` beside what lies in a folder."""
    from centra.exports.manifest import MANIFEST, export_manifest

    manifest = export_manifest(
        *(source, merged.backbone, merged.modules),
        inputs=tuple(merged.graph.inputs),
        outputs=merged.outputs,
        precision=precision,
        folder=folder,
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())


def reading_notes(
    source: Source, merged: MergedGraph, precision: ExportPrecision
) -> tuple[str, ...]:
    """What the caller of a graph has to do himself, and what is not as in the release."""
    from centra.tokenization.text_encoder import Reading

    found = []
    specs = {name: module.spec for name, module in merged.modules.items()}
    readings: dict[Reading, list[str]] = {}
    for name, spec in specs.items():
        readings.setdefault(Reading.of(spec), []).append(name)
    if len(readings) > 1:
        groups = "; ".join(", ".join(names) for names in readings.values())
        found.append(
            "tasks that read texts alike share a call of the graph, others take another, as template "
            f"and max_length in the manifest say: {groups}"
        )
    if crf := [name for name, spec in specs.items() if spec.head.crf]:
        found.append(
            f"{', '.join(crf)}: a CRF chooses the tags; its scores are in the manifest, not in the graph"
        )
    in_release = source.manifest.precisions
    if others := [n for n, p in in_release.items() if p.value == "int8" and precision != p.value]:
        found.append(f"{', '.join(others)}: int8 in the release, {precision} here")
    return tuple(found)


ONNX = Format(
    name="onnx",
    summary="one graph with an output TASK.logits per task, and a manifest",
    several=True,
    write=_write,
    packages=GRAPH_PACKAGES,
    precisions=(ExportPrecision.FP32, ExportPrecision.FP16, ExportPrecision.INT8),
)
