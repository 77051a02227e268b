"""``centra audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.context import json_option, open_registry
from cli.options import TIME
from cli.output import json_text, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from registry.audit import Event


@click.group(invoke_without_command=True)
@click.option("--task", help="Only changes of this task.")
@click.option("--actor", "by", metavar="TEAM[/PERSON]", help="Only changes by this team or person.")
@click.option(
    "--since",
    type=TIME,
    help="Only changes from then on: 2026-11-01, 2026-11-01T12:00 (UTC), or so long ago: 7d, 12h.",
)
@json_option
@click.pass_context
def audit(
    ctx: click.Context,
    *,
    task: str | None,
    by: str | None,
    since: datetime | timedelta | None,
    as_json: bool,
) -> None:
    """Show the log of changes, oldest first."""
    if ctx.invoked_subcommand is None:
        from registry import audit as log

        found = log.events(open_registry(), task=task, actor=by, since=since)
        print_events(found, as_json=as_json)
    elif task or by or since or as_json:
        raise click.UsageError(
            f"these options are for the list; those of {ctx.invoked_subcommand!r} come after it"
        )


@audit.command()
@json_option
def verify(*, as_json: bool) -> None:
    """Check that no event was changed, taken out or put in behind the database's back.

    Prints the number of events and the last one's digest. Kept elsewhere, it also shows a log that
    was written anew as a whole.
    """
    from registry import audit as log

    count, digest = log.verify(open_registry())
    if as_json:
        print_json({"events": count, "digest": digest})
    else:
        click.echo(f"{count} events, each linked to the one before; the last is sha256:{digest}")


def print_events(events: Sequence[Event], *, as_json: bool) -> None:
    """Print events as JSON or as a table."""
    if as_json:
        print_json(list(events))
        return
    print_table(
        ("time", "actor", "action", "subject", "details"),
        [
            (
                f"{event.at:%Y-%m-%d %H:%M:%S}",
                event.actor + (" (forced)" if event.forced else ""),
                event.action,
                event.subject,
                json_text(event.details),
            )
            for event in events
        ],
    )
