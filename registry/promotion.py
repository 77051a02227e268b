"""Promoting a release to a channel: nothing undone that others shipped, every gate shown, one swap.

A promotion looks at the channel and at the release, decides, and swaps only if the channel still has
the revision that it looked at; otherwise somebody else was faster, and it looks again, reading only
what is new to it. What it refuses and why is decided in :mod:`registry.rules.lineage` and
:mod:`registry.rules.policy`, on plain values.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sqlalchemy import select

from centra.errors import ConflictError, VerificationError
from centra.formats.identities import Digest, VersionNumber
from centra.formats.precision import Precision
from centra.progress import Progress, silent
from centra.releases.compose import Checked, proven
from centra.releases.find import read_manifest
from registry import owners, policies, releases
from registry.audit import write_witness
from registry.channels import (
    advance,
    channel_row,
    check_movable,
    check_publishable,
    is_made,
    moves_of,
    publish_move,
    publish_pointer,
    unexpected,
)
from registry.database.models import ChannelMove, Release
from registry.evaluations import of_version
from registry.rules import lineage
from registry.rules.policy import (
    Candidate,
    ChannelPolicy,
    Gate,
    Measure,
    SigningKey,
    Version,
    evaluate,
)
from registry.storage.claims import storing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.manifest import ReleaseManifest
    from registry.channels import ChannelRow
    from registry.connection import Registry
    from registry.database.models import Channel, TaskVersion
    from registry.database.unit_of_work import UnitOfWork
    from registry.releases import Composition
    from registry.rules.lineage import StaleTask
    from registry.versions import ReleasedVersion

__all__ = ["GateError", "Promotion", "StaleReleaseError", "promote"]

_PAUSES = 8
"""How many times its quickest attempt a promotion waits at most before it looks again."""


class StaleReleaseError(ConflictError):
    """The channel has moved since the release was composed; serving it would undo what others did."""

    def __init__(self, look: _Look, channel: str) -> None:
        lines = "\n".join(f"  {task}" for task in look.stale)
        if look.related:
            why = f"which release {look.release} does not stand on"
            mend = (
                "Repeat with --rebase to take the change onto what is served, or go back with: "
                f"centra rollback {channel}. "
            )
        else:
            why = f"and no release that release {look.release} stands on is one that this stands on"
            mend = (
                "Compose what you want of it onto what is served: "
                f"centra compose --base {channel} --set TASK@VERSION --release. "
            )
        super().__init__(
            f"{channel} serves release {look.serving}, {why}:\n{lines}\n{mend}"
            "Or replace what is served with --force, which the audit log will show."
        )
        self.tasks = look.stale


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
    forced: dict[str, str] = field(default_factory=dict)
    """The tasks of other teams that force is needed for, each with its team."""

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
    digest: Digest
    serving: int | None
    serving_digest: Digest | None
    revision: int | None
    stale: list[StaleTask]
    """What serving the release would undo."""
    related: bool
    """Whether the release and what is served stand on a common one."""


@dataclass(frozen=True, kw_only=True)
class _Offer:
    """What a channel is to serve: a release, or what a rebase would make one of."""

    number: int | None
    digest: Digest
    rebased: Composition | None = None
    forced: bool = False
    """Whether it undoes what others did."""

    @property
    def blobs(self) -> dict[Digest, bytes]:
        """What must be stored before the channel can serve it."""
        return {self.digest: self.rebased.manifest.to_bytes()} if self.rebased else {}


def promote(
    registry: Registry,
    reference: str,
    channel: str,
    *,
    accept_redefined: bool = False,
    rebase: bool = False,
    expect: int | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Promotion:
    """Let a channel serve a release.

    Repeating it does no harm: what is served already is not promoted again, nor a change that what
    is served holds already rebased again; the pointer is published in either case.

    Args:
        registry: where; the policy in force says what the channel demands.
        reference: a release's number, another channel's name, or the start of a digest.
        channel: the channel; a new name makes one.
        accept_redefined: say that tasks with another contract than what is served are wanted.
        rebase: where the channel has moved since the release was composed, compose the release's
            own change onto what the channel serves, and promote that. It is published only when
            every gate passes, as the channel moves.
        expect: the revision that the channel must be at, 0 for a new one; see
            :func:`registry.channels.is_made`.
        force: serve the release as it is, whatever of others' that undoes, and whosever tasks it
            changes; the log shows it. No gate is forced.
        dry_run: decide, but change nothing.
        progress: told of each step.

    Returns:
        What the channel serves now, with every gate.

    Raises:
        InvalidNameError, UsageError: the channel's name is malformed.
        NotAllowedError: ``centra.toml`` has rules for the channel that were never applied.
        NotFoundError: there is no such release.
        StaleReleaseError: tasks have moved on the channel, or nothing that both stand on is known;
            and neither ``rebase`` nor ``force`` was given.
        ConflictError: the change cannot be rebased, because the same task has moved; or the channel
            is at another revision than is expected.
        ForeignTasksError: it would change tasks of other teams, and ``force`` was not given.
        GateError: a gate is not met; nothing has moved, and nothing was published.
        UnpublishedError: the channel moved, but its pointer could not be written.
        ComposeError, StoreError, StoreNotWritableError, DatabaseError: it cannot be carried out;
            nothing has moved.
    """
    check_movable(channel)
    if not dry_run:
        registry.check_store()
    checked, writable, lost, quickest = Checked(registry.store), False, 0, math.inf
    while True:
        began = time.monotonic()
        with registry.read() as uow:
            version, policy = policies.of_channel(registry, uow, channel)
            look = _look(uow, reference, channel, overwrite=policy is not None and policy.overwrite)
            made = is_made(uow, channel, lineage.MoveKind.PROMOTE, expect)
            refusal = unexpected(uow.channel(channel), channel, expect) if made else None
        reference = str(look.release)  # A channel's name may come to mean another.
        try:
            offer = _offer(
                registry,
                look,
                channel,
                rebase=rebase,
                force=force,
                checked=checked,
                progress=progress,
            )
        except ConflictError as error:
            if refusal is None:
                raise
            raise refusal from error
        unchanged = offer.digest == look.serving_digest
        if refusal and not unchanged:
            raise refusal
        foreign = _foreign(registry, channel, look, offer, policy, force=force)
        gates = (
            []
            if policy is None or unchanged
            else _gates(
                registry,
                policy,
                look,
                offer,
                accept_redefined=accept_redefined,
                checked=checked,
                progress=progress,
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
            forced=foreign,
        )
        if not all(gate.passed for gate in gates):
            raise GateError(promotion, _untested(offer))
        if unchanged and not dry_run:
            publish_pointer(registry, channel)
        if unchanged or dry_run:
            return promotion
        if not writable:
            check_publishable(registry, channel)
            writable = True
        moved: ChannelRow | None = None
        with storing(registry, offer.blobs) as uow:
            row = uow.channel(channel)
            # The gates were those of what was served then, and of the policy that was in force.
            current = (row.revision if row else None) == look.revision
            if current and policies.in_force(uow)[0] == version:
                release = _release(uow, offer)
                foreign = owners.check(uow, channel, release, policy, force=force)
                row, _ = advance(
                    uow,
                    channel,
                    release,
                    lineage.MoveKind.PROMOTE,
                    forced=offer.forced,
                    foreign=foreign,
                )
                moved = channel_row(row)
        if moved is None:
            # Of many at once one is the first each time. The more there are, the more step back.
            lost += 1
            if lost > 1:  # Not after the first, which has read all that there is.
                quickest = min(quickest, time.monotonic() - began)
                longest = quickest * min(2**lost, _PAUSES)
                time.sleep(random.uniform(0, longest))  # noqa: S311 - nobody is to be fooled
            continue
        publish_move(registry, moved)
        if offer.rebased is not None:
            write_witness(registry, moved.release)
        return replace(
            promotion,
            release=moved.release,
            promoted=True,
            revision=moved.revision,
            forced=foreign,
        )


def _look(uow: UnitOfWork, reference: str, name: str, *, overwrite: bool) -> _Look:
    release, channel = uow.release(reference), uow.channel(name)
    stale: list[StaleTask] = []
    related = True
    if channel is not None and not overwrite and channel.release is not release:
        stale, related = _stale_tasks(uow, channel, release)
    return _Look(
        release=release.number,
        digest=release.digest,
        serving=channel.release.number if channel else None,
        serving_digest=channel.release.digest if channel else None,
        revision=channel.revision if channel else None,
        stale=stale,
        related=related,
    )


def _offer(
    registry: Registry,
    look: _Look,
    channel: str,
    *,
    rebase: bool,
    force: bool,
    checked: Checked,
    progress: Progress,
) -> _Offer:
    """The release as it is, or where the channel has moved, its change onto what is served."""
    if not look.stale or look.serving is None:
        return _Offer(number=look.release, digest=look.digest)
    if not rebase and not force:
        raise StaleReleaseError(look, channel)
    if not rebase:
        return _Offer(number=look.release, digest=look.digest, forced=True)
    rebased = _rebased(registry, look.release, look.serving, checked, progress)
    return _Offer(number=rebased.release, digest=rebased.digest, rebased=rebased)


def _foreign(
    registry: Registry,
    channel: str,
    look: _Look,
    offer: _Offer,
    policy: ChannelPolicy | None,
    *,
    force: bool,
) -> dict[str, str]:
    """As :func:`registry.owners.check`, against what the channel served when it was looked at."""
    if look.serving is None:
        return {}
    with registry.read() as uow:
        if offer.rebased is not None:
            tasks = [change.task for change in offer.rebased.changes]
        else:
            before, after = (uow.release(str(n)) for n in (look.serving, offer.number))
            tasks = owners.changed(uow, before, after)
        return owners.check_tasks(uow, channel, tasks, policy, force=force)


def _release(uow: UnitOfWork, offer: _Offer) -> Release:
    """The release to serve, published now if it is not yet."""
    if offer.rebased is None:
        return uow.release(str(offer.number))
    return releases.record(uow, offer.rebased)[0]


def _stale_tasks(
    uow: UnitOfWork, channel: Channel, candidate: Release
) -> tuple[list[StaleTask], bool]:
    """The tasks that a candidate would undo, and whether both stand on a common release."""
    compositions = uow.compositions()
    withdrawn = lineage.withdrawn_releases(moves_of(uow, channel.name))
    mine = lineage.ancestry(candidate.number, compositions)
    # As it was when it was moved there; it may have been composed anew since.
    arrived = uow.session.get_one(ChannelMove, (channel.name, channel.revision)).composition
    theirs = lineage.ancestry(channel.release.number, compositions, arrived)
    shared = lineage.common_ancestor(mine, theirs)

    def tasks_of(ancestor: lineage.Ancestor) -> dict[str, ReleasedVersion]:
        return uow.released_versions(uow.release(str(ancestor.release)))

    stale = lineage.stale_tasks(
        uow.released_versions(candidate),
        uow.released_versions(channel.release),
        None if shared is None else tasks_of(mine[shared]),
        [tasks_of(ancestor) for ancestor in mine[1:shared] if ancestor.release in withdrawn],
    )
    return stale, shared is not None


def _rebased(
    registry: Registry, number: int, serving: int, checked: Checked, progress: Progress
) -> Composition:
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
        after = uow.released_versions(release)
        before, there = (uow.released_versions(r) for r in (base, onto))
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
        replace=[f"{task}@{after[task].number}" for task in added],
        settled={task: after[task].precision for task in added},
        remove=sorted((changed - after.keys()) & there.keys()),
        checked=checked,
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
    checked: Checked,
    progress: Progress,
) -> list[Gate]:
    manifest = (
        offer.rebased.manifest if offer.rebased else read_manifest(offer.digest, registry.store)
    )
    with registry.read() as uow:
        serving = uow.release(str(look.serving)) if look.serving else None
        before = _versions(uow, uow.tasks_of(serving), serving.number) if serving else {}
        if offer.rebased is None:
            after = _versions(uow, uow.tasks_of(uow.release(str(offer.number))), look.release)
        else:
            changed = {change.task for change in offer.rebased.changes}
            held = {
                task: (
                    uow.version(task, VersionNumber.parse(number)),
                    manifest.tasks[task].precision,
                )
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
        size=_size(manifest, checked) if policy.max_size is not None else None,
        channels=channels,
        parity=_parity(manifest, checked, progress) if policy.parity else None,
        unsigned=_unsigned(registry, offer, policy.signed_by) if policy.signed_by else None,
    )
    return evaluate(policy, candidate, before, registry.actor, accept_redefined=accept_redefined)


def _versions(
    uow: UnitOfWork, held: Mapping[str, tuple[TaskVersion, Precision]], release: int
) -> dict[str, Version]:
    """What the gates see of a release's tasks; ``release`` is one that holds them."""
    return {
        task: Version(
            number=str(version.number)
            if precision == Precision.FP32
            else f"{version.number} {precision}",
            digest=version.digest,
            contract=version.contract,
            precision=precision,
            release=release,
            reported=version.metrics,
            measured=tuple(
                Measure(metrics=row.metrics, data=row.data, examples=row.examples)
                for row in of_version(uow, version)
                if row.precision == precision and row.counts
            ),
        )
        for task, (version, precision) in held.items()
    }


def _size(manifest: ReleaseManifest, checked: Checked) -> int:
    return sum(checked.size(digest) for digest in manifest.files().values())


def _parity(manifest: ReleaseManifest, checked: Checked, progress: Progress) -> str | None:
    try:
        proven(manifest, manifest.tasks, checked, progress)
    except VerificationError as error:
        return str(error)
    return None


def _unsigned(registry: Registry, offer: _Offer, keys: list[SigningKey]) -> str | None:
    from centra.releases.signing import PublicKey
    from registry.signatures import signed_by

    if offer.number is None:
        return "not signed: it is not published"
    public = [PublicKey(name=key.name, pem=key.pem) for key in keys]
    return signed_by(registry, str(offer.number), public)
