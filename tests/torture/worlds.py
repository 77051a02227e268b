"""The two set-ups that are attacked, what is in them, and what is looked at afterwards.

A world is one folder in which commands run, with its database and its store. It can be kept under
a name and put back as it was, always at the same place.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests import support, warm
from tests.services import S3Server, _execute, s3_client, start_postgres, start_s3
from tests.shared import shared_things
from tests.torture import processes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from registry import Registry
    from tests.torture.processes import Done
    from tests.torture.shim import Fault

__all__ = ["SETUPS", "Folders", "Services", "State", "World", "make_given", "opened", "running"]

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_RANDOM = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_PASSING = {"blob_claims": "at"}
"""Tables of what is going on at the moment, and when it began: a killed process leaves its rows."""
_OLD_S = 30 * 24 * 3600

ADA, BOB, CY = "nlu/ada", "dialog/bob", "quality/cy"


@dataclass(frozen=True, kw_only=True)
class State:
    """What is in a world, without times, ids and what is random."""

    tables: dict[str, list[Any]]
    blobs: dict[str, bool]
    """Per digest in the store, whether its bytes have it."""
    needed: set[str]
    """The digests of all that rows name, and of what those name."""
    pointers: dict[str, bytes]
    signatures: dict[str, int]
    """How many per manifest: an ECDSA signature is another each time."""
    files: dict[str, str]
    """The digest of every other file below the folder."""
    leftovers: list[str] = field(default_factory=list)
    """Temporary files in the store."""

    @property
    def damage(self) -> list[str]:
        """What rows name and the store has not, or not whole; and files that are not what they say."""
        missing = [
            f"blob {digest} is missing" for digest in sorted(self.needed - self.blobs.keys())
        ]
        return missing + [f"blob {d} is damaged" for d, whole in self.blobs.items() if not whole]

    def differs(self, other: State) -> list[str]:
        """In what; signatures' and logs' own digests aside."""
        found = []
        for name in sorted(self.tables.keys() | other.tables.keys()):
            mine, theirs = self.tables.get(name), other.tables.get(name)
            found += [f"table {name}: {_first(mine, theirs)}"] if mine != theirs else []
        for what in ("pointers", "signatures", "files"):
            here, there = getattr(self, what), getattr(other, what)
            names = [n for n in sorted({*here, *there}) if here.get(n) != there.get(n)]
            found += [
                f"{what}: {name}: {here.get(name)!r:.80} {there.get(name)!r:.80}" for name in names
            ]
        if self.blobs.keys() != other.blobs.keys():
            found.append(f"blobs: {sorted(self.blobs.keys() ^ other.blobs.keys())}")
        return found


def _first(mine: list[Any] | None, theirs: list[Any] | None) -> str:
    if mine is None or theirs is None or len(mine) != len(theirs):
        return f"{'no' if mine is None else len(mine)} and {'no' if theirs is None else len(theirs)} rows"
    return next(f"{a} and {b}" for a, b in zip(mine, theirs, strict=True) if a != b)


@dataclass(frozen=True, kw_only=True)
class Services:
    """What worlds are made with."""

    python: Path
    """See :func:`tests.warm.start`."""
    given: Path
    """See :func:`make_given`."""
    postgres: str | None = None
    """The URL of a server; None without one."""
    s3: S3Server | None = None


@dataclass(kw_only=True)
class World:
    """A folder in which commands run."""

    root: Path
    services: Services
    name: str = ""
    kept: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True)

    @property
    def work(self) -> Path:
        """The folder."""
        return self.root / "work"

    @property
    def environment(self) -> dict[str, str]:
        """What commands run with."""
        names = ("PATH", "HOME", "LANG")
        return {
            **{name: os.environ[name] for name in names if name in os.environ},
            "CENTRA_ACTOR": ADA,
            "CENTRA_CACHE": str(self.work / "cache"),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, line: str, *, fault: Fault | None = None, clock: int = 0, **options: Any) -> Done:
        """Run ``centra LINE``; ``{given}`` in it is the folder of :func:`make_given`."""
        words = [word.replace("{given}", str(self.services.given)) for word in line.split()]
        return processes.run(
            self.services.python,
            words,
            self.work,
            self.environment,
            fault=fault,
            clock=clock,
            **options,
        )

    def run_installed(self, line: str, *, kill_after: float) -> Done:
        """Run it as the installed program, and kill that after so many seconds."""
        words = [word.replace("{given}", str(self.services.given)) for word in line.split()]
        return processes.run_installed(words, self.work, self.environment, kill_after=kill_after)

    def must(self, *lines: str) -> None:
        """Run commands that must succeed."""
        for line in lines:
            done = self.run(line)
            assert done.code == 0, f"{line}: {done.code} {done.err}"

    def keep(self, name: str) -> None:
        """Remember what is there, under a name."""
        shutil.copytree(self.work, self.root / "kept" / name)
        self.kept[name] = self._kept(name)

    def restore(self, name: str) -> None:
        """Put back what was there."""
        shutil.rmtree(self.work)
        shutil.copytree(self.root / "kept" / name, self.work)
        self._restore(self.kept[name])

    def age(self) -> None:
        """Let days go by: for what is in the store, where that can be, and for what is going on."""
        from sqlalchemy import inspect, text

        old = time.time() - _OLD_S
        for path in self.work.rglob("*"):
            if path.is_file() and "registry.db" not in path.name:
                os.utime(path, (old, old))
        if not (self.work / "centra.toml").exists():
            return
        with self.here():
            registry = self.registry()
            with registry.engine.begin() as connection:
                for table in _PASSING.keys() & set(inspect(connection).get_table_names()):
                    column, then = _PASSING[table], "2020-01-01 00:00:00.000000"
                    connection.execute(text(f"UPDATE {table} SET {column} = '{then}'"))
            registry.engine.dispose()

    @contextmanager
    def backed_up(self) -> Iterator[None]:
        """Put the database, and nothing else, back to what it was before a block."""
        yield
        raise NotImplementedError

    def forget(self) -> None:
        """Remove what was remembered outside the folder."""

    def _kept(self, name: str) -> Any:
        return None

    def _restore(self, kept: Any) -> None:
        pass

    def registry(self) -> Registry:
        """The world's registry, opened in this process."""
        from registry import Registry

        return Registry.open(folder=self.work)

    @contextmanager
    def here(self) -> Iterator[None]:
        """This process's own environment, as commands have it."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("AWS_", "CENTRA_"))]:
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            yield

    def objects(self, registry: Registry) -> dict[str, bytes]:
        """All that is in the registry's store, by its path."""
        from centra.store import LocalStore

        if isinstance(registry.store, LocalStore):
            root = registry.store.root
            return {
                str(path.relative_to(root)): path.read_bytes()
                for path in root.rglob("*")
                if path.is_file()
            }
        return self._bucket_objects()

    def _bucket_objects(self) -> dict[str, bytes]:
        raise NotImplementedError

    def state(self) -> State:
        """What is in it now."""
        from sqlalchemy import inspect

        outside = {
            str(path.relative_to(self.work)): hashlib.sha256(_plain(path)).hexdigest()
            for path in self.work.rglob("*")
            if path.is_file()
            and path.relative_to(self.work).parts[0] not in (".centra", "cache")
            and path.parent.name != "witnesses"
        }
        with self.here():
            try:
                registry = self.registry()
            except Exception:  # noqa: BLE001 - there is none yet
                return State(
                    tables={}, blobs={}, needed=set(), pointers={}, signatures={}, files=outside
                )
            objects = self.objects(registry)
            try:
                database = registry.engine.url.database or ""
                exists = registry.engine.name != "sqlite" or Path(database).exists()
                with registry.engine.connect() if exists else ExitStack() as connection:
                    names = inspect(connection).get_table_names() if exists else []
                    rows = {name: _rows(connection, name) for name in names}
            finally:
                registry.engine.dispose()
        blobs = {
            path.rpartition("/")[2]: data
            for path, data in objects.items()
            if path.startswith("blobs/") and is_blob(path)
        }
        signatures: dict[str, int] = {}
        for path in objects:
            match path.split("/"):
                case ["signatures", manifest, name] if not name.startswith("."):
                    signatures[manifest] = signatures.get(manifest, 0) + 1
        return State(
            tables=_canonical(rows),
            blobs={name: hashlib.sha256(data).hexdigest() == name for name, data in blobs.items()},
            needed=_needed(rows, blobs),
            pointers={
                path: data
                for path, data in objects.items()
                if path.startswith("channels/") and not path.startswith("channels/.")
            },
            signatures=signatures,
            files=outside,
            leftovers=sorted(path for path in objects if path.rpartition("/")[2].startswith(".")),
        )


