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
from registry.channels import advance, check_movable, moves_of, publish_pointer
from registry.evaluations import of_version
from registry.models import ChannelMove
from registry.policy import Candidate, ChannelPolicy, Gate, Measure, Version, evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.release import ReleaseManifest
    from registry.connection import Registry
    from registry.lineage import Moved
    from registry.models import Channel, Release
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

    def __init__(self, promotion: Promotion) -> None:
        failed = [gate for gate in promotion.gates if not gate.passed]
        lines = "\n".join(
            f"  {gate.gate}{f' of {gate.task}' if gate.task else ''}: "
            f"wanted {gate.wanted}, found {gate.found}"
            for gate in failed
        )
        super().__init__(
            f"release {promotion.release} may not go to {promotion.channel}: {len(failed)} of "
            f"{len(promotion.gates)} gates failed\n{lines}"
        )
        self.promotion = promotion


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What a promotion led to, or would lead to."""

    channel: str
    release: int
    """The release that the channel serves now, or would serve."""
    rebased_from: int | None
    """The release that was asked for, where its change was taken onto what is served."""
    before: int | None
    """The release that was served before."""
    revision: int | None
    """The channel's, after the move; None where there is no channel yet."""
    promoted: bool
    """False where it was served already, or for a dry run."""
    gates: list[Gate]


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What a promotion sees at one moment."""

    release: int
    digest: str
    serving: int | None
    revision: int | None
    moved: list[Moved]
    candidate: dict[str, Version]
    before: dict[str, Version]
    channels: frozenset[str]


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
            own change onto what the channel serves, and promote that.
        dry_run: decide, but change nothing.
        progress: told of each step.

    Returns:
        What the channel serves now, with every gate.

    Raises:
        InvalidNameError, UsageError: the channel's name or the policy is malformed.
        NotFoundError: there is no such release.
        StaleReleaseError: tasks have moved on the channel, and ``rebase`` was not given.
        ConflictError: the change cannot be rebased, because the same task has moved.
        GateError: a gate is not met; nothing has moved.
        ComposeError, StoreError, StoreNotWritableError, DatabaseError: it cannot be carried out.
    """
    check_movable(channel)
    policy = registry.policy.channels.get(channel)
    wanted: int | None = None
    for _ in range(_ATTEMPTS):
        with registry.read() as uow:
            look = _look(uow, reference, channel, overwrite=policy is not None and policy.overwrite)
        if look.serving == look.release:
            if not dry_run:
                publish_pointer(registry, channel)
            return _promotion(look, channel, wanted, [], promoted=False)
        if look.moved:
            if not rebase or dry_run or look.serving is None:
                raise StaleReleaseError(look.release, channel, look.serving or 0, look.moved)
            wanted = look.release if wanted is None else wanted
            reference = str(_rebased(registry, str(wanted), look.serving, progress))
            continue
        gates = (
            []
            if policy is None
            else _gates(
                registry, policy, look, accept_redefined=accept_redefined, progress=progress
            )
        )
        promotion = _promotion(look, channel, wanted, gates, promoted=False)
        if not all(gate.passed for gate in gates):
            raise GateError(promotion)
        if dry_run:
            return promotion
        with registry.write() as uow:
            row = uow.channel(channel)
            if (row.revision if row else None) != look.revision:
                continue
            row, _ = advance(uow, channel, uow.release(str(look.release)), "promote")
            revision = row.revision
        publish_pointer(registry, channel)
        return replace(promotion, promoted=True, revision=revision)
    raise ConflictError(f"{channel} keeps moving: gave up after {_ATTEMPTS} attempts; try again")


def _look(uow: UnitOfWork, reference: str, name: str, *, overwrite: bool) -> _Look:
    release, channel = uow.release(reference), uow.channel(name)
    serving = channel.release if channel else None
    here = uow.held(release)
    there = uow.held(serving) if serving else {}
    moved: list[Moved] = []
    if channel is not None and not overwrite:
        moved = _moved(uow, channel, release.number, _numbers(here), _numbers(there))
    served = select(ChannelMove.channel).where(ChannelMove.release_id == release.id)
    return _Look(
        release=release.number,
        digest=release.digest,
        serving=serving.number if serving else None,
        revision=channel.revision if channel else None,
        moved=moved,
        candidate=_versions(uow, release, here),
        before=_versions(uow, serving, there) if serving else {},
        channels=frozenset(uow.session.scalars(served)),
    )


