"""A store that misbehaves, a database that restarts, disks that fill: nothing is lost by it.

``run`` is the long form: ``python -m tests.torture.test_store_faults SECONDS SEED``.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest
from click.testing import CliRunner
from sqlalchemy import event

import cli
from centra.errors import CorruptBlobError, StoreError
from centra.store import LocalStore, open_store
from centra.store.s3 import S3Store, retries
from registry import Registry, audit, backbones, tasks
from registry.database.engine import make_engine
from registry.database.migrations import upgrade
from registry.errors import DatabaseError
from registry.rules.lifecycle import Actor
from tests import services, support
from tests.support import version_number
from tests.torture import parallel
from tests.torture.losses import lose
from tests.torture.s3_proxy import FAULTS, at_random, in_order, proxied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.torture import parallel
from tests.torture.s3_proxy import Fault, Proxy, Script

_RATE, _MOST = 0.3, 3
"""Of the requests, how many meet a fault; how many updates of a task there are."""


def run(seconds: float, seed: int) -> dict[str, int]:
    """Attack a registry on a real S3 server through the proxy, as long as it takes.

    Args:
        seconds: how long; the command that runs then is finished.
        seed: of the faults.

    Returns:
        How many ``commands`` ran under faults, how many ``faults`` they met, how many ``failed``
        and said so, and the ``losses``: commands that ended in a traceback, reruns that did not
        finish, and things that did not verify afterwards.
    """
    server = parallel.services().s3
    if server is None:
        pytest.skip("there is no S3 server")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        end = time.monotonic() + seconds
        counts: Counter[str] = Counter()
        for number in range(1 << 30):
            if time.monotonic() >= end:
                break
            attack = _Attack(server, folder / str(number), at_random(_RATE, seed + number))
            counts += attack.walk(lambda: time.monotonic() < end)
            if attack.counts["losses"]:
                lose(
                    f"store faults, registry {number}: "
                    + "; ".join(line for line in attack.said if "LOSS" in line),
                    f"python -m tests.torture --part 'store faults' --seed {seed + number}",
                )
        return dict(counts)


class _Attack:
    """One registry, whose commands meet faults, each until a rerun without them converges."""

    def __init__(self, server: services.S3Server, folder: Path, script: Script) -> None:
        self.server = server
        self.folder = folder
        self.script = script
        self.counts: Counter[str] = Counter({"commands": 0, "faults": 0, "failed": 0, "losses": 0})
        self.said: list[str] = []
        """What failures and losses said."""

    def walk(self, more: Callable[[], bool] = lambda: True, rounds: int = _MOST) -> Counter[str]:
        """Go through the life of a registry; what happened is counted.

        Args:
            more: whether there is time for another command.
            rounds: how many updates of the task are released.
        """
        bucket = f"faults-{uuid.uuid4().hex}"
        self.folder.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch, proxied(self.server.endpoint) as proxy:
            services._become(self.server.owner, patch)
            query = urlencode({"endpoint_url": proxy.endpoint, "addressing_style": "path"})
            url = f"s3://{bucket}/registry?{query}"
            services.s3_client(url).create_bucket(Bucket=bucket)
            patch.setenv("CENTRA_CACHE", str(self.folder / "cache"))
            patch.setenv("CENTRA_ACTOR", "nlu/ada")
            patch.chdir(self.folder)
            self._check(proxy, ["--store", url, "init"])
            for number, words in enumerate(self._commands(rounds)):
                if not more():
                    break
                # Each command finds what it needs in the store, as on a machine of its own.
                patch.setenv("CENTRA_CACHE", str(self.folder / f"cache-{number}"))
                self._attack(proxy, words)
            self._check(proxy, ["doctor"])
            self._check(proxy, ["doctor", "--deep"])
        return self.counts

    def _commands(self, rounds: int) -> Sequence[list[str]]:
        encoder, modules = _made(rounds)
        commands = [
            ["backbone", "register", "tiny", str(encoder)],
            ["task", "register", "intent", str(modules[0])],
            ["compose", "--release"],
        ]
        for number in range(1, rounds + 1):
            commands += [
                ["task", "update", "intent", str(modules[number])],
                ["compose", "--release"],
                ["promote", str(number + 1), "--to", "staging"],
                ["channel", "sync"],
                ["release", "pull", "staging", "--output", "pulled"],
                ["release", "verify", "staging"],
                ["release", "diff", str(number), str(number + 1)],
                ["task", "diff", f"intent@1.{number - 1}", f"intent@1.{number}"],
                ["export", "--release", str(number + 1), "export.tar"],
                ["import", "export.tar"],
                ["gc", "--delete"],
                ["backbone", "register", "tiny", str(encoder)],
            ]
        return commands

    def _attack(self, proxy: Proxy, words: list[str]) -> None:
        before = proxy.faults.total()
        proxy.script = self.script
        code, text = self._command(*words)
        proxy.script = None
        self.counts["commands"] += 1
        self.counts["faults"] += proxy.faults.total() - before
        if code:
            self.counts["failed"] += 1
            self.said.append(f"{' '.join(words)}: {text}")
        self._check(proxy, words)

    def _check(self, proxy: Proxy, words: list[str]) -> None:
        """Run a command without faults; it must do what it is for."""
        proxy.script = None
        code, text = self._command(*words)
        if code:
            self.counts["losses"] += 1
            self.said.append(f"LOSS {' '.join(words)}: {text}")

    def _command(self, *words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.main, list(words))
        text = result.stderr[-2000:]
        if result.exception and not isinstance(result.exception, SystemExit):
            self.counts["losses"] += 1
            text = f"LOSS {result.exception!r}"
            self.said.append(f"{' '.join(words)}: {text}")
        return result.exit_code, text


_MADE: dict[str, Path] = {}


def _made(rounds: int) -> tuple[Path, list[Path]]:
    """A tiny encoder, and so many modules on it and one more; made once."""
    from centra.checkpoints.backbone import import_backbone
    from centra.store import LocalStore

    if not _MADE:
        folder = Path(tempfile.mkdtemp(prefix="centra-faults-"))
        _MADE["encoder"] = support.make_encoder("bert", folder / "encoder")
        store = LocalStore(folder / "store")
        spec = import_backbone(str(_MADE["encoder"]), store)
        for seed in range(_MOST + 1):
            path = _MADE[str(seed)] = folder / f"{seed}.safetensors"
            support.make_module("classification", spec, store, seed=seed).write(path)
    return _MADE["encoder"], [_MADE[str(seed)] for seed in range(rounds + 1)]


# Each fault by itself.


@pytest.fixture
def proxy(s3_server: services.S3Server) -> Iterator[Proxy]:
    """A proxy before the real server, which does nothing wrong yet."""
    with proxied(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def faulty(s3_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """An empty store behind the proxy, that waits little."""
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.001)
    bucket = urlsplit(s3_url).netloc
    store = open_store(f"s3://{bucket}/some/prefix?{urlencode({'endpoint_url': proxy.endpoint})}")
    assert isinstance(store, S3Store)
    return store


def anew(store: S3Store, folder: Path) -> S3Store:
    """The same store on another machine, which has no copies."""
    other = open_store(store.url, cache=folder)
    assert isinstance(other, S3Store)
    return other


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "delay"])
def test_whatever_passes_is_waited_for(
    fault: Fault, faulty: S3Store, proxy: Proxy, tmp_path: Path
) -> None:
    manifest = "ab" * 32
    digest = ""

    def twice() -> None:
        proxy.script = in_order(fault, fault)

    for number in range(2):
        data, pointer = b"layers %d" % number, b'{"revision": %d}' % number
        twice()
        digest = faulty.put(data)
        twice()
        assert faulty.has(digest)
        twice()
        assert anew(faulty, tmp_path / str(number)).fetch(digest).read_bytes() == data
        twice()
        assert faulty.find_problem(digest) is None
        twice()
        faulty.write_pointer("production", pointer)
        twice()
        if fault != "stale":  # A server that forgets what it was told is another one's to wait for.
            assert faulty.read_pointer("production") == pointer
        twice()
        faulty.write_signature(manifest, data)
        twice()
        if fault not in ("flip", "stale"):  # A listing has no digest.
            assert data in faulty.signatures(manifest)
    if fault not in ("flip", "stale"):
        twice()
        assert faulty.pointers() == ["production"]
        twice()
        assert len(list(faulty.blobs())) == 2
    twice()
    faulty.remove(digest)
    proxy.script = None
    assert not faulty.has(digest)
    assert proxy.faults[fault] > 0


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A blob of three parts, as small as servers allow."""
    monkeypatch.setattr("centra.store.s3.transfers._PART", 5 << 20)
    return random.Random(0).randbytes(11 << 20)


