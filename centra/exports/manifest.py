"""``manifest.json`` of an export: what an engine's user needs beside the graph."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from centra.data.words import Segmentation  # noqa: TC001 - pydantic reads the annotations
from centra.formats.contract import InputForm  # noqa: TC001
from centra.formats.decision import Activation  # noqa: TC001
from centra.formats.documents import DigestField, Document
from centra.formats.identities import Digest
from centra.formats.tensors import map_tensors
from centra.system.files import file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from centra.exports.base import ExportPrecision, Source
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import ModuleFile

__all__ = ["FORMAT", "MANIFEST", "Chain", "ExportManifest", "TaskManifest", "export_manifest"]

MANIFEST = "manifest.json"
FORMAT = "centra/export/1"


class Chain(Document):
    """The scores of a linear-chain CRF, by which tags are chosen of a task's logits."""

    start: tuple[float, ...]
    end: tuple[float, ...]
    transitions: tuple[tuple[float, ...], ...]
    """From the tag of a row to that of a column."""


class TaskManifest(Document):
    """How a task's logits become its answer."""

    version: str | None
    module: DigestField
    kind: str
    input: InputForm
    output: str
    """The graph's output with the logits."""
    labels: tuple[str, ...]
    """Of the answer, in the order of the logits where ``tags`` says nothing else."""
    tags: tuple[str, ...]
    """What each logit of a tagging task stands for, where these are not the labels."""
    activation: Activation
    threshold: float | tuple[float, ...] | None
    rejection: float | None
    max_length: int
    """Tokens of an input, special ones included; what is longer is cut."""
    template: str | tuple[str, str]
    pooling: str
    words: Segmentation
    """How the texts of a tagging task are cut into words, each of which its first token stands for."""
    crf: Chain | None


class ExportManifest(Document):
    """What was exported."""

    format: str
    precision: str
    release: int | None
    digest: DigestField | None
    """Of the release's manifest; null for a task by itself."""
    backbone: DigestField
    family: str
    inputs: tuple[str, ...]
    """Of the graph, ``(batch, length)`` of int64 each."""
    pad_token_id: int
    max_length: int
    tasks: dict[str, TaskManifest]
    files: dict[str, DigestField]
    """The digest of each other file, by its path."""

    def to_bytes(self) -> bytes:
        """As JSON for people."""
        value: dict[str, Any] = self.model_dump(mode="json")
        return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def export_manifest(
    source: Source,
    backbone: BackboneSpec,
    modules: Mapping[str, ModuleFile],
    *,
    inputs: tuple[str, ...],
    outputs: Mapping[str, str],
    precision: ExportPrecision,
    folder: Path,
) -> ExportManifest:
    """The manifest of what lies in a folder by now."""
    files = {
        str(path.relative_to(folder)): Digest(file_digest(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return ExportManifest(
        format=FORMAT,
        precision=precision,
        release=source.release,
        digest=source.manifest.digest if source.task is None else None,
        backbone=backbone.digest,
        family=backbone.family,
        inputs=inputs,
        pad_token_id=backbone.pad_token_id,
        max_length=backbone.max_length,
        tasks={
            name: _task(source.versions.get(name), module, outputs[name], backbone)
            for name, module in modules.items()
        },
        files=files,
    )


def _task(
    version: str | None, module: ModuleFile, output: str, backbone: BackboneSpec
) -> TaskManifest:
    spec = module.spec
    decision = spec.effective_decision
    return TaskManifest(
        version=version,
        module=module.digest,
        kind=spec.kind,
        input=spec.input,
        output=output,
        labels=spec.labels,
        tags=spec.head.tags,
        activation=decision.activation or "none",
        threshold=decision.threshold,
        rejection=decision.rejection,
        max_length=decision.max_length or backbone.max_length,
        template=decision.template,
        pooling=decision.pooling,
        words=spec.head.words,
        crf=_chain(module),
    )


def _chain(module: ModuleFile) -> Chain | None:
    if not module.spec.head.crf:
        return None
    tensors = map_tensors(module.path)
    scores = {n: tensors[f"head.crf.{n}"].tolist() for n in ("start", "end", "transitions")}
    return Chain.model_validate(scores)
