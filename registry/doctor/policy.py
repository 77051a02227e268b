"""Looking at the rules: whether those that ``centra.toml`` proposes are in force."""

from __future__ import annotations

from centra.errors import NotFoundError
from registry import policies
from registry.doctor.findings import NAMED, Finding, Setup, well
from registry.texts import first_lines

__all__ = ["check_policy"]


def check_policy(setup: Setup) -> list[Finding]:
    """Whether the rules of ``centra.toml`` are those in force."""
    registry = setup.registry
    proposed = registry.rules if registry.rules and registry.rules.tables else None
    differ = policies.apply(registry, proposed, dry_run=True).changes if proposed else []
    try:
        row = policies.show(registry)
    except NotFoundError:
        if proposed and differ:
            text = f"the rules of {proposed.file} were never applied"
            data = {"file": str(proposed.file)}
            return [Finding(code="policy-never-applied", text=text, data=data)]
        return well("no policy was ever applied, and no channel has rules")
    channels = ", ".join(row.rules.get("channels", {})) or "no channel"
    text = f"version {row.version} by {row.applied_by} is in force, with rules for {channels}"
    if proposed and differ:
        settings = [change.setting for change in differ]
        text += f"; {proposed.file} says otherwise of:\n{first_lines(settings, NAMED)}"
        return [
            Finding(
                state="warning",
                code="policy-not-applied",
                text=text,
                data={"file": str(proposed.file), "settings": settings},
            )
        ]
    return well(text)