def is_blob(path: str) -> bool:
    """Whether a path in a store is that of a blob, and not of a temporary file beside one."""
    return _DIGEST.fullmatch(path.rpartition("/")[2].encode()) is not None


class Folders(World):
    """SQLite with a folder."""

    name = "SQLite + folder"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name = "SQLite + folder"

    init = "init"

    @property
    def _file(self) -> Path:
        return self.work / ".centra" / "registry.db"

    @contextmanager
    def backed_up(self) -> Iterator[None]:
        """See :meth:`World.backed_up`."""
        before = self._file.read_bytes()
        yield
        for path in self._file.parent.glob(f"{self._file.name}-*"):
            path.unlink()
        self._file.write_bytes(before)


class Servers(World):
    """PostgreSQL with an S3 server. One bucket and one database, put back by their differences."""

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.services.postgres
        assert self.services.s3
        self.name = "PostgreSQL + S3"
        self._database = f"torture_{os.getpid()}_{abs(hash(self.root)) % 10**6}"
        self._known: dict[str, bytes] = {}  # What has this ETag, and so need not be read again.
        bucket = self._database.replace("_", "-")
        query = urlencode({"endpoint_url": self.services.s3.endpoint, "addressing_style": "path"})
        self._store = f"s3://{bucket}/some/prefix?{query}"
        with self.here():
            self._client = s3_client(self._store)
            self._client.create_bucket(Bucket=bucket)
        self._bucket = bucket
        _execute(
            self.services.postgres,
            f"CREATE DATABASE {self._database} TEMPLATE template0 ENCODING 'UTF8'",
        )

    @property
    def address(self) -> str:
        """The database's, as a command takes it."""
        from sqlalchemy import make_url

        url = make_url(self.services.postgres or "").set(database=self._database)
        text = url.set(drivername="postgresql").render_as_string(hide_password=False)
        return str(text)

    @property
    def init(self) -> str:
        """The command that makes the registry."""
        return f"--database {self.address} --store {self._store} init"

    @property
    def environment(self) -> dict[str, str]:
        """See :attr:`World.environment`."""
        assert self.services.s3
        alone = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        return (
            super().environment
            | alone
            | {"AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}
            | self.services.s3.owner
        )

    def forget(self) -> None:
        """See :meth:`World.forget`."""
        names = [self._database, *self.kept.values()]
        for database in [n if isinstance(n, str) else n[0] for n in names]:
            _execute(
                self.services.postgres or "", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)"
            )

    def cut(self) -> None:
        """End every session of the database, as a server that restarts does."""
        _execute(
            self.services.postgres or "",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{self._database}'",
        )

    @contextmanager
    def backed_up(self) -> Iterator[None]:
        """See :meth:`World.backed_up`."""
        copy, server = f"{self._database}_backup", self.services.postgres or ""
        _execute(server, f"CREATE DATABASE {copy} TEMPLATE {self._database}")
        yield
        _execute(
            server,
            f"DROP DATABASE {self._database} WITH (FORCE)",
            f"ALTER DATABASE {copy} RENAME TO {self._database}",
        )

    def _kept(self, name: str) -> Any:
        copy = f"{self._database}_{re.sub('[^a-z0-9]', '_', name)}"
        _execute(self.services.postgres or "", f"CREATE DATABASE {copy} TEMPLATE {self._database}")
        return copy, self._bucket_objects()

    def _restore(self, kept: Any) -> None:
        copy, objects = kept
        _execute(
            self.services.postgres or "",
            f"DROP DATABASE {self._database} WITH (FORCE)",
            f"CREATE DATABASE {self._database} TEMPLATE {copy}",
        )
        now = self._bucket_objects()
        for path in now.keys() - objects.keys():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + path)
        for path, data in objects.items():
            if now.get(path) != data:
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=data)

    @property
    def _prefix(self) -> str:
        return urlsplit(self._store).path.strip("/") + "/"

    def _bucket_objects(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
        for item in (item for page in pages for item in page.get("Contents", [])):
            if item["ETag"] not in self._known:
                answer = self._client.get_object(Bucket=self._bucket, Key=item["Key"])
                self._known[answer["ETag"]] = answer["Body"].read()
            found[item["Key"].removeprefix(self._prefix)] = self._known[item["ETag"]]
        return found


SETUPS: dict[str, type[World]] = {"sqlite": Folders, "servers": Servers}


@contextmanager
def running(*, servers: bool) -> Iterator[Services]:
    """What worlds are made with, while the block lasts.

    Args:
        servers: also start those that are there: PostgreSQL and S3.
    """
    import tempfile

    with ExitStack() as stack:
        shared = stack.enter_context(shared_things())
        python = warm.start(shared)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="centra-given-")))
        make_given(folder)
        postgres, s3 = None, None
        if servers:
            postgres = start_postgres(shared)
            s3 = start_s3(shared)
        yield Services(python=python, given=folder, postgres=postgres, s3=s3)


