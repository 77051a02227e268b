"""The Open Inference Protocol over gRPC, in the event loop that the HTTP server runs in.

Beside it the health service that orchestrators ask. Neither it nor the protocol's own calls for
health ask for a token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.json_format import ParseDict

from centra.errors import DataError, NotFoundError
from centra.serving.errors import OverloadedError
from centra.serving.http.channels import HEADER, chosen
from centra.serving.http.middleware import log_failure, request_id_of
from centra.serving.http.problems import Problem
from centra.serving.oip.inference import InferRequest, infer
from centra.serving.oip.messages import HEALTH_SERVICE, SERVICE, message
from centra.serving.oip.metadata import (
    find_model,
    model_config,
    model_metadata,
    repository_index,
    server_metadata,
)
from centra.serving.oip.tensors import BYTES, InputTensor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from centra.runtime.queries import Query
    from centra.serving.http.call import Serving
    from centra.serving.oip.inference import InferResponse
    from centra.serving.request import Request as Running
    from centra.serving.served_channel import ServedChannel
    from centra.serving.tokens import Caller

    Handler = Callable[[Any, "Call"], Awaitable[Any]]

__all__ = ["start_grpc"]

_log = logging.getLogger(__name__)

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""What gRPC calls a problem, by its HTTP status."""
_OUTCOMES = {
    "OK": "ok",
    "CANCELLED": "cancelled",
    "DEADLINE_EXCEEDED": "late",
    "INTERNAL": "failed",
    "INVALID_ARGUMENT": "refused",
    "NOT_FOUND": "refused",
    "PERMISSION_DENIED": "forbidden",
    "RESOURCE_EXHAUSTED": "overloaded",
    "UNAUTHENTICATED": "unauthorized",
    "UNAVAILABLE": "failed",
}
"""What metrics call them, as of calls over HTTP."""
_SERVING, _NOT_SERVING = 1, 2
"""Of ``grpc.health.v1.HealthCheckResponse``."""
_KEEPALIVE_MS = 30_000
"""After so long a silent connection is asked whether its client is still there."""


async def start_grpc(
    serving: Serving,
    *,
    host: str,
    port: int,
    certificate: tuple[bytes, bytes] | None = None,
    shared: bool = False,
) -> tuple[grpc.aio.Server, int]:
    """Answer gRPC; its ``stop(grace)`` ends it.

    Args:
        serving: what answers, who may call, and how large a message may be.
        host: an address, or ``[::1]`` of one in IPv6.
        port: 0 for a free one.
        certificate: private key and certificate chain in PEM, for TLS.
        shared: whether other processes may listen there, too.

    Returns:
        The server, and its port.

    Raises:
        RuntimeError: the address cannot be bound.
    """
    limits = serving.limits
    server = grpc.aio.server(
        maximum_concurrent_rpcs=limits.queue_inputs,
        options=[
            ("grpc.max_receive_message_length", limits.body_bytes),
            ("grpc.max_send_message_length", -1),
            # Unasked, a second server on the same port is an error, and gets no call of the first.
            ("grpc.so_reuseport", int(shared)),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 3),
        ],
    )
    service = _Service(serving)
    server.add_generic_rpc_handlers(
        (service.handlers(SERVICE, _CALLS), service.handlers(HEALTH_SERVICE, _HEALTH_CALLS))
    )
    address = f"{host}:{port}"
    if certificate is None:
        bound = server.add_insecure_port(address)
    else:
        bound = server.add_secure_port(address, grpc.ssl_server_credentials([certificate]))
    await server.start()
    return server, bound


