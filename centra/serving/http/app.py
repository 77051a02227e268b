"""The application: its doors, and what is around each of them."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from centra.serving.http import channels, docs, drop_in, page, predict, release
from centra.serving.http import metrics as observed
from centra.serving.http.call import Serving
from centra.serving.http.channels import HEADER, Choosing
from centra.serving.http.documents import ProblemBody
from centra.serving.http.metrics import Counting
from centra.serving.http.middleware import Envelope, Guard
from centra.serving.http.paths import route_of
from centra.serving.http.problems import BodyError, Problem
from centra.serving.http.tracing import Spans
from centra.serving.metrics import Metrics
from centra.serving.oip import http as oip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from centra.serving.batcher import Batcher
    from centra.serving.tokens import Tokens
    from centra.serving.tracing import Tracing

__all__ = ["create_app"]

_DESCRIPTION = "Answers texts with a release: many task modules on one frozen backbone."


def create_app(
    batcher: Batcher,
    *,
    tokens: Tokens | None = None,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The application around a batcher that has begun.

    Args:
        batcher: answers. Where it serves several channels, the header ``Centra-Channel: NAME`` or
            the prefix ``/channels/NAME`` of a path chooses one.
        tokens: who may call; default everybody.
        metrics: the batcher's observer, which counts calls besides; default one of its own.
        tracing: where traces go; default nowhere.
    """
    app = FastAPI(
        title="Centra",
        version=version("centra"),
        description=_DESCRIPTION,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        # FastAPI's own records hold what exceptions say, which may be texts of a request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    serving = Serving(batcher=batcher, tokens=tokens, metrics=metrics or Metrics(), tracing=tracing)
    app.state.serving = serving
    for part in (predict, drop_in, release, channels, docs, observed, page, oip):
        app.include_router(part.router)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameter)
    app.add_middleware(Choosing, serving=serving)
    if tokens is not None:
        app.add_middleware(Guard, tokens=tokens)
    app.add_middleware(Counting, metrics=serving.metrics)
    if tracing is not None:
        app.add_middleware(Spans, tracing=tracing)
    app.add_middleware(Envelope, serving=serving)
    app.openapi = lambda: _openapi(app, batcher.channels.names)  # type: ignore[method-assign] # as FastAPI's manual has it
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """What the framework refuses: a path that there is not, or another method."""
    assert isinstance(error, HTTPException)
    code = {404: "no-such-path", 405: "method-not-allowed"}.get(error.status_code, "refused")
    problem = Problem(
        status=error.status_code,
        code=code,
        detail=_explained(request, error),
        headers=error.headers or {},
    )
    return problem.response(route_of(request.scope), request.scope["state"]["request_id"])


def _explained(request: Request, error: HTTPException) -> str:
    method, path = request.method, request.url.path[:200]
    if error.status_code == 404:
        return f"there is no path {path}; every call is explained at /docs"
    allowed = (error.headers or {}).get("Allow")
    if error.status_code == 405 and allowed:
        return f"{path} takes {allowed}, not {method}; every call is explained at /docs"
    return f"{method} {path}: {error.detail}"


async def _refuse_parameter(_request: Request, error: Exception) -> Response:
    """What stands in a path, a query or a header, and is not as it must be."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    raise BodyError(f"{name}: {first['msg']}", field=name, code="invalid-parameter")


def _openapi(app: FastAPI, channels: Sequence[str]) -> dict[str, Any]:
    """The schema; the models of bodies that are read by hand stand where the others do.

    Where there are channels to choose, each call has the header that does.
    """
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        models = schema.setdefault("components", {}).setdefault("schemas", {})
        models["ProblemBody"] = ProblemBody.model_json_schema()
        for path in schema["paths"].values():
            for call in path.values():
                if channels:
                    call.setdefault("parameters", []).append(_channel_parameter(channels))
                for content in call.get("requestBody", {}).get("content", {}).values():
                    models.update(content.get("schema", {}).pop("$defs", {}))
        app.openapi_schema = schema
    return app.openapi_schema


def _channel_parameter(channels: Sequence[str]) -> dict[str, Any]:
    return {
        "name": HEADER,
        "in": "header",
        "required": False,
        "description": f"The channel; default {channels[0]}.",
        "schema": {"type": "string", "enum": [*channels]},
    }
