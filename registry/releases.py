"""Releases: composing the live set, publishing, comparing, verifying, loading.

Composing reads straight down: resolve which versions, merge and check them, prove parity of what
has not been proven before, then the manifest, one transaction, pointer.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from centra.errors import ConflictError, NotFoundError, UsageError
from centra.formats.identities import Digest, VersionNumber
from centra.formats.manifest import LayerAccount, ReleaseManifest, changes
from centra.formats.names import parse_task_reference
from centra.formats.precision import Precision
from centra.formats.task_module import read_spec
from centra.progress import Progress, Remark, silent, unheard
from centra.releases.compose import Checked, ComposeError, check_parity, merge, proven
from centra.releases.find import find_release, read_manifest
from registry import policies
from registry.audit import write_witness
from registry.channels import (
    LATEST,
    advance,
    channel_row,
    check_publishable,
    publish_move,
    publish_pointer,
)
from registry.database.listing import holds, paged, within
from registry.database.models import Release, ReleaseBase, ReleaseTask
from registry.rules.lineage import MoveKind
from registry.rules.precisions import wishes
from registry.rules.replay import tasks_digest
from registry.storage.claims import storing
from registry.versions import ReleasedVersion, compare_tensors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import centra.runtime
    from centra.data.inputs import Example
    from centra.formats.contract import ContractDifference
    from centra.formats.manifest import TaskEntry, Versioned
    from centra.releases.int8 import Int8Comparison
    from centra.store import BlobReader
    from registry.connection import Registry
    from registry.database.listing import Moment
    from registry.database.models import TaskVersion
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "Change",
    "Composition",
    "ModuleDifference",
    "ReleaseDetail",
    "ReleaseDifference",
    "ReleaseRow",
    "Unchanged",
    "Verification",
    "add",
    "compose",
    "diff",
    "is_address",
    "list_all",
    "load",
    "pull",
    "record",
    "show",
    "verify",
]


_ATTEMPTS = 8
"""How often the live set is composed anew because it has changed meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens to one task between two releases."""

    task: str
    change: str
    """``added``, ``updated``, ``redefined`` or ``removed``."""
    before: str | None
    after: str | None
    precision: tuple[Precision, Precision] | None = None
    """Before and after, where it differs."""


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A set of versions that has been merged and checked, and perhaps published."""

    release: int | None
    """The number of the release that holds exactly this; None before it is published."""
    digest: Digest
    published: bool
    """Whether a new release was made."""
    base: int | None
    changes: list[Change]
    layers: LayerAccount
    tasks: dict[str, str]
    """Per task the version."""
    manifest: ReleaseManifest
    parity: dict[str, float]
    """Per task whose parity was checked now, the largest difference of logits."""
    int8: list[Int8Comparison]
    """Of the tasks whose answers in int8 were held against those in fp32 now."""
    live: bool
    """Whether this is the live set, whose releases ``latest`` follows."""
    ids: dict[str, tuple[int, int]] = field(repr=False)
    """Per task the database's ids of the task and of its version."""


@dataclass(frozen=True, kw_only=True)
class ReleaseRow:
    """A release as listed."""

    number: int
    digest: Digest
    tasks: int
    channels: list[str]
    created_at: datetime
    created_by: str


@dataclass(frozen=True, kw_only=True)
class ReleaseDetail:
    """A release with what it holds."""

    number: int
    digest: Digest
    base: int | None
    channels: list[str]
    tasks: dict[str, str]
    """Per task the version."""
    backbones: dict[str, str]
    """Per digest of a backbone that it holds layers of, its name: ``minilm@1``."""
    layers: LayerAccount
    manifest: ReleaseManifest
    created_at: datetime
    created_by: str


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """A task whose module is the same file in both releases, and the proof that all it reads is."""

    task: str
    version: str
    digest: Digest
    layers: int
    """How many frozen layers it reads, above the embeddings."""
    identical: bool
    """Whether embeddings, tokenizer and each of these layers have the same digest in both."""
    differs: list[str]
    """What has not, where something has not: ``layer 2``."""


@dataclass(frozen=True, kw_only=True)
class ModuleDifference:
    """How a task's modules in two releases differ; before and after, where something does."""

    task: str
    backbone: tuple[str, str] | None
    tap_layer: tuple[int, int] | None
    depth: tuple[int, int] | None
    precision: tuple[Precision, Precision] | None
    contract: ContractDifference
    tensors_changed: list[str]
    """In both with other bytes, or in one alone."""
    tensors_same: int


