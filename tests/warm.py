"""A Python that has imported the heavy libraries already: what it runs starts at once.

torch and transformers take seconds to import, more than most of what a test runs in a process of
its own. Here one process imports them, runs nothing, and is forked for every call of all who test. The fixture
:func:`warm_python` gives an executable that takes ``-c CODE``, ``-m MODULE`` or a script, and
arguments, as Python does. Environment, folder and streams are the caller's; interpreter settings
such as ``PYTHONIOENCODING`` and ``PYTHONPATH`` have no effect. :func:`call` does the same without
the executable.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.torture import shim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.shared import Shared

_ROOT = Path(__file__).resolve().parents[1]
_READY = b"ready\n"

_HEAVY = (
    "alembic.autogenerate",
    "boto3",
    "centra.runtime.release",
    "centra.runtime.onnx.engine",
    "centra.runtime.torch.engine",
    "centra.training.jobs",
    "cli",
    "cli.audit",
    "cli.backbone",
    "cli.channel",
    "cli.compose",
    "cli.gates",
    "cli.predict",
    "cli.promote",
    "cli.release",
    "cli.task",
    "cli.transfer",
    "psycopg",
    "registry.documents",
    "registry.promotion",
    "registry.transfer",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "transformers.models.bert.modeling_bert",
)

_CLIENT = """\
#!{python} -IS
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    call = [sys.argv[1:], os.getcwd(), dict(os.environ)]
    server.sendall(json.dumps(call).encode() + b"\\n")
    reply = server.recv(2)
if not reply:
    sys.exit("the warm Python has died")
code = int.from_bytes(reply, signed=True)
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@pytest.fixture(scope="session")
def warm_python(shared: Shared) -> Path:
    """The executable; see above."""
    return Path(shared.once("warm", lambda: str(start(shared))))


def start(shared: Shared) -> Path:
    """Start a warm Python that lasts as long as the shared things; gives the executable.

    Where there is a C compiler, what it runs can be broken at its system calls: see
    :mod:`tests.torture.shim`.
    """
    # Not below pytest's own folder: the path of a Unix socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="centra-warm-"))
    address, client = folder / "socket", folder / "python"
    client.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as says, os.fdopen(writing, "wb") as output:
        shared.beside(
            # What it forks must not be waited for: it holds no more than it needs.
            """eval '"$@"' "$0>&-" """,
            *(sys.executable, "-m", "tests.warm", address),
            folder=_ROOT,
            environment=os.environ | shim.preload(),
            output=output.fileno(),
        )
        output.close()
        assert says.readline() == _READY
    return client


def call(
    client: Path,
    argv: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    streams: list[int],
) -> int:
    """Run something, without starting a process to ask for it.

    Args:
        client: the executable.
        argv: what Python would take.
        folder: where.
        environment: all of it.
        streams: the descriptors of its standard input, output and error.

    Returns:
        Its exit code; minus the number of the signal that ended it.
    """
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(str(client.with_name("socket")))
        socket.send_fds(server, [b"."], streams)
        server.sendall(json.dumps([argv, str(folder), dict(environment)]).encode() + b"\n")
        reply = server.recv(2)
    assert reply, "the warm Python has died"
    return int.from_bytes(reply, signed=True)


def _import_all() -> None:
    for name in _HEAVY:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _serve(address: str) -> None:
    """Fork for each caller, until standard input ends."""
    # The forks that wait for a call's end are themselves not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.buffer.write(_READY)
        sys.stdout.flush()
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            caller, _ = listener.accept()
            with caller:
                if not os.fork():
                    listener.close()
                    _answer(caller)
                    os._exit(0)
    shutil.rmtree(Path(address).parent)


def _answer(caller: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # It ends without taking the interpreter down, which would copy all that has been imported.
    process = multiprocessing.get_context("fork").Process(target=_run, args=(caller,))
    process.start()
    process.join()
    assert process.exitcode is not None
    caller.sendall(process.exitcode.to_bytes(2, signed=True))


def _run(caller: socket.socket) -> None:
    """Take over the caller's streams, folder, environment and arguments, and do what they say."""
    _, streams, _, _ = socket.recv_fds(caller, 1, 3)
    for own, stream in enumerate(streams):
        os.dup2(stream, own)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    with caller.makefile() as lines:
        sys.argv, folder, environment = json.loads(lines.readline())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    match sys.argv:
        case ["-c", code, *_]:
            del sys.argv[1]
            exec(code, {"__name__": "__main__"})
        case ["-m", module, *_]:
            del sys.argv[0]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [script, *_]:
            runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _import_all()
    _serve(sys.argv[1])
