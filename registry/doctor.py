"""What is wrong with a setup: each part is looked at by itself, and each finding has its mend.

A check that fails stops none but those that need what it looked at. Nothing is changed: the probe
that shows whether the store can be written is removed again.
"""

from __future__ import annotations

import os
import stat
import tempfile
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import select, text

from centra.errors import (
    CentraError,
    NotFoundError,
    StoreError,
    StoreNotWritableError,
    VerificationError,
)
from centra.local_store import LocalStore
from centra.redaction import redacted, secrets_in
from centra.s3_store import S3Store
from centra.toml import read_toml
from registry import audit, channels, gc
from registry.address import shown
from registry.connection import Registry
from registry.db import SCHEMA, check_exists, current, differences, translated
from registry.errors import DatabaseError
from registry.models import Release, Task, TaskVersion
from registry.settings import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


__all__ = ["Check", "examine"]

State = Literal["ok", "warning", "problem", "skipped"]

_SKEW = timedelta(seconds=5)
_SHOWN = 10
"""How many things of a kind are named; the rest is counted."""
_CONFIRMED = 100
"""How many blobs that a listing lacks are asked for by name."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    check: str
    state: State
    found: str
    """What was found; where it is several things, a line each."""
    mend: str | None = None
    """What to do about it, unless all is well; likewise."""


@dataclass(kw_only=True)
class _Setup:
    """What the checks have come to know so far."""

    given: dict[str, str | None]
    folder: Path | None
    states: dict[str, State] = field(default_factory=dict)
    registry: Registry = field(init=False)

    def fine(self, check: str) -> bool:
        """Whether a check found what others need."""
        return self.states[check] in ("ok", "warning")


_Finding = tuple[State, str, str | None]


def examine(
    *,
    database: str | None = None,
    store: str | None = None,
    actor: str | None = None,
    folder: Path | None = None,
) -> Iterator[Check]:
    """Look at everything a registry needs, one after the other.

    Args:
        database, store, actor, folder: as for :meth:`registry.connection.Registry.open`.
    """
    given = {"database": database, "store": store, "actor": actor}
    setup = _Setup(given=given, folder=folder)
    try:
        for wanted in _CHECKS:
            check = _make(setup, wanted)
            setup.states[wanted.name] = check.state
            yield check
    finally:
        if setup.fine("settings"):
            setup.registry.engine.dispose()


def _make(setup: _Setup, wanted: _Look) -> Check:
    missing = [need for need in wanted.needs if not setup.fine(need)]
    if missing:
        return Check(check=wanted.name, state="skipped", found=f"needs: {', '.join(missing)}")
    try:
        state, found, mend = wanted.look(setup)
    except CentraError as error:
        state, found, mend = "problem", str(error), wanted.mend
    except Exception as error:  # noqa: BLE001 - one check's fault must not hide the others
        state, found, mend = "problem", _unexpected(setup, error), wanted.mend
    return Check(check=wanted.name, state=state, found=found, mend=mend)


def _unexpected(setup: _Setup, error: Exception) -> str:
    variables = (os.environ.get(name) for name in ("CENTRA_DATABASE_URL", "CENTRA_STORE"))
    addresses = filter(None, (*setup.given.values(), *variables))
    return redacted(f"{type(error).__name__}: {error}", *addresses)


def _settings(setup: _Setup) -> _Finding:
    try:
        setup.registry = Registry.open(**setup.given, folder=setup.folder)
    except NotFoundError as error:
        found = str(error).partition(". Run ")[0]
        return "problem", found, "centra init; or set CENTRA_DATABASE_URL and CENTRA_STORE"
    sources = {
        key: f"--{key}" if setup.given[key] else variable if os.environ.get(variable) else ""
        for key, variable in (("database", "CENTRA_DATABASE_URL"), ("store", "CENTRA_STORE"))
    }
    file = setup.registry.folder / CONFIG
    return "ok", ", ".join(f"{key} from {at or file}" for key, at in sources.items()), None


def _actor(setup: _Setup) -> _Finding:
    actor = setup.registry.actor
    if actor.team is None:
        return (
            "warning",
            f"acts as {actor}, for no team",
            "set CENTRA_ACTOR=TEAM/PERSON, or 'actor' in centra.toml",
        )
    return "ok", f"acts as {actor}", None


def _policy(setup: _Setup) -> _Finding:
    gated = sorted(setup.registry.policy.channels)
    return "ok", f"gates for {', '.join(gated)}" if gated else "no channel has gates", None


def _database(setup: _Setup) -> _Finding:
    engine = setup.registry.engine
    try:
        check_exists(engine)
    except DatabaseError:
        return "problem", f"there is no database {engine.url.database}", "centra db upgrade"
    with translated(engine), engine.connect() as connection:
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
    return "ok", f"{shown(engine.url)} ({engine.name} {version})", None


def _migration(setup: _Setup) -> _Finding:
    found = current(setup.registry.engine)
    if found == SCHEMA:
        return "ok", f"at {SCHEMA}", None
    if found is None:
        return "problem", "the database has no Centra tables yet", "centra db upgrade"
    if found < SCHEMA:
        return "problem", f"at {found}, this Centra needs {SCHEMA}", "centra db upgrade"
    return "problem", f"at {found}, newer than this Centra's {SCHEMA}", "install a newer Centra"


def _tables(setup: _Setup) -> _Finding:
    found = differences(setup.registry.engine)
    if found:
        return (
            "problem",
            f"differ from this Centra's:\n{_some(found)}",
            "undo what was changed by hand, or restore a backup",
        )
    return "ok", "as this Centra has them", None


def _audit_log(setup: _Setup) -> _Finding:
    count, digest = audit.verify(setup.registry)
    return "ok", f"{count} events, unbroken; the last is sha256:{digest[:12]}", None


def _credentials(setup: _Setup) -> _Finding:
    store = setup.registry.store
    if not isinstance(store, S3Store):
        return "ok", "none needed for a folder", None
    found = store.credentials()
    if found is None:
        return (
            "problem",
            "there are no AWS credentials",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    return "ok", found, None


def _reachable(setup: _Setup) -> _Finding:
    store = setup.registry.store
    place = gc.place_of(store)
    if isinstance(store, LocalStore) and not store.root.exists():
        return "ok", f"{place}: an empty store, whose folder the first write makes", None
    pointers = len(store.pointers())
    blob = next(iter(store.blobs()), None)
    if blob is not None:
        store.stat(blob.digest)
    return "ok", f"{place}: can be read; channel pointers: {pointers}", None


def _writable(setup: _Setup) -> _Finding:
    store = setup.registry.store
    if isinstance(store, LocalStore) and not store.root.exists():
        parent = _nearest(store.root)
        if not _may_write(parent):
            return "problem", f"{parent} cannot be written", f"make {store.root}"
        return "ok", "its folder can be made", None
    probe = f"centra doctor {uuid.uuid4()}".encode()
    digest = store.put(probe)
    try:
        there = store.has(digest)
        store.remove(digest)
    except StoreNotWritableError:
        return (
            "warning",
            f"can be written, but nothing can be removed: the probe {digest} stays",
            "let somebody who may remove blobs run: centra gc",
        )
    if not there:
        return "problem", "a probe that was written is not there", "look at the store's own log"
    return "ok", "a probe was written and removed", None


def _clock(setup: _Setup) -> _Finding:
    asked, off = [], []
    for name, ask in _clocks(setup):
        before = datetime.now(UTC)
        try:
            theirs = ask()
        except StoreError:
            continue
        here = before + (datetime.now(UTC) - before) / 2
        asked.append(name)
        if abs(theirs - here) > _SKEW:
            seconds = (here - theirs).total_seconds()
            side = "ahead of" if seconds > 0 else "behind"
            off.append(f"this machine's is {abs(seconds):.0f} s {side} {name}'s")
    if off:
        return "warning", _some(off), "set the clocks by a time server (NTP)"
    if not asked:
        return "skipped", "neither database nor store tells the time", None
    return "ok", f"agrees with {' and '.join(asked)}'s to {_SKEW.seconds} s", None


def _clocks(setup: _Setup) -> Iterator[tuple[str, Callable[[], datetime]]]:
    engine = setup.registry.engine

    def of_the_database() -> datetime:
        with engine.connect() as connection:
            found: datetime = connection.scalar(text("SELECT clock_timestamp()"))
            return found.astimezone(UTC)

    if setup.fine("database") and engine.name == "postgresql":
        yield "the database", of_the_database
    yield "the store", setup.registry.store.clock


def _permissions(setup: _Setup) -> _Finding:
    wrong: list[tuple[State, str, str]] = []
    if setup.fine("database"):
        wrong += _database_rights(setup)
    store = setup.registry.store
    local = store.cache if isinstance(store, S3Store) else store
    wrong += _own(local.root) if isinstance(local, LocalStore) else []
    if not wrong:
        return "ok", "what is written here can be written, and not by everybody", None
    states, found, mends = zip(*wrong, strict=True)
    return "problem" if "problem" in states else "warning", _some(found), _some(mends)


def _database_rights(setup: _Setup) -> Iterator[tuple[State, str, str]]:
    engine, config = setup.registry.engine, setup.registry.folder / CONFIG
    url = engine.url
    if config.is_file() and _mode(config) & stat.S_IROTH and _holds_secrets(config):
        yield "warning", f"everybody may read the password in {config}", f"chmod o-r {config}"
    if engine.name == "sqlite":
        # The folder, too: the write-ahead log lies beside the database.
        file = Path(url.database or "")
        yield from _own(file)
        yield from _own(file.parent)
    elif setup.fine("migration"):
        with translated(engine), engine.connect() as connection:
            may = text("SELECT has_table_privilege('audit_events', 'INSERT')")
            if not connection.scalar(may):
                who = url.username
                yield (
                    "problem",
                    f"{who} may read the database, but not write it",
                    f"grant {who} the rights on Centra's tables",
                )


def _holds_secrets(config: Path) -> bool:
    content = read_toml(config)
    return any(secrets_in(content.get(key, "")) for key in ("database", "store"))


def _own(path: Path) -> Iterator[tuple[State, str, str]]:
    """What is wrong with a file or folder that we write; one that is not there yet can be made."""
    path = _nearest(path)
    if not _may_write(path):
        yield "problem", f"you may not write {path}", f"chown or chmod {path}"
    # In a sticky folder, such as /tmp, nobody can replace another's files.
    if _mode(path) & stat.S_IWOTH and not _mode(path) & stat.S_ISVTX:
        yield "warning", f"everybody may write {path}", f"chmod o-w {path}"


def _nearest(path: Path) -> Path:
    """A path, or of the folders above it the first that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _may_write(path: Path) -> bool:
    if not path.is_dir():
        return os.access(path, os.W_OK)
    try:
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _mode(path: Path) -> int:
    return path.stat().st_mode


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A blob that the database says is there."""

    what: str
    digest: str
    mend: str
    size: int | None = None
    """Bytes, where they are known."""
    fault: str | None = None
    """What is wrong with it, where that is known already."""


def _blobs(setup: _Setup) -> _Finding:
    store = setup.registry.store
    # Listed first: a blob that is registered after that is asked for by name.
    sizes = {blob.digest: blob.size for blob in store.blobs()}
    count, wrong = 0, dict[str, str]()
    for part in _registered(setup.registry):
        count += 1
        fault = part.fault
        if part.digest not in sizes:
            if len(wrong) >= _CONFIRMED or not store.has(part.digest):
                fault = "is missing"
        elif part.size not in (None, sizes[part.digest]):
            fault = f"has {sizes[part.digest]} of {part.size} bytes"
        if fault:
            wrong[f"{part.what}: blob {part.digest} {fault}"] = part.mend
    if wrong:
        return "problem", _some(wrong), _some(dict.fromkeys(wrong.values()))
    return "ok", f"all that are registered are there: {count}", None


def _registered(registry: Registry) -> Iterator[_Part]:
    from centra.backbone import BackboneSpec

    number = (Task.name, TaskVersion.major, TaskVersion.minor)
    with registry.read() as uow:
        backbones = uow.backbones()
        versions = uow.session.execute(
            select(*number, TaskVersion.digest, TaskVersion.size)
            .join(TaskVersion.task)
            .order_by(*number)
        ).all()
        releases = uow.session.execute(
            select(Release.number, Release.digest).order_by(Release.number)
        ).all()
    for row in backbones:
        what = f"backbone {row.reference}"
        mend = f"centra backbone register {row.name} SOURCE, again from {row.source}"
        try:
            parts = BackboneSpec.fetch(row.digest, registry.store).blobs()
        except NotFoundError:
            parts = {row.digest}
        except VerificationError:
            parts = set()
            yield _Part(what=what, digest=row.digest, mend=mend, fault="is damaged")
        for digest in sorted(parts):
            yield _Part(what=what, digest=digest, mend=mend)
    for name, major, minor, digest, size in versions:
        yield _Part(
            what=f"task {name}@{major}.{minor}",
            digest=digest,
            size=size,
            mend=f"centra task update {name} FILE, with the file of {major}.{minor}",
        )
    for release, digest in releases:
        yield _Part(
            what=f"release {release}",
            digest=digest,
            mend=f"centra compose --base {release} --release",
        )


def _garbage(setup: _Setup) -> _Finding:
    try:
        found = gc.collect(setup.registry)
    except gc.UnreadableError as error:
        return "problem", str(error).partition("\n")[0], error.mend
    young = f"{gc.amount(found.young, found.young_bytes)}, younger than {gc.GRACE.days} days"
    if found.garbage:
        also = f"; and {young}" if found.young else ""
        return (
            "warning",
            f"nothing reaches {gc.amount(found.count, found.bytes)}{also}",
            "centra gc, then centra gc --delete",
        )
    if found.young:
        return "ok", f"nothing reaches {young}", None
    return "ok", "everything in the store is in use", None


def _pointers(setup: _Setup) -> _Finding:
    registry = setup.registry
    rows = {row.name: row for row in channels.list_all(registry)}
    wrong: dict[str, str] = {}
    for name, row in rows.items():
        # Asked twice: a pointer follows its channel a moment later.
        if not channels.is_published(registry, row) and not channels.is_published(
            registry, channels.show(registry, name)
        ):
            there = registry.store.read_pointer(name) is not None
            says = "is not as the database has it" if there else "is missing"
            wrong[f"the pointer of {name} {says}"] = f"centra channel sync {name}"
    for name in registry.store.pointers():
        if name not in rows:
            wrong[f"channels/{name}.json belongs to no channel"] = (
                f"remove channels/{name}.json from the store, if no server follows it"
            )
    if wrong:
        stale = any("belongs" not in found for found in wrong)
        return "problem" if stale else "warning", _some(wrong), _some(wrong.values())
    return "ok", f"as the database has them; channels: {len(rows)}", None


def _some(texts: Iterable[str]) -> str:
    """The first few, a line each, and how many more there are."""
    every = list(texts)
    more = [f"and {len(every) - _SHOWN} more"] if len(every) > _SHOWN else []
    return "\n".join([*every[:_SHOWN], *more])


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A check: how it is made, and what it needs."""

    name: str
    look: Callable[[_Setup], _Finding]
    needs: tuple[str, ...] = ("settings",)
    mend: str
    """Where it ends in an error."""


