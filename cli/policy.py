"""``centra policy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.context import json_option, open_registry
from cli.output import json_text, print_json, print_table, remark
from cli.streams import mark_done

if TYPE_CHECKING:
    from registry.rules.policy_changes import Setting


@click.group()
def policy() -> None:
    """What channels demand: kept in the database, in versions, and the same from every folder."""


@policy.command()
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.toml",
    help="Where the rules stand; default the centra.toml found upward from here.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@click.option("--force", is_flag=True, help="Apply though others are its admins; logged.")
@json_option("registry.documents.policies:PolicyChange")
def apply(*, file: Path | None, dry_run: bool, force: bool, as_json: bool) -> None:
    """Put the tables channels, compose and policy of a centra.toml in force, as a new version.

    They replace every rule that is in force. Keys that signed_by names are taken in. Rules that are
    in force already make no version.
    """
    from centra.errors import NotFoundError
    from registry import policies
    from registry.settings import Rules

    registry = open_registry()
    rules = Rules.read(file) if file is not None else registry.rules
    if rules is None:
        raise NotFoundError("there is no centra.toml here or above; name a file: --file")
    applied = policies.apply(registry, rules, dry_run=dry_run, force=force)
    if not dry_run:
        mark_done()
    if as_json:
        from registry.documents.policies import PolicyChange

        print_json(PolicyChange.of(applied))
    else:
        for change in applied.changes:
            click.echo(change_line(change))
    for task in applied.unknown:
        remark(f"there is no task {task} yet, which the rules name")
    if applied.changed:
        forced = ", by force" if applied.forced else ""
        remark(f"version {applied.version} of the policy is in force{forced}")
    elif applied.changes:
        remark("nothing was changed")
    else:
        remark("nothing to do: these rules are in force already")


@policy.command()
@click.argument("version", type=click.IntRange(min=1), required=False)
@json_option("registry.documents.policies:Policy")
def show(version: int | None, *, as_json: bool) -> None:
    """Show the policy in force, or an earlier version, as TOML that could be applied again."""
    from cli.toml import toml
    from registry import policies

    row = policies.show(open_registry(), version)
    if as_json:
        from registry.documents.policies import Policy

        print_json(Policy.of(row))
        return
    click.echo(
        f"# version {row.version}, applied {row.applied_at:%Y-%m-%d %H:%M} UTC by {row.applied_by}\n"
        f"# sha256:{row.digest}\n\n{toml(row.rules) or '[channels]'}"
    )


@policy.command()
@json_option("registry.documents.policies:Policy", "array")
def history(*, as_json: bool) -> None:
    """List the versions of the policy, the newest first, with what each changed."""
    from registry import policies

    rows = policies.history(open_registry())
    if as_json:
        from registry.documents.policies import Policy

        print_json([Policy.of(row) for row in rows])
        return
    lines: list[tuple[object, ...]] = []
    for row in rows:
        first, *more = [change_line(change) for change in row.changes] or ["-"]
        time = f"{row.applied_at:%Y-%m-%d %H:%M}"
        lines += [(row.version, time, row.applied_by, first)]
        lines += [("", "", "", line) for line in more]
    print_table(("version", "applied", "by", "changes"), lines)


def change_line(change: Setting) -> str:
    """A setting that changes, in one line: ``channels.production.max_layers: 40 → not set``."""
    return f"{change.setting}: {_shown(change.before)} → {_shown(change.after)}"


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return "a table" if value == {} else json_text(value)
