"""OCI registries for the tests: a real one, Debian's ``docker-registry``, and one that does what a test says.

========================= ==========================================================================
``CENTRA_TEST_REGISTRY``  the program ``docker-registry``; default the one on the path
========================= ==========================================================================
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
import socketserver
import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.programs import free_port, running

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

__all__ = ["Asked", "FakeRegistry", "OciRequest", "OciServer", "fake_registry", "oci_server"]


_REQUEST = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[0-9.]+" [0-9]+ (?P<given>[0-9]+) ')
"""A line of the registry's log."""


@dataclass(frozen=True, kw_only=True)
class OciRequest:
    """A request that a registry answered."""

    method: str
    path: str
    given: int
    """Bytes of the answer."""


@dataclass(frozen=True, kw_only=True)
class OciServer:
    """A registry that runs."""

    host: str
    log: Path

    def requests(self) -> list[OciRequest]:
        """All that it answered."""
        found = map(_REQUEST.search, self.log.read_text().splitlines())
        return [
            OciRequest(method=line["method"], path=line["path"], given=int(line["given"]))
            for line in found
            if line
        ]

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


@dataclass(kw_only=True, eq=False)
class FakeRegistry:
    """A registry in this process."""

    answer: Callable[[Asked], bool]
    """Whether the test has answered a request itself."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """By digest."""
    manifests: dict[str, bytes] = field(default_factory=dict)
    """By tag and by digest."""
    asked: list[Asked] = field(default_factory=list)
    """Every request."""
    host: str = ""

    def put(self, reference: str, manifest: bytes) -> None:
        """Keep a manifest."""
        self.manifests[reference] = manifest
        self.manifests[f"sha256:{hashlib.sha256(manifest).hexdigest()}"] = manifest


class Asked(BaseHTTPRequestHandler):
    """A request, and what it is answered."""

    protocol_version = "HTTP/1.1"
    registry: ClassVar[FakeRegistry]
    place: str
    """Its path. Of a proxy, what comes behind the host."""
    options: dict[str, list[str]]

    def do_GET(self) -> None:
        """Give a manifest or a blob."""
        self._handle(self._give)

    do_HEAD = do_GET  # noqa: N815 - the names that http.server looks for

    def do_POST(self) -> None:
        """Say where to send a blob."""
        self._handle(self._begin)

    def do_PUT(self) -> None:
        """Take a manifest or a blob."""
        self._handle(self._take)

    @property
    def authorization(self) -> str | None:
        """As whom it is asked."""
        return self.headers["Authorization"]

    def reply(self, status: int, data: bytes = b"", **headers: str) -> bool:
        """Answer; an underscore in a header's name stands for a hyphen."""
        self.send_response(status)
        for name, value in (headers | {"Content_Length": str(len(data))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        return True

    def break_off(self, data: bytes) -> bool:
        """Give the first half of something."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True
        return True

    def body(self) -> bytes:
        """What was sent along."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _handle(self, usually: Callable[[], None]) -> None:
        parts = urlsplit(self.path)
        self.place, self.options = parts.path, parse_qs(parts.query)
        self.registry.asked.append(copy.copy(self))  # One takes all requests of a connection.
        if not self.registry.answer(self):
            usually()

    def _give(self) -> None:
        kind, name = self.place.split("/")[-2:]
        if kind == "manifests":
            data = self.registry.manifests.get(name)
        else:
            data = self.registry.blobs.get(name.removeprefix("sha256:"))
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        if data is None:
            self.reply(404, b'{"errors": [{"code": "UNKNOWN", "message": "no such thing"}]}')
        else:
            self.reply(206 if start else 200, data[start:])

    def _begin(self) -> None:
        self.reply(202, Location=f"{self.place}1?state=here")

    def _take(self) -> None:
        data = self.body()
        if "/manifests/" in self.place:
            self.registry.put(self.place.rpartition("/")[2], data)
        else:
            self.registry.blobs[self.options["digest"][0].removeprefix("sha256:")] = data
        self.reply(201)


@contextmanager
def fake_registry(
    answer: Callable[[Asked], bool] = lambda _: False, *, tls: ssl.SSLContext | None = None
) -> Iterator[FakeRegistry]:
    """A registry that answers what a test wants, and otherwise as registries do."""
    registry = FakeRegistry(answer=answer)
    handler = type("Handler", (Asked,), {"registry": registry})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        registry.host = f"127.0.0.1:{server.server_address[1]}"
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
        serving.start()
        yield registry
        server.shutdown()
