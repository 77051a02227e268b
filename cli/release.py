"""``centra release``."""

from __future__ import annotations

from pathlib import Path

import click

from cli.context import json_option, open_registry, registry_for
from cli.output import (
    account_line,
    change_fields,
    change_lines,
    print_json,
    print_table,
    remark,
    reporting,
)


@click.group()
def release() -> None:
    """Published releases. RELEASE is a number, a channel, or the start of a digest."""


@release.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """List releases, the newest first."""
    from registry import releases

    rows = releases.list_all(open_registry())
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("release", "digest", "tasks", "channels", "made", "by"),
            [
                (
                    r.number,
                    r.digest[:12],
                    r.tasks,
                    ", ".join(r.channels) or "-",
                    f"{r.created_at:%Y-%m-%d %H:%M}",
                    r.created_by,
                )
                for r in rows
            ],
        )


@release.command()
@click.argument("reference", metavar="RELEASE")
@json_option
def show(reference: str, *, as_json: bool) -> None:
    """Show a release: its tasks, layers, taps and branches."""
    from cli.picture import picture
    from registry import releases

    detail = releases.show(open_registry(), reference)
    if as_json:
        print_json(
            {
                "release": detail.number,
                "digest": detail.digest,
                "base": detail.base,
                "channels": detail.channels,
                "tasks": detail.tasks,
                "layers": vars(detail.layers),
                "created_at": detail.created_at,
                "created_by": detail.created_by,
            }
        )
        return
    click.echo(
        f"release {detail.number}  sha256:{detail.digest}\n"
        f"made {detail.created_at:%Y-%m-%d %H:%M} UTC by {detail.created_by}"
        + (f", served by {', '.join(detail.channels)}" if detail.channels else "")
        + f"\n{account_line(detail.layers)}\n"
    )
    click.echo(picture(detail.manifest, detail.tasks))


@release.command()
@click.argument("before", metavar="RELEASE")
@click.argument("after", metavar="RELEASE")
@json_option
def diff(before: str, after: str, *, as_json: bool) -> None:
    """Compare two releases; tasks that did not change are shown by their digest."""
    from registry import releases

    found = releases.diff(open_registry(), before, after)
    if as_json:
        print_json(
            {
                "from": found.before,
                "to": found.after,
                "changes": change_fields(found.changes),
                "unchanged": found.unchanged,
                "layers": {"from": vars(found.layers_before), "to": vars(found.layers_after)},
            }
        )
        return
    click.echo(f"release {found.before} → {found.after}")
    for line in change_lines(found.changes) or ["no change"]:
        click.echo(f"  {line}")
    for same in found.unchanged:
        click.echo(f"  {'identical':<10} {same.task} {same.version}  sha256:{same.digest}")
    click.echo(f"before  {account_line(found.layers_before)}")
    click.echo(f"after   {account_line(found.layers_after)}")


@release.command()
@click.argument("reference", metavar="RELEASE|FOLDER|STORE#CHANNEL")
@json_option
def verify(reference: str, *, as_json: bool) -> None:
    """Hash every file of a release and run every task on its probe."""
    from registry import releases

    with reporting() as progress:
        found = releases.verify(registry_for(reference), reference, progress)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found.files} files, {found.size:,} bytes: every digest is right")
    for task, difference in found.parity.items():
        click.echo(f"  {task:<24} parity, logits differ by at most {difference:.1e}")


@release.command()
@click.argument("reference", metavar="RELEASE|STORE#CHANNEL")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The folder.")
@json_option
def pull(reference: str, output: Path, *, as_json: bool) -> None:
    """Write a release as a folder; files that are there already are not moved again."""
    from registry import releases

    with reporting() as progress:
        digest, written = releases.pull(registry_for(reference), reference, output, progress)
    remark(f"{written:,} bytes written, sha256:{digest}")
    if as_json:
        print_json({"output": str(output), "digest": digest, "bytes": written})
    else:
        click.echo(str(output))
