"""Real OCI registries for the tests: Debian's ``docker-registry``.

========================= ==========================================================================
``CENTRA_TEST_REGISTRY``  the program ``docker-registry``; default the one on the path
========================= ==========================================================================
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.programs import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OciServer", "oci_server"]


@dataclass(frozen=True, kw_only=True)
class OciServer:
    """A registry that runs."""

    host: str
    log: Path

    def requests(self) -> list[tuple[str, str]]:
        """Method and path of each request that it answered."""
        lines = [
            line for line in self.log.read_text().splitlines() if '" ' in line and "HTTP/1" in line
        ]
        found = (line.split('"')[1].split(" ") for line in lines)
        return [(parts[0], parts[1]) for parts in found if len(parts) == 3]

    def get(self, path: str) -> Any:
        """A JSON document of a repository: ``REPOSITORY/manifests/…`` or ``…/blobs/…``."""
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        request = urllib.request.Request(f"http://{self.host}/v2/{path}", headers=accept)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)


@contextmanager
def oci_server(folder: Path, *, users: str = "") -> Iterator[OciServer]:
    """A registry in a folder.

    Args:
        folder: an empty one.
        users: the lines of an ``htpasswd`` file; empty where everybody may do everything.
    """
    program = os.environ.get("CENTRA_TEST_REGISTRY") or shutil.which("docker-registry")
    if program is None:
        pytest.skip(
            "no docker-registry: install Debian's package, or name the program in CENTRA_TEST_REGISTRY"
        )
    host = f"127.0.0.1:{free_port()}"
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {"inmemory": {}},
        "http": {"addr": host},
    }
    if users:
        (folder / "htpasswd").write_text(users)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    import yaml

    (folder / "config.yml").write_text(yaml.safe_dump(config))
    log = folder / "log"
    with running([program, "serve", folder / "config.yml"], log, f"http://{host}/v2/"):
        yield OciServer(host=host, log=log)
