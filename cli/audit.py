"""``centra audit``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from cli.context import json_option, open_registry
from cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.audit import Event


@click.command()
@click.option("--task", help="Only changes of this task.")
@click.option("--actor", "by", metavar="TEAM[/PERSON]", help="Only changes by this team or person.")
@json_option
def audit(*, task: str | None, by: str | None, as_json: bool) -> None:
    """Show the log of changes, oldest first."""
    from registry import audit as log

    print_events(log.events(open_registry(), task=task, actor=by), as_json=as_json)


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
                json.dumps(event.details, ensure_ascii=False),
            )
            for event in events
        ],
    )