@contextmanager
def opened(kind: str, services: Services, folder: Path) -> Iterator[World]:
    """A world of a kind, filled: see :func:`_fill`."""
    world = SETUPS[kind](root=folder.resolve(), services=services)
    try:
        yield world
    finally:
        world.forget()


def make_given(folder: Path) -> None:
    """Write what commands take: modules, an encoder, a checkpoint, data and a key."""
    from centra.checkpoints.backbone import import_backbone
    from centra.store import LocalStore

    encoder = support.make_encoder("bert", folder / "encoder")
    support.make_encoder("bert", folder / "other", seed=1)
    support.frozen_checkpoint(encoder, folder / "checkpoint")
    store = LocalStore(folder / "backbone")
    spec = import_backbone(str(encoder), store)
    made: dict[str, dict[str, Any]] = {
        "intent": {"metrics": {"accuracy": 0.9}},
        "intent-1": {"seed": 1, "metrics": {"accuracy": 0.95}},
        "intent-2": {"seed": 2},
        "redefined": {"seed": 3, "labels": ("alarm", "music", "snow")},
        "slots": {"kind": "tagging", "tap": 2, "seed": 4},
        "slots-1": {"kind": "tagging", "tap": 2, "seed": 5},
        "slots-2": {"kind": "tagging", "tap": 2, "seed": 6},
        "same": {"form": "pair", "labels": ("agrees", "denies"), "depth": 2},
        "topics": {"kind": "multilabel"},
    }
    for name, options in made.items():
        kind = options.pop("kind", "classification")
        module = support.make_module(kind, spec, store, **options)
        module.write(folder / f"{name}.safetensors")
    support.tiny_data("single", folder / "data")
    support.make_key(folder / "release.pem")


