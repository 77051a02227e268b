"""Composing a release: the live set, or another release with some tasks replaced or left out.

:func:`compose` reads straight down: which versions, merged and checked, parity of what was not
checked before, precisions, and where it is asked for the folder and the publication.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from centra.errors import ConflictError, NotFoundError, UsageError
from centra.formats.names import distinct_names, parse_task_reference
from centra.formats.precision import Precision
from centra.progress import Progress, Remark, silent, unheard
from centra.releases.compose import ComposeError, merge
from centra.releases.parity import check_parity_once
from centra.releases.verified import VerifiedBlobs
from registry import policies
from registry.releases.changes import list_changes, released_versions
from registry.releases.composition import Composition
from registry.releases.precisions import plan_int8_trial
from registry.releases.publishing import publish_composition
from registry.rules.channels import LATEST

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from centra.data.source import DataSource
    from centra.formats.identities import Digest
    from centra.formats.manifest import ReleaseManifest
    from centra.releases.int8 import Int8Comparison
    from registry.connection import Registry
    from registry.database.models import Release, TaskVersion
    from registry.database.unit_of_work import UnitOfWork
    from registry.rules.released_version import ReleasedVersion

__all__ = ["compose"]

_log = logging.getLogger(__name__)

_ATTEMPTS = 8
"""How often the live set is composed anew because it has changed meanwhile."""


@dataclass(frozen=True, kw_only=True)
class _Selection:
    """Which versions to compose, and what to compare them with, as of one moment."""

    base: int | None
    """The release to compare with."""
    before: dict[str, ReleasedVersion]
    """What that release holds."""
    live: bool
    modules: dict[str, Digest]
    """Per task the digest of its module."""
    numbers: dict[str, str]
    """Per task the number of its version."""
    ids: dict[str, tuple[int, int]]
    unchecked: list[str]
    """The tasks whose parity was never checked."""
    allow_two_backbones: bool
    """Whether the policy does."""


def compose(
    registry: Registry,
    *,
    base: str | None = None,
    replace: str | Sequence[str] = (),
    remove: str | Sequence[str] = (),
    publish: bool = False,
    folder: str | Path | None = None,
    allow_two_backbones: bool = False,
    precision: Precision | str | None = None,
    data: Mapping[str, str | Path | DataSource] = MappingProxyType({}),
    max_loss: float | None = None,
    decided_precisions: Mapping[str, Precision] = MappingProxyType({}),
    verified: VerifiedBlobs | None = None,
    progress: Progress = silent,
    remark: Remark = unheard,
) -> Composition:
    """Merge the live set, or a release with some tasks replaced, and publish it if asked.

    The channel ``latest`` moves to the live set's releases alone. One that starts from another
    release, or that ``replace`` and ``remove`` make another set, goes where it is promoted to.
    Where the live set or ``latest`` has changed meanwhile, the newest is composed instead: ``latest``
    never goes back to what the live set was.

    A task keeps the precision that it has in the release to compare with, and one that is not there
    is in fp32, unless another is asked for. A module goes to int8 only if its answers stay what they
    are in fp32: see :func:`centra.releases.int8.compare_int8`. Otherwise its task is in fp32.

    Args:
        registry: where.
        base: a release to start from, instead of the live set: number, channel or digest.
        replace: versions to put in, ``name@major.minor``, whatever the live set says.
        remove: tasks to leave out.
        publish: make it a release; otherwise this is a plan.
        folder: also write it as a folder, before it is published.
        allow_two_backbones: see :func:`centra.releases.compose.merge`; the policy may allow it too.
        precision: of the tasks that ``replace`` names, or of all where it names none.
        data: what to hold answers in int8 against, per task: see
            :func:`centra.data.labelling.read_for`.
        max_loss: the most points that a task's metric may fall by going to int8.
        decided_precisions: of tasks that need not be compared for them again.
        verified: what was hashed and run before, and need not be again.
        progress: told of each step.
        remark: told what the data's labels were taken for.

    Returns:
        What the release holds and how it differs from ``base``, or from ``latest`` without one.
        The same set of modules is the same release: publishing it again makes no new one.

    Raises:
        UsageError: nothing to compose, a malformed reference, a task that is named twice, an unknown
            precision, data for a task that is not compared, or there is one to compare and no onnx
            engine.
        NotFoundError: no such base, task or version.
        DataError: data is missing or malformed, or does not suit its task.
        ComposeError: the set cannot be merged, or parity failed; task and cause are named.
        FormatError: the folder holds something that is no release.
        ConflictError: the live set keeps changing.
        UnpublishedError: the release is published and ``latest`` moved, but its pointer could not
            be written.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    replace = [replace] if isinstance(replace, str) else replace
    remove = distinct_names(remove)
    precision = None if precision is None else _parse_precision(precision)
    if publish:
        registry.check_store()
    verified = verified or VerifiedBlobs(registry.store)
    began = time.monotonic()
    for _ in range(_ATTEMPTS):
        selection = _select(registry, base, replace, remove)
        trial = plan_int8_trial(
            registry,
            selection.modules,
            selection.before,
            requested=precision,
            requested_for=_named(replace) or selection.modules.keys(),
            decided=decided_precisions,
            data=data,
            progress=progress,
            remark=remark,
        )
        with _offering_to_leave_out_a_task(selection.modules):
            manifest = merge(
                selection.modules,
                registry.store,
                allow_two_backbones=allow_two_backbones or selection.allow_two_backbones,
                verified=verified,
                progress=progress,
            )
            parity = check_parity_once(manifest, selection.unchecked, verified, progress)
        manifest, comparisons = trial.settle(manifest, max_loss=max_loss, progress=progress)
        composition = _describe(registry, selection, manifest, parity, comparisons)
        _log.info(
            "composed %d tasks (sha256:%s) in %.2f s",
            len(composition.tasks),
            composition.digest,
            time.monotonic() - began,
        )
        if folder is not None:
            _write(registry, manifest, Path(folder), progress)
        published = publish_composition(registry, composition) if publish else composition
        if published is not None:
            return published
    raise ConflictError(
        f"the live set, or what {LATEST!r} serves, has changed {_ATTEMPTS} times while it was "
        "composed; nothing was published. Try again when fewer tasks change.",
        code="live-set-changing",
    )


