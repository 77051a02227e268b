"""Promoting a release to a channel: nothing undone that others shipped, every gate shown, one swap.

A promotion looks at the channel and at the release, decides, and swaps only if the channel still has
the revision that it looked at; otherwise it looks again. What it refuses and why is decided in
:mod:`registry.lineage` and :mod:`registry.policy`, on plain values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from centra.compose import check_parity
from centra.errors import ConflictError, VerificationError
from centra.progress import Progress, silent
from centra.runtime.loading import read_manifest
from registry import lineage, releases
from registry.audit import bear_witness
from registry.channels import advance, check_movable, moves_of, publish_pointer
from registry.evaluations import of_version
from registry.models import ChannelMove, Release
from registry.policy import Candidate, ChannelPolicy, Gate, Measure, Version, evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.release import Precision, ReleaseManifest
    from registry.connection import Registry
    from registry.lineage import Moved
    from registry.models import Channel, TaskVersion
    from registry.releases import Composition
    from registry.unit_of_work import UnitOfWork
    from registry.versions import Held

__all__ = ["GateError", "Promotion", "StaleReleaseError", "promote"]

_ATTEMPTS = 20
"""How often a promotion looks again because somebody else moved the channel meanwhile."""


class StaleReleaseError(ConflictError):
    """The channel has moved since the release was composed; serving it would undo what others did."""

    def __init__(self, release: int, channel: str, serving: int, tasks: list[Moved]) -> None:
        lines = "\n".join(f"  {task}" for task in tasks)
        super().__init__(
            f"{channel} serves release {serving}, which release {release} does not stand on:\n"
            f"{lines}\nRepeat with --rebase to take the change onto what is served, or go back "
            f"with: centra rollback {channel}"
        )
        self.tasks = tasks


class GateError(VerificationError):
    """A gate of the channel's policy is not met; all of them are in ``promotion``."""

    def __init__(self, promotion: Promotion, hint: str = "") -> None:
        failed = [gate for gate in promotion.gates if not gate.passed]
        lines = "\n".join(
            f"  {gate.gate}{f' of {gate.task}' if gate.task else ''}: "
            f"wanted {gate.wanted}, found {gate.found}"
            for gate in failed
        )
        super().__init__(
            f"{promotion.what} may not go to {promotion.channel}: {len(failed)} of "
            f"{len(promotion.gates)} gates failed\n{lines}{hint}"
        )
        self.promotion = promotion


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

    @property
    def what(self) -> str:
        """What was to be served, in words: ``release 3``."""
        if self.release is None:
            return f"the change of release {self.rebased_from}, taken onto release {self.before},"
        return f"release {self.release}"


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What a promotion sees at one moment."""

    release: int
    digest: str
    serving: int | None
    serving_digest: str | None
    revision: int | None
    moved: list[Moved]


@dataclass(frozen=True, kw_only=True)
class _Offer:
    """What a channel is to serve: a release, or what a rebase would make one of."""

    number: int | None
    digest: str
    rebased: Composition | None = None


def promote(
    registry: Registry,
    reference: str,
    channel: str,
    *,
    accept_redefined: bool = False,
    rebase: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Promotion:
    """Let a channel serve a release.

    Args:
        registry: where; its policy says what the channel demands.
        reference: a release's number, another channel's name, or the start of a digest.
        channel: the channel; a new name makes one.
        accept_redefined: say that tasks with another contract than what is served are wanted.
        rebase: where the channel has moved since the release was composed, compose the release's
            own change onto what the channel serves, and promote that. It is published only when
            every gate passes, as the channel moves.
        dry_run: decide, but change nothing.
        progress: told of each step.

    Returns:
        What the channel serves now, with every gate.

    Raises:
        InvalidNameError, UsageError: the channel's name or the policy is malformed.
        NotFoundError: there is no such release.
        StaleReleaseError: tasks have moved on the channel, and ``rebase`` was not given.
        ConflictError: the change cannot be rebased, because the same task has moved.
        GateError: a gate is not met; nothing has moved, and nothing was published.
        ComposeError, StoreError, StoreNotWritableError, DatabaseError: it cannot be carried out.
    """
    check_movable(channel)
    policy = registry.policy.channels.get(channel)
    for _ in range(_ATTEMPTS):
        with registry.read() as uow:
            look = _look(uow, reference, channel, overwrite=policy is not None and policy.overwrite)
        offer = _offer(registry, look, channel, rebase=rebase, progress=progress)
        unchanged = offer.digest == look.serving_digest
        gates = (
            []
            if policy is None or unchanged
            else _gates(
                registry, policy, look, offer, accept_redefined=accept_redefined, progress=progress
            )
        )
        promotion = Promotion(
            channel=channel,
            release=look.serving if unchanged else offer.number,
            rebased_from=look.release if offer.rebased else None,
            before=look.serving,
            revision=look.revision,
            promoted=False,
            unchanged=unchanged,
            gates=gates,
        )
        if not all(gate.passed for gate in gates):
            raise GateError(promotion, _untested(offer))
        if unchanged and not dry_run:
            publish_pointer(registry, channel)
        if unchanged or dry_run:
            return promotion
        if offer.rebased is not None:
            registry.store.put(offer.rebased.manifest.to_bytes())
        with registry.write() as uow:
            row = uow.channel(channel)
            if (row.revision if row else None) != look.revision:
                continue
            release = _release(uow, registry, offer)
            row, _ = advance(uow, channel, release, "promote")
            number = release.number
            promotion = replace(promotion, release=number, promoted=True, revision=row.revision)
        publish_pointer(registry, channel)
        if offer.rebased is not None:
            bear_witness(registry, number)
        return promotion
    raise ConflictError(f"{channel} keeps moving: gave up after {_ATTEMPTS} attempts; try again")


def _look(uow: UnitOfWork, reference: str, name: str, *, overwrite: bool) -> _Look:
    release, channel = uow.release(reference), uow.channel(name)
    moved: list[Moved] = []
    if channel is not None and not overwrite and channel.release is not release:
        moved = _moved(uow, channel, release)
    return _Look(
        release=release.number,
        digest=release.digest,
        serving=channel.release.number if channel else None,
        serving_digest=channel.release.digest if channel else None,
        revision=channel.revision if channel else None,
        moved=moved,
    )


def _offer(
    registry: Registry, look: _Look, channel: str, *, rebase: bool, progress: Progress
) -> _Offer:
    """The release as it is, or where the channel has moved, its change onto what is served."""
    if not look.moved or look.serving is None:
        return _Offer(number=look.release, digest=look.digest)
    if not rebase:
        raise StaleReleaseError(look.release, channel, look.serving, look.moved)
    rebased = _rebased(registry, look.release, look.serving, progress)
    return _Offer(number=rebased.release, digest=rebased.digest, rebased=rebased)


def _release(uow: UnitOfWork, registry: Registry, offer: _Offer) -> Release:
    """The release to serve, published now if it is not yet."""
    if offer.rebased is None:
        return uow.release(str(offer.number))
    return releases.record(uow, registry.store, offer.rebased)[0]


def _moved(uow: UnitOfWork, channel: Channel, candidate: Release) -> list[Moved]:
    """The tasks that a candidate would undo."""
    compositions = uow.compositions()
    gone = lineage.withdrawn(moves_of(uow, channel.name))
    mine = lineage.chain(candidate.number, compositions)
    # As it was when it was moved there; it may have been composed anew since.
    theirs = lineage.chain(channel.release.number, compositions, channel.moved_at)
    shared = lineage.fork(mine, theirs)

    def held(made: lineage.Made) -> dict[str, str]:
        return _numbers(uow.held(uow.release(str(made.release))))

    return lineage.moved(
        _numbers(uow.held(candidate)),
        _numbers(uow.held(channel.release)),
        None if shared is None else held(mine[shared]),
        [held(made) for made in mine[1:shared] if made.release in gone],
    )


def _numbers(held: Mapping[str, Held]) -> dict[str, str]:
    """What tells a task from itself in another release: its version, and its precision."""
    return {task: str(version) for task, version in held.items()}


def _rebased(registry: Registry, number: int, serving: int, progress: Progress) -> Composition:
    """A release's own change, composed onto what a channel serves, and not published."""
    with registry.read() as uow:
        release = uow.release(str(number))
        onto_what = uow.compositions().get(number)
        if not onto_what:
            raise ConflictError(
                f"release {number} has no base to tell its change from; "
                f"compose it anew: centra compose --base {serving} --set TASK@VERSION --release"
            )
        base, onto = (uow.release(str(number)) for number in (onto_what[0].base, serving))
        composed = uow.held(release)
        after = _numbers(composed)
        before, there = (_numbers(uow.held(r)) for r in (base, onto))
    changed = {t for t in before.keys() | after.keys() if before.get(t) != after.get(t)}
    both = sorted(t for t in changed if there.get(t) not in (before.get(t), after.get(t)))
    if both:
        tasks = ", ".join(f"{t} (served: {there.get(t, 'removed')})" for t in both)
        raise ConflictError(
            f"release {number} cannot be taken onto release {serving}: both change {tasks}. "
            "Decide which version is right and compose it anew."
        )
    added = sorted(changed & after.keys())
    return releases.compose(
        registry,
        base=str(serving),
        replace=[f"{task}@{composed[task].number}" for task in added],
        settled={task: composed[task].precision for task in added},
        remove=sorted((changed - after.keys()) & there.keys()),
        progress=progress,
    )


