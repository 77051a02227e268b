"""Releases to serve, and the installed server as a process."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from centra.formats.identities import VersionNumber
from centra.formats.manifest import ChannelPointer
from centra.store import LocalStore
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule

CENTRA = Path(sys.executable).with_name("centra")
"""The installed program."""


def make_modules(make_module: Callable[..., TaskModule]) -> dict[str, TaskModule]:
    """A task of each kind, and one on pairs."""
    return {
        "intent": make_module(),
        "same": make_module(form="pair", labels=("agrees", "denies"), depth=2),
        "slots": make_module("tagging", tap=2, seed=4),
        "stars": make_module("regression", tap=0),
        "topics": make_module("multilabel"),
    }


@dataclass
class ServedStore:
    """A store with releases, and a channel that a test moves."""

    store: LocalStore
    backbone: support.Backbone
    channel: str = "production"
    revision: int = 0

    @property
    def source(self) -> str:
        """What a server follows."""
        return f"{self.store.root}#{self.channel}"

    def publish(
        self, modules: Mapping[str, TaskModule], *, number: int, version: str = "1.0"
    ) -> ReleaseManifest:
        """Merge modules into a release, and let the channel name it."""
        manifest = support.put_release(modules, [self.backbone.spec], self.store)
        self.move(manifest, number=number, version=version)
        return manifest

    def move(self, manifest: ReleaseManifest, *, number: int, version: str = "1.0") -> None:
        """Let the channel name a release."""
        self.revision += 1
        pointer = ChannelPointer(
            name=self.channel,
            revision=self.revision,
            release=number,
            manifest=manifest.digest,
            versions=dict.fromkeys(manifest.tasks, VersionNumber.parse(version)),
        )
        self.store.write_pointer(self.channel, pointer.to_bytes())


def make_store(folder: Path, backbone: support.Backbone) -> ServedStore:
    """A store with a backbone, and no release yet."""
    store = LocalStore(folder)
    support.copy_backbone(backbone, store)
    return ServedStore(store, backbone)


@dataclass
class Server:
    """A running ``centra serve``."""

    process: subprocess.Popen[str]
    url: str
    client: httpx.Client
    grpc: str = ""
    """Where it listens for gRPC."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """What it has logged, a record each."""
    _lines: queue.SimpleQueue[dict[str, Any] | None] = field(default_factory=queue.SimpleQueue)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def wait_for(self, message: str) -> dict[str, Any]:
        """The next record whose message holds this.

        Raises:
            AssertionError: the process ended without one.
        """
        while True:
            record = self._lines.get(timeout=180)
            assert record is not None, self.log
            if message in record["message"]:
                return record

    def terminate(self) -> int:
        """Ask it to end, and wait; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def running(*words: str | Path, folder: Path | None = None, **environment: str) -> Iterator[Server]:
    """``centra serve`` with these words, on a free port, until the block ends.

    It logs as ``-v --log-format json`` says.

    Args:
        words: behind the command.
        folder: where it runs.
        environment: what is set besides.
    """
    process = subprocess.Popen(
        [CENTRA, "-v", "--log-format", "json", "serve", "--port", "0", "--grpc-port", "0", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    server = Server(process, "", httpx.Client())
    reader = threading.Thread(target=read_log, args=(server,), daemon=True)
    reader.start()
    try:
        server.grpc = server.wait_for("listening for gRPC on")["grpc"]
        server.url = server.wait_for("listening on")["url"]
        server.client = httpx.Client(base_url=server.url, timeout=30)
        yield server
    finally:
        server.client.close()
        if process.poll() is None:
            server.terminate()
        reader.join()
        assert process.stderr
        process.stderr.close()


def read_log(server: Server) -> None:
    """Note what a server logs, until it ends."""
    assert server.process.stderr
    for line in server.process.stderr:
        try:
            record = json.loads(line)
        except ValueError:
            record = {"message": line.rstrip(), "level": "plain"}
        server.log.append(record)
        server._lines.put(record)
    server._lines.put(None)


def alike(found: Any, expected: Any) -> bool:
    """Whether two answers are the same up to rounding; tuples count as lists."""
    if isinstance(expected, float) and isinstance(found, int | float):
        return abs(found - expected) <= 1e-4 * max(1.0, abs(expected))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            alike(found[name], value) for name, value in expected.items()
        )
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(alike, found, expected))
    return bool(found == expected)


def self_signed() -> tuple[bytes, bytes]:
    """A key, and a certificate of localhost that it has signed itself, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return (
        key.private_bytes(pem, form, serialization.NoEncryption()),
        certificate.public_bytes(pem),
    )
