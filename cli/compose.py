"""``centra compose``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.completion import complete_release, complete_task, complete_version
from cli.context import json_option, open_registry
from cli.options import data_options
from cli.output import (
    account_line,
    change_lines,
    print_json,
    print_table,
    remark,
    reporting,
)
from cli.streams import mark_done

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.data.source import DataSource
    from centra.formats.precision import Precision
    from centra.releases.int8 import Int8Comparison


@click.command()
@click.option("--release", "publish", is_flag=True, help="Publish; otherwise only plan.")
@click.option(
    "--base",
    shell_complete=complete_release,
    metavar="RELEASE",
    help="Start from this release, not from the live set.",
)
@click.option(
    "--set",
    "replace",
    shell_complete=complete_version,
    multiple=True,
    metavar="TASK@VERSION",
    help="Put this version in.",
)
@click.option(
    "--remove",
    shell_complete=complete_task,
    multiple=True,
    metavar="TASK",
    help="Leave this task out.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Also write it as a folder.")
@click.option("--allow-two-backbones", is_flag=True, help="While tasks move to another backbone.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    help="Of the tasks that --set names, or of all; by default each keeps the one it has.",
)
@data_options(
    multiple=True,
    metavar="TASK=DIR",
    help="Data to compare int8 with fp32 on: a file, a folder with dev.*, or whatever else 'release "
    "evaluate' takes.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(min=0),
    metavar="POINTS",
    help="The most that a task's metric may fall by going to int8; 1 by default.",
)
@json_option("registry.documents.compositions:Composition")
def compose(
    *,
    publish: bool,
    base: str | None,
    replace: tuple[str, ...],
    remove: tuple[str, ...],
    output: Path | None,
    allow_two_backbones: bool,
    precision: Precision | None,
    data: tuple[str, ...],
    reading: Callable[[str], DataSource],
    max_loss: float | None,
    as_json: bool,
) -> None:
    """Merge the live set into a release.

    Shows what changes and how many layers are computed. With --release the result is published; the
    same set of modules is the same release. The channel 'latest' moves to it, unless it is something
    else than the live set: by --base, --set or --remove.

    A task that is to go to int8 is held against its own answers in fp32: on the data that is given
    for it, else on its module's probe. Where its answers change too much, it stays in fp32.
    """
    from centra.releases.folder_writing import check_target
    from registry import releases

    sources = {task: reading(path) for task, path in _files(data).items()}
    if output is not None:
        check_target(output)  # Before anything is published.
    registry = open_registry()
    with reporting() as progress:
        composition = releases.compose(
            registry,
            base=base,
            replace=replace,
            remove=remove,
            publish=publish,
            folder=output,
            allow_two_backbones=allow_two_backbones,
            precision=precision,
            data=sources,
            max_loss=max_loss,
            progress=progress,
            remark=remark,
        )
    if publish or output is not None:
        mark_done()
    if output is not None:
        remark(f"written to {output}")
    if publish and not composition.live:
        remark("'latest' stays where it is: it follows the live set alone")
    if as_json:
        from registry.documents.compositions import Composition

        print_json(Composition.of(composition))
        return
    against = f"release {composition.base}" if composition.base else "nothing released yet"
    click.echo(f"{len(composition.tasks)} tasks against {against}:")
    for line in change_lines(composition.changes) or ["no change"]:
        click.echo(f"  {line}")
    if composition.int8:
        click.echo()
        _print_int8(composition.int8)
        click.echo()
    click.echo(account_line(composition.layers))
    if {*composition.manifest.precisions.values()} == {"fp32", "int8"}:
        click.echo("shared layers are computed twice: for the tasks in fp32, and for those in int8")
    if composition.published:
        click.echo(f"published release {composition.release}  sha256:{composition.digest}")
    elif composition.release is not None:
        click.echo(
            f"release {composition.release} holds exactly this already; no new release was made"
        )
    else:
        click.echo("a plan; publish it with: centra compose --release")


def _files(data: tuple[str, ...]) -> dict[str, str]:
    files = {}
    for item in data:
        task, equals, path = item.partition("=")
        if not (task and equals and path):
            raise click.BadParameter(f"expected TASK=DIR, not {item!r}", param_hint="--data")
        if task in files:
            raise click.BadParameter(f"{task} is named twice", param_hint="--data")
        files[task] = path
    return files


def _print_int8(comparisons: Sequence[Int8Comparison]) -> None:
    """How far answers in int8 are those in fp32, and why a task stays in fp32."""
    headers = ("task", "precision", "probe", "logits", "dev", "metric", "fp32", "int8", "loss")
    rows = [
        (
            comparison.task,
            "fp32" if comparison.refused else "int8",
            f"{comparison.agreement:.1%}",
            f"±{comparison.difference:.3f}",
            *(
                (
                    f"{comparison.dev.agreement:.1%}",
                    comparison.dev.metric,
                    f"{comparison.dev.fp32:.4f}",
                    f"{comparison.dev.int8:.4f}",
                    f"{comparison.dev.loss:.2f}",
                )
                if comparison.dev
                else ("-",) * 5
            ),
        )
        for comparison in comparisons
    ]
    print_table(headers, rows)
    for comparison in comparisons:
        if comparison.refused:
            click.echo(f"{comparison.task} stays in fp32: {comparison.refused}")
