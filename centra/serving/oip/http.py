"""The Open Inference Protocol over HTTP, with its extension for binary tensor data."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Path
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation
from starlette.responses import Response

from centra.errors import UsageError
from centra.serving.http.bodies import check_body, parse_body, read_body
from centra.serving.http.call import (
    caller_of,
    channel_of,
    clock,
    serving_of,
    submit,
    timing_header,
    while_connected,
)
from centra.serving.http.documents import request_body
from centra.serving.http.problems import BodyError
from centra.serving.oip.documents import (
    INFER_EXAMPLES,
    ErrorBody,
    InferBody,
    InferResponseBody,
    MetadataBody,
    ServerBody,
    answered,
)
from centra.serving.oip.inference import InferRequest
from centra.serving.oip.inference import infer as infer_from
from centra.serving.oip.metadata import (
    Model,
    find_model,
    model_config,
    model_metadata,
    repository_index,
    server_metadata,
)
from centra.serving.oip.tensors import InputTensor, join_body, shown, split_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.serving.oip.inference import InferResponse

__all__ = ["router"]

HEADER_LENGTH = "Inference-Header-Content-Length"
_UNSUPPORTED = ("shared_memory_region", "classification")
"""Parameters of tensors that ask for extensions which this server does not have."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 408, 413, 429, 500, 503, 504)
}
Name = Annotated[str, Path(description="A task.", examples=["intent"])]

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], responses=_ERRORS)


@router.get("", summary="The server", response_model=ServerBody)
async def server() -> Response:
    """Its name, version and extensions."""
    return _json(server_metadata())


@router.get("/health/live", summary="Whether it lives")
async def live() -> Response:
    """Whether requests are heard at all."""
    return _json({"live": True})


@router.get("/health/ready", summary="Whether it is ready")
async def ready(request: Request) -> Response:
    """Whether tasks are answered; 503 where they are not."""
    is_ready = serving_of(request).ready
    return _json({"ready": is_ready}, 200 if is_ready else 503)


@router.post("/repository/index", summary="All tasks", response_model=list[dict[str, str]])
async def index(request: Request) -> Response:
    """Every task that the caller may ask for, with its version. The body may be empty."""
    return _json(repository_index(channel_of(request).served, caller_of(request)))


@router.get("/models/{model}", summary="A task", responses=answered(MetadataBody))
@router.get("/models/{model}/versions/{version}", include_in_schema=False)
async def metadata(request: Request, model: Name) -> Response:
    """Its version, tensors, labels and decision."""
    return _json(model_metadata(_found(request, model)))


@router.get("/models/{model}/config", summary="A task, as Triton describes it")
@router.get("/models/{model}/versions/{version}/config", include_in_schema=False)
async def config(request: Request, model: Name) -> Response:
    """The same as a model configuration, whose parameters are texts."""
    return _json(model_config(_found(request, model)))


@router.get("/models/{model}/ready", summary="Whether a task is ready")
@router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request, model: Name) -> Response:
    """Whether it is served, in this version."""
    found = _found(request, model)
    is_ready = serving_of(request).ready
    return _json({"name": found.name, "ready": is_ready}, 200 if is_ready else 503)


@router.post(
    "/models/{model}/infer",
    summary="Ask a task",
    responses=answered(InferResponseBody),
    openapi_extra=request_body(InferBody, INFER_EXAMPLES),
)
@router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
async def infer(request: Request, model: Name) -> Response:
    """Texts to answers.

    By kind the outputs are `label` and `score`, with `top_k` also `labels` and `scores` of shape
    `[n, k]`; `value`; `labels` and `scores` as JSON lists, one an input; or `spans`, one JSON list
    an input. With the header `Inference-Header-Content-Length` tensors may stand behind the JSON,
    as the binary tensor data extension says.
    """
    asked, binary = await _read(request, model)
    async with while_connected(request):
        answered = await infer_from(
            channel_of(request),
            asked,
            partial(submit, request),
            most_inputs=serving_of(request).limits.request_inputs,
            caller=caller_of(request),
        )
    running, began = answered.running, clock()
    response = _infer_response(answered, binary)
    running.serialised = clock() - began
    response.headers["Server-Timing"] = timing_header(running.timing, running.serialised)
    return response


