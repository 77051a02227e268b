"""What a channel is offered: the release as it is, or its own change taken onto what is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import ConflictError
from registry.database.models import Release
from registry.promotion.outcome import StaleReleaseError
from registry.releases.composing import compose
from registry.releases.publishing import newest_composition, record_composition

if TYPE_CHECKING:
    from centra.formats.identities import Digest
    from centra.progress import Progress
    from centra.releases.verified import VerifiedBlobs
    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork
    from registry.promotion.stale import Situation
    from registry.releases.composition import Composition

__all__ = ["Offer", "make_offer"]


@dataclass(frozen=True, kw_only=True)
class Offer:
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

    def published_release(self, uow: UnitOfWork) -> Release:
        """The release to serve, published now if it is not yet."""
        if self.rebased is None:
            return uow.release(str(self.number))
        return record_composition(uow, self.rebased)[0]


def make_offer(
    registry: Registry,
    situation: Situation,
    channel: str,
    *,
    rebase: bool,
    force: bool,
    verified: VerifiedBlobs,
    progress: Progress,
) -> Offer:
    """The release as it is, or where the channel has moved, its change onto what is served.

    Raises:
        StaleReleaseError: the channel has moved, and there is neither ``rebase`` nor ``force``.
        ConflictError: the change cannot be rebased.
        ComposeError, StoreError, DatabaseError: it cannot be composed.
    """
    if not situation.stale or situation.serving is None:
        return Offer(number=situation.release, digest=situation.digest)
    if not rebase and not force:
        raise StaleReleaseError(
            channel,
            release=situation.release,
            serving=situation.serving,
            stale=situation.stale,
            related=situation.related,
        )
    if not rebase:
        return Offer(number=situation.release, digest=situation.digest, forced=True)
    rebased = _rebase(registry, situation.release, situation.serving, verified, progress)
    return Offer(number=rebased.release, digest=rebased.digest, rebased=rebased)


def _rebase(
    registry: Registry, number: int, serving: int, verified: VerifiedBlobs, progress: Progress
) -> Composition:
    """A release's own change, composed onto what a channel serves, and not published."""
    with registry.read() as uow:
        release = uow.release(str(number))
        composition = newest_composition(uow, release)
        if composition is None:
            raise ConflictError(
                f"release {number} has no base to tell its change from",
                code="no-base",
                release=number,
                serving=serving,
            )
        base, onto = uow.session.get_one(Release, composition.base_id), uow.release(str(serving))
        before, after, served = (uow.released_versions(r) for r in (base, release, onto))
    changed = {t for t in before.keys() | after.keys() if before.get(t) != after.get(t)}
    both = sorted(t for t in changed if served.get(t) not in (before.get(t), after.get(t)))
    if both:
        tasks = ", ".join(f"{t} (served: {served.get(t, 'removed')})" for t in both)
        raise ConflictError(
            f"release {number} cannot be taken onto release {serving}: both change {tasks}. "
            "Decide which version is right and compose it anew.",
            code="both-changed",
            release=number,
            serving=serving,
            tasks=both,
        )
    put_in = sorted(changed & after.keys())
    return compose(
        registry,
        base=str(serving),
        replace=[f"{task}@{after[task].number}" for task in put_in],
        decided_precisions={task: after[task].precision for task in put_in},
        remove=sorted((changed - after.keys()) & served.keys()),
        verified=verified,
        progress=progress,
    )
