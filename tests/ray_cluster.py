"""One Ray cluster on this machine for all processes that run tests.

Loaded as a plugin. It starts at the first test that asks for it and stops with the run, also when
pytest itself is killed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.services import S3Server
    from tests.shared import Shared

__all__ = ["start_ray"]

_CLUSTER = """
import pathlib, sys
import ray

folder, address = sys.argv[1:]
started = ray.init(
    num_cpus=2,
    num_gpus=0,
    include_dashboard=False,
    object_store_memory=100_000_000,
    log_to_driver=False,
    _temp_dir=folder,
)
pathlib.Path(address + ".new").write_text(started["address"])
pathlib.Path(address + ".new").rename(address)
sys.stdin.read()
"""
"""A cluster ends with the process that has started it."""


@pytest.fixture(scope="session")
def ray_address(shared: Shared) -> str:
    """The address of a Ray cluster with two CPUs, for ``RAY_ADDRESS``."""
    pytest.importorskip("ray")
    from ray._raylet import Config

    address: str = shared.once("ray", lambda: start_ray(shared))
    # It asks for its user's token, which ray.init offers to an address only where it is told to.
    os.environ["RAY_AUTH_MODE"] = "token"
    Config.initialize("")
    return address


@pytest.fixture
def ray_with_s3(ray_address: str, s3_server: S3Server, shared: Shared) -> str:
    """The same, and its machines may use the S3 server, by settings of their own."""
    lines = [
        f"{name.lower().replace('aws_default_', '')} = {v}" for name, v in s3_server.owner.items()
    ]
    Path(_aws_settings(shared)["AWS_CONFIG_FILE"]).write_text("\n".join(["[default]", *lines]))
    return ray_address


def _aws_settings(shared: Shared) -> dict[str, str]:
    file = str(shared.folder / "aws")
    return {
        "AWS_CONFIG_FILE": file,
        "AWS_SHARED_CREDENTIALS_FILE": file,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def start_ray(shared: Shared) -> str:
    """Start a Ray cluster that lasts as long as the shared things."""
    address = shared.folder / "ray-address"
    shared.beside(
        '"$1" -c "$2" "$3" "$4"',
        sys.executable,
        _CLUSTER,
        shared.folder / "ray",
        address,
        # Nobody from outside may run anything there.
        environment=os.environ | {"RAY_AUTH_MODE": "token"} | _aws_settings(shared),
    )
    deadline = time.monotonic() + 120
    while not address.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("the Ray cluster did not start")
        time.sleep(0.1)
    return address.read_text()
