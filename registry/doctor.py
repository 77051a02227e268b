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

from sqlalchemy import text

from centra.errors import (
    CentraError,
    NotFoundError,
    StoreError,
    StoreNotWritableError,
    StoreUnreachableError,
)
from centra.formats.toml import read_toml
from centra.progress import Progress, silent
from centra.store import LocalStore
from centra.store.s3 import S3Store
from centra.system.redaction import redacted, secrets_in
from registry import audit, channels, policies
from registry.connection import Registry
from registry.database.address import shown
from registry.database.engine import translated
from registry.database.migrations import SCHEMA, current, differences
from registry.database.sqlite import check_exists
from registry.errors import DatabaseError, WrongStoreError
from registry.settings import CONFIG
from registry.storage import gc, identity
from registry.storage.scrub import needs, scrub, senseless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from registry.storage.scrub import DamagedBlob

__all__ = ["Check", "examine"]

State = Literal["ok", "warning", "problem", "skipped"]

_SKEW = timedelta(seconds=5)
_SHOWN = 10
"""How many things of a kind are named; the rest is counted."""
_NAMED = 4
"""How many things that need a blob are named; likewise."""
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
    damaged: list[DamagedBlob] = field(default_factory=list)
    """Every blob that was read and is not what it should be."""


@dataclass(kw_only=True)
class _Setup:
    """What the checks have come to know so far."""

    given: dict[str, str | None]
    folder: Path | None
    progress: Progress
    damaged: list[DamagedBlob] = field(default_factory=list)
    silent: bool = False
    """Whether the store does not answer."""
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
    deep: bool = False,
    progress: Progress = silent,
) -> Iterator[Check]:
    """Look at everything a registry needs, one after the other.

    Args:
        database, store, actor, folder: as for :meth:`registry.connection.Registry.open`.
        deep: also read every blob that is registered, which may take long.
        progress: told of each blob that is read.
    """
    given = {"database": database, "store": store, "actor": actor}
    setup = _Setup(given=given, folder=folder, progress=progress)
    try:
        for wanted in (*_CHECKS, *([_DEEP] if deep else [])):
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
        setup.silent |= isinstance(error, StoreUnreachableError)
        state, found, mend = "problem", str(error), wanted.mend
    except Exception as error:  # noqa: BLE001 - one check's fault must not hide the others
        state, found, mend = "problem", _unexpected(setup, error), wanted.mend
    damaged = setup.damaged if wanted is _DEEP else []
    return Check(check=wanted.name, state=state, found=found, mend=mend, damaged=damaged)


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
    origins = setup.registry.origins
    return "ok", ", ".join(f"{key} from {origin}" for key, origin in origins.items()), None


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
    registry, apply = setup.registry, "centra policy apply"
    proposed = registry.rules if registry.rules and registry.rules.tables else None
    differ = policies.apply(registry, proposed, dry_run=True).changes if proposed else []
    try:
        row = policies.show(registry)
    except NotFoundError:
        if proposed and differ:
            return "problem", f"the rules of {proposed.file} were never applied", apply
        return "ok", "no policy was ever applied, and no channel has rules", None
    ruled = ", ".join(row.rules.get("channels", {})) or "no channel"
    found = f"version {row.version} by {row.applied_by} is in force, with rules for {ruled}"
    if proposed and differ:
        settings = _some(change.setting for change in differ)
        return "warning", f"{found}; {proposed.file} says otherwise of:\n{settings}", apply
    return "ok", found, None


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
    found = audit.verify(setup.registry, ask_store=False)
    return (
        "ok",
        f"{found.events} events, unbroken, and as the tables are; the last is sha256:"
        + found.digest[:12],
        None,
    )


def _witnesses(setup: _Setup) -> _Finding:
    count = audit.check_witnesses(setup.registry)
    return "ok", f"the log holds all that the store has seen of it; witnesses: {count}", None


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
    place = identity.location(store)
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
    if not setup.silent:  # It would be waited for once more.
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


