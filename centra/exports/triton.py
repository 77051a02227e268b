"""``triton``: a model repository for Triton's ONNX Runtime backend.

``models/MODEL/config.pbtxt``, ``models/MODEL/VERSION/model.onnx``, a label file for each task, ``tokenizer/`` and
``manifest.json``. The config is made as the server's own message and written as text. Models that take texts are in
``texts/``, a repository of their own; see :mod:`centra.exports.triton_texts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.exports.base import ExportPrecision, Format, Package, Written
from centra.exports.onnx import (
    GRAPH_PACKAGES,
    reading_notes,
    write_manifest,
    write_merged,
    write_tokenizer,
)
from centra.exports.triton_texts import write_text_models

if TYPE_CHECKING:
    from pathlib import Path

    from centra.exports.base import Source
    from centra.exports.graphs.merged import MergedGraph
    from centra.progress import Progress

__all__ = ["TRITON"]

_RELEASE = "centra"
"""What the model of a release is called."""
_MOST = 64
"""Inputs of a request and of a batch of requests of one length."""


def _write(source: Source, folder: Path, precision: ExportPrecision, progress: Progress) -> Written:
    name = source.task or _RELEASE
    model = folder / "models" / name
    version = model / str(source.release or 1)
    merged, parity = write_merged(source, version / "model.onnx", precision, progress)
    labels = _write_labels(merged, model)
    (model / "config.pbtxt").write_text(_config(name, source, merged, labels), encoding="utf-8")
    tokenizer = model / "tokenizer"
    tokenizer.mkdir()
    write_tokenizer(source, tokenizer)
    write_manifest(source, merged, precision, model)
    notes = [*reading_notes(source, merged, precision)]
    if templated := write_text_models(name, source, merged, folder / "texts", most=_MOST):
        notes.append(f"{', '.join(templated)}: take ids alone, as texts stand in a template")
    if several := [task for task in merged.modules if task not in labels]:
        notes.append(f"no label file is named for {', '.join(several)}; see manifest.json")
    return Written(parity=parity, notes=tuple(notes))


def _write_labels(merged: MergedGraph, model: Path) -> dict[str, str]:
    """Per task that gives one row the file with a label on each line, in the order of its logits."""
    found = {}
    for task, module in merged.modules.items():
        labels = module.spec.labels
        lines = all(len(label.splitlines()) == 1 for label in labels)
        if module.spec.reads_every_token or not labels or not lines:
            continue
        found[task] = f"{task}.labels.txt"
        (model / found[task]).write_text("".join(f"{x}\n" for x in labels), encoding="utf-8")
    return found


def _config(name: str, source: Source, merged: MergedGraph, labels: dict[str, str]) -> str:
    """``config.pbtxt``."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    schema: Any = model_config_pb2
    config = schema.ModelConfig(
        name=name, backend="onnxruntime", max_batch_size=_MOST, default_model_filename="model.onnx"
    )
    for value in merged.graph.inputs:
        config.input.add(name=value, data_type=schema.TYPE_INT64, dims=[-1])
    for task, module in merged.modules.items():
        length = [-1] if module.spec.reads_every_token else []
        config.output.add(
            name=merged.outputs[task],
            data_type=schema.TYPE_FP32,
            dims=[*length, module.spec.outputs],
            label_filename=labels.get(task, ""),
        )
    config.dynamic_batching.SetInParent()
    told = {"centra.release": source.manifest.digest, "centra.backbone": merged.backbone.digest}
    for key, text in told.items():
        config.parameters[key].string_value = text
    written: str = text_format.MessageToString(config)
    return written


TRITON = Format(
    name="triton",
    summary="model repositories for Triton, that take ids and texts",
    several=True,
    write=_write,
    packages=(
        *GRAPH_PACKAGES,
        Package(module="tritonclient", install="tritonclient[grpc]>=2.41"),
    ),
    precisions=(ExportPrecision.FP32, ExportPrecision.FP16, ExportPrecision.INT8),
)
