"""Registering backbones, and closing and opening them to new modules."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from centra.errors import ConflictError, UsageError
from centra.formats.names import parse_name
from centra.progress import Progress, silent
from registry.backbones.reading import BackboneRow, backbone_row, backbone_use
from registry.database.models import Backbone
from registry.rules.lifecycle import BackboneState
from registry.rules.replay import backbone_content
from registry.storage.claims import Claim

if TYPE_CHECKING:
    from pathlib import Path

    from centra.formats.backbone import BackboneSpec
    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork

__all__ = ["BackboneOutcome", "add_backbone", "register", "restore", "retire"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BackboneOutcome:
    """What a change of a backbone led to."""

    backbone: BackboneRow
    """As it is now."""
    changed: bool
    """False where the registry said so already."""


def register(
    registry: Registry,
    name: str,
    source: str | Path,
    *,
    revision: str | None = None,
    progress: Progress = silent,
) -> BackboneOutcome:
    """Import a transformers encoder as the next version of a backbone.

    Args:
        registry: where.
        name: e.g. ``minilm``.
        source, revision, progress: see :func:`centra.checkpoints.backbone.import_backbone`.

    Returns:
        The backbone; unchanged where the same weights and tokenizer are registered already, under
        whatever name.

    Raises:
        InvalidNameError: the name is not acceptable.
        NotFoundError, FormatError, IncompatibleError: the source cannot be used.
        ConflictError: the same weights are registered and retired.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    from centra.checkpoints.backbone import import_backbone

    parse_name(name, "backbone name")
    source, since = str(source), time.monotonic()
    registry.check_store()  # What cannot be used must show before the long work does.
    with Claim(registry) as claim:
        imported = import_backbone(source, claim, revision=revision, progress=progress)
        with claim.write() as uow:
            known = uow.backbone_by_digest(imported.digest)
            if known is not None:
                if known.state == BackboneState.RETIRED:
                    raise ConflictError(
                        f"these weights are backbone {known.reference}, which is retired",
                        code="backbone-retired",
                        backbone=known.reference,
                    )
                return BackboneOutcome(backbone=backbone_row(known), changed=False)
            origin = f"{source}@{revision}" if revision else source
            row = backbone_row(add_backbone(uow, name, imported, source=origin))
    _log.info("registered backbone %s in %.1f s", row.reference, time.monotonic() - since)
    return BackboneOutcome(backbone=row, changed=True)


def add_backbone(uow: UnitOfWork, name: str, spec: BackboneSpec, *, source: str) -> Backbone:
    """Write a backbone whose blobs are stored, and that is not known yet, as its name's next version.

    Args:
        uow: the transaction that it becomes part of.
        name: its checked name.
        spec: what ``backbone.json`` says.
        source: where it comes from, for people.
    """
    newest = uow.session.scalar(select(func.max(Backbone.version)).where(Backbone.name == name))
    backbone = Backbone(
        name=name,
        version=(newest or 0) + 1,
        digest=spec.digest,
        family=spec.family,
        num_layers=spec.num_layers,
        hidden_size=spec.hidden_size,
        max_length=spec.max_length,
        source=source,
        created_at=uow.now,
        created_by=str(uow.actor),
    )
    uow.session.add(backbone)
    uow.record(
        "backbone:register",
        name,
        {
            "version": backbone.version,
            "digest": backbone.digest,
            "content": backbone_content(backbone),
        },
    )
    uow.session.flush()
    return backbone


def retire(registry: Registry, reference: str) -> BackboneOutcome:
    """Close a backbone to new modules; its bytes and the releases on it stay.

    Args:
        registry: where.
        reference: ``name@version``.

    Returns:
        The backbone; unchanged where it was retired before.

    Raises:
        UsageError: the reference has no version.
        NotFoundError: there is no such backbone.
        ConflictError: an active task or a channel still uses it; each is named.
        DatabaseError: the registry cannot be used.
    """
    with registry.write() as uow:
        backbone = uow.backbone(_with_version(reference))
        use = backbone_use(uow, backbone)
        if use.tasks or use.channels:
            users = [f"task {task}@{version}" for task, version in use.tasks.items()]
            users += [f"channel {name} (release {n})" for name, n in use.channels.items()]
            raise ConflictError(
                f"{reference} is in use by {', '.join(users)}; move these first",
                code="backbone-in-use",
                backbone=reference,
                users=users,
            )
        outcome = _set_state(uow, backbone, BackboneState.RETIRED)
    _log_change(outcome, "retired")
    return outcome


def restore(registry: Registry, reference: str) -> BackboneOutcome:
    """Open a retired backbone to new modules again.

    Args:
        registry: where.
        reference: ``name@version``.

    Raises:
        UsageError: the reference has no version.
        NotFoundError: there is no such backbone.
        DatabaseError: the registry cannot be used.
    """
    with registry.write() as uow:
        outcome = _set_state(uow, uow.backbone(_with_version(reference)), BackboneState.ACTIVE)
    _log_change(outcome, "restored")
    return outcome


def _log_change(outcome: BackboneOutcome, done: str) -> None:
    if outcome.changed:
        _log.info("%s backbone %s", done, outcome.backbone.reference)


def _with_version(reference: str) -> str:
    if "@" not in reference:
        raise UsageError(f"say which version: {reference}@VERSION", code="version-missing")
    return reference


def _set_state(uow: UnitOfWork, backbone: Backbone, state: BackboneState) -> BackboneOutcome:
    changed = backbone.state != state
    if changed:
        backbone.state = state
        verb = "retire" if state == BackboneState.RETIRED else "restore"
        uow.record(f"backbone:{verb}", backbone.name, {"version": backbone.version})
        uow.session.flush()
    return BackboneOutcome(backbone=backbone_row(backbone), changed=changed)
