"""The arguments of a Serve application: unknown and wrong ones are refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from centra.errors import UsageError
from centra.serving.ray.settings import Settings

SOURCE = "s3://models/centra#production"


def test_what_is_said_is_taken() -> None:
    found = Settings.of(
        {
            "source": SOURCE,
            "tasks": ["intent"],
            "keys": ["team.pub"],
            "limits": {"queue_inputs": 64},
            "num_cpus": 2.5,
            "num_gpus": 0.25,
            "replica_port": 8081,
            "grpc_port": 9001,
        }
    )
    assert found.sources == SOURCE
    assert (found.keys, found.limits.queue_inputs) == ([Path("team.pub")], 64)
    assert found.compute_threads == 2
    assert found.listener is not None
    assert (found.listener.port, found.listener.grpc_port, found.listener.shared) == (
        *(8081, 9001),
        True,
    )


def test_without_a_port_replicas_do_not_listen() -> None:
    assert Settings.of({"source": SOURCE}).listener is None
    alone = Settings.of({"source": SOURCE, "replica_port": 0}).listener
    assert alone is not None
    assert not alone.shared


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "expected source or channels"),
        ({"source": SOURCE, "channels": {"en": SOURCE}}, "expected source or channels"),
        ({"sorce": SOURCE}, "sorce: there is no such argument; expected autoscaling, channels"),
        ({"num_cpus": -1}, "num_cpus: "),
        ({"num_cpus": math.inf}, "num_cpus: "),
        ({"interval": math.inf}, "interval: "),
        ({"source": ""}, "source: "),
        ({"source": None, "channels": {"en": SOURCE, "zh": ""}}, "channels.zh: "),
        ({"host": ""}, "host: "),
        ({"replica_port": 70_000}, "replica_port: "),
        ({"threads": "many"}, "threads: "),
        ({"threads": True}, "threads: expected no yes or no, found true"),
        ({"limits": {"queue_inputs": True}}, "limits: expected no yes or no, found true"),
        ({"autoscaling": {"max_replicas": True}}, "autoscaling: expected no yes or no, found true"),
        ({"limits": {"queue": 1}}, "limits.queue: "),
        ({"limits": {"queue_inputs": 0}}, "queue_inputs must be at least 1"),
        ({"replicas": 2, "autoscaling": {"max_replicas": 3}}, "replicas or autoscaling, not both"),
        ({"autoscaling": {"min_replicas": 3}}, "lacks max_replicas"),
        ({"grpc_port": 9001}, "takes a replica_port"),
        ({"grpc_port": 9001, "replica_port": 9001}, "both 9001"),
        ({"grpc_port": 9001, "replica_port": 0}, "so must grpc_port"),
    ],
)
def test_what_is_wrong_is_named(args: dict[str, Any], message: str) -> None:
    given = args if "sorce" in args or not args else {"source": SOURCE, **args}
    with pytest.raises(UsageError, match=message):
        Settings.of(given)


@pytest.mark.parametrize(
    ("autoscaling", "message"),
    [
        ({"max_replicas": 3, "min_replica": 1}, "min_replica: Ray Serve has no such setting"),
        ({"max_replicas": 3, "min_replicas": 4}, "max_replicas"),
        ({"max_replicas": 3, "upscale_delay_s": -1}, "upscale_delay_s"),
    ],
)
def test_so_is_what_ray_serve_would_pass_over(autoscaling: dict[str, Any], message: str) -> None:
    pytest.importorskip("ray")
    from centra.serving.ray_app import app

    with pytest.raises(UsageError, match=message):
        app({"source": SOURCE, "autoscaling": autoscaling})
