"""What int8 does to the answers of modules that were trained on the labelled data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tools.common import say
from benchmarks.tools.real import find_data, minilm, take_rows
from centra.data.inputs import read_examples
from centra.formats.manifest import ReleaseManifest
from centra.formats.task_module import TaskModule
from centra.releases.int8 import compare_int8
from centra.training.recipe import Recipe
from centra.training.train import train_module

if TYPE_CHECKING:
    from pathlib import Path

    from centra.releases.int8 import DevComparison

__all__ = ["compare_on_real_tasks"]

_RECIPE = Recipe(tap=3, depth=2, epochs=3, learning_rate=5e-4, max_length=64)
_ROWS, _DEV_ROWS = 3000, 300
"""With fewer rows tasks of 77 and 150 labels are not learnt, and what an untrained module answers says
nothing."""


def compare_on_real_tasks(work: Path) -> list[tuple[str, DevComparison]]:
    """Train a module on each data set, and answer its dev rows in fp32 and in int8.

    Args:
        work: a folder that keeps the modules, so that they are trained once.

    Returns:
        Per data set, in the order of their names.
    """
    backbone, source = minilm(work / "store"), find_data()
    modules, data = {}, {}
    for folder in sorted(path.parent for path in source.glob("*/dev.jsonl")):
        task, file = folder.name, work / f"{folder.name}.safetensors"
        rows = take_rows(folder, work / "data" / task, train=_ROWS, dev=_DEV_ROWS)
        if not file.is_file():
            say(f"training {task}")
            train_module(
                backbone.spec, backbone.store, rows, _RECIPE, work=work / "runs" / task
            ).write(file)
        modules[task] = backbone.store.put(file), TaskModule.read(file).spec
        data[task] = read_examples(rows / "dev.jsonl")
    manifest = ReleaseManifest.build(modules, {backbone.spec.digest: backbone.spec})
    compared = compare_int8(manifest, backbone.store, [*modules], data)
    return [(one.task, one.dev) for one in compared if one.dev]