@dataclass(frozen=True, kw_only=True)
class ReleaseDifference:
    """Two releases side by side."""

    before: int
    after: int
    changes: list[Change]
    modules: list[ModuleDifference]
    """Per changed task that both releases hold."""
    unchanged: list[Unchanged]
    layers_before: LayerAccount
    layers_after: LayerAccount


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A release whose every blob was hashed and every task run on its probe."""

    digest: Digest
    files: int
    size: int
    """Bytes."""
    parity: dict[str, float]
    """Per task the largest difference of logits."""
    int8: list[str]
    """The tasks that the release computes in int8; their parity, too, is that of float32."""
    signed_by: str | None = None
    """The fingerprint of the key, of those asked for, that signed it."""


def compose(
    registry: Registry,
    *,
    base: str | None = None,
    replace: Sequence[str] = (),
    remove: Sequence[str] = (),
    publish: bool = False,
    folder: Path | None = None,
    allow_two_backbones: bool = False,
    precision: Precision | None = None,
    data: Mapping[str, Path] = MappingProxyType({}),
    max_loss: float | None = None,
    settled: Mapping[str, Precision] = MappingProxyType({}),
    checked: Checked | None = None,
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
        data: what to hold answers in int8 against, per task: a JSONL file, or a folder whose
            ``dev.jsonl`` is taken.
        max_loss: the most points that a task's metric may fall by going to int8.
        settled: precisions that were decided before; tasks are not compared for them again.
        checked: what was hashed and run before, and need not be again.
        progress: told of each step.
        remark: told what the data's labels were taken for.

    Returns:
        What the release holds and how it differs from ``base``, or from ``latest`` without one.
        The same set of modules is the same release: publishing it again makes no new one.

    Raises:
        UsageError: nothing to compose, a malformed reference, a task that is named twice, data for
            a task that is not compared, or there is one to compare and no onnx engine.
        NotFoundError: no such base, task or version.
        DataError: data is missing or malformed, or does not suit its task.
        ComposeError: the set cannot be merged, or parity failed; task and cause are named, and how
            the other tasks can be released without it.
        FormatError: the folder holds something that is no release.
        ConflictError: the live set keeps changing.
        UnpublishedError: the release is published and ``latest`` moved, but its pointer could not
            be written.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    if publish:
        registry.check_store()
    checked = checked or Checked(registry.store)
    for _ in range(_ATTEMPTS):
        found = _compose(
            registry,
            base=base,
            replace=replace,
            remove=remove,
            allow_two_backbones=allow_two_backbones,
            precision=precision,
            data=data,
            max_loss=max_loss,
            settled=settled,
            checked=checked,
            progress=progress,
            remark=remark,
        )
        if folder is not None:
            from centra.releases.folder import write_folder

            write_folder(found.manifest, registry.store, folder, progress)
        published = _publish(registry, found) if publish else found
        if published is not None:
            return published
    raise ConflictError(
        f"the live set, or what {LATEST!r} serves, has changed {_ATTEMPTS} times while it was "
        "composed; nothing was published. Repeat the command when fewer tasks change."
    )


def list_all(
    registry: Registry,
    *,
    channel: str | None = None,
    task: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> list[ReleaseRow]:
    """Releases, the newest first.

    Args:
        registry: where.
        channel: keep the release that this channel serves.
        task: keep the releases that hold this task, or this version of it: ``name@major.minor``.
        since, until: keep what was published at ``since`` or later, and before ``until``; times,
            or how long ago.
        limit, offset: give at most so many, after leaving out so many.

    Raises:
        NotFoundError: there is no such channel, task or version.
        UsageError: the task's name, the limit or the offset is not acceptable.
        DatabaseError: the registry cannot be used.
    """
    tasks = select(func.count()).where(ReleaseTask.release_id == Release.id).scalar_subquery()
    query = select(Release, tasks).order_by(Release.number.desc())
    query = paged(query, limit, offset)
    with registry.read() as uow:
        query = within(uow, query, Release.created_at, since, until)
        if channel is not None:
            found = uow.channel(channel)
            if found is None:
                raise NotFoundError(f"there is no channel {channel!r}; see: centra channel list")
            query = query.where(Release.id == found.release_id)
        if task is not None:
            query = query.where(holds(uow, Release.id, task))
        names = _channel_names(uow)
        return [
            ReleaseRow(
                number=release.number,
                digest=release.digest,
                tasks=count,
                channels=names.get(release.id, []),
                created_at=release.created_at,
                created_by=release.created_by,
            )
            for release, count in uow.session.execute(query)
        ]


def show(registry: Registry, reference: str) -> ReleaseDetail:
    """One release.

    Args:
        registry: where.
        reference: a number, a channel's name, or the start of a digest.

    Raises:
        NotFoundError: there is none.
        CorruptBlobError, StoreError, DatabaseError: the registry cannot be used.
    """
    with registry.read() as uow:
        release = uow.release(reference)
        versions = uow.versions_of(release)
        tasks = {name: str(version.number) for name, version in versions.items()}
        backbones: dict[str, str] = {
            v.backbone.digest: v.backbone.reference for v in versions.values()
        }
        base = release.base.number if release.base else None
        names = _channel_names(uow).get(release.id, [])
    manifest = read_manifest(release.digest, registry.store)
    return ReleaseDetail(
        number=release.number,
        digest=release.digest,
        base=base,
        channels=names,
        tasks=tasks,
        backbones=backbones,
        layers=manifest.account,
        manifest=manifest,
        created_at=release.created_at,
        created_by=release.created_by,
    )


def diff(registry: Registry, before: str, after: str) -> ReleaseDifference:
    """Which tasks changed between two releases and how, and the proof for all others.

    The proof compares digests in the two manifests, which are themselves checked against theirs:
    equal digests are equal bytes, of the module and of every frozen layer below its tap. Modules
    are read only of tasks that changed.

    Raises:
        NotFoundError, CorruptBlobError, StoreError, DatabaseError: as :func:`show`.
        BlobNotFoundError: a changed task's module is missing.
    """
    old, new = show(registry, before), show(registry, after)
    found = _changes(_held(old.tasks, old.manifest), _held(new.tasks, new.manifest))
    changed = {change.task for change in found}
    names = old.backbones | new.backbones
    return ReleaseDifference(
        before=old.number,
        after=new.number,
        changes=found,
        modules=[
            _compare(registry, task, old.manifest.tasks[task], new.manifest.tasks[task], names)
            for task in sorted(changed & old.tasks.keys() & new.tasks.keys())
        ],
        unchanged=[
            _prove(old.manifest, new.manifest, task, new.tasks[task])
            for task in sorted(new.manifest.tasks.keys() - changed)
        ],
        layers_before=old.layers,
        layers_after=new.layers,
    )


def is_address(reference: str) -> bool:
    """Whether this names a release folder or a store, which needs no registry, not a release."""
    return any(mark in reference for mark in "/#") or reference in (".", "..")


def verify(
    registry: Registry | None,
    reference: str,
    progress: Progress = silent,
    *,
    keys: Sequence[Path] = (),
) -> Verification:
    """Hash every blob of a release and run every task on its probe.

    Args:
        registry: where; None where the reference is an address.
        reference: a number, a channel, the start of a digest, or the address of a release folder or
            a store, as :func:`centra.load_release` takes it; see :func:`is_address`.
        progress: told of each step.
        keys: public keys, as PEM; a valid signature by one of them is required.

    Raises:
        NotFoundError: there is no such release or key.
        SignatureError: keys are given, and the release is not signed by any of them.
        BlobNotFoundError, CorruptBlobError, FormatError: a file is missing or damaged.
        ComposeError: a task's parity fails.
        StoreError, DatabaseError: the registry cannot be used.
    """
    manifest, reader = _find(registry, reference)
    signed_by = None
    if keys:
        from centra.releases.signing import verify_release

        signed_by = verify_release(manifest, reader, keys)
    files = manifest.files()
    size = 0
    for done, digest in enumerate(files.values(), 1):
        size += reader.fetch(digest).stat().st_size
        progress("hash files", done, len(files))
    parity = check_parity(manifest, reader, list(manifest.tasks), progress)
    return Verification(
        digest=manifest.digest,
        files=len(files),
        size=size,
        parity=parity,
        int8=[
            task for task, precision in manifest.precisions.items() if precision == Precision.INT8
        ],
        signed_by=signed_by,
    )


def pull(
    registry: Registry | None, reference: str, folder: Path, progress: Progress = silent
) -> tuple[str, int]:
    """Materialise a release as a folder; only files that are not there yet are copied.

    Returns:
        The release's digest, and the bytes written.

    Raises:
        NotFoundError: there is no such release.
        FormatError: the folder holds something that is no release.
        StoreNotWritableError: the folder cannot be written.
        BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: it cannot be read.
    """
    from centra.releases.folder import write_folder

    manifest, reader = _find(registry, reference)
    return manifest.digest, write_folder(manifest, reader, folder, progress)


def load(
    registry: Registry | None,
    reference: str,
    *,
    tasks: Collection[str] | None = None,
    engine: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    progress: Progress = silent,
) -> centra.runtime.Release:
    """Load a release for answering.

    Args:
        registry, reference: as for :func:`verify`.
        tasks, engine, device, precision: as for :func:`centra.load_release`.
        progress: told of each task.

    Raises:
        UsageError: there is no such engine, device or precision here.
        NotFoundError: there is no such release or task.
        FormatError, BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: it cannot be
            read.
    """
    from centra.runtime import Release as Merged

    manifest, reader = _find(registry, reference)
    return Merged.load(
        manifest,
        reader,
        tasks=tasks,
        engine=engine,
        device=device,
        precision=precision,
        progress=progress,
    )


def _compose(
    registry: Registry,
    *,
    base: str | None,
    replace: Sequence[str],
    remove: Sequence[str],
    allow_two_backbones: bool,
    precision: Precision | None,
    data: Mapping[str, Path],
    max_loss: float | None,
    settled: Mapping[str, Precision],
    checked: Checked,
    progress: Progress,
    remark: Remark,
) -> Composition:
    """Merge and check what there is to merge now; see :func:`compose`."""
    with registry.read() as uow:
        start, versions = _resolve(uow, base, replace, remove)
        live = base is None and versions == uow.live()
        before = uow.released_versions(start) if start else {}
        modules = {name: version.digest for name, version in versions.items()}
        numbers = {name: str(version.number) for name, version in versions.items()}
        ids = {name: (version.task_id, version.id) for name, version in versions.items()}
        released = uow.proven(versions.values())
        start_number = start.number if start else None
        two = policies.in_force(uow)[1].compose.allow_two_backbones
    named = {parse_task_reference(reference)[0] for reference in replace}
    wanted = wishes(
        modules,
        before,
        precision=precision,
        named=named or modules.keys(),
        settled=settled,
        data=data.keys(),
    )
    examples = _examples(registry, data, modules, wanted.doubted, progress=progress, remark=remark)
    with _separable(versions):
        manifest = merge(
            modules,
            registry.store,
            allow_two_backbones=allow_two_backbones or two,
            checked=checked,
            progress=progress,
        )
        unproven = [name for name in versions if ids[name][1] not in released]
        parity = proven(manifest, unproven, checked, progress)
    compared = _compared(
        registry, manifest, wanted.doubted, examples, max_loss=max_loss, progress=progress
    )
    manifest = manifest.with_precisions(
        wanted.precisions | {one.task: Precision.FP32 for one in compared if one.refused}
    )
    return Composition(
        release=_known(registry, manifest),
        digest=manifest.digest,
        published=False,
        base=start_number,
        changes=_changes(before, _held(numbers, manifest)),
        layers=manifest.account,
        tasks=numbers,
        manifest=manifest,
        parity=parity,
        int8=compared,
        live=live,
        ids=ids,
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
    changed = set()
    for reference in replace:
        name, number = parse_task_reference(reference)
        if number is None:
            raise UsageError(f"say which version of {name}: {name}@MAJOR.MINOR")
        if name in changed:
            raise UsageError(f"task {name} is to be two versions; name one")
        changed.add(name)
        versions[name] = uow.version(name, number)
    for task in dict.fromkeys(remove):
        if task in changed:
            raise UsageError(f"task {task} is to be put in and left out; decide on one")
        if task not in versions:
            raise NotFoundError(f"there is no task {task!r} to leave out: it is not in the set")
        del versions[task]
    return start, versions


@contextmanager
def _separable(tasks: Collection[str]) -> Iterator[None]:
    """Where one task cannot be composed, say how the others get out without it."""
    try:
        yield
    except ComposeError as error:
        if len(tasks) == 1:
            raise
        cause = (
            f"{error.cause.rstrip('.')}. The other tasks can be released without it: "
            f"centra compose --remove {error.task} --release"
        )
        raise ComposeError(error.task, cause) from error


def _examples(
    registry: Registry,
    data: Mapping[str, Path],
    modules: Mapping[str, str],
    compared: Collection[str],
    *,
    progress: Progress,
    remark: Remark,
) -> dict[str, list[Example]]:
    """What is in the files, of tasks that are compared."""
    for task in data:
        if task not in compared:
            raise UsageError(
                f"there is data for {task!r}, but it is not to go to int8; with data come only "
                f"tasks that do: {', '.join(sorted(compared)) or 'none'}"
            )
    if not data:
        return {}
    from centra.data.inputs import dev_file
    from centra.data.labelling import read_for

    specs = {task: read_spec(registry.store.fetch(modules[task])) for task in data}
    return {
        task: read_for(specs[task], dev_file(path), progress, remark) for task, path in data.items()
    }


def _compared(
    registry: Registry,
    manifest: ReleaseManifest,
    tasks: Collection[str],
    examples: Mapping[str, Sequence[Example]],
    *,
    max_loss: float | None,
    progress: Progress,
) -> list[Int8Comparison]:
    if not tasks:
        return []
    from centra.releases.int8 import MAX_LOSS, compare_int8

    most = MAX_LOSS if max_loss is None else max_loss
    return compare_int8(manifest, registry.store, tasks, examples, max_loss=most, progress=progress)


def _held(numbers: Mapping[str, str], manifest: ReleaseManifest) -> dict[str, ReleasedVersion]:
    """What a manifest holds, with the numbers of the versions."""
    return {
        name: ReleasedVersion(
            number=VersionNumber.parse(numbers[name]),
            digest=entry.digest,
            contract=entry.contract,
            precision=entry.precision,
        )
        for name, entry in manifest.tasks.items()
    }


def _changes(
    before: Mapping[str, ReleasedVersion], after: Mapping[str, ReleasedVersion]
) -> list[Change]:
    found = []
    for change in changes(before, after):
        old, new = before.get(change.task), after.get(change.task)
        found.append(
            Change(
                task=change.task,
                change=change.change,
                before=str(old.number) if old else None,
                after=str(new.number) if new else None,
                precision=_precision(old, new) if old and new else None,
            )
        )
    return found


def _precision(old: Versioned, new: Versioned) -> tuple[Precision, Precision] | None:
    """Before and after, where it differs."""
    return (old.precision, new.precision) if old.precision != new.precision else None


def _known(registry: Registry, manifest: ReleaseManifest) -> int | None:
    with registry.read() as uow:
        release = uow.release_by_digest(manifest.digest)
        return release.number if release else None


def _publish(registry: Registry, found: Composition) -> Composition | None:
    """Make a composition a release; of the live set, the one that ``latest`` serves.

    Returns:
        The release; None where it was composed of a live set, or onto a release of ``latest``, that
        are not the newest any more.
    """
    if found.live and not _is_latest(registry, found):
        check_publishable(registry, LATEST)
    with storing(registry, {found.digest: found.manifest.to_bytes()}) as uow:
        if found.live and not _is_newest(uow, found):
            return None
        release, made = record(uow, found)
        number, row, moved = release.number, None, False
        if found.live:
            channel, moved = advance(uow, LATEST, release, MoveKind.PUBLISH)
            row = channel_row(channel)
    if row is not None and moved:
        publish_move(registry, row)
    elif row is not None:
        publish_pointer(registry, LATEST)
    write_witness(registry, number)
    return dataclasses.replace(found, release=number, published=made)


def _is_latest(registry: Registry, found: Composition) -> bool:
    with registry.read() as uow:
        latest = uow.channel(LATEST)
        return latest is not None and latest.release.digest == found.digest


def _is_newest(uow: UnitOfWork, found: Composition) -> bool:
    """Whether the live set, and the release that it was composed onto, are what they were."""
    if found.ids != {name: (v.task_id, v.id) for name, v in uow.live().items()}:
        return False
    latest = uow.channel(LATEST)
    if latest is None:
        return found.base is None
    return latest.release.number == found.base or latest.release.digest == found.digest


def record(uow: UnitOfWork, found: Composition) -> tuple[Release, bool]:
    """Write a composition's release unless it is there, and what it was composed onto.

    Args:
        uow: the transaction that it becomes part of, for which its manifest was stored; see
            :func:`registry.storage.claims.storing`.
        found: the composition.

    Returns:
        The release, and whether it is new.
    """
    known = uow.release_by_digest(found.digest)
    release = known or add(uow, found.manifest, found.ids, base=found.base)
    _remember_base(uow, release, found.base)
    return release, known is None


def add(
    uow: UnitOfWork,
    manifest: ReleaseManifest,
    ids: Mapping[str, tuple[int, int]],
    *,
    base: int | None = None,
) -> Release:
    """Write a release whose manifest is stored, and that is not known yet, under the next number.

    Args:
        uow: the transaction that it becomes part of.
        manifest: its own.
        ids: per task name the ids of the task and of its version.
        base: the number of the release that it was composed onto.
    """
    newest = uow.session.scalar(select(func.max(Release.number))) or 0
    release = Release(
        number=newest + 1,
        digest=manifest.digest,
        base=uow.release(str(base)) if base else None,
        created_at=uow.now,
        created_by=str(uow.actor),
        tasks=[
            ReleaseTask(
                task_id=task_id, version_id=version_id, precision=manifest.tasks[name].precision
            )
            for name, (task_id, version_id) in ids.items()
        ],
    )
    uow.session.add(release)
    uow.session.flush()
    uow.record(
        "release:publish",
        str(release.number),
        {
            "digest": release.digest,
            "base": base,
            "tasks": sorted(ids),
            "holds": tasks_digest({name: _holding(manifest.tasks[name]) for name in ids}),
        },
    )
    return release


def _holding(entry: TaskEntry) -> tuple[str, str]:
    return entry.digest, entry.precision


def _remember_base(uow: UnitOfWork, release: Release, number: int | None) -> None:
    """Note that a release was composed onto another: each time, for it tells who built on what."""
    if number is None or number == release.number:
        return
    base = uow.release(str(number))
    mine, its = (_newest_composition(uow, one) for one in (release, base))
    if mine is not None and mine.base_id == base.id and (its is None or its.id < mine.id):
        return  # A repetition: nothing that it stands on has been made anew since.
    uow.session.add(ReleaseBase(release_id=release.id, base_id=base.id, at=uow.now))


def _newest_composition(uow: UnitOfWork, release: Release) -> ReleaseBase | None:
    query = select(ReleaseBase).where(ReleaseBase.release_id == release.id)
    return uow.session.scalar(query.order_by(ReleaseBase.id.desc()).limit(1))


def _compare(
    registry: Registry, task: str, old: TaskEntry, new: TaskEntry, names: Mapping[str, str]
) -> ModuleDifference:
    """How a task's two modules differ; ``names`` are those of the backbones, by digest."""
    backbones = names.get(old.backbone, ""), names.get(new.backbone, "")
    tensors, same = compare_tensors(registry.store, old.digest, new.digest)
    return ModuleDifference(
        task=task,
        backbone=backbones if old.backbone != new.backbone else None,
        tap_layer=(old.tap_layer, new.tap_layer) if old.tap_layer != new.tap_layer else None,
        depth=(old.depth, new.depth) if old.depth != new.depth else None,
        precision=_precision(old, new),
        contract=old.contract.difference(new.contract),
        tensors_changed=tensors,
        tensors_same=same,
    )


