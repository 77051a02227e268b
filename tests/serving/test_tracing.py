"""Traces of requests, as OpenTelemetry's in-memory exporter gets them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families as parse
from tritonclient.grpc import service_pb2, service_pb2_grpc

from centra.serving import Batcher
from centra.serving.http.app import create_app
from centra.serving.http.call import Serving
from centra.serving.metrics import Metrics
from centra.serving.oip.grpc import start_grpc
from centra.serving.tracing import Tracing
from tests.support import imported_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.serving.servers import ServedStore

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VARIABLES = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Traced:
    """A server in this process whose spans and counts are kept."""

    def __init__(self, source: str) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)
        self.metrics = Metrics()
        self.source = source

    def call(self, *requests: httpx.Request) -> list[httpx.Response]:
        async def send() -> list[httpx.Response]:
            async with Batcher(self.source, follow=False, observer=self.metrics) as batcher:
                app = create_app(batcher, metrics=self.metrics, tracing=self.tracing)
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport) as client:
                    return [await client.send(request) for request in requests]

        return asyncio.run(send())

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()


@pytest.fixture
def traced(served_store: ServedStore) -> Traced:
    return Traced(served_store.source)


def predict(body: object, **headers: str) -> httpx.Request:
    return httpx.Request("POST", "http://server/v1/predict", json=body, headers=headers)


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_request_is_a_span_over_its_parts_in_the_callers_trace(
    traced: Traced, accept: str
) -> None:
    body = {"inputs": ["wake me at seven", "secret words"], "tasks": ["intent", "topics"]}
    traceparent = f"00-{TRACE}-{PARENT}-01"
    traced.call(predict(body, traceparent=traceparent, accept=accept))
    *parts, request = traced.spans
    assert request.name == "POST /v1/predict"
    assert format(request.context.trace_id, "032x") == TRACE
    assert format(request.parent.span_id, "016x") == PARENT
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["centra.release"] == 7
    assert request.attributes["centra.inputs"] == 2
    names = [part.name for part in parts]
    assert names[:3] == ["tokenise", "queue", "trunk"]
    assert names[-1] == "serialise"
    branches = {part.attributes["centra.task"] for part in parts if part.name == "branch"}
    assert branches == {"intent", "topics"}
    for part in parts:
        assert part.parent.span_id == request.context.span_id
        assert part.start_time <= part.end_time
    # Nobody reads in a trace what was asked.
    assert "secret" not in "".join(span.to_json() for span in traced.spans)


def test_a_call_over_grpc_is_traced_alike(traced: Traced) -> None:
    request = service_pb2.ModelInferRequest(model_name="intent")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"secret words")

    async def call() -> None:
        async with Batcher(traced.source, follow=False) as batcher:
            serving = Serving(batcher=batcher, metrics=traced.metrics, tracing=traced.tracing)
            server, port = await start_grpc(serving, host="127.0.0.1", port=0)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                given = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
                await stub.ModelInfer(request, metadata=given)
            await server.stop(None)

    asyncio.run(call())
    *parts, request = traced.spans
    assert request.name == "inference.GRPCInferenceService/ModelInfer"
    assert format(request.context.trace_id, "032x") == TRACE
    assert request.attributes["rpc.response.status_code"] == "OK"
    assert [part.name for part in parts] == ["tokenise", "queue", "trunk", "branch", "serialise"]
    assert "secret" not in "".join(span.to_json() for span in traced.spans)


def test_a_refusal_is_a_span_without_parts_and_counted(traced: Traced) -> None:
    bad, unknown = predict({"inputs": ["a"], "tasks": ["no_such_task"]}), predict({"inputs": [""]})
    lost = httpx.Request("GET", "http://server/no-such-path-7")
    scrape = httpx.Request("GET", "http://server/metrics")
    *_, answer = traced.call(bad, unknown, lost, scrape)
    assert [span.attributes["http.response.status_code"] for span in traced.spans] == [
        *(422, 200, 404, 200)
    ]
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(answer.text)
        for sample in family.samples
    }
    assert samples["centra_requests_total", "refused", "/v1/predict"] == 1
    assert samples["centra_requests_total", "ok", "/v1/predict"] == 1
    assert samples["centra_requests_total", "refused", "other"] == 1
    assert samples["centra_errors_total", "no-such-task"] == 1
    assert samples["centra_errors_total", "empty-text"] == 1
    assert samples["centra_release_number",] == 7
    assert "no_such_task" not in answer.text
    assert "no-such-path" not in answer.text


def test_a_call_that_is_not_sampled_leaves_nothing(traced: Traced) -> None:
    traced.call(predict({"inputs": ["wake me"]}, traceparent=f"00-{TRACE}-{PARENT}-00"))
    assert traced.spans == ()


def test_without_variables_there_are_no_traces_and_nothing_is_imported() -> None:
    assert Tracing.from_environment() is None
    imported = imported_by(
        "from centra.serving.tracing import Tracing; assert Tracing.from_environment() is None"
    )
    assert "opentelemetry" not in imported
    # FastAPI looks for what it can report to, but loads nothing that does.
    imported_by(
        "import sys, centra.serving.server; "
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]"
    )


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_variables_can_say_no(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Tracing.from_environment() is None


def test_an_endpoint_turns_traces_on_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hidden@127.0.0.1:9")
    caplog.set_level(logging.INFO, logger="centra")
    tracing = Tracing.from_environment()
    assert tracing is not None
    tracing.close()
    assert "traces go to http://me:***@127.0.0.1:9" in caplog.messages


def test_what_cannot_be_done_is_said_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    assert Tracing.from_environment() is None
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    assert Tracing.from_environment() is None
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "OTEL_TRACES_EXPORTER is 'zipkin'; expected otlp, console or none",
        "opentelemetry.sdk.trace is not installed; it comes with the extra centra[trace]",
    ]
