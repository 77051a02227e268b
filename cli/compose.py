"""``centra compose``."""

from __future__ import annotations

from pathlib import Path

import click

from cli.context import json_option, open_registry
from cli.output import account_line, change_fields, change_lines, print_json, remark, reporting


@click.command()
@click.option("--release", "publish", is_flag=True, help="Publish; otherwise only plan.")
@click.option("--base", metavar="RELEASE", help="Start from this release, not from the live set.")
@click.option(
    "--set", "replace", multiple=True, metavar="TASK@VERSION", help="Put this version in."
)
@click.option("--remove", multiple=True, metavar="TASK", help="Leave this task out.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write it as a folder.")
@click.option("--allow-two-backbones", is_flag=True, help="While tasks move to another backbone.")
@json_option
def compose(
    *,
    publish: bool,
    base: str | None,
    replace: tuple[str, ...],
    remove: tuple[str, ...],
    output: Path | None,
    allow_two_backbones: bool,
    as_json: bool,
) -> None:
    """Merge the live set into a release.

    Shows what changes and how many layers are computed. With --release the result is published and
    the channel 'latest' moves to it; the same set of modules is the same release.
    """
    from centra.folder import check_target, write_folder
    from registry import releases

    if output is not None:
        check_target(output)  # Before anything is published.
    registry = open_registry()
    with reporting() as progress:
        found = releases.compose(
            registry,
            base=base,
            replace=replace,
            remove=remove,
            publish=publish,
            allow_two_backbones=allow_two_backbones,
            progress=progress,
        )
        if output is not None:
            write_folder(found.manifest, registry.store, output, progress)
    if output is not None:
        remark(f"written to {output}")
    if as_json:
        print_json(
            {
                "release": found.release,
                "digest": found.digest,
                "published": found.published,
                "base": found.base,
                "changes": change_fields(found.changes),
                "layers": vars(found.layers),
                "tasks": found.tasks,
            }
        )
        return
    against = f"release {found.base}" if found.base else "nothing released yet"
    click.echo(f"{len(found.tasks)} tasks against {against}:")
    for line in change_lines(found.changes) or ["no change"]:
        click.echo(f"  {line}")
    click.echo(account_line(found.layers))
    if found.published:
        click.echo(f"published release {found.release}  sha256:{found.digest}")
    elif found.release is not None:
        click.echo(f"release {found.release} holds exactly this already; no new release was made")
    else:
        click.echo("a plan; publish it with: centra compose --release")
