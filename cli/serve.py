"""``centra serve``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.completion import complete_channel, complete_release, complete_task
from cli.options import DURATION, device_options
from cli.serve_ray import absolute, check_local, ray_options, serve_with_ray

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["serve"]

_START_OF_DIGEST = re.compile("[0-9a-f]{8,}")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("reference", required=False, metavar="[RELEASE]", shell_complete=complete_release)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="NAME=RELEASE",
    help="Serve several, in place of RELEASE: callers choose one by NAME, and get the first "
    "unasked; they share in memory what they have in common.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="0 takes any that is free, and says which.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="Answer the Open Inference Protocol over gRPC here, too; 0 as above.",
)
@click.option(
    "--task", "tasks", shell_complete=complete_task, multiple=True, help="Only these; default all."
)
@click.option(
    "--key", "keys", multiple=True, type=_FILE, help="Serve only what one of these keys has signed."
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Processors to compute on; default all."
)
@click.option(
    "--interval",
    type=DURATION,
    default="5s",
    show_default=True,
    help="How often it is looked where the channel stands, more or less.",
)
@device_options
@click.option("--tokens", "tokens_file", type=_FILE, help="Ask callers for one of these tokens.")
@click.option(
    "--shadow",
    shell_complete=complete_channel,
    metavar="CHANNEL",
    help="Ask this channel's release too, and report how its answers differ.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Of the inputs, that --shadow is asked.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Inputs that may wait; beyond it callers are told to come back.",
)
@click.option(
    "--max-inputs",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Inputs of one request.",
)
@click.option("--tls-cert", type=_FILE, help="Certificate, as PEM, with its chain.")
@click.option("--tls-key", type=_FILE, help="The certificate's key.")
@ray_options
def serve(
    *,
    reference: str | None,
    channels: tuple[str, ...],
    host: str,
    port: int,
    grpc_port: int | None,
    tasks: tuple[str, ...],
    keys: tuple[Path, ...],
    threads: int | None,
    device: str | None,
    dtype: str | None,
    interval: timedelta,
    tokens_file: Path | None,
    shadow: str | None,
    share: float,
    max_queue: int,
    max_inputs: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    engine: str,
    **cluster: Any,
) -> None:
    """Answer over HTTP with a release, until it is asked to end.

    RELEASE is a channel, which is followed: STORE#CHANNEL, or a channel's name alone in the store
    that is configured; or what never moves: a release folder, STORE#DIGEST, a digest, a number, or
    oci://HOST/REPOSITORY:TAG of a registry, which is read once.
    Default what the channel production serves, or else latest.
    """
    _check_extra()
    if not interval:
        raise click.UsageError("--interval: no store can be asked without a pause; give 1s or more")
    from centra.serving import Batcher, Limits
    from centra.serving.listener import Listener
    from centra.serving.server import serve as run
    from centra.serving.tokens import Tokens

    limits = Limits(queue_inputs=max_queue, request_inputs=max_inputs)
    source: str | dict[str, str]
    if channels:
        _check_alone(reference, shadow)
        source = _sources(channels)
    else:
        source = _source(reference)
        shadow = _shadow_source(shadow, source) if shadow else None
    if engine == "ray":
        if tls_cert or tls_key:
            raise click.UsageError(
                "--tls-cert is the server's own: with Ray, whatever is before its proxies ends TLS"
            )
        args = {
            **_absolute(source),
            "tasks": list(tasks) or None,
            "keys": [key.absolute() for key in keys],
            "threads": threads,
            "device": device,
            "dtype": dtype,
            "interval": interval.total_seconds(),
            "shadow": absolute(shadow) if shadow else None,
            "share": share,
            "tokens": tokens_file.absolute() if tokens_file else None,
            "limits": limits,
            "grpc_port": grpc_port,
        }
        serve_with_ray(args, cluster, host=host, port=_given("port", port))
        return
    check_local(cluster)
    tokens = Tokens(tokens_file) if tokens_file else None
    run(
        lambda observer: Batcher(
            source,
            shadow=shadow,
            share=share,
            tasks=tasks or None,
            keys=keys,
            threads=threads,
            device=device,
            dtype=dtype,
            interval=interval.total_seconds(),
            limits=limits,
            observer=observer,
        ),
        Listener(host=host, port=port, certificate=tls_cert, key=tls_key, grpc_port=grpc_port),
        tokens=tokens,
    )


def _given(name: str, value: int) -> int | None:
    """What was given for an option; None for its default."""
    source = click.get_current_context().get_parameter_source(name)
    return None if source is click.core.ParameterSource.DEFAULT else value


def _check_extra() -> None:
    from importlib.util import find_spec

    from centra.errors import UsageError

    if any(find_spec(name) is None for name in ("fastapi", "uvicorn", "orjson", "httptools")):
        raise UsageError(
            "serving needs more packages: pip install 'centra[serve]'",
            code="extra-missing",
            extra="serve",
        )


def _check_alone(reference: str | None, shadow: str | None) -> None:
    if reference is not None:
        raise click.UsageError(
            f"RELEASE is one and --channel names several; give {reference} a name, too: "
            f"--channel NAME={reference}"
        )
    if shadow is not None:
        raise click.UsageError(
            "--shadow compares with one release; compare in a server of that channel alone"
        )


def _absolute(source: str | dict[str, str]) -> dict[str, Any]:
    """What an application on a cluster is told of its sources."""
    if isinstance(source, str):
        return {"source": absolute(source)}
    return {"channels": {name: absolute(one) for name, one in source.items()}}


def _sources(channels: tuple[str, ...]) -> dict[str, str]:
    """The addresses of channels, by the names that callers choose them by."""
    from centra.formats.names import parse_name

    found: dict[str, str] = {}
    for given in channels:
        name, equals, reference = given.partition("=")
        if not equals or not reference:
            raise click.UsageError(
                f"--channel {given}: expected NAME=RELEASE, for example "
                "en=s3://models/centra#production"
            )
        if parse_name(name, "channel name") in found:
            raise click.UsageError(f"--channel {given}: {name} is named twice")
        found[name] = _source(reference)
    return found


def _source(reference: str | None) -> str:
    """The address that a name of a release stands for.

    The store alone is asked where that is enough: the database only for a number, and for what can be
    the start of a digest.
    """
    from centra.errors import NotFoundError
    from centra.formats.identities import is_digest
    from centra.releases.find import find_release
    from registry.settings import configured_store

    if reference is not None and (
        any(mark in reference for mark in "/#") or reference in (".", "..")
    ):
        return reference
    store = configured_store(click.get_current_context().find_root().obj["store"])
    if reference is None:
        return store
    if is_digest(reference):
        return f"{store}#{reference}"
    if not reference.isdecimal():
        try:
            find_release(f"{store}#{reference}")
        except NotFoundError as error:
            if error.code != "no-channel" or not _START_OF_DIGEST.fullmatch(reference):
                raise
        else:
            return f"{store}#{reference}"
    return f"{store}#{_digest(reference)}"


def _shadow_source(channel: str, source: str) -> str:
    """The address of a channel beside a source: in the same store, where it is named alone."""
    from centra.releases.folder import is_begun

    if any(mark in channel for mark in "/#"):
        return channel
    store, _, selected = source.rpartition("#")
    if selected and store:
        return f"{store}#{channel}"
    return _source(channel) if is_begun(Path(source)) else f"{source}#{channel}"


def _digest(reference: str) -> str:
    """The digest of a release that the database knows by this name."""
    from cli.context import open_registry

    registry = open_registry()
    with registry.read() as uow:
        return uow.release(reference).digest