_CHECKS = (
    _Look(
        name="settings",
        needs=(),
        look=_settings,
        mend="correct the option, the variable or centra.toml",
    ),
    _Look(name="actor", look=_actor, mend="set CENTRA_ACTOR=TEAM/PERSON"),
    _Look(name="policy", look=_policy, mend="correct centra.toml"),
    _Look(
        name="database",
        look=_database,
        mend="check its address, your rights, and that its server runs",
    ),
    _Look(name="migration", needs=("database",), look=_migration, mend="centra db upgrade"),
    _Look(name="tables", needs=("migration",), look=_tables, mend="centra db check"),
    _Look(
        name="audit log",
        needs=("migration",),
        look=_audit_log,
        mend="find out who can write to the database, and restore a backup",
    ),
    _Look(name="credentials", look=_credentials, mend="correct the AWS settings"),
    _Look(
        name="store",
        needs=("credentials",),
        look=_reachable,
        mend="check its address, your rights and the network",
    ),
    _Look(
        name="store writable",
        needs=("store",),
        look=_writable,
        mend="get the right to write, or leave registering to those who have it",
    ),
    _Look(name="clock", look=_clock, mend="set the clocks by a time server (NTP)"),
    _Look(name="permissions", look=_permissions, mend="look at the files' owners and modes"),
    _Look(
        name="blobs",
        needs=("migration", "store"),
        look=_blobs,
        mend="check the store",
    ),
    _Look(
        name="garbage",
        needs=("migration", "store"),
        look=_garbage,
        mend="check the store",
    ),
    _Look(
        name="pointers", needs=("migration", "store"), look=_pointers, mend="centra channel sync"
    ),
)
"""In the order in which they are made."""