@dataclass(kw_only=True)
class Call:
    """One call: who made it, and how long it may take."""

    serving: Serving
    caller: Caller | None
    """None where everybody may call."""
    seconds: float | None
    """Until its deadline; None without one."""
    channels: list[str]
    """The names in its metadata."""
    channel_name: str = ""
    """Of the channel, once it is looked at and where it has one."""
    submitted: bool = False
    """Whether the batcher knows of it."""
    running: Running | None = None
    """What the batcher has taken in of it."""

    @cached_property
    def channel(self) -> ServedChannel:
        """The channel that it is for.

        Raises:
            NotFoundError: there is none of that name.
            UsageError: it names several.
            NotAllowedError: the caller's token does not have it.
        """
        channel = chosen(self.serving, self.caller, self.channels)
        self.channel_name = channel.name
        if self.caller is not None:
            self.caller.check_channel(channel.name)
        return channel

    async def submit(self, queries: Sequence[Query], *, seconds: float | None) -> Running:
        """Send queries to be answered, within what the caller may.

        Raises:
            OverloadedError, TooLargeError, ClosedError: see :meth:`centra.serving.Batcher.submit`.
        """
        if self.caller is not None:
            self.caller.spend(len(queries))
        self.submitted = True
        self.running = await self.serving.batcher.submit(
            queries, channel=self.channel.name, timeout=seconds
        )
        return self.running


async def _server_live(_request: Any, _call: Call) -> dict[str, Any]:
    return {"live": True}


async def _server_ready(_request: Any, call: Call) -> dict[str, Any]:
    return {"ready": call.serving.ready}


async def _model_ready(request: Any, call: Call) -> dict[str, Any]:
    try:
        find_model(call.channel.served, request.name, request.version, call.caller)
    except NotFoundError:
        return {"ready": False}
    return {"ready": call.serving.ready}


async def _server_metadata(_request: Any, _call: Call) -> dict[str, Any]:
    return server_metadata()


async def _model_metadata(request: Any, call: Call) -> dict[str, Any]:
    model = find_model(call.channel.served, request.name, request.version, call.caller)
    # The protocol's message has no place for parameters: they are in the configuration.
    return {name: value for name, value in model_metadata(model).items() if name != "parameters"}


async def _model_config(request: Any, call: Call) -> dict[str, Any]:
    model = find_model(call.channel.served, request.name, request.version, call.caller)
    return {"config": model_config(model)}


async def _repository_index(_request: Any, call: Call) -> dict[str, Any]:
    return {"models": repository_index(call.channel.served, call.caller)}


async def _model_infer(request: Any, call: Call) -> Any:
    response = await infer(
        call.channel,
        _infer_request(request),
        call.submit,
        most_inputs=call.serving.limits.request_inputs,
        caller=call.caller,
        seconds=call.seconds,
    )
    began = time.perf_counter()
    answer = _infer_response(response, raw=bool(request.raw_input_contents))
    response.running.serialised = time.perf_counter() - began
    call.serving.metrics.count_serialised(response.running.serialised, channel=call.channel_name)
    return answer


async def _health_check(request: Any, call: Call) -> dict[str, Any]:
    if request.service not in ("", SERVICE):
        raise NotFoundError(f"there is no service {request.service[:100]!r}")
    return {"status": _SERVING if call.serving.ready else _NOT_SERVING}


_CALLS: Mapping[str, Handler] = {
    "ServerLive": _server_live,
    "ServerReady": _server_ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server_metadata,
    "ModelMetadata": _model_metadata,
    "ModelConfig": _model_config,
    "RepositoryIndex": _repository_index,
    "ModelInfer": _model_infer,
}
_HEALTH_CALLS: Mapping[str, Handler] = {"Check": _health_check}
_FOR_EVERYBODY = {"ServerLive", "ServerReady", "Check"}


