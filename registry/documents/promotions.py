"""What promoting a release led to, gate by gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, from_field, schema

if TYPE_CHECKING:
    from registry import promotion
    from registry.rules import gates

__all__ = ["Gate", "Promotion"]


class Gate(Document):
    """One demand of a channel's policy, and whether it is met."""

    gate: str
    task: str | None
    """Null for one of the whole release."""
    passed: bool
    wanted: str
    """What the policy demands, for people."""
    found: str
    """What the release has, for people."""

    @classmethod
    def of(cls, gate: gates.Gate) -> Gate:
        """The document of a gate."""
        return cls(
            gate=gate.gate,
            task=gate.task,
            passed=gate.passed,
            wanted=gate.wanted,
            found=gate.found,
        )


class Promotion(Document):
    """What a promotion led to, or would lead to."""

    schema_: str = schema("promotion")
    channel: str
    release: int | None
    """The one that the channel serves now, or would serve; null for one that a rebase would make, and
    that is not published."""
    rebased_from: int | None
    """The release that was asked for, where its change was taken onto what is served."""
    from_: int | None = from_field()
    """The release that was served before."""
    revision: int | None
    """The channel's, after the move; null where there is no channel yet."""
    changed: bool
    """False where it was served already, for a dry run, and for a refusal."""
    unchanged: bool
    """Whether the channel served it before, so that no gate was asked."""
    gates: list[Gate]
    """All that apply."""
    forced: dict[str, str]
    """The tasks of other teams that force is needed for, each with its team."""

    @classmethod
    def of(cls, promotion: promotion.Promotion) -> Promotion:
        """The document of a promotion."""
        return cls(
            channel=promotion.channel,
            release=promotion.release,
            rebased_from=promotion.rebased_from,
            from_=promotion.before,
            revision=promotion.revision,
            changed=promotion.promoted,
            unchanged=promotion.unchanged,
            gates=[Gate.of(gate) for gate in promotion.gates],
            forced=promotion.forced,
        )