def _untested(offer: _Offer) -> str:
    """How to publish what a rebase would make, so that it can be measured, signed and tested."""
    if offer.rebased is None or offer.number is not None:
        return ""
    words = [
        f"--remove {change.task}" if change.after is None else f"--set {change.task}@{change.after}"
        for change in offer.rebased.changes
    ]
    command = f"centra compose --base {offer.rebased.base} {' '.join(words)} --release"
    return f"\nNothing was published; to test it as a release of its own: {command}"


def _gates(
    registry: Registry,
    policy: ChannelPolicy,
    look: _Look,
    offer: _Offer,
    *,
    accept_redefined: bool,
    progress: Progress,
) -> list[Gate]:
    manifest = (
        offer.rebased.manifest if offer.rebased else read_manifest(offer.digest, registry.store)
    )
    with registry.read() as uow:
        serving = uow.release(str(look.serving)) if look.serving else None
        before = _versions(uow, uow.holdings(serving), serving.number) if serving else {}
        if offer.rebased is None:
            after = _versions(uow, uow.holdings(uow.release(str(offer.number))), look.release)
        else:
            changed = {change.task for change in offer.rebased.changes}
            held = {
                task: (uow.version(task, number), manifest.tasks[task].precision)
                for task, number in offer.rebased.tasks.items()
                if task in changed
            }
            after = {task: before[task] for task in offer.rebased.tasks.keys() - changed}
            after |= _versions(uow, held, look.release)
        served = select(ChannelMove.channel).join(Release, ChannelMove.release_id == Release.id)
        channels = frozenset(uow.session.scalars(served.where(Release.digest == offer.digest)))
    candidate = Candidate(
        tasks=after,
        layers=manifest.account,
        size=_size(registry, manifest) if policy.max_size is not None else None,
        channels=channels,
        parity=_parity(registry, manifest, progress) if policy.parity else None,
        unsigned=_unsigned(registry, offer, policy.signed_by) if policy.signed_by else None,
    )
    return evaluate(policy, candidate, before, registry.actor, accept_redefined=accept_redefined)


