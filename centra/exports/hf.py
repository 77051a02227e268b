"""``hf``: a task as a plain checkpoint of transformers, which loads it without Centra.

``config.json``, ``model.safetensors``, the tokenizer's files and ``manifest.json``. ``centra task register`` takes
it back where the backbone is registered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.exports.base import ExportPrecision, Format, Written

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from centra.exports.base import Source
    from centra.exports.checkpoint import Checkpoint
    from centra.progress import Progress

__all__ = ["HF", "check_checkpoint", "write_one_manifest"]


def _write(source: Source, folder: Path, precision: ExportPrecision, progress: Progress) -> Written:
    from centra.exports.checkpoint import Checkpoint, write_checkpoint, write_own_tokenizer

    checkpoint = Checkpoint.of(source)
    notes = tuple(checkpoint.notes())
    write_own_tokenizer(checkpoint, source, folder)
    write_checkpoint(checkpoint, source, folder)
    parity = check_checkpoint(checkpoint, source, folder, precision, progress)
    write_one_manifest(checkpoint, source, folder, precision)
    return Written(parity=parity, notes=notes)


def check_checkpoint(
    checkpoint: Checkpoint,
    source: Source,
    folder: Path,
    precision: ExportPrecision,
    progress: Progress,
) -> dict[str, float]:
    """Load a folder as its users do, and compare the probe, and the tokenizer with the backbone's.

    Raises:
        IncompatibleError: the answers or the ids are others.
    """
    import torch
    import transformers

    from centra.checkpoints.tokenizer import check_same_tokenizer
    from centra.exports.checking import check_answers

    kind = getattr(transformers, checkpoint.auto_class)
    model = kind.from_pretrained(str(folder), trust_remote_code=False, dtype=torch.float32).eval()

    def run(inputs: Mapping[str, np.ndarray], _task: str) -> np.ndarray:
        with torch.inference_mode():
            given: dict[str, Any] = {name: torch.from_numpy(a) for name, a in inputs.items()}
            found: np.ndarray = model(**given).logits.numpy()
            return found

    check_same_tokenizer(
        *(folder, checkpoint.backbone, source.reader),
        pairs=checkpoint.spec.input == "pair",
        config=model.config,
    )
    names = ["input_ids", "attention_mask"]
    return check_answers(
        run,
        {checkpoint.task: checkpoint.module},
        [*names, "token_type_ids"] if checkpoint.token_types else names,
        precision,
        peer="transformers",
        progress=progress,
    )


def write_one_manifest(
    checkpoint: Checkpoint, source: Source, folder: Path, precision: ExportPrecision
) -> None:
    """Write ``manifest.json`` beside a task's files."""
    from centra.exports.manifest import MANIFEST, export_manifest

    types = ("token_type_ids",) if checkpoint.token_types else ()
    manifest = export_manifest(
        *(source, checkpoint.backbone, {checkpoint.task: checkpoint.module}),
        inputs=("input_ids", "attention_mask", *types),
        outputs={checkpoint.task: "logits"},
        precision=precision,
        folder=folder,
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())


HF = Format(
    name="hf",
    summary="a task as a checkpoint of transformers",
    several=False,
    write=_write,
)
