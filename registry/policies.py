"""The policy that is in force: applied from ``centra.toml``, kept in versions, and read where it decides.

Each use case that it rules reads it in its own transaction, so that it holds wherever the command
runs. What a file leaves outside, public keys, is taken in when it is applied.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from centra.errors import NotAllowedError, NotFoundError, UsageError
from registry.database.models import PolicyVersion, Task
from registry.rules.channels import check_movable
from registry.rules.policy_changes import Setting, changed_settings

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork
    from registry.rules.policy import ChannelPolicy, Policy
    from registry.settings import Rules

__all__ = [
    "Applied",
    "PolicyRow",
    "Setting",
    "apply",
    "history",
    "in_force",
    "of_channel",
    "show",
]


_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What applying rules led to, or would lead to."""

    version: int | None
    """Of the policy that is in force now; None where there is none."""
    changed: bool
    """Whether a version was made; never by a dry run."""
    changes: list[Setting]
    forced: bool
    unknown: list[str]
    """Tasks that the rules name and that are not registered."""


@dataclass(frozen=True, kw_only=True)
class PolicyRow:
    """One version of the policy."""

    version: int
    digest: str
    applied_at: datetime
    applied_by: str
    rules: dict[str, Any]
    """As ``centra.toml`` may have them, keys and all."""
    changes: list[Setting]
    """Against the version before."""


def in_force(uow: UnitOfWork) -> tuple[int | None, Policy]:
    """The newest version, and its rules; no version, and no rule, where none was ever applied."""
    from registry.rules.policy import Policy

    row = _newest_version(uow)
    if row is None:
        return None, Policy()
    return row.version, Policy.parse(row.rules, f"version {row.version} of the policy")


def of_channel(
    registry: Registry, uow: UnitOfWork, channel: str
) -> tuple[int | None, ChannelPolicy | None]:
    """The policy's version, and what it demands of a channel.

    Raises:
        NotAllowedError: no policy was ever applied, though the ``centra.toml`` here has rules for
            the channel: nobody shall believe that they hold.
    """
    version, policy = in_force(uow)
    proposed = registry.rules.tables.get("channels", {}) if registry.rules else {}
    if version is None and registry.rules and channel in proposed:
        raise NotAllowedError(
            f"{registry.rules.file} has rules for the channel {channel} that were never applied",
            code="policy-not-applied",
            channel=channel,
        )
    return version, policy.channels.get(channel)


def apply(
    registry: Registry, rules: Rules, *, dry_run: bool = False, force: bool = False
) -> Applied:
    """Put rules in force as the policy's next version; those that are in force make none.

    Args:
        registry: where.
        rules: what ``centra.toml`` says. They replace all that is in force.
        dry_run: say what would change, and change nothing.
        force: apply them though the policy in force names others as its admins.

    Raises:
        UsageError: a rule is malformed, or there is none at all.
        NotFoundError: a file with a key is missing.
        NotAllowedError: the policy in force names others as its admins.
        CentraError: a rule demands signatures, and the package model-signing is not installed.
        DatabaseError: the registry cannot be used.
    """
    began = time.monotonic()
    if not rules.tables:
        raise UsageError(
            f"{rules.file} has no rules: no table channels, compose or policy. To lift all that "
            "are in force, say so with an empty table [channels]",
            code="no-rules",
        )
    proposed = _read_rules(rules)
    if dry_run:
        with registry.read() as uow:
            version, policy = in_force(uow)
            return Applied(
                version=version,
                changed=False,
                changes=changed_settings(policy.rules(), proposed.rules()),
                forced=False,
                unknown=_unregistered_tasks(uow, proposed),
            )
    with registry.write() as uow:
        version, policy = in_force(uow)
        changes = changed_settings(policy.rules(), proposed.rules())
        forced = bool(changes) and not policy.policy.may_apply(uow.actor)
        if forced and not force:
            raise NotAllowedError(
                f"{uow.actor} may not apply a policy; its admins are "
                f"{', '.join(policy.policy.admins or []) or 'nobody'}",
                code="not-an-admin",
                admins=policy.policy.admins or [],
            )
        if changes:
            version = _add_version(uow, proposed, changes, forced=forced)
        applied = Applied(
            version=version,
            changed=bool(changes),
            changes=changes,
            forced=forced,
            unknown=_unregistered_tasks(uow, proposed),
        )
    if changes:
        _log.info("applied the policy as version %d in %.2f s", version, time.monotonic() - began)
    return applied


