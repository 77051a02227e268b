"""``centra init``."""

from __future__ import annotations

from pathlib import Path

import click

from cli.output import remark


@click.command()
@click.pass_context
def init(ctx: click.Context) -> None:
    """Make a registry in this folder.

    Writes centra.toml and creates the tables. By default the registry is SQLite and a local store
    under .centra/; name others in the environment or with the global options, before the command:

        centra --database postgresql://centra@db/centra --store s3://models/centra init
    """
    from centra.system.redaction import redacted
    from registry import Registry
    from registry.database.address import address_text

    registry = Registry.create(Path.cwd(), **ctx.find_root().obj)
    registry.engine.dispose()
    url = registry.store.url
    remark(
        f"registry ready: database {address_text(registry.engine.url)}, store {redacted(url, url)}"
    )
