"""``centra serve --engine ray``: its options, and what they do not go together with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["absolute", "check_local", "ray_options", "serve_with_ray"]

_SCALING = ("min_replicas", "max_replicas", "target_requests")
_OWN = (
    "replicas",
    *_SCALING,
    "replica_port",
    "replica_cpus",
    "replica_gpus",
    "name",
    "route_prefix",
)
"""Options that mean something to a cluster alone."""


def ray_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a cluster; they arrive as keywords, None where they are not given."""
    counted = click.IntRange(min=1)
    options = (
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Where: this process, or the Ray cluster of RAY_ADDRESS (or one started here).",
        ),
        click.option("--replicas", type=counted, help="With Ray: how many servers; default 1."),
        click.option("--min-replicas", type=counted, help="With Ray: at least so many; default 1."),
        click.option("--max-replicas", type=counted, help="With Ray: at most so many, as needed."),
        click.option(
            "--target-requests",
            type=click.FloatRange(min=0, min_open=True),
            help="With Ray: requests that wait or are answered, per replica, that --max-replicas "
            "aims at; default 16.",
        ),
        click.option(
            "--replica-port",
            type=click.IntRange(1, 65535),
            help="With Ray: replicas answer here themselves too, past Ray's proxy.",
        ),
        click.option(
            "--replica-cpus",
            type=click.FloatRange(min=0),
            help="With Ray: processors of a replica; default 1.",
        ),
        click.option(
            "--replica-gpus",
            type=click.FloatRange(min=0),
            help="With Ray: GPUs of a replica, or a part of one; default 0.",
        ),
        click.option("--name", help="With Ray: the application's; default centra."),
        click.option(
            "--route-prefix", help="With Ray: before its paths at the proxy, as /centra; default /."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_local(cluster: Mapping[str, Any]) -> None:
    """Refuse what means nothing without a cluster.

    Raises:
        click.UsageError: it is given.
    """
    for name in _OWN:
        if cluster[name] is not None:
            raise click.UsageError(f"{_flag(name)} is for a cluster: give --engine ray, too")


def serve_with_ray(
    args: dict[str, Any], cluster: Mapping[str, Any], *, host: str, port: int | None
) -> None:
    """Serve on a cluster until it is asked to end.

    Args:
        args: of the application, without what a cluster's options say.
        cluster: these.
        host: where callers connect.
        port: likewise; None where it was not given.

    Raises:
        click.UsageError: options do not go together.
        CentraError: see :func:`centra.serving.ray.running.serve_on_ray`.
    """
    _check(cluster, port, args["grpc_port"])
    from centra.serving.ray.running import Proxy, serve_on_ray

    args |= {
        "host": host,
        "replicas": cluster["replicas"],
        "autoscaling": _autoscaling(cluster),
        "replica_port": cluster["replica_port"],
        "num_cpus": cluster["replica_cpus"],
        "num_gpus": cluster["replica_gpus"],
    }
    serve_on_ray(
        {name: value for name, value in args.items() if value is not None},
        Proxy(host=host, port=port),
        name=cluster["name"] or "centra",
        route_prefix=cluster["route_prefix"] or "/",
        logging_config=_logging_config(),
    )


def absolute(address: str) -> str:
    """An address as processes in other folders read it."""
    if "://" in address:
        return address
    place, mark, selected = address.partition("#")
    return f"{Path(place).absolute()}{mark}{selected}"


def _check(cluster: Mapping[str, Any], port: int | None, grpc_port: int | None) -> None:
    scaled = [name for name in _SCALING if cluster[name] is not None]
    if cluster["replicas"] is not None and scaled:
        raise click.UsageError(
            f"--replicas says how many, and {_flag(scaled[0])} how many as needed"
        )
    if scaled and cluster["max_replicas"] is None:
        raise click.UsageError(f"{_flag(scaled[0])} takes --max-replicas")
    if (cluster["min_replicas"] or 1) > (cluster["max_replicas"] or 2**31):
        raise click.UsageError("--min-replicas is more than --max-replicas")
    if port == 0:
        raise click.UsageError("--port 0: Ray's proxy takes a port by its number")
    if grpc_port is not None and cluster["replica_port"] is None:
        raise click.UsageError("--grpc-port takes --replica-port: both are past Ray's proxy")
    if grpc_port == 0:
        raise click.UsageError("--grpc-port 0: replicas share a port by its number")


def _autoscaling(cluster: Mapping[str, Any]) -> dict[str, Any] | None:
    if cluster["max_replicas"] is None:
        return None
    given = {
        "min_replicas": cluster["min_replicas"],
        "max_replicas": cluster["max_replicas"],
        "target_ongoing_requests": cluster["target_requests"],
    }
    return {name: value for name, value in given.items() if value is not None}


def _logging_config() -> dict[str, Any]:
    """What replicas log is what this process does, in files of Ray's."""
    level = logging.getLogger("centra").getEffectiveLevel()
    return {"log_level": logging.getLevelName(level), "enable_access_log": False}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
