"""Triton's own server, out of PyTriton's wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.peers import peer_python
from tests.programs import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["triton_server"]

_PACKAGE = "import sysconfig; print(sysconfig.get_path('purelib'))"


@contextmanager
def triton_server(folder: Path, *repositories: Path) -> Iterator[str]:
    """Run a server with all models of some repositories; gives its address for gRPC.

    Args:
        folder: an empty one.
        repositories: of models.
    """
    python = peer_python("triton")
    library = sysconfig.get_config_var("LDLIBRARY")
    if not library.startswith("libpython") or ".so" not in library:
        pytest.skip("Triton's Python backend needs a Python with a shared library")
    found = subprocess.run([python, "-c", _PACKAGE], capture_output=True, text=True, check=True)
    server = Path(found.stdout.strip()) / "pytriton" / "tritonserver"
    backends = folder / "backends"
    shutil.copytree(server / "backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    # A link, as it finds its libraries from where it is.
    (backends / "python" / stub.name).symlink_to(stub)
    shutil.copytree(Path(__file__).parent / "onnxruntime_backend", backends / "onnxruntime")
    http, grpc = str(free_port()), str(free_port())
    command = [
        *(server / "bin" / "tritonserver", "--backend-directory", backends),
        *(f"--model-repository={repository}" for repository in repositories),
        "--disable-auto-complete-config",
        *("--http-address", "127.0.0.1", "--http-port", http, "--http-thread-count", "1"),
        *("--grpc-address", "127.0.0.1", "--grpc-port", grpc, "--allow-metrics", "false"),
    ]
    environment = {
        **os.environ,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"),
    }
    health = f"http://127.0.0.1:{http}/v2/health/ready"
    with running(command, folder / "triton.log", health, environment=environment):
        yield f"127.0.0.1:{grpc}"
