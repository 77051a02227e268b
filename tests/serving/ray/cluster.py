"""``centra serve --engine ray`` on a cluster of its own, with two replicas."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from centra.serving.tokens import add_token
from tests import support
from tests.serving.servers import CENTRA, ServedStore, Server, read_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT = "wake me at seven"


@dataclass
class Cluster(Server):
    """A running application, and what is served in it."""

    door: httpx.Client = field(default_factory=httpx.Client)
    """To the replicas themselves; ``client`` is to Ray's proxy."""
    address: str = ""
    """For ``RAY_ADDRESS``."""

    def release(self) -> int:
        """The number of the release that it serves."""
        return int(self.client.get("/v1/release").json()["release"])

    def series(self, name: str, client: httpx.Client | None = None) -> dict[str, float]:
        """A metric's values, by replica."""
        text = (client or self.client).get("/metrics").raise_for_status().text
        return {
            sample.labels["replica"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def replica_processes(self, *, reading: Path | None = None) -> list[int]:
        """The processes of the application centra's replicas, or those that read a file now."""
        return [
            process
            for process in self._processes("ray::ServeReplica:centra:")
            if reading is None or reading in _open_files(process)
        ]

    def coordinator_processes(self) -> list[int]:
        """The processes of the actors that roll releases, one an application."""
        return self._processes("ray::Coordinator")

    def _processes(self, name: str) -> list[int]:
        return [
            process
            for process, command in _commands().items()
            if command.startswith(name) and self._is_above(process)
        ]

    def _is_above(self, process: int) -> bool:
        while process > 1 and process != self.process.pid:
            try:
                status = Path(f"/proc/{process}/status").read_text()
            except OSError:
                return False  # It has ended.
            process = int(re.findall(r"^PPid:\s*(\d+)", status, re.MULTILINE)[0])
        return process == self.process.pid


def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until this is so; what is.

    A call that breaks with a replica is one that is not so yet.
    """
    deadline = time.monotonic() + 120
    while True:
        try:
            if found := condition():
                return found
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def running_cluster(served: ServedStore, folder: Path) -> Iterator[Cluster]:
    """The application, until the block ends; then it ends as it must."""
    token = add_token(folder / "tokens.toml", "tester")
    port, door, grpc = free_ports(3)
    words = [
        *("--engine", "ray", "--replicas", "2", "--replica-cpus", "0.1", "--interval", "1s"),
        *("--port", port, "--replica-port", door, "--grpc-port", grpc),
        *("--tokens", folder / "tokens.toml"),
    ]
    quick = {
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    }
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [CENTRA, "--log-format", "json", "serve", served.source, *map(str, words)],
                stderr=subprocess.PIPE,
                text=True,
                env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
                | quick,
            )
        )
        cluster = Cluster(process, f"http://127.0.0.1:{port}", httpx.Client())
        stack.callback(process.kill)
        threading.Thread(target=read_log, args=(cluster,), daemon=True).start()
        cluster.address = cluster.wait_for("a Ray cluster begins")["ray_address"]
        assert cluster.wait_for("listening on")["url"] == cluster.url
        cluster.grpc = f"127.0.0.1:{grpc}"
        headers = {"Authorization": f"Bearer {token}"}
        cluster.client, cluster.door = (
            stack.enter_context(
                httpx.Client(base_url=f"http://127.0.0.1:{each}", timeout=30, headers=headers)
            )
            for each in (port, door)
        )
        yield cluster


def deploy(cluster: Cluster, config: str) -> None:
    """Deploy a Serve config file beside it."""
    subprocess.run(
        [sys.executable, "-m", "tests.serving.ray.deploy"],
        input=config,
        text=True,
        check=True,
        capture_output=True,
        cwd=support.ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "token"},
        timeout=120,
    )


@contextmanager
def callers(*clients: httpx.Client, count: int = 1) -> Iterator[Counter[Any]]:
    """So many callers of each of some doors, until the block ends; what they were answered.

    By status and release; a broken connection is ``None``.
    """
    ended, told = threading.Event(), Counter[Any]()

    def call(client: httpx.Client) -> None:
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=30) as own:
            while not ended.is_set():
                try:
                    response = own.post("/v1/predict", json={"inputs": [TEXT] * 4})
                except httpx.HTTPError:
                    told[None] += 1
                    continue
                release = response.json().get("release", {}).get("release")
                told[response.status_code, release] += 1

    threads = [threading.Thread(target=call, args=(client,)) for client in clients * count]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def _commands() -> dict[int, str]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def _open_files(process: int) -> set[Path]:
    found = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            found.add(link.readlink())
    return found
