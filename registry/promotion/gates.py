"""Asking the gates of a channel's policy: what they need to know of the offer and of what is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from centra.errors import VerificationError
from centra.formats.identities import VersionNumber
from centra.releases.find import read_manifest
from centra.releases.parity import check_parity_once
from registry.database.models import ChannelMove, Release
from registry.evaluations import of_version
from registry.rules.gates import Candidate, Gate, GatedTask, Measurement, evaluate_gates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.precision import Precision
    from centra.progress import Progress
    from centra.releases.verified import VerifiedBlobs
    from registry.connection import Registry
    from registry.database.models import TaskVersion
    from registry.database.unit_of_work import UnitOfWork
    from registry.promotion.rebasing import Offer
    from registry.promotion.stale import Situation
    from registry.rules.policy import ChannelPolicy, SigningKey

__all__ = ["ask_gates"]


def ask_gates(
    registry: Registry,
    policy: ChannelPolicy,
    situation: Situation,
    offer: Offer,
    *,
    accept_redefined: bool,
    verified: VerifiedBlobs,
    progress: Progress,
) -> list[Gate]:
    """Every gate of a channel for what it is offered."""
    manifest = (
        offer.rebased.manifest if offer.rebased else read_manifest(offer.digest, registry.store)
    )
    with registry.read() as uow:
        # They are large, and asked for by few policies.
        outcomes = policy.drop_fails_when != "large"
        before = _served_tasks(uow, situation, outcomes=outcomes)
        tasks = _offered_tasks(uow, situation, offer, manifest, before, outcomes=outcomes)
        served = select(ChannelMove.channel).join(Release, ChannelMove.release_id == Release.id)
        channels = frozenset(uow.session.scalars(served.where(Release.digest == offer.digest)))
    candidate = Candidate(
        tasks=tasks,
        layers=manifest.account,
        size=_size(manifest, verified) if policy.max_size is not None else None,
        channels=channels,
        parity=_parity_fault(manifest, verified, progress) if policy.parity else None,
        unsigned=_signature_fault(registry, offer, policy.signed_by) if policy.signed_by else None,
    )
    return evaluate_gates(
        policy, candidate, before, registry.actor, accept_redefined=accept_redefined
    )


def _served_tasks(uow: UnitOfWork, situation: Situation, *, outcomes: bool) -> dict[str, GatedTask]:
    if not situation.serving:
        return {}
    release = uow.release(str(situation.serving))
    return _gated(uow, uow.tasks_of(release), release.number, outcomes=outcomes)


def _offered_tasks(
    uow: UnitOfWork,
    situation: Situation,
    offer: Offer,
    manifest: ReleaseManifest,
    before: Mapping[str, GatedTask],
    *,
    outcomes: bool,
) -> dict[str, GatedTask]:
    if offer.rebased is None:
        release = uow.release(str(offer.number))
        return _gated(uow, uow.tasks_of(release), situation.release, outcomes=outcomes)
    changed = {change.task for change in offer.rebased.changes}
    versions = {
        task: (uow.version(task, VersionNumber.parse(number)), manifest.tasks[task].precision)
        for task, number in offer.rebased.tasks.items()
        if task in changed
    }
    kept = {task: before[task] for task in offer.rebased.tasks.keys() - changed}
    return kept | _gated(uow, versions, situation.release, outcomes=outcomes)


def _gated(
    uow: UnitOfWork,
    versions: Mapping[str, tuple[TaskVersion, Precision]],
    release: int,
    *,
    outcomes: bool,
) -> dict[str, GatedTask]:
    """What the gates see of a release's tasks; ``release`` is one that holds them."""
    return {
        task: GatedTask(
            number=str(version.number),
            digest=version.digest,
            contract=version.contract,
            precision=precision,
            release=release,
            reported=version.metrics,
            measured=tuple(
                Measurement(
                    metrics=row.metrics,
                    data=row.data,
                    examples=row.examples,
                    outcomes=row.outcomes,
                )
                for row in of_version(uow, version, outcomes=outcomes)
                if row.precision == precision and row.counts
            ),
        )
        for task, (version, precision) in versions.items()
    }


def _size(manifest: ReleaseManifest, verified: VerifiedBlobs) -> int:
    return sum(verified.size(digest) for digest in manifest.files().values())


def _parity_fault(
    manifest: ReleaseManifest, verified: VerifiedBlobs, progress: Progress
) -> str | None:
    """Why parity fails; None where it holds."""
    try:
        check_parity_once(manifest, manifest.tasks, verified, progress)
    except VerificationError as error:
        return str(error)
    return None


def _signature_fault(registry: Registry, offer: Offer, keys: list[SigningKey]) -> str | None:
    """Why the release does not count as signed; None where it does."""
    from centra.releases.keys import PublicKey
    from registry.signatures import signed_by

    if offer.number is None:
        return "not signed: it is not published"
    public = [PublicKey(name=key.name, pem=key.pem) for key in keys]
    return signed_by(registry, str(offer.number), public)
