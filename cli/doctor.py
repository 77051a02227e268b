"""``centra doctor``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from centra.errors import VerificationError
from cli.context import json_option
from cli.errors import EXIT_CODES, WRONG_STORE
from cli.output import print_json, reporting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.doctor import Check

__all__ = ["MENDS", "doctor", "mend", "mend_text"]

_APPLY = "centra policy apply"
_UPGRADE = "centra db upgrade"

MENDS: dict[str, str] = WRONG_STORE | {
    "actor-without-team": "set CENTRA_ACTOR=TEAM/PERSON, or 'actor' in centra.toml",
    "backbone-blob": "centra backbone register {name} SOURCE, again from {source}",
    "backbone-invalid": "centra backbone retire {backbone}, and move its tasks to another",
    "backbone-unreadable": "register it again from its source: centra backbone register {name} SOURCE",
    "clock-skewed": "set the clocks by a time server (NTP)",
    "credentials-missing": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "database-empty": _UPGRADE,
    "database-missing": _UPGRADE,
    "database-newer": "install a newer Centra",
    "database-older": _UPGRADE,
    "database-read-only": "grant {user} the rights on Centra's tables",
    "garbage": "centra gc, then centra gc --delete",
    "not-writable": "chown or chmod {path}",
    "password-readable": "chmod o-r {path}",
    "pointer-of-no-channel": (
        "remove channels/{channel}.json from the store, if no server follows it"
    ),
    "pointer-stale": "centra channel sync {channel}",
    "pointer-unreadable": (
        "run 'centra channel sync {channel}'; or remove it, if nothing follows it"
    ),
    "policy-never-applied": _APPLY,
    "policy-not-applied": _APPLY,
    "registry-not-configured": "centra init; or set CENTRA_DATABASE_URL and CENTRA_STORE",
    "release-blob": "centra compose --base {release} --release",
    "store-cannot-be-made": "make {folder}",
    "store-forgets": "look at the store's own log",
    "store-not-removable": "let somebody who may remove blobs run: centra gc",
    "tables-altered": "undo what was changed by hand, or restore a backup",
    "task-blob": "centra task update {task} FILE, with the file of {version}",
    "writable-by-all": "chmod o-w {path}",
}
"""What to do about a finding, by its code: a template for its data."""

_FAILED = {
    "settings": "correct the option, the variable or centra.toml",
    "actor": "set CENTRA_ACTOR=TEAM/PERSON",
    "database": "check its address, your rights, and that its server runs",
    "migration": _UPGRADE,
    "tables": "centra db check",
    "policy": "correct centra.toml",
    "audit log": "find out who can write to the database, and restore a backup",
    "credentials": "correct the AWS settings",
    "store": "check its address, your rights and the network",
    "witnesses": "after a restore: centra audit accept; or else restore a backup",
    "store writable": "get the right to write, or leave registering to those who have it",
    "clock": "set the clocks by a time server (NTP)",
    "permissions": "look at the files' owners and modes",
    "identity": "look at store.json in the store",
    "blobs": "check the store",
    "garbage": "check the store",
    "pointers": "centra channel sync",
    "contents": "centra doctor --deep",
}
"""The same for a check that could not be made, by its name."""

_SHOWN = 10
"""How many mends of one check are shown."""


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
                _print(check)
    states = Counter(check.state for check in checks)
    if as_json:
        from registry.documents.doctor import Check

        print_json([Check.of(check, mend(check), mend_text) for check in checks])
    else:
        click.echo(
            f"problems: {states['problem']}, warnings: {states['warning']}, "
            f"skipped: {states['skipped']}"
        )
    if states["problem"]:
        ctx.exit(EXIT_CODES[VerificationError] if checks[-1].damaged else 1)


def mend(check: Check) -> str | None:
    """What to do about what a check found, a line each; None where all is well."""
    from registry.texts import first_lines

    if check.state in ("ok", "skipped"):
        return None
    mends = [
        _FAILED[finding.data["check"]]
        if finding.code == "check-failed"
        else mend_text(finding.code, finding.data)
        for finding in check.findings
    ]
    return first_lines(dict.fromkeys(mends), _SHOWN)


def mend_text(code: str, data: Mapping[str, object]) -> str:
    """What to do about a finding, or about a blob that is needed, of this code."""
    return MENDS[code].format_map(data)


def _print(check: Check) -> None:
    first, *more = check.found.splitlines()
    click.echo(f"{check.state:<8} {check.check:<15} {first}")
    for line in more:
        click.echo(f"{'':<24} {line}")
    for line in (mend(check) or "").splitlines():
        click.echo(f"{'':<24} → {line}")
