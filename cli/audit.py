"""``centra audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.completion import complete_task
from cli.context import json_option, open_registry
from cli.options import TIME
from cli.output import json_text, print_json, print_table, remark
from cli.streams import mark_done

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from registry.audit import Event

_FOR_CHECKS = ("content", "holds")


@click.group(invoke_without_command=True)
@click.option("--task", shell_complete=complete_task, help="Only changes of this task.")
@click.option("--actor", "by", metavar="TEAM[/PERSON]", help="Only changes by this team or person.")
@click.option(
    "--since",
    type=TIME,
    help="Only changes from then on: 2026-11-01, 2026-11-01T12:00 (UTC), or so long ago: 7d, 12h.",
)
@json_option("registry.documents.audit:Event", "array")
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

        events = log.events(open_registry(), task=task, actor=by, since=since)
        print_events(events, as_json=as_json)
    elif task or by or since or as_json:
        raise click.UsageError(
            f"these options are for the list; those of {ctx.invoked_subcommand!r} come after it"
        )


@audit.command()
@click.option(
    "--expect",
    "expected",
    multiple=True,
    metavar="COUNT:DIGEST",
    help="What 'audit verify' printed once: the log must still begin so. May be repeated.",
)
@click.option("--no-store", is_flag=True, help="Do not ask the store what it has seen of the log.")
@json_option("registry.documents.audit:LogVerification")
def verify(*, expected: tuple[str, ...], no_store: bool, as_json: bool) -> None:
    """Check that neither the log nor what it tells of was changed behind Centra's back.

    Each event must be linked to the one before, the store's witnesses must agree, the triggers that
    refuse changes must stand, and every row must be as the events say. Prints COUNT:DIGEST, how many
    events there are and the last one's digest: kept elsewhere and given as --expect, it also shows a
    log that was cut, or written anew as a whole.
    """
    from registry import audit as log

    verified = log.verify(open_registry(), expected=expected, ask_store=not no_store)
    for event, witnesses in verified.void.items():
        remark(
            f"witnesses of the store that event {event} says are void, because an older backup was "
            f"restored: {len(witnesses)}"
        )
    if verified.partly:
        remark(f"rows of which an older Centra's log does not say every value: {verified.partly}")
    if as_json:
        from registry.documents.audit import LogVerification

        print_json(LogVerification.of(verified))
    else:
        click.echo(
            f"{verified.events} events, each linked to the one before; witnesses that agree: "
            f"{verified.witnesses}; rows that are as the events say: {verified.rows}\n{verified.witness}"
        )


@audit.command()
@json_option("registry.documents.audit:AcceptedBackup")
def accept(*, as_json: bool) -> None:
    """Say that the database was restored from a backup that is older than its store.

    What the store has seen of the events after the backup is void from then on. The log keeps who
    said so, and of what.
    """
    from registry import audit as log

    void = log.accept(open_registry())
    mark_done()
    if as_json:
        from registry.documents.audit import AcceptedBackup

        print_json(AcceptedBackup.of(void))
    elif void:
        click.echo(f"void from now on, because an older backup was restored: {', '.join(void)}")
    else:
        click.echo("nothing to accept: the log holds all that the store has seen of it")


@audit.command()
@json_option("registry.documents.audit:RestoredGuards")
def guard(*, as_json: bool) -> None:
    """Put back the database's triggers that refuse to change the log, where they are gone or altered."""
    from registry import audit as log

    restored = log.restore_guards(open_registry())
    mark_done()
    if as_json:
        from registry.documents.audit import RestoredGuards

        print_json(RestoredGuards.of(restored))
    elif restored:
        click.echo(f"put back: {', '.join(restored)}")
    else:
        click.echo("all stand")


def print_events(events: Sequence[Event], *, as_json: bool) -> None:
    """Print events as JSON, or as a table without what is there for checking the tables alone."""
    if as_json:
        from registry.documents.audit import Event

        print_json([Event.of(event) for event in events])
        return
    print_table(
        ("time", "actor", "action", "subject", "details"),
        [
            (
                f"{event.at:%Y-%m-%d %H:%M:%S}",
                event.actor + (" (forced)" if event.forced else ""),
                event.action,
                event.subject,
                json_text({k: v for k, v in event.details.items() if k not in _FOR_CHECKS}),
            )
            for event in events
        ],
    )