@dataclass(frozen=True)
class _Service:
    serving: Serving

    def handlers(self, service: str, calls: Mapping[str, Handler]) -> grpc.GenericRpcHandler:
        """The methods of a service."""
        prefix = "Health" if service == HEALTH_SERVICE else ""
        return grpc.method_handlers_generic_handler(
            service,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._guarded(name, handler, message(f"{prefix}{name}Response")),
                    request_deserializer=message(f"{prefix}{name}Request").FromString,
                    response_serializer=lambda response: response.SerializeToString(),
                )
                for name, handler in calls.items()
            },
        )

    def _guarded(
        self, name: str, handler: Handler, response: Any
    ) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
        """A method whose errors become statuses."""

        async def method(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            began, code = time.perf_counter(), "OK"
            metadata = [*(context.invocation_metadata() or ())]
            given = dict(metadata)
            request_id = request_id_of(given.get("x-request-id"))
            call = Call(
                serving=self.serving,
                caller=None,
                seconds=context.time_remaining(),
                channels=[value for key, value in metadata if key == HEADER.lower()],
            )
            tracing = self.serving.tracing
            span = None if tracing is None else tracing.begin(given, f"{SERVICE}/{name}")
            try:
                if self.serving.tokens is not None and name not in _FOR_EVERYBODY:
                    call.caller = self.serving.tokens.caller(given.get("authorization"))
                answer = await handler(request, call)
                return ParseDict(answer, response()) if isinstance(answer, dict) else answer
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:  # noqa: BLE001 - each becomes a status
                problem = Problem.of(error)
                code = _CODES.get(problem.status, "INTERNAL")
                if code == "INTERNAL":
                    log_failure(error, request_id)
                if not call.submitted:
                    self.serving.metrics.count_error(error)
                status = getattr(grpc.StatusCode, code)
                await context.abort(status, problem.detail, _pushback(error))
            finally:
                seconds = time.perf_counter() - began
                self.serving.metrics.count_request(
                    f"grpc {name}", _OUTCOMES[code], seconds, channel=call.channel_name
                )
                _log_call(name, code, seconds, request_id, call)
                if tracing is not None and span is not None:
                    attributes = {
                        "rpc.system.name": "grpc",
                        "rpc.method": f"{SERVICE}/{name}",
                        "rpc.response.status_code": code,
                        "centra.request_id": request_id,
                    }
                    if call.channel_name:
                        attributes["centra.channel"] = call.channel_name
                    failed = _OUTCOMES[code] == "failed"
                    tracing.end(span, attributes, call.running, failed=failed)

        return method


def _pushback(error: Exception) -> tuple[tuple[str, str], ...]:
    """What tells a client when to try again, as gRPC's retry design has it."""
    if not isinstance(error, OverloadedError):
        return ()
    return (("grpc-retry-pushback-ms", str(round(error.retry_after * 1000))),)


def _log_call(name: str, code: str, seconds: float, request_id: str, call: Call) -> None:
    caller = call.caller
    _log.info(
        "gRPC %s %s in %.1f ms",
        name,
        code,
        seconds * 1000,
        extra={
            "request_id": request_id,
            "method": name,
            "status": code,
            "seconds": round(seconds, 6),
            **({"channel": call.channel_name} if call.channel_name else {}),
            **({"token": caller.name} if caller else {}),
        },
    )


def _infer_request(request: Any) -> InferRequest:
    """A request as its message has it."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise DataError(
            f"raw_input_contents has {len(raw)} items for {len(request.inputs)} inputs",
            code="wrong-tensor",
        )
    if raw and any(tensor.HasField("contents") for tensor in request.inputs):
        raise DataError(
            "both raw_input_contents and contents of an input are given; expected one of them",
            code="wrong-tensor",
        )
    return InferRequest(
        model=request.model_name,
        version=request.model_version,
        id=request.id,
        parameters={
            name: getattr(value, choice)
            for name, value in request.parameters.items()
            if (choice := value.WhichOneof("parameter_choice")) is not None
        },
        inputs=[
            InputTensor(
                name=tensor.name,
                datatype=tensor.datatype,
                shape=tensor.shape,
                data=raw[i] if raw else tensor.contents.bytes_contents,
            )
            for i, tensor in enumerate(request.inputs)
        ],
        outputs=[output.name for output in request.outputs],
    )


def _infer_response(response: InferResponse, *, raw: bool) -> Any:
    """The message of a response, with its tensors in the form that the request's had."""
    answer = message("ModelInferResponse")(
        model_name=response.model, model_version=response.version, id=response.id
    )
    for name, value in response.parameters.items():
        field = "int64_param" if isinstance(value, int) else "string_param"
        setattr(answer.parameters[name], field, value)
    for tensor in response.outputs:
        output = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            answer.raw_output_contents.append(tensor.to_bytes())
        elif tensor.datatype == BYTES:
            output.contents.bytes_contents.extend(tensor.texts)
        else:
            output.contents.fp32_contents.extend(tensor.values)
    return answer
