"""A replica: the server of an application, behind Ray Serve's proxy and at an endpoint of its own."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray import serve

from centra.serving.batcher import Batcher
from centra.serving.endpoint import Endpoint
from centra.serving.http.app import create_app
from centra.serving.metrics import Metrics
from centra.serving.ray.metrics import OPENMETRICS, merged_metrics
from centra.serving.ray.ports import NodePorts
from centra.serving.ray.proxied import Proxied
from centra.serving.ray.scaling import OPEN_REQUESTS
from centra.serving.server import raise_open_files
from centra.serving.standing import Standing
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

    async def __init__(self, settings: Settings) -> None:
        """Load what is served, and listen.

        Args:
            settings: of the application.

        Raises:
            CentraError: it cannot be served, or a port is in use.
        """
        _log_with_ray()
        raise_open_files()
        context = serve.get_replica_context()
        self._application = context.app_name
        self._id = context.replica_id.unique_id
        self._settings, self._metrics = settings, Metrics()
        self._ports: NodePorts | None = None
        self._endpoint: Endpoint | None = None
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._closing = stack.pop_all()

    async def _open(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        tokens = Tokens(settings.tokens) if settings.tokens else None
        if (tracing := Tracing.from_environment()) is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)
        if (listener := settings.listener) is not None:
            cluster = ray.get_runtime_context().gcs_address
            self._ports = await asyncio.to_thread(
                NodePorts,
                listener,
                application=f"{self._application} of {cluster}",
                replica=self._id,
            )
            stack.callback(self._ports.close)
        self._batcher = await stack.enter_async_context(self._make_batcher())
        self._app = create_app(
            self._batcher, tokens=tokens, metrics=self._metrics, tracing=tracing
        )
        self._app.state.serving.all_metrics = self._all_metrics
        if listener is not None and self._ports is not None:
            self._endpoint = Endpoint(self._app, listener, self._ports.sockets)
            await self._endpoint.open()
            stack.push_async_callback(self._endpoint.close)

    def __serve_build_asgi_app__(self) -> Proxied:
        """What Ray Serve calls."""
        return Proxied(self._app)

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