def _select(
    registry: Registry, base: str | None, replace: Sequence[str], remove: Sequence[str]
) -> _Selection:
    with registry.read() as uow:
        start, versions = _resolve(uow, base, replace, remove)
        ids = {name: (version.task_id, version.id) for name, version in versions.items()}
        checked = uow.with_checked_parity(versions.values())
        return _Selection(
            base=start.number if start else None,
            before=uow.released_versions(start) if start else {},
            live=base is None and versions == uow.live(),
            modules={name: version.digest for name, version in versions.items()},
            numbers={name: str(version.number) for name, version in versions.items()},
            ids=ids,
            unchecked=[name for name, (_, version) in ids.items() if version not in checked],
            allow_two_backbones=policies.in_force(uow)[1].compose.allow_two_backbones,
        )


def _resolve(
    uow: UnitOfWork, base: str | None, replace: Sequence[str], remove: Sequence[str]
) -> tuple[Release | None, dict[str, TaskVersion]]:
    """The release to compare with, and the version of each task to compose."""
    if base is not None:
        start: Release | None = uow.release(base)
        versions = uow.versions_of(uow.release(base))
    else:
        latest = uow.channel(LATEST)
        start = latest.release if latest else None
        versions = uow.live()
    replaced = set()
    for reference in replace:
        name, number = parse_task_reference(reference)
        if number is None:
            raise UsageError(
                f"say which version of {name}: {name}@MAJOR.MINOR", code="no-version", task=name
            )
        if name in replaced:
            raise UsageError(f"task {name} is to be two versions; name one", task=name)
        replaced.add(name)
        versions[name] = uow.version(name, number)
    for task in remove:
        if task in replaced:
            raise UsageError(f"task {task} is to be put in and left out; decide on one", task=task)
        if task not in versions:
            raise NotFoundError(
                f"there is no task {task!r} to leave out: it is not in the set", task=task
            )
        del versions[task]
    return start, versions


def _named(references: Sequence[str]) -> set[str]:
    """The tasks of references to their versions."""
    return {parse_task_reference(reference)[0] for reference in references}


def _parse_precision(text: str) -> Precision:
    try:
        return Precision(text)
    except ValueError as error:
        known = ", ".join(Precision)
        raise UsageError(
            f"unknown precision {text!r}; expected one of {known}", code="unknown-precision"
        ) from error


@contextmanager
def _offering_to_leave_out_a_task(tasks: Collection[str]) -> Iterator[None]:
    """Where one task cannot be composed and there are others, say that they can without it."""
    try:
        yield
    except ComposeError as error:
        if len(tasks) == 1:
            raise
        cause = f"{error.cause.rstrip('.')}. The other tasks can be released without it"
        raise ComposeError(error.task, cause, code="separable") from error


def _describe(
    registry: Registry,
    selection: _Selection,
    manifest: ReleaseManifest,
    parity: dict[str, float],
    comparisons: list[Int8Comparison],
) -> Composition:
    with registry.read() as uow:
        release = uow.release_by_digest(manifest.digest)
        number = release.number if release else None
    return Composition(
        release=number,
        digest=manifest.digest,
        published=False,
        base=selection.base,
        changes=list_changes(selection.before, released_versions(selection.numbers, manifest)),
        layers=manifest.account,
        tasks=selection.numbers,
        manifest=manifest,
        parity=parity,
        int8=comparisons,
        live=selection.live,
        ids=selection.ids,
    )


def _write(registry: Registry, manifest: ReleaseManifest, folder: Path, progress: Progress) -> None:
    from centra.releases.folder_writing import write_folder

    write_folder(manifest, registry.store, folder, progress)