def _moved(
    uow: UnitOfWork,
    channel: Channel,
    candidate: int,
    here: dict[str, str],
    there: dict[str, str],
) -> list[Moved]:
    """The tasks that a candidate would undo; ``here`` are its versions, ``there`` those served."""
    compositions = uow.compositions()
    gone = lineage.withdrawn(moves_of(uow, channel.name))
    mine = lineage.chain(candidate, compositions)
    # As it was when it was moved there; it may have been composed anew since.
    theirs = lineage.chain(channel.release.number, compositions, channel.moved_at)
    shared = lineage.fork(mine, theirs)

    def held(made: lineage.Made) -> dict[str, str]:
        return _numbers(uow.held(uow.release(str(made.release))))

    return lineage.moved(
        here,
        there,
        None if shared is None else held(mine[shared]),
        [held(made) for made in mine[1:shared] if made.release in gone],
    )


def _numbers(held: Mapping[str, Held]) -> dict[str, str]:
    """What tells a task from itself in another release: its version, and its precision."""
    return {task: str(version) for task, version in held.items()}


def _versions(uow: UnitOfWork, release: Release, held: Mapping[str, Held]) -> dict[str, Version]:
    return {
        task: Version(
            number=str(held[task]),
            digest=version.digest,
            contract=version.contract,
            precision=held[task].precision,
            reported=version.metrics,
            measured=tuple(
                Measure(metrics=row.metrics, data=row.data)
                for row in of_version(uow, version)
                if row.precision == held[task].precision
            ),
        )
        for task, version in uow.released(release).items()
    }


def _rebased(registry: Registry, reference: str, serving: int, progress: Progress) -> int:
    """Compose a release's own change onto what a channel serves; the new release's number."""
    with registry.read() as uow:
        release = uow.release(reference)
        onto_what = uow.compositions().get(release.number)
        if not onto_what:
            raise ConflictError(
                f"release {release.number} has no base to tell its change from; "
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
            f"release {reference} cannot be taken onto release {serving}: both change {tasks}. "
            "Decide which version is right and compose it anew."
        )
    added = sorted(changed & after.keys())
    rebased = releases.compose(
        registry,
        base=str(serving),
        replace=[f"{task}@{composed[task].number}" for task in added],
        settled={task: composed[task].precision for task in added},
        remove=sorted((changed - after.keys()) & there.keys()),
        publish=True,
        progress=progress,
    )
    return rebased.release or 0


def _gates(
    registry: Registry,
    policy: ChannelPolicy,
    look: _Look,
    *,
    accept_redefined: bool,
    progress: Progress,
) -> list[Gate]:
    manifest = read_manifest(look.digest, registry.store)
    candidate = Candidate(
        number=look.release,
        tasks=look.candidate,
        layers=manifest.account,
        size=_size(registry, manifest) if policy.max_size is not None else None,
        channels=look.channels,
        parity=_parity(registry, manifest, progress) if policy.parity else None,
        unsigned=_unsigned(registry, look, policy.signed_by) if policy.signed_by else None,
    )
    return evaluate(
        policy, candidate, look.before, registry.actor, accept_redefined=accept_redefined
    )


def _size(registry: Registry, manifest: ReleaseManifest) -> int:
    files = manifest.files().values()
    return sum(registry.store.fetch(digest).stat().st_size for digest in files)


def _parity(registry: Registry, manifest: ReleaseManifest, progress: Progress) -> str | None:
    try:
        check_parity(manifest, registry.store, list(manifest.tasks), progress)
    except VerificationError as error:
        return str(error)
    return None


def _unsigned(registry: Registry, look: _Look, keys: list[str]) -> str | None:
    from registry.signatures import signed_by

    return signed_by(registry, str(look.release), [Path(key) for key in keys])


def _promotion(
    look: _Look, channel: str, wanted: int | None, gates: list[Gate], *, promoted: bool
) -> Promotion:
    return Promotion(
        channel=channel,
        release=look.release,
        rebased_from=wanted if wanted != look.release else None,
        before=look.serving,
        revision=look.revision,
        promoted=promoted,
        gates=gates,
    )
