"""``centra serve`` on a Ray cluster: deploy the application, say how it stands, take it down."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from centra.errors import CentraError, ConflictError, InvalidNameError
from centra.formats.names import parse_name
from centra.releases.find import find_release
from centra.serving.endpoint import KEEP_ALIVE
from centra.serving.listener import Listener
from centra.serving.ray.settings import Settings
from centra.serving.ray.standing import Standing, applications, last_line
from centra.serving.ray_app import app
from centra.system.ray import connect_to_ray, is_own_cluster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.serve import Application

__all__ = ["Proxy", "serve_on_ray"]

_log = logging.getLogger(__name__)

_PORT = 8080
_ROUTE = re.compile(r"/|(/[a-zA-Z0-9_.~-]+)+")
_LOOK_SECONDS = 2.0
"""How often it is looked how the application stands."""
_DEPLOYED_SECONDS = 0.2
"""The same, until it answers calls."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """Where Ray Serve's proxies listen, on each node that has a replica."""

    host: str = "127.0.0.1"
    port: int | None = None
    """None for where they listen already, or else 8080."""


def serve_on_ray(
    args: Mapping[str, Any],
    proxy: Proxy,
    *,
    name: str,
    route_prefix: str = "/",
    logging_config: Mapping[str, Any],
) -> None:
    """Serve as an application of a Ray cluster until the process is asked to end (SIGTERM or SIGINT).

    The cluster is that of ``RAY_ADDRESS``, or one that is started here: then it ends here too, when every
    call is answered. On a cluster that was there before, the application goes on.

    Args:
        args: of the application; see :func:`centra.serving.ray_app.app`.
        proxy: where callers connect.
        name: the application's; one of that name is updated, replica by replica.
        route_prefix: of its paths at the proxy, which other applications have others of.
        logging_config: of the application, as Ray Serve has it.

    Raises:
        UsageError: an argument, the name or the prefix is wrong, Ray is not installed, or its cluster is not there.
        ConflictError: Ray Serve listens elsewhere already, or somebody else where it is to.
        CentraError: the release cannot be loaded, or the application not be deployed.
    """
    _check(name, route_prefix)
    application, settings = app(dict(args)), Settings.of(args)
    for source in (settings.channels or {"": str(settings.source)}).values():
        # What is not there need not be told by a replica that fails again and again.
        find_release(source)
    ray = connect_to_ray(include_dashboard=False)
    own, asked = is_own_cluster(), threading.Event()
    address = ray.get_runtime_context().gcs_address
    if own:
        _log.info(
            "a Ray cluster begins here: RAY_ADDRESS=%s RAY_AUTH_MODE=%s reaches it",
            address,
            os.environ.get("RAY_AUTH_MODE", ""),
            extra={"ray_address": address},
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _ask(asked))
    try:
        url = _start_serve(proxy, own=own)
        new = name not in applications()
        deploying = _Deploying(
            application, name=name, route_prefix=route_prefix, logging_config=dict(logging_config)
        )
        standing = Standing(name)
        while not (deploying.done or asked.wait(_DEPLOYED_SECONDS)):
            standing.look()
        if deploying.failure is not None and not asked.is_set():
            standing.look()
            _give_up(name, standing.trouble or str(deploying.failure), new=new)
        if not asked.is_set():
            _tell(url + route_prefix.rstrip("/"), settings, name)
            while not asked.wait(_LOOK_SECONDS):
                standing.look_closely()
        _end(name, own=own)
    finally:
        ray.shutdown()


def _check(name: str, route_prefix: str) -> None:
    """Refuse what Ray Serve takes and then fails at, for all applications of the cluster.

    Raises:
        InvalidNameError: it would.
    """
    # In its metrics both are ASCII, and a replica's id is split at each "#".
    parse_name(name, "application name")
    if not _ROUTE.fullmatch(route_prefix):
        raise InvalidNameError(
            "route prefix", route_prefix, "/, or parts such as /centra of a-z, A-Z, 0-9 and '_.~-'"
        )


def _ask(asked: threading.Event) -> None:
    if asked.is_set():
        _log.warning("asked to end again: calls that are not answered are given up")
        raise SystemExit(1)
    asked.set()


def _start_serve(proxy: Proxy, *, own: bool) -> str:
    """Start Ray Serve where it does not run yet; the address of its proxies.

    Raises:
        ConflictError: it listens elsewhere, or somebody else there.
    """
    from ray import serve
    from ray.serve.context import _get_global_client

    # What it says is said here, once.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        port = proxy.port or _PORT
        if own:
            # Ray's proxy would share the port with a proxy of another cluster.
            for each in Listener(host=proxy.host, port=port).bind():
                each.close()
        serve.start(
            http_options={"host": proxy.host, "port": port, "keep_alive_timeout_s": KEEP_ALIVE}
        )
        client = _get_global_client()
    assert client is not None
    running = client.http_config
    if proxy.port not in (None, running.port):
        raise ConflictError(
            f"Ray Serve listens on port {running.port} in this cluster already, not on {proxy.port}",
            code="serve-elsewhere",
            port=running.port,
        )
    return Listener(host=str(running.host), port=running.port).url(running.port)


class _Deploying:
    """An application on its way into the cluster, which may wait for processors for ever."""

    def __init__(self, application: Application, **options: Any) -> None:
        self.done = False
        self.failure: Exception | None = None
        work = (application, options)
        threading.Thread(target=self._run, args=work, daemon=True).start()

    def _run(self, application: Application, options: dict[str, Any]) -> None:
        from ray import serve

        try:
            serve.run(application, **options)
        except Exception as error:  # noqa: BLE001 - told by who waits
            self.failure = error
        self.done = True


def _give_up(name: str, reason: str, *, new: bool) -> NoReturn:
    """Leave nothing of an application that cannot be deployed; one that was there before stays.

    Raises:
        CentraError: always, with the reason.
    """
    from ray import serve

    if new:
        serve.delete(name)
    raise CentraError(
        f"Ray Serve cannot deploy the application {name}: {last_line(reason)}", code="not-deployed"
    )


def _tell(url: str, settings: Settings, name: str) -> None:
    _log.info("listening on %s, with its calls explained at %s/docs", url, url, extra={"url": url})
    listener = settings.listener
    for what, port in (("HTTP", settings.replica_port), ("gRPC", settings.grpc_port)):
        if listener is not None and port:
            address = f"{listener.host}:{port}"
            _log.info("replicas answer %s themselves on %s of their node", what, address)
    public = {url, listener.url(0) if listener else url}
    if settings.tokens is None and not all(_is_local(each) for each in public):
        _log.warning("no tokens are asked for: whoever reaches application %s may call", name)


def _is_local(url: str) -> bool:
    return any(f"//{host}:" in url for host in ("localhost", "127.0.0.1", "[::1]"))


def _end(name: str, *, own: bool) -> None:
    from ray import serve

    if not own:
        _log.warning(
            "the application %s goes on in the cluster, which was there before: ray.serve.delete(%r) "
            "takes it down",
            name,
            name,
        )
        return
    _log.info("ending: calls that have begun are answered")
    serve.delete(name)
    _log.info("ended")