def _plain(path: Path) -> bytes:
    """A file's bytes, without what a store calls itself."""
    data = path.read_bytes()
    return _RANDOM.sub("#", data.decode()).encode() if path.name == "store.json" else data


def _rows(connection: Any, name: str) -> list[dict[str, Any]]:
    from sqlalchemy import text

    return [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()]


def _canonical(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[Any]]:
    """Every row without times, the log's digests, and signatures, which are others each time.

    An id is given as its place among the table's. Left out is what is going on at the moment.
    """
    from sqlalchemy import DateTime

    from registry.database.models import Base

    ranks = {
        name: {i: n for n, i in enumerate(sorted(row["id"] for row in found), 1)}
        for name, found in rows.items()
        if found and "id" in found[0]
    }
    seen: dict[str, str] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return _RANDOM.sub(
                lambda m: seen.setdefault(m[0], f"#{len(seen)}") if _alone(m) else m[0], value
            )
        if isinstance(value, dict):
            return json.loads(plain(json.dumps(value)))
        return value

    found: dict[str, list[Any]] = {}
    for name, table in sorted((n, t) for n, t in rows.items() if n not in _PASSING):
        model = Base.metadata.tables.get(name)
        lines = []
        for row in sorted(
            table, key=lambda row: row.get("id", 0) if isinstance(row.get("id", 0), int) else 0
        ):
            line = {}
            for key, value in row.items():
                column = model.columns.get(key) if model is not None else None
                if column is not None and isinstance(
                    getattr(column.type, "impl", column.type), DateTime
                ):
                    continue
                if name.startswith("audit") and key in ("digest", "at"):
                    continue
                if key == "id":
                    value = ranks[name].get(value, value)  # noqa: PLW2901
                for foreign in column.foreign_keys if column is not None else ():
                    if foreign.column.name == "id":
                        value = ranks[foreign.column.table.name].get(value)  # noqa: PLW2901
                if name.startswith("audit") and key == "details":
                    details = json.loads(value) if isinstance(value, str) else value
                    value = {k: details[k] for k in details if not k.startswith("signature")}  # noqa: PLW2901
                line[key] = plain(value)
            lines.append(line)
        found[name] = sorted(lines, key=str)
    return found


def _alone(match: re.Match[str]) -> bool:
    """Whether it is a random name, and not a part of a digest."""
    around = match.string[max(0, match.start() - 1) : match.end() + 1]
    return len(re.findall("[0-9a-f-]", around)) == len(match[0])


def _needed(rows: dict[str, list[dict[str, Any]]], blobs: dict[str, bytes]) -> set[str]:
    documents = {row["digest"] for name in ("backbones", "releases") for row in rows.get(name, [])}
    needed = {row["digest"] for row in rows.get("task_versions", [])} | documents
    for digest in documents:
        needed |= {found.decode() for found in _DIGEST.findall(blobs.get(digest, b""))}
    return needed


def texts(lines: Iterable[str]) -> str:
    """Several findings as one text."""
    return "; ".join(lines)
