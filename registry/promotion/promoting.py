"""Promoting a release to a channel: look, decide, and swap if nothing has changed meanwhile.

A promotion looks at the channel and at the release, decides, and swaps only if the channel still has
the revision that it looked at; otherwise somebody else was faster, and it looks again, reading only
what is new to it. What it refuses and why is decided in :mod:`registry.rules.lineage` and
:mod:`registry.rules.gates`, on plain values.
"""

from __future__ import annotations

import logging
import math
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from centra.errors import ConflictError
from centra.progress import Progress, silent
from centra.releases.verified import VerifiedBlobs
from registry import owners, policies
from registry.audit import write_witness
from registry.channels.moving import record_move
from registry.channels.pointers import check_publishable, publish_move, publish_pointer
from registry.channels.reading import channel_row
from registry.channels.revisions import already_made, revision_conflict
from registry.promotion.gates import ask_gates
from registry.promotion.outcome import GateError, Promotion
from registry.promotion.rebasing import make_offer
from registry.promotion.stale import look
from registry.rules.channels import check_movable
from registry.rules.lineage import MoveKind
from registry.storage.claims import storing

if TYPE_CHECKING:
    from registry.channels.reading import ChannelRow
    from registry.connection import Registry
    from registry.promotion.rebasing import Offer
    from registry.promotion.stale import Situation
    from registry.rules.gates import Gate
    from registry.rules.policy import ChannelPolicy

__all__ = ["promote"]

_log = logging.getLogger(__name__)

_PAUSES = 8
"""How many times its quickest attempt a promotion waits at most before it looks again."""


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
            :func:`registry.channels.revisions.already_made`.
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
    verified, backoff, publishable = VerifiedBlobs(registry.store), _Backoff(), False
    while True:
        backoff.begin()
        with registry.read() as uow:
            version, policy = policies.of_channel(registry, uow, channel)
            situation = look(
                uow, reference, channel, overwrite=policy is not None and policy.overwrite
            )
            made = already_made(uow, channel, MoveKind.PROMOTE, expect)
            refusal = revision_conflict(uow.channel(channel), channel, expect) if made else None
        reference = str(situation.release)  # A channel's name may come to mean another.
        try:
            offer = make_offer(
                registry,
                situation,
                channel,
                rebase=rebase,
                force=force,
                verified=verified,
                progress=progress,
            )
        except ConflictError as error:
            if refusal is None:
                raise
            raise refusal from error
        unchanged = offer.digest == situation.serving_digest
        if refusal and not unchanged:
            raise refusal
        foreign = _foreign_tasks(registry, channel, situation, offer, policy, force=force)
        gates: list[Gate] = []
        if policy is not None and not unchanged:
            gates = ask_gates(
                registry,
                policy,
                situation,
                offer,
                accept_redefined=accept_redefined,
                verified=verified,
                progress=progress,
            )
        promotion = Promotion(
            channel=channel,
            release=situation.serving if unchanged else offer.number,
            rebased_from=situation.release if offer.rebased else None,
            before=situation.serving,
            revision=situation.revision,
            promoted=False,
            unchanged=unchanged,
            gates=gates,
            forced=foreign,
        )
        if not all(gate.passed for gate in gates):
            raise GateError(promotion, offer.rebased if offer.number is None else None)
        if unchanged and not dry_run:
            publish_pointer(registry, channel)
        if unchanged or dry_run:
            return promotion
        if not publishable:
            check_publishable(registry, channel)
            publishable = True
        # The gates were those of what was served then, and of the policy that was in force.
        swapped = _swap(
            registry, channel, situation, offer, version=version, policy=policy, force=force
        )
        if swapped is None:
            backoff.wait()
            continue
        row, foreign = swapped
        publish_move(registry, row)
        if offer.rebased is not None:
            write_witness(registry, row.release)
        _log.info(
            "promoted release %d (sha256:%s) to %s in %.2f s",
            row.release,
            row.digest,
            channel,
            backoff.seconds,
        )
        return replace(
            promotion, release=row.release, promoted=True, revision=row.revision, forced=foreign
        )


def _foreign_tasks(
    registry: Registry,
    channel: str,
    situation: Situation,
    offer: Offer,
    policy: ChannelPolicy | None,
    *,
    force: bool,
) -> dict[str, str]:
    """As :func:`registry.owners.check`, against what the channel served when it was looked at."""
    if situation.serving is None:
        return {}
    with registry.read() as uow:
        if offer.rebased is not None:
            tasks = [change.task for change in offer.rebased.changes]
        else:
            before, after = (uow.release(str(n)) for n in (situation.serving, offer.number))
            tasks = owners.changed_tasks(uow, before, after)
        return owners.check_tasks(uow, channel, tasks, policy, force=force)


def _swap(
    registry: Registry,
    channel: str,
    situation: Situation,
    offer: Offer,
    *,
    version: int | None,
    policy: ChannelPolicy | None,
    force: bool,
) -> tuple[ChannelRow, dict[str, str]] | None:
    """Move the channel, if it and the policy are what they were when they were looked at.

    Returns:
        The channel as it moved, and the tasks that force was needed for; None where somebody else
        was faster.
    """
    with storing(registry, offer.blobs) as uow:
        row = uow.channel(channel)
        if (row.revision if row else None) != situation.revision:
            return None
        if policies.in_force(uow)[0] != version:
            return None
        release = offer.published_release(uow)
        foreign = owners.check(uow, channel, release, policy, force=force)
        row, _ = record_move(
            uow, channel, release, MoveKind.PROMOTE, forced=offer.forced, foreign=foreign
        )
        return channel_row(row), foreign


class _Backoff:
    """How long one who was not the first waits before the next attempt.

    Of many at once one is the first each time. The more there are, the more step back.
    """

    def __init__(self) -> None:
        self._first = self._began = time.monotonic()
        self._lost = 0
        self._quickest = math.inf

    @property
    def seconds(self) -> float:
        """Since the first attempt began."""
        return time.monotonic() - self._first

    def begin(self) -> None:
        """An attempt begins."""
        self._began = time.monotonic()

    def wait(self) -> None:
        """An attempt was lost; no waiting after the first, which has read all that there is."""
        self._lost += 1
        if self._lost > 1:
            self._quickest = min(self._quickest, time.monotonic() - self._began)
            longest = self._quickest * min(2**self._lost, _PAUSES)
            time.sleep(random.uniform(0, longest))  # noqa: S311 - nobody is to be fooled
