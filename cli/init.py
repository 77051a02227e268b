"""``centra init``."""

from __future__ import annotations

from pathlib import Path

import click

from cli.context import open_registry
from cli.output import remark


@click.command()
@click.pass_context
def init(ctx: click.Context) -> None:
    """Make a registry in this folder.

    Writes centra.toml and creates the tables. By default the registry is SQLite and a local store
    under .centra/; name others with the global options, before the command:

        centra --database postgresql://centra@db/centra --store s3://models/centra init
    """
    from registry.db import upgrade
    from registry.settings import write_config

    options = ctx.find_root().obj
    path = write_config(Path.cwd(), database=options["database"], store=options["store"])
    upgrade(open_registry().engine)
    remark(f"registry ready; settings in {path}")
