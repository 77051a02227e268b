"""A merged model as a picture in text: frozen layers down the side, branches at their taps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.graphs import Branch, Graph, Trunk

__all__ = ["branch_label", "picture"]


def picture(graph: Graph) -> str:
    """Draw a release."""
    return "\n\n".join(_trunk(trunk) for trunk in graph.trunks)


def branch_label(branch: Branch) -> str:
    """What a branch answers, in a few words: ``classification of pairs, 3 labels``."""
    labels = f", {branch.labels} label{'s' if branch.labels > 1 else ''}" if branch.labels else ""
    precision = "" if branch.precision == "fp32" else f", {branch.precision}"
    return f"{branch.kind}{' of pairs' if branch.input == 'pair' else ''}{labels}{precision}"


def _trunk(trunk: Trunk) -> str:
    shared = [layer.number for layer in trunk.layers if layer.digest is not None]
    lines = [f"backbone {trunk.backbone} {trunk.digest[:12]} (layers 1 to {len(trunk.layers)})"]
    for layer in (0, *shared):
        name = f"layer {layer:>2}" if layer else "embeddings"
        first, *others = [_branch(b) for b in trunk.branches if b.tap_layer == layer] or [""]
        if layer:
            lines.append("      │")
        lines.append(f" {name:<10} ┃{first}")
        lines += [" " * 12 + "┃" + branch for branch in others]
    unused = len(trunk.layers) - len(shared)
    if unused:
        lines.append(f"      (not needed: {unused} of the backbone's layers)")
    return "\n".join(lines)


def _branch(branch: Branch) -> str:
    own = "─[▒]" * branch.depth
    return f"━●{own}─▶ {branch.task}@{branch.version}  {branch_label(branch)}"
