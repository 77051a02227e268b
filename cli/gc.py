"""``centra gc``."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cli.context import json_option, open_registry
from cli.options import DURATION, duration_text
from cli.output import print_json, print_table, remark, reporting
from cli.streams import mark_done

if TYPE_CHECKING:
    from registry.storage.gc import Collection


@click.command()
@click.option("--delete", is_flag=True, help="Remove them; otherwise nothing is changed.")
@click.option(
    "--grace",
    type=DURATION,
    default="7d",
    show_default=True,
    help="Leave alone what is younger, for example 12h.",
)
@json_option("registry.documents.gc:GarbageCollection")
def gc(*, delete: bool, grace: timedelta, as_json: bool) -> None:
    """List the store's blobs that nothing reaches, and remove them with --delete.

    A blob stays while a task version, a release, a backbone or a channel's pointer names it. It is
    safe beside commands that run on other machines.
    """
    from registry.storage.gc import collect

    with reporting() as progress:
        found = collect(open_registry(), grace=grace, delete=delete, progress=progress)
    if delete:
        mark_done()
    if as_json:
        from registry.documents.gc import GarbageCollection

        print_json(GarbageCollection.of(found))
        return
    if found.garbage:
        print_table(
            ("blob", "bytes", "age"),
            [
                (one.name, f"{one.size:,}", duration_text(timedelta(seconds=one.age)))
                for one in found.garbage
            ],
        )
    click.echo(_total(found, grace))
    if found.garbage and not delete:
        remark("nothing was removed; repeat with --delete to remove them")


def _total(found: Collection, grace: timedelta) -> str:
    from registry.texts import files_text

    what = "removed" if found.deleted else "garbage"
    text = f"{what}: {files_text(found.count, found.bytes)}"
    if found.young:
        text += f"; and {files_text(found.young, found.young_bytes)} younger than "
        text += duration_text(grace)
    return text
