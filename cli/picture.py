"""A merged model as a picture in text: frozen layers down the side, branches at their taps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.release import ReleaseManifest, TaskEntry

__all__ = ["picture"]


def picture(manifest: ReleaseManifest, versions: Mapping[str, str]) -> str:
    """Draw a release.

    Args:
        manifest: the release.
        versions: per task its version, for the labels.
    """
    blocks = []
    for trunk in manifest.trunks:
        tasks = {n: e for n, e in manifest.tasks.items() if e.backbone == trunk.spec}
        lines = [f"backbone {trunk.short} (layers 1 to {trunk.num_layers})"]
        for layer in range(len(trunk.layers) + 1):
            here = [task for task, entry in tasks.items() if entry.tap_layer == layer]
            name = "embeddings" if layer == 0 else f"layer {layer:>2}"
            if layer:
                lines.append("      │")
            branches = [_branch(task, tasks[task], versions) for task in here]
            lines.append(f" {name:<10} ┃" + "".join(branches[:1]))
            lines += [" " * 12 + "┃" + branch for branch in branches[1:]]
        unused = trunk.num_layers - len(trunk.layers)
        if unused:
            lines.append(f"      (not needed: {unused} of the backbone's layers)")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _branch(name: str, entry: TaskEntry, versions: Mapping[str, str]) -> str:
    own = "".join("─[▒]" for _ in range(entry.depth))
    labels = f", {len(entry.labels)} labels" if entry.labels else ""
    form = " of pairs" if entry.input == "pair" else ""
    return f"━●{own}─▶ {name}@{versions[name]}  {entry.kind}{form}{labels}"
