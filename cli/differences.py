"""How two modules of a task differ, in lines for people."""

from __future__ import annotations

from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.formats.contract import ContractDifference
    from centra.formats.decision import DecisionChange
    from registry.releases import ModuleDifference

__all__ = ["contract_lines", "decision_lines", "module_lines", "tensor_lines"]


def module_lines(module: ModuleDifference) -> list[str]:
    """Backbone, tap, depth, precision and contract where they differ, and the tensors."""
    moved = [
        f"{what} {change[0]} → {change[1]}"
        for what, change in (
            ("backbone", module.backbone),
            ("tap", module.tap_layer),
            ("depth", module.depth),
            ("precision", module.precision),
        )
        if change
    ]
    return [
        *([", ".join(moved)] if moved else []),
        *contract_lines(module.contract),
        *decision_lines(module.decision),
        *tensor_lines(module.tensors_changed, module.tensors_same),
    ]


def contract_lines(contract: ContractDifference) -> list[str]:
    """One line for each difference, whatever white space a label has."""
    return [" ".join(line.split()) for line in contract.lines()]


def decision_lines(changes: Sequence[DecisionChange]) -> list[str]:
    """One line for each field of the decision that differs."""
    return [f"decision {change}" for change in changes]


def tensor_lines(changed: Sequence[str], same: int) -> list[str]:
    """How many tensors differ, and their names: a paragraph for each layer, the head, the probe."""
    lines = [f"tensors  {len(changed)} differ, {same} are the same"]
    for part, names in groupby(changed, _part):
        text = ", ".join(name.removeprefix(f"{part}.") for name in names)
        lines += wrap(f"  {part}: {text}", 96, subsequent_indent="    ", break_on_hyphens=False)
    return lines


def _part(tensor: str) -> str:
    """``layers.1`` of ``layers.1.output.dense.bias``, ``head`` of ``head.out.bias``."""
    first, second, *_ = tensor.split(".")
    return f"{first}.{second}" if first == "layers" else first
