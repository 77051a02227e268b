"""``centra promote`` and ``centra rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.completion import complete_channel, complete_release
from cli.context import json_option, open_registry
from cli.options import change_options
from cli.output import print_json, remark, reporting
from cli.streams import mark_done

if TYPE_CHECKING:
    from registry.promotion import Promotion


@click.command()
@click.argument("reference", metavar="RELEASE", shell_complete=complete_release)
@click.option(
    "--to",
    "channel",
    shell_complete=complete_channel,
    required=True,
    metavar="CHANNEL",
    help="Which channel.",
)
@click.option(
    "--rebase",
    is_flag=True,
    help="Where the channel has moved meanwhile, take the release's change onto what it serves.",
)
@change_options
@click.option("--accept-redefined", is_flag=True, help="Tasks with another contract are wanted.")
@click.option("--dry-run", is_flag=True, help="Show the gates; change nothing.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the gates as Markdown.")
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the gates to this file, as JUnit XML.",
)
@json_option("registry.documents.promotions:Promotion")
def promote(
    reference: str,
    *,
    channel: str,
    rebase: bool,
    expect: int | None,
    force: bool,
    accept_redefined: bool,
    dry_run: bool,
    as_markdown: bool,
    junit: Path | None,
    as_json: bool,
) -> None:
    """Let a channel serve a release, if it passes the gates of the policy.

    Refused (exit 4) where it would change tasks of other teams on the channel, (exit 5) where tasks
    have moved there since the release was composed, and (exit 6) where a gate is not met; every
    gate is shown. What --rebase composes is published only when every gate passes. Repeating it
    does no harm.
    """
    from centra.errors import StoreNotWritableError
    from centra.system.files import check_writable
    from registry import promotion

    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    if junit is not None:
        check_writable(junit)

    def show(result: Promotion) -> None:
        from cli.gates import markdown, print_gates, write_junit

        try:
            if junit is not None:
                write_junit(result, junit)
        except StoreNotWritableError as error:
            remark(f"the gates are not in a file: {error}")
        if as_json:
            from registry.documents import promotions as documents

            print_json(documents.Promotion.of(result))
        elif as_markdown:
            click.echo(markdown(result))
        else:
            print_gates(result)

    try:
        with reporting() as progress:
            result = promotion.promote(
                open_registry(),
                reference,
                channel,
                accept_redefined=accept_redefined,
                rebase=rebase,
                expect=expect,
                force=force,
                dry_run=dry_run,
                progress=progress,
            )
    except promotion.GateError as error:
        show(error.promotion)
        raise
    if not dry_run:
        mark_done()
    show(result)
    if result.forced:
        tasks = ", ".join(f"{task} of team {team}" for task, team in result.forced.items())
        remark(f"--force is what changes {tasks}")
    remark(summary(result))
    if not (as_json or as_markdown or dry_run):
        click.echo(f"{channel} → release {result.release}")


def summary(result: Promotion) -> str:
    """What a promotion that was not refused has led to."""
    if result.unchanged:
        return f"nothing to do: {result.channel} serves release {result.release} already"
    passed = "every gate passes" if result.gates else f"no gate of {result.channel} applies"
    if not result.promoted:
        return f"{passed}; nothing was changed"
    if result.rebased_from is not None:
        return f"the change of release {result.rebased_from} is release {result.release} now"
    return f"promoted: {passed}"


@click.command()
@click.argument("channel", shell_complete=complete_channel)
@click.option(
    "--to",
    shell_complete=complete_release,
    metavar="RELEASE",
    help="One it has served; default the one before.",
)
@click.option(
    "--from",
    "serving",
    shell_complete=complete_release,
    metavar="RELEASE",
    help="Only while the channel serves this one.",
)
@change_options
@json_option("registry.documents.channels:Rollback")
def rollback(
    channel: str,
    *,
    to: str | None,
    serving: str | None,
    expect: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Point a channel at the release it served before.

    Rolling back twice goes back two steps; with --from, --to or --expect-revision, repeating it
    does no harm. Without them, a pointer that is behind is published, and nothing is rolled back.
    The release that is left may be damaged. Refused (exit 4) where it would change tasks of other
    teams; --force does it all the same.
    """
    from registry import channels

    with reporting() as progress:
        result = channels.rollback(
            open_registry(),
            channel,
            to=to,
            serving=serving,
            expect=expect,
            force=force,
            progress=progress,
        )
    mark_done()
    row = result.channel
    if result.published:
        remark(
            f"nothing was rolled back: {row.name} had moved to release {row.release} (revision "
            f"{row.revision}) before, and its pointer was behind; it is published now. To go back "
            f"from there: centra rollback {row.name} --expect-revision {row.revision}"
        )
    elif result.moved:
        remark(f"rolled back from release {result.before}")
    else:
        remark("nothing to do: already there")
    if as_json:
        from registry.documents.channels import Rollback

        print_json(Rollback.made(result))
    else:
        click.echo(f"{row.name} → release {row.release}")
