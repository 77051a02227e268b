"""``centra task``: the daily commands of a team."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from centra.kinds import KINDS
from cli.completion import complete_backbone, complete_task, complete_version
from cli.context import json_option, open_registry
from cli.exporting import export_task
from cli.listing import page_bounds, page_options, rows_of_page, time_options
from cli.options import data_options
from cli.output import metrics_text, print_json, print_table, remark, reporting
from cli.task_changes import calibrate, pin, redefine, register, restore, retire, update

if TYPE_CHECKING:
    from centra.data.source import DataSource


@click.group()
def task() -> None:
    """Register and change tasks, and read them."""


for _command in (register, update, calibrate, redefine, retire, restore, pin, export_task):
    task.add_command(_command)


@task.command("list")
@click.option("--team", help="Only this team's.")
@click.option("--kind", type=click.Choice([*KINDS]), help="Only this kind.")
@click.option("--state", type=click.Choice(["active", "retired"]), help="Only in this state.")
@click.option(
    "--backbone",
    shell_complete=complete_backbone,
    help="Only on this backbone, NAME or NAME@VERSION.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="'NAME>=VALUE'",
    help="Only what reports at least so much; <=, >, <, = likewise. Twice for a range.",
)
@time_options("made, as the current version,")
@click.option(
    "--sort",
    default="name",
    metavar="name|team|created|METRIC",
    help="Newest and highest come first. Default name.",
)
@click.option("--reverse", is_flag=True, help="Turn the order round.")
@page_options
@json_option("registry.documents.tasks:TaskSummary", "array")
def list_command(
    *,
    metrics: tuple[str, ...],
    sort: str,
    limit: int | None,
    page: int,
    as_json: bool,
    **filters: Any,
) -> None:
    """List tasks with their current versions."""
    from registry import tasks
    from registry.database.listing import MetricBound

    bounds = [MetricBound.parse(text) for text in metrics]
    rows = tasks.list(
        open_registry(), metrics=bounds, sort=sort, **filters, **page_bounds(limit, page)
    )
    rows = rows_of_page(rows, limit, page)
    if sort not in ("name", "team", "created") and not any(sort in row.metrics for row in rows):
        remark(f"none of these reports the metric {sort!r}, so they are sorted by name")
    if as_json:
        from registry.documents.tasks import TaskSummary

        print_json([TaskSummary.of(row) for row in rows])
    else:
        print_table(
            ("task", "team", "state", "kind", "backbone", "tap", "depth", "made", "metrics"),
            [
                (
                    f"{r.name}@{r.version}",
                    r.team,
                    r.state,
                    r.kind if r.input == "single" else f"{r.kind} of pairs",
                    r.backbone,
                    r.tap_layer,
                    r.depth,
                    f"{r.created_at:%Y-%m-%d %H:%M}",
                    metrics_text(r.metrics),
                )
                for r in rows
            ],
        )


@task.command()
@click.argument("reference", metavar="NAME[@VERSION]", shell_complete=complete_version)
@click.option("--markdown", is_flag=True, help="Print the model card as Markdown.")
@json_option("registry.documents.tasks:Task")
def show(reference: str, *, markdown: bool, as_json: bool) -> None:
    """Show a task and its versions; of NAME@VERSION, the model card.

    The card tells what the version takes and gives, how it was trained and measured, who made it,
    and which releases and channels hold it. With --markdown and no version, the current one's.
    """
    from registry import tasks

    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    if markdown or "@" in reference:
        _show_card(reference, markdown=markdown, as_json=as_json)
        return
    detail = tasks.show(open_registry(), reference)
    if as_json:
        from registry.documents.tasks import Task

        print_json(Task.of(detail))
        return
    click.echo(f"{detail.name}@{detail.current}  {detail.state}, owned by {detail.team}")
    for version in detail.versions:
        labels = ", ".join(version.labels[:12]) + (" …" if len(version.labels) > 12 else "")
        click.echo(
            f"\n{detail.name}@{version.version}  {version.kind}, {version.input} input, "
            f"{version.backbone} tap {version.tap_layer} depth {version.depth}\n"
            f"  labels   {len(version.labels)}: {labels or '-'}\n"
            f"  metrics  {metrics_text(version.metrics)}\n"
            f"  module   sha256:{version.digest}, {version.size:,} bytes\n"
            f"  made     {version.created_at:%Y-%m-%d %H:%M} UTC by {version.created_by}"
        )


@task.command()
@click.argument("before", metavar="NAME@VERSION", shell_complete=complete_version)
@click.argument("after", metavar="NAME[@VERSION]", shell_complete=complete_version)
@data_options(
    help="Ask both, and compare their answers: a file of rows, or a folder with a dev set, of any format "
    "that training takes."
)
@json_option("registry.documents.tasks:TaskDifference")
def diff(before: str, after: str, *, data: DataSource | None, as_json: bool) -> None:
    """Compare two versions of a task, down to which tensors differ.

    With --data also by their answers: which rows differ, and whether the metrics differ by more than
    chance would have it.
    """
    from cli.differences import print_comparison, print_task_difference
    from registry import tasks

    registry = open_registry()
    difference, comparison = tasks.diff(registry, before, after), None
    if data is not None:
        with reporting() as progress:
            comparison = tasks.compare(registry, difference, data, progress, remark=remark)
    if as_json:
        from registry.documents.tasks import TaskDifference

        print_json(TaskDifference.of(difference, comparison))
        return
    print_task_difference(difference)
    if comparison is not None:
        print_comparison(comparison)


@task.command()
@click.argument("name", shell_complete=complete_task)
@json_option("registry.documents.audit:Event", "array")
def history(name: str, *, as_json: bool) -> None:
    """Show what happened to a task, oldest first."""
    from cli.audit import print_events
    from registry import tasks

    print_events(tasks.history(open_registry(), name), as_json=as_json)


def _show_card(reference: str, *, markdown: bool, as_json: bool) -> None:
    from cli.card import markdown as markdown_of
    from cli.card import text as text_of
    from registry import cards

    card = cards.show(open_registry(), reference)
    if card.remark:
        remark(card.remark)
    if as_json:
        from registry.documents.tasks import Task

        print_json(Task.with_card(card))
    else:
        click.echo(markdown_of(card) if markdown else text_of(card))
