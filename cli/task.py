"""``centra task``: the daily commands of a team."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.data.tags import SCHEMES
from centra.kinds import KINDS
from cli.context import json_option, open_registry
from cli.listing import cut, page_options, time_options, window
from cli.options import words_option
from cli.output import metrics_text, print_json, print_table, remark, reporting
from cli.streams import mark_done

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.tasks import Checkpoint, TaskOutcome

_FORCE = click.option("--force", is_flag=True, help="Act for another team; the audit log shows it.")


def _source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments of the three commands that take weights."""
    options = (
        click.argument("name"),
        click.argument("file", type=click.Path(path_type=Path), metavar="FILE_OR_CHECKPOINT"),
        click.option("--backbone", help="A checkpoint's backbone; default the one it matches."),
        click.option("--tap", type=int, help="A checkpoint's tap; default the highest that fits."),
        click.option(
            "--input",
            "form",
            type=click.Choice(["single", "pair"]),
            help="What a checkpoint's task takes; default single.",
        ),
        click.option(
            "--kind",
            type=click.Choice([*KINDS]),
            help="A checkpoint's kind, where its config does not say.",
        ),
        click.option(
            "--labels",
            type=click.Path(path_type=Path),
            help="A file of labels instead of a checkpoint's: one a line, or a JSON list.",
        ),
        click.option(
            "--tags",
            type=click.Choice(SCHEMES),
            help="The scheme of a checkpoint's tags; default what they look like.",
        ),
        words_option,
        _FORCE,
        json_option("registry.documents.tasks:TaskChange"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def task() -> None:
    """Register and change tasks, and read them."""


@task.command()
@_source_options
@click.option("--team", help="The owner; default the actor's team.")
def register(
    name: str, file: Path, *, team: str | None, force: bool, as_json: bool, **checkpoint: Any
) -> None:
    """Register a new task as version 1.0.

    FILE_OR_CHECKPOINT is a task module ('centra train' makes one), or the folder of a Hugging Face
    checkpoint that was fine-tuned with its lower layers frozen.
    """
    from registry import tasks

    with reporting() as progress:
        outcome = tasks.register(
            open_registry(),
            name,
            file,
            team=team,
            checkpoint=_checkpoint(**checkpoint),
            force=force,
            progress=progress,
        )
    _print_outcome(outcome, "registered", as_json=as_json)


@task.command()
@_source_options
def update(name: str, file: Path, *, force: bool, as_json: bool, **checkpoint: Any) -> None:
    """Give a task new weights under the same labels, kind and input: the next minor version."""
    from registry import tasks

    with reporting() as progress:
        outcome = tasks.update(
            open_registry(),
            name,
            file,
            checkpoint=_checkpoint(**checkpoint),
            force=force,
            progress=progress,
        )
    _print_outcome(outcome, "updated", as_json=as_json)


@task.command()
@_source_options
def redefine(name: str, file: Path, *, force: bool, as_json: bool, **checkpoint: Any) -> None:
    """Give a task another label set, kind or input: the next major version."""
    from registry import tasks

    with reporting() as progress:
        outcome = tasks.redefine(
            open_registry(),
            name,
            file,
            checkpoint=_checkpoint(**checkpoint),
            force=force,
            progress=progress,
        )
    _print_outcome(outcome, "redefined", as_json=as_json)


@task.command()
@click.argument("name")
@_FORCE
@json_option("registry.documents.tasks:TaskChange")
def retire(name: str, *, force: bool, as_json: bool) -> None:
    """Take a task out of the live set; nothing is deleted."""
    from registry import tasks

    outcome = tasks.retire(open_registry(), name, force=force)
    _print_outcome(outcome, "retired", as_json=as_json)


@task.command()
@click.argument("name")
@_FORCE
@json_option("registry.documents.tasks:TaskChange")
def restore(name: str, *, force: bool, as_json: bool) -> None:
    """Bring a retired task back into the live set."""
    from registry import tasks

    outcome = tasks.restore(open_registry(), name, force=force)
    _print_outcome(outcome, "restored", as_json=as_json)


@task.command()
@click.argument("reference", metavar="NAME@VERSION")
@_FORCE
@json_option("registry.documents.tasks:TaskChange")
def pin(reference: str, *, force: bool, as_json: bool) -> None:
    """Make an earlier version the current one again."""
    from registry import tasks

    outcome = tasks.pin(open_registry(), reference, force=force)
    _print_outcome(outcome, "pinned", as_json=as_json)


@task.command("list")
@click.option("--team", help="Only this team's.")
@click.option("--kind", type=click.Choice([*KINDS]), help="Only this kind.")
@click.option("--state", type=click.Choice(["active", "retired"]), help="Only in this state.")
@click.option("--backbone", help="Only on this backbone, NAME or NAME@VERSION.")
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
    rows = tasks.list(open_registry(), metrics=bounds, sort=sort, **filters, **window(limit, page))
    rows = cut(rows, limit, page)
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
@click.argument("reference", metavar="NAME[@VERSION]")
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
@click.argument("before", metavar="NAME@VERSION")
@click.argument("after", metavar="NAME[@VERSION]")
@json_option("registry.documents.tasks:TaskDifference")
def diff(before: str, after: str, *, as_json: bool) -> None:
    """Compare two versions of a task, down to which tensors differ."""
    from cli.differences import contract_lines, decision_lines, tensor_lines
    from registry import tasks

    found = tasks.diff(open_registry(), before, after)
    if as_json:
        from registry.documents.tasks import TaskDifference

        print_json(TaskDifference.of(found))
        return
    old, new = found.before, found.after
    for what, a, b in (
        ("backbone", old.backbone, new.backbone),
        ("tap", old.tap_layer, new.tap_layer),
        ("depth", old.depth, new.depth),
        ("metrics", metrics_text(old.metrics), metrics_text(new.metrics)),
        ("module", old.digest[:12], new.digest[:12]),
    ):
        click.echo(f"{what:<9}{a}" + (f" → {b}" if a != b else ""))
    for line in (*contract_lines(found.contract), *decision_lines(found.decision)):
        click.echo(line)
    for line in tensor_lines(found.tensors_changed, found.tensors_same):
        click.echo(line)


@task.command()
@click.argument("name")
@json_option("registry.documents.audit:Event", "array")
def history(name: str, *, as_json: bool) -> None:
    """Show what happened to a task, oldest first."""
    from cli.audit import print_events
    from registry import tasks

    print_events(tasks.history(open_registry(), name), as_json=as_json)


def _checkpoint(**options: Any) -> Checkpoint:
    from registry.tasks import Checkpoint

    return Checkpoint(**options, remark=remark)


def _show_card(reference: str, *, markdown: bool, as_json: bool) -> None:
    from cli import card
    from registry import cards

    found = cards.show(open_registry(), reference)
    if found.remark:
        remark(found.remark)
    if as_json:
        from registry.documents.tasks import Task

        print_json(Task.with_card(found))
    else:
        click.echo(card.markdown(found) if markdown else card.text(found))


def _print_outcome(outcome: TaskOutcome, done: str, *, as_json: bool) -> None:
    mark_done()
    if outcome.mended:
        remark(
            f"these bytes are version {outcome.version} already; its stored file was "
            f"{outcome.mended}, and is back"
        )
    else:
        remark(done if outcome.changed else "nothing to do: already so")
    if outcome.forced:
        remark("forced: recorded in the audit log")
    if outcome.state == "retired" and done != "retired":
        remark(f"the task is retired; back into the live set: centra task restore {outcome.task}")
    if as_json:
        from registry.documents.tasks import TaskChange

        print_json(TaskChange.of(outcome))
    else:
        click.echo(f"{outcome.task}@{outcome.version}")
