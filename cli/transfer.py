"""``centra export`` and ``centra import``."""

from __future__ import annotations

from pathlib import Path

import click

from cli.context import json_option, open_registry
from cli.output import print_json, remark, reporting
from cli.streams import mark_done

_CHANGES = {"register": "registered", "update": "updated", "redefine": "redefined", None: "known"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--task", "references", multiple=True, metavar="NAME[@VERSION]", help="A task.")
@click.option("--release", metavar="RELEASE", help="A release with its tasks and signatures.")
@json_option("registry.documents.transfer:Export")
def export(file: Path, *, references: tuple[str, ...], release: str | None, as_json: bool) -> None:
    """Write tasks or a release to a file that 'centra import' takes elsewhere.

    FILE is one tar with all that is needed, backbones included. The same content gives the same
    bytes.
    """
    from registry import transfer

    if bool(references) == bool(release):
        raise click.UsageError("give either --task, once or more, or --release")
    with reporting() as progress:
        done = transfer.export_file(
            open_registry(), file, references=references, release=release, progress=progress
        )
    mark_done()
    remark(f"{len(done.tasks)} task(s), {done.size:,} bytes, sha256:{done.digest}")
    if as_json:
        from registry.documents.transfer import Export

        print_json(Export.of(file, done))
    else:
        click.echo(str(file))


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--team", help="The owner of new tasks; default the team that exported them.")
@click.option("--force", is_flag=True, help="Act for other teams; the audit log shows it.")
@json_option("registry.documents.transfer:Import")
def import_command(file: Path, *, team: str | None, force: bool, as_json: bool) -> None:
    """Take over what a file of 'centra export' holds: all of it, or nothing.

    A new task becomes version 1.0; other bytes of a task that is here become its next version. A
    release keeps its digest and gets the next number; no channel moves.
    """
    from registry import transfer

    with reporting() as progress:
        done = transfer.import_file(
            open_registry(), file, team=team, force=force, progress=progress
        )
    mark_done()
    remark("imported" if done.changed else "nothing to do: all of it is here already")
    for one in done.tasks:
        if one.state == "retired":
            remark(f"{one.task} is retired here; bring it back: centra task restore {one.task}")
        if one.current != one.version:
            remark(
                f"{one.task} is {one.current} here; go back: centra task pin {one.task}@{one.version}"
            )
    if any(one.forced for one in done.tasks):
        remark("forced: recorded in the audit log")
    if as_json:
        from registry.documents.transfer import Import

        print_json(Import.of(done))
        return
    for backbone in done.backbones:
        click.echo(f"{'registered' if backbone.changed else 'known':<10} {backbone.backbone}")
    for task in done.tasks:
        click.echo(f"{_CHANGES[task.change]:<10} {task.task}@{task.version}")
    if done.release:
        what = "published" if done.release.changed else "known"
        signed = f", {done.release.signatures} new signatures" if done.release.signatures else ""
        click.echo(f"{what:<10} release {done.release.release}{signed}")
