"""The policy: what channels demand, in versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.documents.base import Document, Moment, from_field, schema

if TYPE_CHECKING:
    from registry import policies

__all__ = ["Policy", "PolicyChange", "Setting"]


class Setting(Document):
    """A setting that differs between two policies."""

    setting: str
    """Its path: ``channels.production.max_layers``."""
    from_: Any = from_field()
    """Null where it is not set; a table is ``{}``."""
    to: Any
    """Likewise."""

    @classmethod
    def of(cls, setting: policies.Setting) -> Setting:
        """The document of a setting."""
        return cls(setting=setting.setting, from_=setting.before, to=setting.after)


class Policy(Document):
    """One version of the policy."""

    schema_: str = schema("policy")
    version: int
    digest: str
    """Of its rules."""
    created_at: Moment
    """When it was applied."""
    created_by: str
    rules: dict[str, Any]
    """As ``centra.toml`` may have them, keys and all."""
    changes: list[Setting]
    """Against the version before."""

    @classmethod
    def of(cls, row: policies.PolicyRow) -> Policy:
        """The document of a version of the policy."""
        return cls(
            version=row.version,
            digest=row.digest,
            created_at=row.applied_at,
            created_by=row.applied_by,
            rules=row.rules,
            changes=[Setting.of(setting) for setting in row.changes],
        )


class PolicyChange(Document):
    """What applying rules led to, or would lead to."""

    schema_: str = schema("policy-change")
    version: int | None
    """Of the policy that is in force now; null where there is none."""
    changed: bool
    """Whether a version was made; never by a dry run."""
    changes: list[Setting]
    forced: bool
    """Whether others are its admins, and the log says so."""
    unknown: list[str]
    """Tasks that the rules name and that are not registered."""

    @classmethod
    def of(cls, applied: policies.Applied) -> PolicyChange:
        """The document of what applying led to."""
        return cls(
            version=applied.version,
            changed=applied.changed,
            changes=[Setting.of(setting) for setting in applied.changes],
            forced=applied.forced,
            unknown=applied.unknown,
        )
