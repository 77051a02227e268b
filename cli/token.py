"""``centra token``: who may call a server."""

from __future__ import annotations

from pathlib import Path

import click

from cli.completion import complete_channel, complete_task
from cli.output import remark

__all__ = ["token"]


@click.group()
def token() -> None:
    """Tokens for 'centra serve --tokens FILE'."""


@token.command()
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--task",
    "tasks",
    shell_complete=complete_task,
    multiple=True,
    help="It may ask for these alone; default all.",
)
@click.option(
    "--channel",
    "channels",
    shell_complete=complete_channel,
    multiple=True,
    help="Where several are served, it may ask these alone; default all.",
)
@click.option("--rate", type=float, metavar="N", help="Inputs a second; default without limit.")
def add(
    *,
    name: str,
    file: Path,
    tasks: tuple[str, ...],
    channels: tuple[str, ...],
    rate: float | None,
) -> None:
    """Make a token, print it, and add its digest to FILE.

    The token is printed this once and kept nowhere. NAME is what logs call its bearer. A server that
    reads FILE knows it within seconds; without the lines of FILE that name it, nobody does.
    """
    from centra.serving.tokens import add_token

    made = add_token(file, name, tasks=tasks, channels=channels, rate=rate)
    click.echo(made)
    remark(f"{file} holds its digest; whoever calls sends: Authorization: Bearer TOKEN")
