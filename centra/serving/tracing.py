"""Traces of requests for OpenTelemetry: one span a request, and below it where its time went.

A trace is made when its request is done, of what was measured anyway; so tracing adds nothing to a
request that is not sampled but a look at its headers. There is no text of a request in it.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Self

from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from centra.serving.request import Request

__all__ = ["Tracing"]

_log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"


class Tracing:
    """Where the traces of a server go.

    Args:
        provider: exports them; the caller's to make, this object's to close.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("centra.serving")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def from_environment(cls) -> Self | None:
        """As the standard variables ``OTEL_*`` say; None where they ask for no traces.

        Then nothing of OpenTelemetry is imported. Where they ask and it cannot be done, a warning
        says why: a server goes on without traces.
        """
        environment = {name: value for name, value in os.environ.items() if value}
        if not _asked_for(environment):
            return None
        try:
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            exporter, where = _exporter(environment)
        except ImportError as error:
            _log.warning(
                "the environment asks for traces, and there will be none: %s is not installed; "
                "it comes with the extra centra[trace]",
                error.name,
            )
            return None
        if exporter is None:
            _log.warning("the environment asks for traces, and there will be none: %s", where)
            return None
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "centra"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        _log.info("traces go to %s", where)
        return cls(provider)

    def begin(self, headers: Mapping[str, str], name: str) -> Span:
        """Begin the span of a request.

        Args:
            headers: of the request; a ``traceparent`` among them is taken over.
            name: of the span.
        """
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract(headers)
        return self._tracer.start_span(name, context=context, kind=SpanKind.SERVER)

    def end(
        self,
        span: Span,
        attributes: Mapping[str, str | int],
        request: Request | None,
        *,
        failed: bool,
    ) -> None:
        """End it, with the spans below it.

        Args:
            span: of the request.
            attributes: of the span.
            request: as the batcher has it; None where it did not come to that.
            failed: whether the server could not answer.
        """
        from opentelemetry.trace import StatusCode

        if span.is_recording():
            span.set_attributes(attributes)
            if failed:
                span.set_status(StatusCode.ERROR)
            if request is not None:
                self._parts(span, request)
        span.end()

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()

    def _parts(self, parent: Span, request: Request) -> None:
        from opentelemetry.trace import set_span_in_context

        if request.failure is not None:
            parent.set_attribute("centra.failure", type(request.failure).__name__)
        served = request.served
        parent.set_attribute("centra.digest", served.digest)
        if served.number is not None:
            parent.set_attribute("centra.release", served.number)
        parent.set_attribute("centra.inputs", len(request.queries))
        context = set_span_in_context(parent)
        # What was measured by a clock that never goes back, as times of the day.
        offset = time.time() - time.monotonic()

        def part(name: str, begin: float, seconds: float, *, task: str | None = None) -> None:
            start = round((begin + offset) * 1e9)
            span = self._tracer.start_span(name, context=context, start_time=start)
            if task is not None:
                span.set_attribute("centra.task", task)
            span.end(start + round(seconds * 1e9))

        timing = request.timing
        part("tokenise", request.began, timing.tokenise)
        tokenised = done = request.began + timing.tokenise
        batches: dict[float, float] = {}
        for began, trunk, branch in (took for batch in request.took.values() for took in batch):
            batches[began] = max(batches.get(began, 0.0), trunk)
            done = max(done, began + trunk + branch)
        for began, trunk in sorted(batches.items()):
            part("queue", tokenised, began - tokenised)
            part("trunk", began, trunk)
        for task, took in request.took.items():
            for began, trunk, branch in took:
                part("branch", began + trunk, branch, task=task)
        if request.serialised:
            part("serialise", done, request.serialised)


def _asked_for(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    return exporter != "none" and (
        bool(exporter) or any(name in environment for name in _ENDPOINTS)
    )


def _exporter(environment: Mapping[str, str]) -> tuple[SpanExporter | None, str]:
    """What the variables name, and where it sends; or nothing, and why."""
    name = environment.get("OTEL_TRACES_EXPORTER", "otlp").strip()
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(), "standard output"
    if name != "otlp":
        return None, f"OTEL_TRACES_EXPORTER is {name!r}; expected otlp, console or none"
    protocol = next((environment[p] for p in _PROTOCOLS if p in environment), _HTTP)
    if protocol != _HTTP:
        return None, f"the protocol is {protocol!r}; expected {_HTTP}"
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    endpoint = next(
        (environment[e] for e in _ENDPOINTS if e in environment), "http://localhost:4318"
    )
    return OTLPSpanExporter(), redacted(endpoint, endpoint)