def show(registry: Registry, version: int | None = None) -> PolicyRow:
    """One version of the policy; by default the one in force.

    Raises:
        NotFoundError: there is no such version, or no policy at all.
        DatabaseError: the registry cannot be used.
    """
    rows = history(registry)
    if not rows:
        raise NotFoundError("no policy was ever applied, so no channel has rules", code="no-policy")
    found = [row for row in rows if version in (None, row.version)]
    if not found:
        raise NotFoundError(
            f"the policy has no version {version}; its newest is {rows[0].version}",
            code="policy-version-not-found",
            version=version,
        )
    return found[0]


def history(registry: Registry) -> list[PolicyRow]:
    """Every version of the policy, the newest first.

    Raises:
        DatabaseError: the registry cannot be used.
    """
    with registry.read() as uow:
        found = list(uow.session.scalars(select(PolicyVersion).order_by(PolicyVersion.version)))
        rows = [
            PolicyRow(
                version=row.version,
                digest=row.digest,
                applied_at=row.created_at,
                applied_by=row.created_by,
                rules=row.rules,
                changes=changed_settings(before, row.rules),
            )
            for row, before in zip(found, [{}, *(row.rules for row in found)], strict=False)
        ]
    return rows[::-1]


def _newest_version(uow: UnitOfWork) -> PolicyVersion | None:
    query = select(PolicyVersion).order_by(PolicyVersion.version.desc())
    return uow.session.scalars(query.limit(1)).first()


def _add_version(uow: UnitOfWork, policy: Policy, changes: list[Setting], *, forced: bool) -> int:
    """Write the next version, and its event."""
    from centra.formats.documents import canonical_json, sha256

    newest, rules = _newest_version(uow), policy.rules()
    row = PolicyVersion(
        version=newest.version + 1 if newest else 1,
        rules=rules,
        digest=sha256(canonical_json(rules)),
        created_at=uow.now,
        created_by=str(uow.actor),
    )
    uow.session.add(row)
    details = {
        "version": row.version,
        "digest": row.digest,
        "changes": [{"setting": c.setting, "from": c.before, "to": c.after} for c in changes],
    }
    uow.record("policy:apply", "policy", details, forced=forced)
    return row.version


def _read_rules(rules: Rules) -> Policy:
    """Rules that can be applied: checked, and with the keys themselves in the place of files."""
    from registry.rules.policy import Policy

    tables = {**rules.tables}
    channels = tables.get("channels")
    if isinstance(channels, dict):
        tables["channels"] = {
            name: _with_keys(channel, rules.file.parent) for name, channel in channels.items()
        }
    policy = Policy.parse(tables, str(rules.file))
    for name in policy.channels:
        try:
            check_movable(name)
        except UsageError as error:
            raise UsageError(f"{rules.file}: channels.{name}: {error}") from error
    return policy


def _with_keys(channel: Any, folder: Path) -> Any:
    """A channel's table with its keys taken in; what is malformed stays as it is."""
    keys = channel.get("signed_by") if isinstance(channel, dict) else None
    if not isinstance(keys, list):
        return channel
    return {**channel, "signed_by": [_key(key, folder) for key in keys]}


def _key(key: Any, folder: Path) -> Any:
    from centra.releases.keys import PublicKey

    match key:
        case str():
            found = PublicKey.read(folder / key)
        case {"name": str() as name, "pem": str() as pem}:
            found = PublicKey(name=name, pem=pem).checked()
        case _:
            return key
    return {"name": found.name, "pem": found.pem}


def _unregistered_tasks(uow: UnitOfWork, policy: Policy) -> list[str]:
    """The tasks that rules are for and that are not registered, perhaps by a slip."""
    named = {
        task
        for channel in policy.channels.values()
        for tasks in (channel.min_metrics, channel.max_drop, channel.measured)
        for task in tasks
    }
    return sorted(named - {"*", *uow.session.scalars(select(Task.name))})