def _prove(old: ReleaseManifest, new: ReleaseManifest, task: str, version: str) -> Unchanged:
    """Hold all that a task reads in one release against the other."""
    before, after = old.tasks[task], new.tasks[task]
    differs = [name for name, value in before if value != getattr(after, name)]
    first, second = (
        next(trunk for trunk in manifest.trunks if trunk.spec == manifest.tasks[task].backbone)
        for manifest in (old, new)
    )
    differs += [
        part
        for part in ("embeddings", "tokenizer")
        if getattr(first, part) != getattr(second, part)
    ]
    # Slices, so that a layer which a trunk does not have counts as another.
    differs += [
        f"layer {number}"
        for number in range(1, after.tap_layer + 1)
        if first.layers[number - 1 : number] != second.layers[number - 1 : number]
    ]
    return Unchanged(
        task=task,
        version=version,
        digest=after.digest,
        layers=after.tap_layer,
        identical=not differs,
        differs=differs,
    )


def _channel_names(uow: UnitOfWork) -> dict[int, list[str]]:
    from registry.database.models import Channel

    names: dict[int, list[str]] = {}
    for channel in uow.session.scalars(select(Channel).order_by(Channel.name)):
        names.setdefault(channel.release_id, []).append(channel.name)
    return names


def _find(registry: Registry | None, reference: str) -> tuple[ReleaseManifest, BlobReader]:
    """A release by the address of a folder or store, or by its name in the registry."""
    if registry is None or is_address(reference):
        location = find_release(reference)
        return location.manifest, location.reader
    with registry.read() as uow:
        digest = uow.release(reference).digest
    return read_manifest(digest, registry.store), registry.store
