"""A replica: the server of an application, behind Ray Serve's proxy and at an endpoint of its own."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import ray
from ray import serve

from centra.serving.batcher import Batcher
from centra.serving.endpoint import Endpoint
from centra.serving.http.app import create_app
from centra.serving.metrics import Metrics
from centra.serving.ray.coordinator import ReplicaReport
from centra.serving.ray.metrics import OPENMETRICS, merged_metrics
from centra.serving.ray.ports import NodePorts
from centra.serving.ray.proxied import Proxied
from centra.serving.ray.replicas import Replicas
from centra.serving.ray.scaling import OPEN_REQUESTS
from centra.serving.server import raise_open_files
from centra.serving.standing import standings_of
from centra.serving.tokens import Tokens
from centra.serving.tracing import Tracing

if TYPE_CHECKING:
    from fastapi import FastAPI

    from centra.serving.ray.settings import Settings

__all__ = ["Replica"]

_log = logging.getLogger(__name__)


@serve.ingress()
class Replica:
    """Answers calls that come by the proxy and, where it has an endpoint, those that come straight."""

    def __init__(self, settings: Settings) -> None:
        """Keep what it is told; all else begins when Ray Serve asks for the application."""
        context = serve.get_replica_context()
        self._application, self._id = context.app_name, context.replica_id.unique_id
        self._settings, self._metrics = settings, Metrics()
        self._replicas = Replicas(self._application)
        self._endpoint: Endpoint | None = None
        self._closing = AsyncExitStack()

    async def __serve_build_asgi_app__(self) -> Proxied:
        """Load what is served, and listen.

        Raises:
            CentraError: it cannot be served, or a port is in use.
        """
        _log_with_ray()
        raise_open_files()
        async with AsyncExitStack() as stack:
            app = await self._open(stack)
            self._closing = stack.pop_all()
        return Proxied(app)

    async def _open(self, stack: AsyncExitStack) -> FastAPI:
        settings = self._settings
        tokens = Tokens(settings.tokens) if settings.tokens else None
        if (tracing := Tracing.from_environment()) is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)
        ports = await asyncio.to_thread(self._bind)
        if ports is not None:
            stack.callback(ports.close)
        self._batcher = await stack.enter_async_context(self._make_batcher())
        app = create_app(self._batcher, tokens=tokens, metrics=self._metrics, tracing=tracing)
        app.state.serving.all_metrics = self._all_metrics
        if ports is not None and settings.listener is not None:
            self._endpoint = Endpoint(app, settings.listener, ports.sockets)
            await self._endpoint.open()
            stack.push_async_callback(self._endpoint.close)
        telling = asyncio.ensure_future(self._replicas.tell(self._report))
        stack.callback(telling.cancel)
        return app

    def _bind(self) -> NodePorts | None:
        """Take the ports of its own, if it has any."""
        listener = self._settings.listener
        if listener is None:
            return None
        listener.check()
        cluster = ray.get_runtime_context().gcs_address
        return NodePorts(
            listener, application=f"{self._application} of {cluster}", replica=self._id
        )

    async def __del__(self) -> None:
        """End, when Ray Serve has seen the last answer of the proxy's calls out."""
        await self._closing.aclose()

    async def check_health(self) -> None:
        """Nothing, while calls are answered; Ray replaces a replica that raises.

        Raises:
            RuntimeError: they are not.
        """
        if not self._batcher.alive:
            raise RuntimeError("the thread that computes has ended")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What :func:`centra.serving.ray.scaling.wanted_replicas` is told."""
        return {OPEN_REQUESTS: self._batcher.open_requests}

    def _make_batcher(self) -> Batcher:
        settings = self._settings
        return Batcher(
            settings.sources,
            interval=settings.interval,
            shadow=settings.shadow,
            share=settings.share,
            tasks=settings.tasks,
            keys=settings.keys,
            threads=settings.compute_threads,
            device=settings.device,
            dtype=settings.dtype,
            limits=settings.limits,
            observer=self._metrics,
            make_follower=self._replicas.follower,
        )

    async def _all_metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics of all replicas, its own among them as they are now."""
        told = await self._replicas.metrics()
        return merged_metrics({**told, self._id: self._own_metrics()}, accept)

    def _own_metrics(self) -> str:
        return self._metrics.text(standings_of(self._batcher), OPENMETRICS)[0].decode()

    def _report(self) -> ReplicaReport:
        """What the other replicas, and who deploys, may know of it."""
        served, endpoint = self._batcher.served, self._endpoint
        node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return ReplicaReport(
            id=self._id,
            node=node,
            url=_reached(endpoint.url, node) if endpoint else None,
            grpc=_reached(endpoint.grpc, node) if endpoint and endpoint.grpc else None,
            digest=served.digest,
            revision=served.revision,
            refused=_refused(self._batcher),
            metrics=self._own_metrics(),
        )


def _refused(batcher: Batcher) -> str | None:
    reasons = [
        f"release {refused.release} of revision {refused.revision}: {refused.reason}"
        for channel in batcher.channels.values()
        if (follower := channel.follower) and (refused := follower.refused)
    ]
    return "; ".join(reasons) or None


def _reached(address: str, node: str) -> str:
    """An address as others reach it: where a server listens on all of its node's, by one of these."""
    return address.replace("0.0.0.0", node).replace("[::]", node)  # noqa: S104


class _ToRay(logging.Handler):
    """Sends records where Ray Serve's own go, as the application's logging_config has it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send one."""
        _serve_log.handle(record)


_serve_log = logging.getLogger("ray.serve")


def _log_with_ray() -> None:
    own = logging.getLogger("centra")
    own.setLevel(_serve_log.getEffectiveLevel())
    own.handlers = [_ToRay()]
