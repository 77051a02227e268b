"""How two releases, or two versions of a task, differ, for people."""

from __future__ import annotations

from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from cli.output import account_line, change_lines, metrics_text, print_table, remark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.formats.contract import ContractDifference
    from centra.formats.decision import DecisionChange
    from registry.releases import ModuleDifference, ReleaseDifference, Unchanged
    from registry.tasks import Comparison, TaskDifference

__all__ = ["print_comparison", "print_release_difference", "print_task_difference"]

_SHOWN = 20
"""So many rows that differ are shown."""
_LONGEST = 60
"""Characters of a text."""


def print_release_difference(difference: ReleaseDifference) -> None:
    """What changed from one release to another, and the proof for what did not."""
    click.echo(f"release {difference.before} → {difference.after}")
    modules = {module.task: module for module in difference.modules}
    for change, line in zip(difference.changes, change_lines(difference.changes), strict=True):
        click.echo(f"  {line}")
        for detail in _module_lines(modules[change.task]) if change.task in modules else ():
            click.echo(f"             {detail}")
    if not difference.changes:
        click.echo("  no change")
    for same in difference.unchanged:
        word = "identical" if same.identical else "NOT identical"
        click.echo(f"  {word:<10} {same.task} {same.version}  sha256:{same.digest}, {_proof(same)}")
    click.echo(f"before  {account_line(difference.layers_before)}")
    click.echo(f"after   {account_line(difference.layers_after)}")


def print_task_difference(difference: TaskDifference) -> None:
    """What differs between two versions of a task, down to their tensors."""
    before, after = difference.before, difference.after
    for what, old, new in (
        ("backbone", before.backbone, after.backbone),
        ("tap", before.tap_layer, after.tap_layer),
        ("depth", before.depth, after.depth),
        ("metrics", metrics_text(before.metrics), metrics_text(after.metrics)),
        ("module", before.digest[:12], after.digest[:12]),
    ):
        click.echo(f"{what:<9}{old}" + (f" → {new}" if old != new else ""))
    for line in (
        *_contract_lines(difference.contract),
        *_decision_lines(difference.decision),
    ):
        click.echo(line)
    for line in _tensor_lines(difference.tensors_changed, difference.tensors_same):
        click.echo(line)


def print_comparison(comparison: Comparison) -> None:
    """What two versions answer to the same data, and what that proves."""
    changed, total = comparison.changed, comparison.examples
    click.echo(f"\n{len(changed)} of {total} rows are answered differently")
    for name, change in comparison.metrics.items():
        word = "significant" if change.significant else "may be chance"
        click.echo(
            f"  {name} {change.before:.4f} → {change.after:.4f}, {change.after - change.before:+.4f} "
            f"({change.low:+.4f} to {change.high:+.4f} with 95 % confidence: {word})"
        )
    if test := comparison.test:
        by = "exact binomial" if test.exact else "chi-square"
        click.echo(
            f"  McNemar: {test.won} rows won, {test.lost} lost, p = {test.p_value:.2g} ({by})"
        )
    if changed:
        print_table(
            ("", "text", "wanted", "before", "after", "where"),
            [
                (row.change, _cut(row.text), row.wanted, row.before, row.after, row.where)
                for row in changed[:_SHOWN]
            ],
        )
    if len(changed) > _SHOWN:
        remark(f"{len(changed) - _SHOWN} more rows; --json has them all")


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _proof(same: Unchanged) -> str:
    """What below a module is the same, or is not."""
    if not same.identical:
        return f"but below it: {', '.join(same.differs)}"
    layers = f" and {same.layers} layer{'' if same.layers == 1 else 's'}" if same.layers else ""
    return f"with the embeddings{layers} below it"


def _part(tensor: str) -> str:
    """``layers.1`` of ``layers.1.output.dense.bias``, ``head`` of ``head.out.bias``."""
    first, second, *_ = tensor.split(".")
    return f"{first}.{second}" if first == "layers" else first


def _module_lines(module: ModuleDifference) -> list[str]:
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
        *_contract_lines(module.contract),
        *_decision_lines(module.decision),
        *_tensor_lines(module.tensors_changed, module.tensors_same),
    ]


def _contract_lines(contract: ContractDifference) -> list[str]:
    """One line for each difference, whatever white space a label has."""
    return [" ".join(line.split()) for line in contract.lines()]


def _decision_lines(changes: Sequence[DecisionChange]) -> list[str]:
    """One line for each field of the decision that differs."""
    return [f"decision {change}" for change in changes]


def _tensor_lines(changed: Sequence[str], same: int) -> list[str]:
    """How many tensors differ, and their names: a paragraph for each layer, the head, the probe."""
    lines = [f"tensors  {len(changed)} differ, {same} are the same"]
    for part, names in groupby(changed, _part):
        text = ", ".join(name.removeprefix(f"{part}.") for name in names)
        lines += wrap(f"  {part}: {text}", 96, subsequent_indent="    ", break_on_hyphens=False)
    return lines
