from __future__ import annotations

import functools
import hashlib
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlencode, urlsplit

import pytest

import centra.store
from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    InvalidNameError,
    NotAllowedError,
    StoreError,
    StoreNotWritableError,
    UsageError,
)
from centra.store import LocalStore, open_store
from centra.store.s3 import S3Store, retries
from centra.system.files import file_digest, replacing
from tests.memory_store import MemoryStore
from tests.services import s3_client
from tests.torture.s3_proxy import proxied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from centra.store import BlobStore
    from tests.services import S3Server

MIB = 1 << 20
SECOND = timedelta(seconds=1)
DATA = b"frozen layers\n" * 1000
OTHER = b"distilled layers\n" * 1000
MISSING = "ab" * 32
BAD_CHANNELS = ["", ".", "..", "../production", "a/b", "/etc/x", "a..b", ".hidden", "Prod", "a\n"]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """An empty store of each kind, under one contract."""
    if request.param == "memory":
        return MemoryStore(tmp_path / "fetched")
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("s3_url"))


def tamper(store: BlobStore, digest: str, data: bytes) -> None:
    """Change a stored blob's bytes behind the store's back."""
    if isinstance(store, MemoryStore):
        store.content[digest] = data
    elif isinstance(store, LocalStore):
        (store.root / "blobs" / "sha256" / digest[:2] / digest).write_bytes(data)
    else:
        bucket, prefix = bucket_and_prefix(store.url)
        key = f"{prefix}/blobs/sha256/{digest[:2]}/{digest}"
        s3_client(store.url).put_object(Bucket=bucket, Key=key, Body=data)


def bucket_and_prefix(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc, parts.path.strip("/")


def s3_address(bucket: str, endpoint: str) -> str:
    return f"s3://{bucket}/prefix?{urlencode({'endpoint_url': endpoint})}"


def s3_keys(url: str) -> list[str]:
    bucket, prefix = bucket_and_prefix(url)
    found = s3_client(url).list_objects_v2(Bucket=bucket).get("Contents", [])
    return sorted(entry["Key"].removeprefix(f"{prefix}/") for entry in found)


def requests_of(store: BlobStore) -> list[str]:
    """The method of every HTTP request that an S3 store makes from now on."""
    assert isinstance(store, S3Store)
    methods: list[str] = []
    store.client.boto.meta.events.register(
        "before-send.s3", lambda request, **_: methods.append(request.method)
    )
    return methods


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def python(script: str, *arguments: str) -> list[str]:
    """The command line of another Python process that can import centra."""
    root = str(Path(centra.store.__file__).parents[2])
    path = f"import sys; sys.path.insert(0, {root!r})\n"
    return [sys.executable, "-c", path + script, *arguments]


# What every store promises.


@pytest.mark.parametrize("data", [b"", b"\0", DATA, some_bytes(MIB)], ids=len)
def test_put_bytes_can_be_fetched_by_their_digest(store: BlobStore, data: bytes) -> None:
    digest = store.put(data)

    assert digest == digest_of(data)
    assert store.has(digest)
    assert store.fetch(digest).read_bytes() == data


def test_put_file_can_be_fetched_by_its_digest(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "layer-01.safetensors"
    source.write_bytes(DATA)

    digest = store.put(source)

    assert digest == digest_of(DATA)
    assert store.fetch(digest).read_bytes() == DATA
    assert source.read_bytes() == DATA


def test_put_file_of_many_parts_can_be_fetched(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(some_bytes(20 * MIB + 1))

    digest = store.put(source)

    assert digest == file_digest(source)
    assert file_digest(store.fetch(digest)) == digest


def test_a_blob_that_was_never_put_is_missing(store: BlobStore) -> None:
    store.put(DATA)

    assert not store.has(MISSING)
    with pytest.raises(BlobNotFoundError) as caught:
        store.fetch(MISSING)
    assert caught.value.digest == MISSING
    assert store.url in str(caught.value)


def test_an_empty_store_holds_nothing(store: BlobStore) -> None:
    assert not store.has(MISSING)
    with pytest.raises(BlobNotFoundError):
        store.fetch(MISSING)
    assert store.read_pointer("production") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda _: b"",
    ],
    ids=["one flipped bit", "truncated", "longer", "empty"],
)
def test_a_damaged_blob_is_never_handed_out(
    store: BlobStore, damage: Callable[[bytes], bytes]
) -> None:
    digest = store.put(DATA)
    tamper(store, digest, damage(DATA))

    for _ in range(2):
        with pytest.raises(CorruptBlobError) as caught:
            store.fetch(digest)
        assert caught.value.digest == digest
        assert caught.value.actual == digest_of(damage(DATA))
        assert digest in str(caught.value)
        assert caught.value.actual in str(caught.value)


def test_one_damaged_blob_leaves_the_others_usable(store: BlobStore) -> None:
    damaged, good = store.put(DATA), store.put(OTHER)
    tamper(store, damaged, b"noise")

    assert store.fetch(good).read_bytes() == OTHER


def test_a_pointer_is_replaced_whole(store: BlobStore) -> None:
    store.write_pointer("production", b'{"revision": 1, "release": "long"}')
    store.write_pointer("staging", b"{}")
    store.write_pointer("production", b'{"revision": 2}')

    assert store.read_pointer("production") == b'{"revision": 2}'
    assert store.read_pointer("staging") == b"{}"
    assert store.read_pointer("canary") is None


def test_readers_of_a_pointer_never_see_half_of_it(store: BlobStore) -> None:
    old, new = b"1" * 100_000, b"2" * 90_000
    store.write_pointer("production", old)
    seen: set[bytes | None] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(store.read_pointer("production"))

    with ThreadPoolExecutor(2) as pool:
        reads = [pool.submit(read) for _ in range(2)]
        for _ in range(10):
            store.write_pointer("production", new)
            store.write_pointer("production", old)
        done.set()
    for result in reads:
        result.result()
    assert seen
    assert not [data and len(data) for data in seen - {old, new}]


@pytest.mark.parametrize("channel", BAD_CHANNELS)
def test_a_pointer_whose_name_could_leave_its_folder_is_refused(
    store: BlobStore, channel: str
) -> None:
    with pytest.raises(InvalidNameError, match="channel name"):
        store.write_pointer(channel, b"{}")
    with pytest.raises(InvalidNameError, match="channel name"):
        store.read_pointer(channel)


def test_threads_may_put_and_fetch_the_same_blob_at_once(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(MIB))

    def put_and_fetch(_: int) -> bytes:
        return store.fetch(store.put(source)).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(put_and_fetch, range(16)))

    assert set(results) == {source.read_bytes()}


