"""``/docs``: every call with examples to send, as one page that asks nothing of any other server."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter()

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's own style and script, and calls to this server: nothing else is loaded or run."""


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """The page, which reads ``/openapi.json``."""
    return Response(_page(), media_type="text/html", headers={"Content-Security-Policy": _POLICY})


@cache
def _page() -> bytes:
    return files("centra.serving.http").joinpath("docs.html").read_bytes()