def _versions(
    uow: UnitOfWork, held: Mapping[str, tuple[TaskVersion, Precision]], release: int
) -> dict[str, Version]:
    """What the gates see of a release's tasks; ``release`` is one that holds them."""
    return {
        task: Version(
            number=version.number if precision == "fp32" else f"{version.number} {precision}",
            digest=version.digest,
            contract=version.contract,
            precision=precision,
            release=release,
            reported=version.metrics,
            measured=tuple(
                Measure(metrics=row.metrics, data=row.data)
                for row in of_version(uow, version)
                if row.precision == precision and row.counts
            ),
        )
        for task, (version, precision) in held.items()
    }


def _size(registry: Registry, manifest: ReleaseManifest) -> int:
    files = manifest.files().values()
    return sum(registry.store.fetch(digest).stat().st_size for digest in files)


def _parity(registry: Registry, manifest: ReleaseManifest, progress: Progress) -> str | None:
    try:
        check_parity(manifest, registry.store, list(manifest.tasks), progress)
    except VerificationError as error:
        return str(error)
    return None


def _unsigned(registry: Registry, offer: _Offer, keys: list[str]) -> str | None:
    from registry.signatures import signed_by

    if offer.number is None:
        return "not signed: it is not published"
    return signed_by(registry, str(offer.number), [Path(key) for key in keys])
