"""What a promotion led to, and the two refusals that are its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from centra.errors import ConflictError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.releases.composition import Composition
    from registry.rules.gates import Gate
    from registry.rules.lineage import StaleTask

__all__ = ["GateError", "Promotion", "StaleReleaseError"]


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What a promotion led to, or would lead to."""

    channel: str
    release: int | None
    """The release that the channel serves now, or would serve; None for one that a rebase would
    make, and that is not published."""
    rebased_from: int | None
    """The release that was asked for, where its change was taken onto what is served."""
    before: int | None
    """The release that was served before."""
    revision: int | None
    """The channel's, after the move; None where there is no channel yet."""
    promoted: bool
    """False where it was served already, or for a dry run."""
    unchanged: bool
    """Whether the channel served it already, so that no gate was asked."""
    gates: list[Gate]
    forced: dict[str, str] = field(default_factory=dict)
    """The tasks of other teams that force is needed for, each with its team."""

    @property
    def what(self) -> str:
        """What was to be served, in words: ``release 3``."""
        if self.release is None:
            return f"the change of release {self.rebased_from}, taken onto release {self.before},"
        return f"release {self.release}"


class StaleReleaseError(ConflictError):
    """The channel has moved since the release was composed; serving it would undo what others did.

    The tasks that it would undo are in ``tasks``.
    """

    code = "stale-release"

    def __init__(
        self,
        channel: str,
        *,
        release: int,
        serving: int | None,
        stale: Sequence[StaleTask],
        related: bool,
    ) -> None:
        """Make the refusal.

        Args:
            channel: what was to serve the release.
            release: its number.
            serving: the release that the channel serves.
            stale: the tasks that would be undone.
            related: whether both releases stand on a common one.
        """
        lines = "\n".join(f"  {task}" for task in stale)
        why = (
            f"which release {release} does not stand on"
            if related
            else f"and no release that release {release} stands on is one that this stands on"
        )
        super().__init__(
            f"{channel} serves release {serving}, {why}:\n{lines}",
            code="stale-release" if related else "unrelated-release",
            channel=channel,
            release=release,
            serving=serving,
            tasks=[task.task for task in stale],
        )
        self.tasks = stale


class GateError(VerificationError):
    """A gate of the channel's policy is not met; all of them are in ``promotion``."""

    code = "gates-failed"

    def __init__(self, promotion: Promotion, unpublished: Composition | None = None) -> None:
        """Make the refusal.

        Args:
            promotion: what was refused.
            unpublished: what a rebase would make a release of.
        """
        failed = [gate for gate in promotion.gates if not gate.passed]
        lines = "\n".join(
            f"  {gate.gate}{f' of {gate.task}' if gate.task else ''}: "
            f"wanted {gate.wanted}, found {gate.found}"
            for gate in failed
        )
        super().__init__(
            f"{promotion.what} may not go to {promotion.channel}: {len(failed)} of "
            f"{len(promotion.gates)} gates failed\n{lines}",
            channel=promotion.channel,
            failed=[{"gate": gate.gate, "task": gate.task} for gate in failed],
            remedies=[
                {"code": remedy.code, **remedy.data} for gate in failed for remedy in gate.remedies
            ],
            unpublished=_how_to_compose(unpublished),
        )
        self.promotion = promotion


def _how_to_compose(composition: Composition | None) -> dict[str, object] | None:
    """What makes a composition a release of its own, so that it can be measured and tested."""
    if composition is None:
        return None
    return {
        "base": composition.base,
        "replace": [f"{c.task}@{c.after}" for c in composition.changes if c.after is not None],
        "remove": [c.task for c in composition.changes if c.after is None],
    }
