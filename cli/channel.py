"""``centra channel``."""

from __future__ import annotations

from typing import Any

import click

from cli.completion import complete_channel, complete_release, complete_version
from cli.context import json_option, open_registry
from cli.listing import time_options
from cli.options import change_options
from cli.output import print_json, print_table, remark
from cli.streams import mark_done


@click.group()
def channel() -> None:
    """Movable names for releases, which servers follow."""


@channel.command("list")
@click.option(
    "--release",
    shell_complete=complete_release,
    metavar="RELEASE",
    help="Only those that serve this release.",
)
@click.option(
    "--task",
    shell_complete=complete_version,
    metavar="NAME[@VERSION]",
    help="Only those that serve this task or version.",
)
@time_options("moved")
@json_option("registry.documents.channels:Channel", "array")
def list_command(*, as_json: bool, **filters: Any) -> None:
    """List channels and the releases they serve."""
    from registry import channels

    rows = channels.list(open_registry(), **filters)
    if as_json:
        from registry.documents.channels import Channel

        print_json([Channel.of(row) for row in rows])
    else:
        print_table(
            ("channel", "release", "digest", "revision", "moved", "by"),
            [
                (
                    r.name,
                    r.release,
                    r.digest[:12],
                    r.revision,
                    f"{r.moved_at:%Y-%m-%d %H:%M}",
                    r.moved_by,
                )
                for r in rows
            ],
        )


@channel.command()
@click.argument("name", shell_complete=complete_channel)
@json_option("registry.documents.channels:ChannelDetail")
def show(name: str, *, as_json: bool) -> None:
    """Show one channel."""
    from centra.system.redaction import redacted
    from registry import channels

    registry = open_registry()
    row = channels.show(registry, name)
    # What a server is given, with the options of S3 before the mark.
    address = f"{redacted(registry.store.url, registry.store.url)}#{row.name}"
    if as_json:
        from registry.documents.channels import ChannelDetail

        print_json(ChannelDetail.at(row, address))
    else:
        click.echo(
            f"{row.name} → release {row.release}  sha256:{row.digest}\n"
            f"revision {row.revision}, {row.moved_at:%Y-%m-%d %H:%M} UTC by {row.moved_by}\n"
            f"servers read it at {address}"
        )


@channel.command()
@click.argument("name", shell_complete=complete_channel)
@click.argument("reference", metavar="RELEASE", shell_complete=complete_release)
@change_options
@json_option("registry.documents.channels:ChannelChange")
def move(name: str, reference: str, *, expect: int | None, force: bool, as_json: bool) -> None:
    """Point a channel at a release; a new NAME makes a channel."""
    from registry import channels

    row, moved = channels.move(open_registry(), name, reference, expect=expect, force=force)
    mark_done()
    remark("moved" if moved else "nothing to do: already there")
    if as_json:
        from registry.documents.channels import ChannelChange

        print_json(ChannelChange.made(row, changed=moved))
    else:
        click.echo(f"{row.name} → release {row.release}")


@channel.command()
@click.argument("name", shell_complete=complete_channel)
@json_option("registry.documents.channels:ChannelMove", "array")
def history(name: str, *, as_json: bool) -> None:
    """Show all that a channel has served, the newest first."""
    from registry import channels

    rows = channels.history(open_registry(), name)
    if as_json:
        from registry.documents.channels import ChannelMove

        print_json([ChannelMove.of(row) for row in rows])
    else:
        print_table(
            ("revision", "kind", "release", "before", "time", "by"),
            [
                (r.revision, r.kind, r.release, r.before or "-", f"{r.at:%Y-%m-%d %H:%M:%S}", r.by)
                for r in rows
            ],
        )


@channel.command()
@click.argument("name", required=False, shell_complete=complete_channel)
@json_option("registry.documents.channels:PublishedPointer", "array")
def sync(name: str | None, *, as_json: bool) -> None:
    """Publish the pointer of a channel, or of all, as the database has it; harmless to repeat."""
    from registry import channels

    rows = channels.sync(open_registry(), name)
    mark_done()
    for row in rows:
        if row.found:
            remark(f"was stale: {row.name}, whose pointer {row.found}")
    if not any(row.stale for row in rows):
        remark("nothing to do: no pointer was stale")
    if as_json:
        from registry.documents.channels import PublishedPointer

        print_json([PublishedPointer.of(row) for row in rows])
    else:
        print_table(
            ("channel", "release", "revision", "pointer"),
            [(r.name, r.release, r.revision, "was stale" if r.stale else "right") for r in rows],
        )
