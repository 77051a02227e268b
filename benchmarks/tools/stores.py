"""Stores that can be damaged and go away: an S3 server, or a folder where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.tools.common import ROOT, BenchmarkError
from benchmarks.tools.servers import free_port
from centra.store.layout import blob_path, pointer_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FolderStore", "FragileStore", "S3Store", "find_s3"]

_BUCKET = "soak"
_READY = 120
"""Seconds that an S3 server has to find its buckets again."""
_OWNER = {
    "AWS_ACCESS_KEY_ID": "test:tester",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class FragileStore(Protocol):
    """A store, and what can befall it."""

    address: str

    def damage(self, digest: str) -> None:
        """Change a byte of a blob behind the store's back."""
        ...

    def point(self, channel: str, pointer: bytes) -> None:
        """Write a channel's pointer, whatever the registry says."""
        ...

    def leave(self) -> None:
        """Be gone."""
        ...

    def come_back(self) -> None:
        """Be there again, with all that was in it."""
        ...


class FolderStore:
    """A folder; it goes away by another name."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._folder = folder

    def damage(self, digest: str) -> None:
        """See :class:`FragileStore`."""
        path = self._folder / blob_path(digest)
        data = _damaged(path.read_bytes())
        path.unlink()
        path.write_bytes(data)

    def point(self, channel: str, pointer: bytes) -> None:
        """See :class:`FragileStore`."""
        path = self._folder / pointer_path(channel)
        beside = path.with_name(f".{path.name}.new")
        beside.write_bytes(pointer)
        beside.replace(path)

    def leave(self) -> None:
        """See :class:`FragileStore`."""
        self._folder.rename(self._folder.with_name(f"{self._folder.name}-gone"))

    def come_back(self) -> None:
        """See :class:`FragileStore`."""
        self._folder.with_name(f"{self._folder.name}-gone").rename(self._folder)


class S3Store:
    """A bucket of an S3 server on this machine; it goes away with the server."""

    def __init__(self, script: Path, folder: Path) -> None:
        self._script = script
        self._folder = folder
        self._port = free_port()
        self._start()
        endpoint = f"http://127.0.0.1:{self._port}"
        os.environ |= _OWNER
        import boto3
        from botocore.config import Config

        self._client = boto3.Session().client(
            "s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"})
        )
        self.address = f"s3://{_BUCKET}/centra?endpoint_url={endpoint}"

    def make_bucket(self) -> None:
        """Make the bucket, once the server can."""
        self._insist(lambda: self._client.create_bucket(Bucket=_BUCKET))

    def damage(self, digest: str) -> None:
        """See :class:`FragileStore`."""
        key = f"centra/{blob_path(digest)}"
        data = self._client.get_object(Bucket=_BUCKET, Key=key)["Body"].read()
        self._client.put_object(Bucket=_BUCKET, Key=key, Body=_damaged(data))

    def point(self, channel: str, pointer: bytes) -> None:
        """See :class:`FragileStore`."""
        self._client.put_object(Bucket=_BUCKET, Key=f"centra/{pointer_path(channel)}", Body=pointer)

    def leave(self) -> None:
        """See :class:`FragileStore`."""
        self._run("s3-down")

    def come_back(self) -> None:
        """See :class:`FragileStore`."""
        self._start()
        self._insist(lambda: self._client.put_object(Bucket=_BUCKET, Key="ready", Body=b""))

    def _insist(self, ask: Callable[[], object]) -> None:
        """Ask until it works.

        The server answers before all of its parts do, and remembers for a while what it did not find.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        deadline = time.monotonic() + _READY
        while time.monotonic() < deadline:
            try:
                ask()
            except (BotoCoreError, ClientError):
                time.sleep(0.5)
            else:
                return
        raise BenchmarkError("the S3 server does not find its bucket")

    def _start(self) -> None:
        self._run("s3-up", str(self._port))

    def _run(self, script: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._script.with_name(script), self._folder, *arguments],
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise BenchmarkError(f"{script} failed:\n{done.stdout[-1000:]}")


@contextmanager
def find_s3(folder: Path) -> Iterator[S3Store | None]:
    """An S3 server of the script in ``CENTRA_S3_UP``, until the block ends; None where it cannot be had."""
    default = ROOT.parent / "shared" / "services" / "s3-up"
    script = Path(os.environ.get("CENTRA_S3_UP", default)).absolute()
    needed = ("swift-proxy-server", "memcached", "curl")
    if not script.is_file() or not all(map(shutil.which, needed)):
        yield None
        return
    shutil.rmtree(folder, ignore_errors=True)
    store = S3Store(script, folder)
    try:
        store.make_bucket()
        yield store
    finally:
        store.leave()


def _damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