def _identity(setup: _Setup) -> _Finding:
    try:
        (own, _), bound = identity.check(setup.registry)
    except WrongStoreError as error:
        return "problem", error.found, error.mend
    if not bound:
        return (
            "ok",
            f"registry {identity.short(own)}; the first write makes the store its own",
            None,
        )
    return "ok", f"database and store are those of registry {identity.short(own)}", None


def _blobs(setup: _Setup) -> _Finding:
    store = setup.registry.store
    # Listed first: a blob that is registered after that is asked for by name.
    sizes = {blob.digest: blob.size for blob in store.blobs()}
    count, wrong = 0, dict[str, str]()
    for part in needs(setup.registry):
        count += 1
        fault = part.fault
        if part.digest not in sizes:
            if len(wrong) >= _CONFIRMED or not store.has(part.digest):
                fault = "is missing"
        elif part.size not in (None, sizes[part.digest]):
            fault = f"has {sizes[part.digest]} of {part.size} bytes"
        elif sizes[part.digest] < part.least:
            fault = f"has {sizes[part.digest]:,} bytes, less than its backbone says it holds"
        if fault:
            wrong[f"{part.what}: blob {part.digest} {fault}"] = part.mend
    if wrong:
        return "problem", _some(wrong), _some(dict.fromkeys(wrong.values()))
    return "ok", f"all that are registered are there: {count}", None


def _contents(setup: _Setup) -> _Finding:
    found = scrub(setup.registry, setup.progress)
    setup.damaged = found.damaged
    if found.damaged:
        told = [f"{_few(one.needed_by)}: blob {one.digest} is {one.fault}" for one in found.damaged]
        mends = [mend for one in found.damaged for mend in one.mends[:1]]
        return "problem", _some(told), _some(dict.fromkeys(mends))
    if wrong := senseless(setup.registry):
        return "problem", _some(wrong), _some(wrong.values())
    known = f"; {found.known} of them by a run that was stopped" if found.known else ""
    return "ok", f"all that are registered were read, and are right: {found.count}{known}", None


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
    rows = {row.name: row for row in channels.list(registry)}
    wrong: dict[str, str] = {}
    for name, row in rows.items():
        # Asked twice: a pointer follows its channel a moment later.
        fault = channels.pointer_fault(registry, row)
        fault = fault and channels.pointer_fault(registry, channels.show(registry, name))
        if fault:
            wrong[f"the pointer of {name} {fault}"] = f"centra channel sync {name}"
    for name in registry.store.pointers():
        if name not in rows:
            wrong[f"channels/{name}.json belongs to no channel"] = (
                f"remove channels/{name}.json from the store, if no server follows it"
            )
    if wrong:
        stale = any("belongs" not in found for found in wrong)
        return "problem" if stale else "warning", _some(wrong), _some(wrong.values())
    return "ok", f"as the database has them; channels: {len(rows)}", None


def _few(texts: Sequence[str]) -> str:
    """The first few in one line, and how many more there are."""
    more = [f"{len(texts) - _NAMED} more"] if len(texts) > _NAMED else []
    return ", ".join([*texts[:_NAMED], *more])


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
    _Look(
        name="database",
        look=_database,
        mend="check its address, your rights, and that its server runs",
    ),
    _Look(name="migration", needs=("database",), look=_migration, mend="centra db upgrade"),
    _Look(name="tables", needs=("migration",), look=_tables, mend="centra db check"),
    _Look(name="policy", needs=("migration",), look=_policy, mend="correct centra.toml"),
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
        name="witnesses",
        needs=("migration", "store"),
        look=_witnesses,
        mend="after a restore: centra audit accept; or else restore a backup",
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
        name="identity",
        needs=("migration", "store"),
        look=_identity,
        mend="look at store.json in the store",
    ),
    _Look(
        name="blobs",
        needs=("identity",),
        look=_blobs,
        mend="check the store",
    ),
    _Look(
        name="garbage",
        needs=("identity",),
        look=_garbage,
        mend="check the store",
    ),
    _Look(name="pointers", needs=("identity",), look=_pointers, mend="centra channel sync"),
)
"""In the order in which they are made."""

_DEEP = _Look(
    name="contents", needs=("migration", "store"), look=_contents, mend="centra doctor --deep"
)
