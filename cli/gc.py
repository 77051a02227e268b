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
        collection = collect(open_registry(), grace=grace, delete=delete, progress=progress)
    if delete:
        mark_done()
    if as_json:
        from registry.documents.gc import GarbageCollection

        print_json(GarbageCollection.of(collection))
        return
    if collection.garbage:
        print_table(
            ("blob", "bytes", "age"),
            [
                (garbage.name, f"{garbage.size:,}", duration_text(timedelta(seconds=garbage.age)))
                for garbage in collection.garbage
            ],
        )
    click.echo(_total(collection, grace))
    if collection.garbage and not delete:
        remark("nothing was removed; repeat with --delete to remove them")


def _total(collection: Collection, grace: timedelta) -> str:
    from registry.texts import files_text

    what = "removed" if collection.deleted else "garbage"
    text = f"{what}: {files_text(collection.count, collection.bytes)}"
    if collection.young:
        text += f"; and {files_text(collection.young, collection.young_bytes)} younger than "
        text += duration_text(grace)
    return text