def _found(request: Request, model: str) -> Model:
    served = channel_of(request).served
    return find_model(served, model, _version(request), caller_of(request))


def _version(request: Request) -> str:
    """The version in the path; empty where there is none."""
    version: str = request.path_params.get("version", "")
    return version


async def _read(request: Request, model: str) -> tuple[InferRequest, Mapping[str, bool]]:
    """What is asked, and which outputs are to be binary: by name, and ``""`` for all others."""
    limit = serving_of(request).limits.body_bytes
    body = await read_body(request, limit)
    document, binary = split_body(body, request.headers.get(HEADER_LENGTH))
    asked = check_body(InferBody, parse_body(document))
    parameters = asked.parameters or {}
    outputs = asked.outputs or []
    for tensor in asked.inputs:
        _check_extensions(tensor.name, tensor.parameters or {})
    wanted_binary = {"": _flag(parameters, "binary_data_output", default=False)}
    for output in outputs:
        _check_extensions(output.name, output.parameters or {})
        wanted_binary[output.name] = _flag(
            output.parameters or {}, "binary_data", default=wanted_binary[""]
        )
    return InferRequest(
        model=model,
        version=_version(request),
        id=asked.id or "",
        parameters={name: value for name, value in parameters.items() if value is not None},
        inputs=_tensors(asked, binary),
        outputs=[output.name for output in outputs],
    ), wanted_binary


def _tensors(asked: InferBody, binary: bytes) -> list[InputTensor]:
    """The input tensors, each with its share of the binary data."""
    tensors: list[InputTensor] = []
    place = 0
    for given in asked.inputs:
        size = (given.parameters or {}).get("binary_data_size")
        where = f"input {shown(given.name)}"
        data: bytes | list[Any]
        if size is None:
            if given.data is None:
                raise BodyError(f"{where}: has neither data nor binary_data_size", field="inputs")
            data = given.data
        else:
            if given.data is not None:
                raise BodyError(f"{where}: has both data and binary_data_size", field="inputs")
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise BodyError(f"{where}: binary_data_size is {shown(size)}; expected a number")
            data = binary[place : place + size]
            place += size
            if place > len(binary):
                raise BodyError(
                    f"{where}: binary_data_size is {size}, but behind the JSON "
                    f"{len(data)} bytes are left for it"
                )
        tensors.append(
            InputTensor(name=given.name, datatype=given.datatype, shape=given.shape, data=data)
        )
    if place != len(binary):
        raise BodyError(
            f"behind the JSON stand {len(binary)} bytes, but the inputs' binary_data_size add up "
            f"to {place}"
        )
    return tensors


def _infer_response(answered: InferResponse, binary: Mapping[str, bool]) -> Response:
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for tensor in answered.outputs:
        output = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if binary.get(tensor.name, binary[""]):
            parts.append(tensor.to_bytes())
            outputs.append(output | {"parameters": {"binary_data_size": len(parts[-1])}})
        else:
            outputs.append(output | {"data": tensor.values})
    document = orjson.dumps(
        {
            "model_name": answered.model,
            "model_version": answered.version,
            **({"id": answered.id} if answered.id else {}),
            "parameters": answered.parameters,
            "outputs": outputs,
        }
    )
    if not parts:
        return Response(document, media_type="application/json")
    return Response(
        join_body(document, parts),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(document))},
    )


def _check_extensions(name: str, parameters: Mapping[str, Any]) -> None:
    for parameter in _UNSUPPORTED:
        if parameter in parameters:
            raise UsageError(
                f"tensor {shown(name)}: this server has no extension for {parameter}",
                code="no-such-extension",
            )


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise UsageError(
            f"parameter {name} is {shown(value)}; expected true or false", code="wrong-parameter"
        )
    return value


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")
