"""``centra doctor``."""

from __future__ import annotations

from collections import Counter

import click

from centra.errors import VerificationError
from cli.context import json_option
from cli.errors import EXIT_CODES
from cli.output import print_json, reporting


@click.command()
@click.option(
    "--deep",
    is_flag=True,
    help="Also read every registered blob; goes on where it was stopped.",
)
@json_option("registry.documents.doctor:Check", "array")
@click.pass_context
def doctor(ctx: click.Context, *, deep: bool, as_json: bool) -> None:
    """Look at everything this setup needs, and say how to mend what is wrong.

    Ends with exit code 0 unless there is a problem: with 6 where --deep found a damaged or missing
    blob, and else with 1.
    """
    from registry.doctor import examine

    checks = []
    with reporting() as progress:
        for check in examine(**ctx.find_root().obj, deep=deep, progress=progress):
            checks.append(check)
            if not as_json:
                first, *more = check.found.splitlines()
                click.echo(f"{check.state:<8} {check.check:<15} {first}")
                for line in more:
                    click.echo(f"{'':<24} {line}")
                for line in (check.mend or "").splitlines():
                    click.echo(f"{'':<24} → {line}")
    states = Counter(check.state for check in checks)
    if as_json:
        from registry.documents.doctor import Check

        print_json([Check.of(check) for check in checks])
    else:
        click.echo(
            f"problems: {states['problem']}, warnings: {states['warning']}, "
            f"skipped: {states['skipped']}"
        )
    if states["problem"]:
        ctx.exit(EXIT_CODES[VerificationError] if checks[-1].damaged else 1)