@pytest.mark.parametrize("fault", ["error", "drop", "lost", "spoil"])
def test_of_a_large_blob_only_the_part_that_failed_is_sent_again(
    fault: Fault, large: bytes, faulty: S3Store, proxy: Proxy
) -> None:
    proxy.script = in_order(None, fault, method="PUT")

    digest = faulty.put(large)

    assert [method for method, _ in proxy.requests].count("PUT") == 4
    proxy.script = None
    assert faulty.find_problem(digest) is None
    assert uploads(faulty) == []


@pytest.mark.parametrize("fault", ["error", "drop", "short"])
def test_of_a_large_blob_only_the_part_that_failed_is_asked_for_again(
    fault: Fault, large: bytes, faulty: S3Store, proxy: Proxy
) -> None:
    digest = faulty.put(large)
    proxy.requests.clear()
    proxy.script = in_order(None, fault, method="GET")

    assert faulty.fetch(digest).read_bytes() == large

    assert [method for method, _ in proxy.requests] == ["GET"] * 4


@pytest.mark.parametrize("fault", ["lost", "failed"])
def test_a_large_blob_whose_end_was_answered_by_nothing_is_there(
    fault: Fault, large: bytes, faulty: S3Store, proxy: Proxy
) -> None:
    proxy.script = in_order(fault, method="POST", path="uploadId")

    digest = faulty.put(large)

    proxy.script = None
    assert faulty.find_problem(digest) is None


