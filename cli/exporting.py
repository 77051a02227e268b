"""``centra release export`` and ``centra task export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from centra.exports import FORMATS
from cli.completion import complete_release, complete_version
from cli.context import json_option, open_registry, registry_for
from cli.output import print_json, remark, reporting
from cli.streams import mark_done

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.exports import Export

__all__ = ["export_release", "export_task"]


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both commands have."""
    for option in (
        json_option("registry.documents.exports:EngineExport"),
        click.option(
            "--precision",
            type=click.Choice(["fp32", "fp16", "int8"]),
            help="What weights are written in; the usual depends on the format.",
        ),
        click.option(
            "--output",
            required=True,
            type=click.Path(),
            help="The folder, which must not be there yet; or an address, where the format has one.",
        ),
        click.option(
            "--format",
            "form",
            required=True,
            type=click.Choice([*FORMATS]),
            help=" ".join(f"{form.name}: {form.summary}." for form in FORMATS.values()),
        ),
    ):
        command = option(command)
    return command


@click.command("export")
@click.argument(
    "reference", metavar="RELEASE|FOLDER|STORE#CHANNEL", shell_complete=complete_release
)
@_options
def export_release(reference: str, output: str, *, as_json: bool, **options: Any) -> None:
    """Write a release for another engine.

    What is written is loaded in that engine first, and its answers to every task's probe are held
    against the task's own. Either all of it is there at the end, or nothing.
    """
    from registry import exports

    with reporting() as progress:
        export = exports.export_release(
            registry_for(reference), reference, output, **options, progress=progress
        )
    _print(export, as_json=as_json)


@click.command("export")
@click.argument("reference", metavar="NAME[@VERSION]", shell_complete=complete_version)
@_options
def export_task(reference: str, output: str, *, as_json: bool, **options: Any) -> None:
    """Write one task for another engine, with the layers that it reads.

    What is written is loaded in that engine first, and its answers to the task's probe are held
    against the task's own. Either all of it is there at the end, or nothing.
    """
    from registry import exports

    with reporting() as progress:
        export = exports.export_task(
            open_registry(), reference, output, **options, progress=progress
        )
    _print(export, as_json=as_json)


def _print(export: Export, *, as_json: bool) -> None:
    mark_done()
    for note in export.notes:
        remark(note)
    for task, largest in export.parity.items():
        remark(f"{task}: logits differ from the module's own by at most {largest:.1e}")
    remark(f"{len(export.files)} files, {sum(export.files.values()):,} bytes")
    if as_json:
        from registry.documents.exports import EngineExport

        print_json(EngineExport.of(export))
    else:
        click.echo(export.output)