def listed(store: BlobStore) -> dict[str, int]:
    found = list(store.blobs())
    assert len({blob.digest for blob in found}) == len(found)
    return {blob.digest: blob.size for blob in found}


def test_a_listing_names_every_blob_with_its_size(store: BlobStore) -> None:
    assert listed(store) == {}
    first, second, empty = store.put(DATA), store.put(OTHER), store.put(b"")
    store.write_pointer("production", b"{}")

    assert listed(store) == {first: len(DATA), second: len(OTHER), empty: 0}


def test_a_blob_is_dated_by_the_stores_own_clock(store: BlobStore) -> None:
    before = store.clock()
    digest = store.put(DATA)
    after = store.clock()

    (blob,) = store.blobs()
    found = store.stat(digest)
    assert found is not None
    assert (found.digest, found.size) == (digest, len(DATA))
    for one in (blob, found):
        assert one.modified.tzinfo is UTC
        # A server tells times in whole seconds, up or down.
        assert before - SECOND <= one.modified <= after + SECOND


def test_what_is_not_there_has_no_size_and_no_time(store: BlobStore) -> None:
    assert store.stat(MISSING) is None
    store.remove(store.put(DATA))
    assert store.stat(digest_of(DATA)) is None


def test_a_stores_clock_goes_right(store: BlobStore) -> None:
    assert store.clock().tzinfo is UTC
    assert abs(store.clock() - datetime.now(UTC)) < 2 * SECOND


def test_a_removed_blob_is_gone_and_can_be_put_again(store: BlobStore) -> None:
    digest, other = store.put(DATA), store.put(OTHER)

    store.remove(digest)

    assert not store.has(digest)
    assert listed(store) == {other: len(OTHER)}
    assert store.fetch(other).read_bytes() == OTHER
    assert store.put(DATA) == digest
    assert store.fetch(digest).read_bytes() == DATA


def test_removing_twice_or_what_never_was_does_no_harm(store: BlobStore) -> None:
    digest, other = store.put(DATA), store.put(OTHER)

    for _ in range(2):
        store.remove(digest)
        store.remove(MISSING)

    assert listed(store) == {other: len(OTHER)}