def test_of_an_upload_that_fails_nothing_stays(
    large: bytes, faulty: S3Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_PATIENCE", 0.2)
    proxy.script = in_order(*["error"] * 1000, method="PUT", path="partNumber=2")

    with pytest.raises(StoreError, match=r"SlowDown.*\(PUT .*attempts in"):
        faulty.put(large)

    proxy.script = None
    assert uploads(faulty) == []
    assert list(faulty.blobs()) == []


def uploads(store: S3Store) -> list[object]:
    """What a bucket keeps of uploads that were not brought to an end."""
    bucket = urlsplit(store.url).netloc
    found: list[object] = store.client.boto.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return found


def test_a_file_that_changes_while_it_is_stored_is_refused(
    large: bytes, faulty: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (b"small", large):
        path = tmp_path / "file"
        path.write_bytes(data)
        with monkeypatch.context() as patch, pytest.raises(StoreError, match="was changed while"):
            patch.setattr("centra.store.s3.store.content_digest", lambda _path: "ab" * 32)
            faulty.put(path)
    assert list(faulty.blobs()) == []
    assert uploads(faulty) == []


def test_a_blob_is_damaged_when_it_was_read_so_twice(
    faulty: S3Store, proxy: Proxy, tmp_path: Path
) -> None:
    digest = faulty.put(b"frozen layers")
    key = f"some/prefix/blobs/sha256/{digest[:2]}/{digest}"
    faulty.client.boto.put_object(
        Bucket=urlsplit(faulty.url).netloc, Key=key, Body=b"Frozen layers"
    )
    proxy.requests.clear()
    with pytest.raises(CorruptBlobError):
        faulty.fetch(digest)
    assert len(proxy.requests) == 2

    faulty.put(b"frozen layers")

    proxy.script = in_order(*["flip"] * 100, method="GET")
    with pytest.raises(StoreError, match="another file each of 5 times"):
        anew(faulty, tmp_path).fetch(digest)
    proxy.script = None
    assert faulty.fetch(digest).read_bytes() == b"frozen layers"


def test_a_silent_store_is_waited_for_so_long_and_the_error_says_for_what(
    faulty: S3Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert retries._PATIENCE + retries.READ_TIMEOUT <= 65
    monkeypatch.setattr("centra.store.s3.client.READ_TIMEOUT", 0.2)
    monkeypatch.setattr(retries, "_PATIENCE", 0.5)
    proxy.script = in_order(*["hang"] * 100)

    with pytest.raises(
        StoreError, match=r"no answer to GET some/prefix/blobs/.* within 0.2 s, \d attempts"
    ):
        faulty.put(b"frozen layers")


# The life of a registry.


def test_a_registry_outlives_a_store_that_misbehaves(
    s3_server: services.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_LONGEST_WAIT", 0.05)
    attack = _Attack(s3_server, tmp_path / "registry", at_random(_RATE, 1))

    counts = attack.walk(lambda: attack.counts["commands"] < 3, rounds=1)

    assert counts["losses"] == 0, attack.said
    assert counts["failed"] <= 1, attack.said
    assert counts["faults"] > 5


# A database that goes away, and disks that fill.


def test_whenever_the_database_goes_away_it_is_said_and_a_rerun_converges(
    postgres_database: str, tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    engine = make_engine(postgres_database)
    upgrade(engine)
    registry = Registry(
        engine=engine, store=LocalStore(tmp_path / "store"), actor=Actor.parse("nlu/ada")
    )
    backbones.register(registry, "tiny", str(tiny_backbone.folder))
    _, (module, *_) = _made(0)
    coming = [0]

    def end(connection: Any, *_: object) -> None:
        coming[0] -= 1
        if coming[0] == 0:
            pid = connection.connection.dbapi_connection.info.backend_pid
            services._execute(postgres_database, f"SELECT pg_terminate_backend({pid})")

    event.listen(engine, "before_cursor_execute", lambda *args: end(args[0]))
    for registered in count(1):
        number = 1 + 5 * (registered - 1)
        coming[0] = number
        ended = True
        try:
            tasks.register(registry, f"task-{number}", module)
            ended = coming[0] <= 0
        except DatabaseError as error:
            assert "Traceback" not in str(error)
        coming[0] = 0
        engine.dispose()
        assert tasks.register(registry, f"task-{number}", module).version == version_number("1.0")
        if not ended:
            break
    assert number > 5
    assert audit.verify(registry).events == registered + 1
    engine.dispose()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


@pytest.mark.parametrize("what", ["database", "store"])
@pytest.mark.parametrize("room", [0, 1 << 14])
def test_a_disk_that_fills_is_said_and_a_rerun_converges(
    what: str, room: int, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, (module, *_) = _made(0)
    places = {"database": tmp_path, "store": tmp_path} | {what: small_disk}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CENTRA_DATABASE_URL", f"sqlite:///{places['database']}/registry.db")
    monkeypatch.setenv("CENTRA_STORE", str(places["store"] / "store"))
    monkeypatch.setenv("CENTRA_ACTOR", "nlu/ada")
    commands = [
        ["backbone", "register", "tiny", str(encoder)],
        ["task", "register", "intent", str(module)],
        ["compose", "--release"],
        ["promote", "1", "--to", "staging"],
    ]
    assert centra("init")[0] == 0
    for words in commands:
        _fill(small_disk, room)
        code, text = centra(*words)
        assert "Traceback" not in text
        assert code in (0, 1, 4), text
        assert code == 0 or any(word in text for word in ("space", "full", "disk")), text
        (small_disk / "filler").unlink()
        code, text = centra(*words)
        assert code == 0, text
    code, text = centra("doctor", "--deep")
    assert code == 0, text


def centra(*words: str) -> tuple[int, str]:
    """Run a command: its exit code, and all that it said. A traceback is raised."""
    result = CliRunner().invoke(cli.main, list(words), catch_exceptions=False)
    return result.exit_code, result.output


def _fill(folder: Path, room: int) -> None:
    """Leave no more than this of a file system."""
    with (folder / "filler").open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(1 << 12))
        file.truncate(max(0, file.tell() - room))


if __name__ == "__main__":
    print(run(float(sys.argv[1]), int(sys.argv[2])))
