"""``centra export`` and ``centra import``."""

from __future__ import annotations

from pathlib import Path

import click

from cli.completion import complete_release, complete_version
from cli.context import json_option, open_registry
from cli.output import print_json, remark, reporting
from cli.streams import mark_done

_CHANGES = {"register": "registered", "update": "updated", "redefine": "redefined", None: "known"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--task",
    "references",
    shell_complete=complete_version,
    multiple=True,
    metavar="NAME[@VERSION]",
    help="A task.",
)
@click.option(
    "--release",
    shell_complete=complete_release,
    metavar="RELEASE",
    help="A release with its tasks and signatures.",
)
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
        exported = transfer.export_file(
            open_registry(), file, references=references, release=release, progress=progress
        )
    mark_done()
    remark(f"{len(exported.tasks)} task(s), {exported.size:,} bytes, sha256:{exported.digest}")
    if as_json:
        from registry.documents.transfer import Export

        print_json(Export.of(file, exported))
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
        imported = transfer.import_file(
            open_registry(), file, team=team, force=force, progress=progress
        )
    mark_done()
    remark("imported" if imported.changed else "nothing to do: all of it is here already")
    for task in imported.tasks:
        if task.state == "retired":
            remark(f"{task.task} is retired here; bring it back: centra task restore {task.task}")
        if task.current != task.version:
            remark(
                f"{task.task} is {task.current} here; go back: centra task pin {task.task}@{task.version}"
            )
    if any(task.forced for task in imported.tasks):
        remark("forced: recorded in the audit log")
    if as_json:
        from registry.documents.transfer import Import

        print_json(Import.of(imported))
        return
    for backbone in imported.backbones:
        click.echo(f"{'registered' if backbone.changed else 'known':<10} {backbone.backbone}")
    for task in imported.tasks:
        click.echo(f"{_CHANGES[task.change]:<10} {task.task}@{task.version}")
    if imported.release:
        outcome = "published" if imported.release.changed else "known"
        signed = (
            f", {imported.release.signatures} new signatures" if imported.release.signatures else ""
        )
        click.echo(f"{outcome:<10} release {imported.release.release}{signed}")