def test_the_pointers_are_listed_by_their_channels(store: BlobStore) -> None:
    assert store.pointers() == []
    for channel in ("staging", "production", "v1.json", "a-b_c.d"):
        store.write_pointer(channel, b"{}")
    store.put(DATA)

    assert store.pointers() == ["a-b_c.d", "production", "staging", "v1.json"]
    assert [store.read_pointer(channel) for channel in store.pointers()] == [b"{}"] * 4


# What every store that lies outside this process promises.


def place(url: str, path: str, data: bytes) -> None:
    """Put a file into a store behind its back."""
    if url.startswith("s3:"):
        bucket, prefix = bucket_and_prefix(url)
        s3_client(url).put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=data)
    else:
        file = Path(url, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def test_what_is_no_blob_and_no_pointer_is_not_listed(url: str) -> None:
    store = open_store(url)
    digest = store.put(DATA)
    store.write_pointer("production", b"{}")
    for path in (
        "README",
        f"blobs/sha256/{digest}",
        f"blobs/sha256/{digest[:2]}/README",
        f"blobs/sha256/{digest[:2]}/{digest.upper()}",
        f"blobs/sha256/{digest[:2]}/.{digest}.abcdefgh",
        f"blobs/sha256/{digest[:2]}/{digest[:-1]}",
        f"blobs/sha256/zz/{digest}",
        f"blobs/sha256/{digest[:2]}/more/{digest}",
        f"blobs/{digest[:2]}/{digest_of(OTHER)}",
        "channels/README",
        "channels/.production.json.abcdefgh",
        "channels/.json",
        "channels/old/staging.json",
    ):
        place(url, path, OTHER)

    assert listed(store) == {digest: len(DATA)}
    assert store.pointers() == ["production"]


def test_stores_beside_and_inside_each_other_list_and_remove_their_own(url: str) -> None:
    outer = open_store(url)
    head, mark, options = url.partition("?")
    inner, beside = (open_store(f"{head}{end}{mark}{options}") for end in ("/inner", "-beside"))
    for store, data in ((outer, b"1"), (inner, b"2"), (beside, b"3")):
        store.put(data)
        store.put(DATA)
        store.write_pointer(f"channel-{data.decode()}", b"{}")

    inner.remove(digest_of(DATA))

    assert listed(inner) == {digest_of(b"2"): 1}
    assert listed(outer) == {digest_of(b"1"): 1, digest_of(DATA): len(DATA)}
    assert listed(beside) == {digest_of(b"3"): 1, digest_of(DATA): len(DATA)}
    stores = (outer, inner, beside)
    assert [store.pointers() for store in stores] == [["channel-1"], ["channel-2"], ["channel-3"]]


@pytest.fixture(params=["local", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store of each kind that several processes can open."""
    if request.param == "local":
        return str(tmp_path / "store")
    address: str = request.getfixturevalue("s3_url")
    return address


def test_its_address_opens_the_same_store_again(url: str) -> None:
    store = open_store(url)
    digest = store.put(DATA)
    store.write_pointer("production", b"{}")

    again = open_store(store.url)

    assert again.fetch(digest).read_bytes() == DATA
    assert again.read_pointer("production") == b"{}"


def test_processes_may_put_the_same_blob_at_once(url: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(10 * MIB))
    script = (
        "from pathlib import Path\n"
        "from centra.store import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(store.put(Path(sys.argv[2])))\n"
    )
    writers = [
        subprocess.Popen(
            python(script, url, str(source)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    results = [writer.communicate(timeout=60)[0] for writer in writers]

    assert results == [f"{file_digest(source)}\n"] * 3
    assert open_store(url).fetch(file_digest(source)).read_bytes() == source.read_bytes()


def test_threads_may_each_open_the_store_at_once(url: str) -> None:
    def put(number: int) -> bytes:
        store = open_store(url)
        return store.fetch(store.put(b"%d" % number)).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(put, range(8))) == [b"%d" % number for number in range(8)]


# Written once.


def test_putting_twice_writes_once_in_memory(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)

    assert store.put(DATA) == store.put(DATA)

    assert store.writes == [digest_of(DATA)]


def test_a_locked_store_refuses_removal_in_memory(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    digest = store.put(DATA)
    store.writable = False

    with pytest.raises(StoreNotWritableError):
        store.remove(digest)
    assert store.has(digest)


def test_putting_twice_writes_once_in_a_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    first = store.fetch(store.put(DATA)).stat()

    second = store.fetch(store.put(DATA)).stat()

    assert (second.st_ino, second.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)


@pytest.mark.parametrize("size", [1000, 20 * MIB])
def test_putting_twice_uploads_once_to_s3(s3_url: str, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(size))
    store = open_store(s3_url)
    requests = requests_of(store)

    store.put(source)
    assert "PUT" in requests
    requests.clear()
    store.put(source)
    store.put(source.read_bytes())

    assert set(requests) == {"GET"}


# Read once.


def test_whoever_wants_a_blob_of_s3_at_once_asks_once(s3_url: str) -> None:
    store = open_store(s3_url)
    digest = store.put(DATA)
    requests = requests_of(store)

    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(store.fetch, [digest] * 8)]

    assert {path.read_bytes() for path in found} == {DATA}
    assert requests == ["GET"]


_FETCH = """
import sys
from centra.store import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for digest in sys.argv[2:]:
    store.fetch(digest)
"""


def test_processes_that_begin_at_once_on_one_cache_pull_each_blob_once(
    s3_url: str, s3_server: S3Server
) -> None:
    digests = [open_store(s3_url).put(some_bytes(size)) for size in (1, 2)]
    with proxied(s3_server.endpoint) as proxy:
        seen = s3_url.replace(
            *(urlencode({"": e})[1:] for e in (s3_server.endpoint, proxy.endpoint))
        )
        command = [sys.executable, "-c", _FETCH, seen, *digests]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        proxy.script = lambda *_: "delay"  # The second comes while the first is at it.
        for process in processes:
            process.communicate("\n")
        assert [process.returncode for process in processes] == [0, 0]
        pulled = [path for _, path in proxy.requests if "/blobs/" in path]
        assert sorted(path.rpartition("/")[2] for path in pulled) == sorted(digests)


def test_a_store_of_s3_uses_the_cache_of_the_machine_that_it_is_sent_to(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [pickle.dumps(open_store(s3_url, cache=cache)) for cache in (None, tmp_path / "named")]

    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "another machine's"))
    default, named = (pickle.loads(each) for each in sent)

    assert default.cache.root == tmp_path / "another machine's"
    assert named.cache.root == tmp_path / "named"


# A folder.


def test_a_folder_is_laid_out_as_documented(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    digest = store.put(DATA)
    store.write_pointer("production", b"{}")

    assert files_below(tmp_path) == [
        tmp_path / "blobs" / "sha256" / digest[:2] / digest,
        tmp_path / "channels" / "production.json",
    ]


def test_looking_into_a_folder_that_is_not_there_does_not_make_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")

    store.has(MISSING)
    store.read_pointer("production")

    assert not store.root.exists()


def test_a_refused_pointer_writes_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")

    for channel in BAD_CHANNELS:
        with pytest.raises(InvalidNameError):
            store.write_pointer(channel, b"{}")

    assert not files_below(tmp_path)


def test_putting_a_damaged_blob_again_mends_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    digest = store.put(DATA)
    tamper(store, digest, b"noise")

    store.put(DATA)

    assert store.fetch(digest).read_bytes() == DATA


def test_written_files_are_readable_by_everybody(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    source = tmp_path / "source"
    source.write_bytes(OTHER)
    source.chmod(0o600)

    store.put(DATA)
    store.put(source)
    store.write_pointer("production", b"{}")

    written = files_below(tmp_path / "blobs") + files_below(tmp_path / "channels")
    assert [oct(path.stat().st_mode & 0o777) for path in written] == ["0o644"] * 3


@pytest.mark.parametrize(
    "folder",
    [
        lambda tmp_path: Path("/proc/centra-store"),
        lambda tmp_path: tmp_path / "a-file",
        lambda tmp_path: tmp_path / "a-file" / "store",
        lambda tmp_path: tmp_path / ("long" * 100),
    ],
    ids=["not a place for files", "a file", "below a file", "name too long"],
)
def test_a_folder_that_cannot_be_written_says_so(
    tmp_path: Path, folder: Callable[[Path], Path]
) -> None:
    (tmp_path / "a-file").write_bytes(b"not a folder")
    store = LocalStore(folder(tmp_path))

    with pytest.raises(StoreNotWritableError, match="cannot write to the store") as caught:
        store.put(DATA)
    assert str(store.root) in str(caught.value)
    with pytest.raises(StoreNotWritableError, match="cannot write to the store"):
        store.write_pointer("production", b"{}")
    assert (tmp_path / "a-file").read_bytes() == b"not a folder"


def test_a_folder_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / ("long" * 100))

    for read in (store.has, store.fetch):
        with pytest.raises(StoreError, match="cannot read"):
            read(MISSING)
    with pytest.raises(StoreError, match="cannot read"):
        store.read_pointer("production")


def test_a_folder_that_cannot_be_listed_says_so_instead_of_being_empty(tmp_path: Path) -> None:
    for name in ("blobs", "channels"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "sha256").write_bytes(b"not a folder")
    (tmp_path / "channels").rmdir()
    (tmp_path / "channels").write_bytes(b"not a folder")
    store = LocalStore(tmp_path)

    for read in (store.pointers, lambda: list(store.blobs()), lambda: list(store.leftovers())):
        with pytest.raises(StoreError, match="cannot list the store") as caught:
            read()
        assert str(tmp_path) in str(caught.value)


def test_a_blob_that_cannot_be_removed_says_so(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "blobs").write_bytes(b"not a folder")

    with pytest.raises(StoreNotWritableError, match="cannot write to the store"):
        store.remove(MISSING)


def test_the_clock_of_a_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.clock()
    assert not store.root.exists()
    store.put(DATA)
    before = files_below(tmp_path)

    store.clock()

    assert files_below(tmp_path) == before


def test_what_a_killed_write_left_is_listed_and_can_be_removed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    digest = store.put(DATA)
    store.write_pointer("production", b"{}")
    own = [f"blobs/sha256/{digest[:2]}/.{digest}.abcd_fg8", "channels/.production.json.abcdefgh"]
    own.insert(0, ".store.json.abcdefgh")
    others = [
        "channels/.nfs0001",
        f"blobs/sha256/{digest[:2]}/.DS_Store",
        ".DS_Store",
    ]
    for name in (*own, *others):
        (tmp_path / name).write_bytes(b"half")

    found = list(store.leftovers())
    assert sorted(left.name for left in found) == own
    assert {left.size for left in found} == {4}
    assert all(abs(left.modified - store.clock()) < SECOND for left in found)
    for left in [*found, *found]:
        store.remove_leftover(left.name)

    assert list(store.leftovers()) == []
    assert store.fetch(digest).read_bytes() == DATA
    assert store.read_pointer("production") == b"{}"
    assert all((tmp_path / name).is_file() for name in others)


def test_a_folder_in_place_of_a_blob_is_reported(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    digest = digest_of(DATA)
    (tmp_path / "blobs" / "sha256" / digest[:2] / digest).mkdir(parents=True)

    assert not store.has(digest)
    with pytest.raises(StoreError, match="cannot read"):
        store.fetch(digest)
    with pytest.raises(StoreNotWritableError):
        store.put(DATA)


def test_a_full_disk_leaves_no_half_blob(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(2 * MIB))
    script = (
        "import resource\n"
        "from pathlib import Path\n"
        "from centra.store import open_store\n"
        "from centra.errors import StoreNotWritableError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try:\n"
        "    open_store(sys.argv[1]).put(Path(sys.argv[2]))\n"
        "except StoreNotWritableError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        python(script, str(tmp_path / "store"), str(source)),
        check=True,
        capture_output=True,
        text=True,
    )

    assert "cannot write to the store" in result.stdout
    assert not files_below(tmp_path / "store")


@pytest.mark.parametrize("moment", ["while copying", "before the rename"])
def test_killed_while_putting_a_blob_the_store_works_and_a_rerun_finishes(
    tmp_path: Path, moment: str
) -> None:
    store = LocalStore(tmp_path / "store")
    store.put(OTHER)
    source = tmp_path / "source"
    source.write_bytes(some_bytes(20 * MIB))
    script = (
        "import os, shutil, time\n"
        "from pathlib import Path\n"
        "from centra.store import open_store\n"
        "def pause(*_):\n"
        "    print('paused', flush=True)\n"
        "    time.sleep(60)\n"
        "def copy_half(source, target):\n"
        "    with open(target, 'wb') as file:\n"
        "        file.write(source.read_bytes()[:10 << 20])\n"
        "        file.flush()\n"
        "        pause()\n"
        "if sys.argv[3] == 'while copying':\n"
        "    shutil.copyfile = copy_half\n"
        "else:\n"
        "    os.fsync = pause\n"
        "open_store(sys.argv[1]).put(Path(sys.argv[2]))\n"
    )
    with subprocess.Popen(
        python(script, str(store.root), str(source), moment), stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "paused\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL

    digest = file_digest(source)
    assert not store.has(digest)
    with pytest.raises(BlobNotFoundError):
        store.fetch(digest)
    assert store.fetch(digest_of(OTHER)).read_bytes() == OTHER
    assert store.put(source) == digest
    assert store.fetch(digest).read_bytes() == source.read_bytes()


# Replacing a file.


def test_replacing_leaves_the_old_file_alone_and_no_other_after_an_exception(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_bytes(b"half of the ne")
        raise ZeroDivisionError

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_shows_the_new_file_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == tmp_path
        assert path.read_bytes() == b"old"

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


# S3.


def test_a_bucket_is_laid_out_as_documented(s3_url: str) -> None:
    store = open_store(s3_url)
    digest = store.put(DATA)
    store.write_pointer("production", b"{}")

    assert s3_keys(s3_url) == [f"blobs/sha256/{digest[:2]}/{digest}", "channels/production.json"]


def test_prefixes_of_one_bucket_are_separate_stores(s3_url: str) -> None:
    parts = urlsplit(s3_url)
    whole = open_store(parts._replace(path="").geturl())
    one = open_store(parts._replace(path="/one").geturl())
    two = open_store(parts._replace(path="/two/").geturl())
    digest = one.put(DATA)
    whole.put(OTHER)

    assert one.has(digest)
    assert not two.has(digest)
    assert not whole.has(digest)
    assert not one.has(digest_of(OTHER))


def test_the_endpoint_comes_from_the_aws_settings_unless_given(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = open_store(s3_url).put(DATA)
    bucket, prefix = bucket_and_prefix(s3_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_client(s3_url).meta.endpoint_url)

    assert open_store(f"s3://{bucket}/{prefix}?addressing_style=path").has(digest)


def test_a_fetched_blob_is_fetched_again_without_a_request(s3_url: str) -> None:
    digest = open_store(s3_url).put(DATA)
    reader = open_store(s3_url)
    requests = requests_of(reader)

    first = reader.fetch(digest)
    assert requests
    requests.clear()
    second = reader.fetch(digest)

    assert first == second
    assert second.read_bytes() == DATA
    assert not requests


def test_a_damaged_copy_in_the_cache_is_fetched_again(s3_url: str) -> None:
    store = open_store(s3_url)
    digest = store.put(DATA)
    store.fetch(digest).write_bytes(b"noise")

    assert store.fetch(digest).read_bytes() == DATA
    assert file_digest(store.fetch(digest)) == digest


def test_a_damaged_blob_is_not_cached(s3_url: str, tmp_path: Path) -> None:
    store = open_store(s3_url, cache=tmp_path / "cache")
    digest = store.put(DATA)
    tamper(store, digest, b"noise")

    with pytest.raises(CorruptBlobError):
        store.fetch(digest)
    assert not files_below(tmp_path / "cache")

    tamper(store, digest, DATA)
    assert store.fetch(digest).read_bytes() == DATA
    assert files_below(tmp_path / "cache") == [store.fetch(digest)]


def test_the_cache_is_where_the_environment_says(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))
    store = open_store(s3_url)

    path = store.fetch(store.put(DATA))

    assert path.is_relative_to(tmp_path / "cache")
    assert oct(path.stat().st_mode & 0o777) == "0o644"


def test_a_cache_that_cannot_be_used_is_reported(s3_url: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_bytes(b"not a folder")
    digest = open_store(s3_url).put(DATA)

    for cache in (tmp_path / "a-file", Path("/proc/centra-cache")):
        with pytest.raises(StoreError, match=r"cannot (read|write)") as caught:
            open_store(s3_url, cache=cache).fetch(digest)
        assert str(cache) in str(caught.value)


def every_use(store: BlobStore) -> list[Callable[[], object]]:
    return [
        lambda: store.has(MISSING),
        lambda: store.fetch(MISSING),
        lambda: store.read_pointer("production"),
        lambda: store.put(DATA),
        lambda: store.write_pointer("production", b"{}"),
        lambda: list(store.blobs()),
        lambda: store.stat(MISSING),
        lambda: store.remove(MISSING),
        store.pointers,
    ]


def test_a_missing_bucket_is_named_and_not_taken_for_a_missing_blob(s3_url: str) -> None:
    store = open_store(urlsplit(s3_url)._replace(netloc="no-such-bucket").geturl())

    for use in every_use(store):
        with pytest.raises(StoreError, match="no bucket 'no-such-bucket'"):
            use()


def test_a_reader_of_the_bucket_reads_but_does_not_write(
    s3_url: str, become_s3_reader: Callable[[], None], tmp_path: Path
) -> None:
    owner = open_store(s3_url)
    digest = owner.put(DATA)
    owner.write_pointer("production", b"{}")
    large = tmp_path / "large"
    large.write_bytes(some_bytes(20 * MIB))
    become_s3_reader()
    reader = open_store(s3_url)

    assert reader.has(digest)
    assert not reader.has(MISSING)
    assert reader.fetch(digest).read_bytes() == DATA
    assert reader.read_pointer("production") == b"{}"
    assert reader.read_pointer("staging") is None
    assert reader.put(DATA) == digest
    with pytest.raises(BlobNotFoundError):
        reader.fetch(MISSING)
    for source in (OTHER, large):
        with pytest.raises(StoreNotWritableError, match="may not write"):
            reader.put(source)
    with pytest.raises(StoreNotWritableError, match="may not write"):
        reader.write_pointer("production", b"other")
    assert owner.read_pointer("production") == b"{}"
    assert listed(reader) == {digest: len(DATA)}
    assert reader.stat(digest) is not None
    assert reader.pointers() == ["production"]
    with pytest.raises(StoreNotWritableError, match="may not write"):
        reader.remove(digest)
    assert owner.fetch(digest).read_bytes() == DATA


def test_wrong_credentials_are_refused(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = open_store(s3_url).put(DATA)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = open_store(s3_url)

    for use in every_use(store):
        with pytest.raises((StoreError, NotAllowedError), match=r"403|SignatureDoesNotMatch"):
            use()
    with pytest.raises(StoreError):
        store.fetch(digest)


def test_a_bucket_of_many_pages_is_listed_whole(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_url)
    assert isinstance(store, S3Store)
    digests = {store.put(b"%d" % number) for number in range(7)}
    requests = requests_of(store)
    list_page = store.client.boto.list_objects_v2
    monkeypatch.setattr(
        store.client.boto, "list_objects_v2", functools.partial(list_page, MaxKeys=3)
    )

    assert listed(store).keys() == digests
    assert len(requests) == 3


def test_a_server_that_refuses_tells_the_time_all_the_same(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    assert abs(open_store(s3_url).clock() - datetime.now(UTC)) < 2 * SECOND


def test_a_store_says_whose_credentials_it_uses_but_not_the_secret(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_url)
    assert isinstance(store, S3Store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    found = store.credentials()
    assert found is not None
    assert "the-key" in found
    assert "env" in found
    assert "the-secret" not in found
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY"):
        store.credentials()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert store.credentials() is None


def test_no_credentials_are_reported(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    for use in every_use(open_store(s3_url)):
        with pytest.raises(StoreError, match="credentials"):
            use()


@pytest.fixture
def aws_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The AWS settings of somebody, for tests that need no real server."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))


@contextmanager
def nobody_listens() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    yield port


@contextmanager
def nobody_answers() -> Iterator[int]:
    """A port whose queue is full, so that the kernel drops further connections silently."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        time.sleep(0.1)
        yield server.getsockname()[1]


@contextmanager
def served_by(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The endpoint of a server on which everything goes as this handler says."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("aws_settings")
@pytest.mark.parametrize("endpoint", [nobody_listens, nobody_answers])
def test_an_unreachable_endpoint_is_reported_soon(
    endpoint: Callable[[], AbstractContextManager[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert retries._TO_CONNECT + retries.CONNECT_TIMEOUT < 15
    monkeypatch.setattr(retries, "_TO_CONNECT", 1)
    with endpoint() as port:
        store = open_store(s3_address("bucket", f"http://127.0.0.1:{port}"))
        started = time.monotonic()
        with pytest.raises(StoreError, match="cannot be reached"):
            store.has(MISSING)
        assert time.monotonic() - started < 15


@pytest.mark.usefixtures("aws_settings")
def test_a_connection_that_breaks_while_reading_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_PATIENCE", 0.5)

    class Breaking(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.send_header("ETag", '"0"')
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(DATA[:10])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with served_by(Breaking) as endpoint:
        store = open_store(s3_address("bucket", endpoint))
        with pytest.raises(StoreError, match="cannot be reached"):
            store.fetch(digest_of(DATA))
        with pytest.raises(StoreError, match="cannot be reached"):
            store.read_pointer("production")

    assert not files_below(tmp_path / "cache")


@pytest.mark.usefixtures("aws_settings")
def test_a_key_that_is_denied_while_it_is_replaced_is_asked_for_again() -> None:
    class Hesitating(BaseHTTPRequestHandler):
        denied: ClassVar[set[str]] = set()

        def do_HEAD(self) -> None:
            found = self.path in self.denied or self.path == "/bucket"
            self.denied.add(self.path)
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(DATA) if found else 0))
            self.send_header("ETag", '"0"')
            self.end_headers()

        def do_GET(self) -> None:
            found = self.path in self.denied
            self.do_HEAD()
            if found:
                self.wfile.write(DATA)

        def log_message(self, *_: object) -> None:
            pass

    with served_by(Hesitating) as endpoint:
        store = open_store(s3_address("bucket", endpoint))
        assert store.read_pointer("production") == DATA
        assert store.fetch(digest_of(DATA)).read_bytes() == DATA


@pytest.mark.usefixtures("aws_settings")
def test_an_upload_that_fails_is_not_taken_for_missing_rights(tmp_path: Path) -> None:
    class Failing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.refuse(404, "NoSuchKey")

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.refuse(400, "EntityTooLarge")

        def refuse(self, status: int, code: str) -> None:
            body = f"<Error><Code>{code}</Code><Message>so</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    source = tmp_path / "403"  # Part of the error's text, as it may be of any digest.
    source.write_bytes(DATA)
    with served_by(Failing) as endpoint:
        store = open_store(s3_address("bucket", endpoint))
        with pytest.raises(StoreError, match="EntityTooLarge"):
            store.put(source)


# Addresses.


def test_a_path_opens_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    relative = open_store("some folder/store")
    monkeypatch.chdir("/")

    assert isinstance(relative, LocalStore)
    assert relative.root == tmp_path / "some folder" / "store"
    assert relative.url == str(tmp_path / "some folder" / "store")


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("/srv/store", "/srv/store"),
        ("/srv/a%20b", "/srv/a%20b"),
        ("/srv/what?", "/srv/what?"),
        ("file:///srv/store", "/srv/store"),
        ("file://localhost/srv/store", "/srv/store"),
        ("file:///srv/a%20b", "/srv/a b"),
    ],
)
def test_an_address_of_a_folder_opens_it(url: str, folder: str) -> None:
    store = open_store(url)

    assert isinstance(store, LocalStore)
    assert store.root == Path(folder)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://server/store",
        "gs://bucket/prefix",
        "file://store",
        "file://store/below",
        "s3://",
        "s3:///prefix",
        "s3:bucket/prefix",
        "s3://bucket/prefix?endpoint=http://server",
        "s3://bucket/prefix?endpoint_url=",
        "s3://bucket/prefix?region",
        "s3://bucket/prefix?addressing_style=paths",
    ],
)
def test_an_address_of_nothing_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="store"):
        open_store(url)


@pytest.mark.usefixtures("aws_settings")
def test_an_endpoint_that_is_no_address_is_reported() -> None:
    with pytest.raises(StoreError, match="nonsense"):
        open_store(s3_address("bucket", "nonsense")).has(MISSING)


def test_opening_a_store_makes_no_request_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))

    with nobody_listens() as port:
        open_store(s3_address("bucket", f"http://127.0.0.1:{port}"))
    open_store(str(tmp_path / "store"))

    assert not list(tmp_path.iterdir())


# Witnesses.


def test_a_store_keeps_every_witness_in_the_log_s_order_and_beside_them_nothing_counts(
    store: BlobStore,
) -> None:
    assert store.witnesses() == []
    seen = [(120, "a" * 64), (9, "b" * 64), (120, "c" * 64)]
    for witness in [*seen, *seen]:
        store.write_witness(witness)
    assert store.witnesses() == [(9, "b" * 64), (120, "a" * 64), (120, "c" * 64)]
    if isinstance(store, LocalStore):
        folder = store.root / "witnesses"
        assert (folder / f"9-{'b' * 64}.txt").read_text() == f"9:{'b' * 64}\n"
        for name in ("0-" + "d" * 64 + ".txt", "7-short.txt", f".7-{'d' * 64}.txt.abcd1234"):
            (folder / name).touch()
        assert len(store.witnesses()) == 3
        assert [left.name for left in store.leftovers()] == [
            f"witnesses/.7-{'d' * 64}.txt.abcd1234"
        ]
    assert list(store.blobs()) == []
    assert store.pointers() == []
