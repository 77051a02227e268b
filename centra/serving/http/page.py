"""The page at ``/``, and what it draws: ``GET /v1/release/layers``."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation
from starlette.responses import Response

from centra.formats.precision import Precision  # noqa: TC001 - pydantic reads it
from centra.kinds import kind_named
from centra.serving.http.call import caller_of, channel_of
from centra.serving.http.documents import answered_by

if TYPE_CHECKING:
    from collections.abc import Collection

    from centra.formats.manifest import TrunkEntry
    from centra.runtime.release import Release

__all__ = ["BranchBody", "LayersBody", "TrunkBody", "layers_of", "router"]

router = APIRouter()

_FILES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        ("main.js", "api.js", "dom.js", "picture.js", "answers.js"),
        "text/javascript; charset=utf-8",
    ),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A server that was updated has another page, whose parts belong together.
    "Cache-Control": "no-cache",
}


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class BranchBody(_Body):
    """What a task adds to the shared layers."""

    name: str
    tap_layer: int
    """The layer that it reads; 0 is the embeddings."""
    depth: int
    """Layers of its own."""
    precision: Precision
    kind: str
    input: str
    """``single`` or ``pair``."""
    gives: str
    """What it answers, in words: ``one of 3 labels``."""
    labels: list[str]
    color: str
    """Of its kind, in drawings."""


class TrunkBody(_Body):
    """The shared layers of one backbone, and what stands on them."""

    backbone: str
    """Its digest."""
    num_layers: int
    """Of the whole backbone."""
    layers: int
    """So many of them are computed at most: up to the deepest tap."""
    tasks: list[BranchBody]
    """By tap and name."""


class LayersBody(_Body):
    """The merged model."""

    digest: str
    """The release's."""
    trunks: list[TrunkBody]
    """One, or two while tasks move to another backbone."""


@router.get(
    "/v1/release/layers",
    tags=["release"],
    summary="The merged model",
    response_model=LayersBody,
    responses=answered_by(LayersBody, statuses=(401,)),
)
async def layers(request: Request) -> LayersBody:
    """Which layers the tasks share, where each task's branch leaves them, and what it adds."""
    served, caller = channel_of(request).served, caller_of(request)
    names = served.tasks if caller is None else caller.allowed(served.tasks)
    return layers_of(served.release, names)


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page: a text goes in, every task's answer comes out."""
    return _file("index.html")


@router.get("/static/{name}", include_in_schema=False)
async def static(name: str) -> Response:
    """A part of the page."""
    if name not in _FILES:
        raise HTTPException(404, "there is no such file")
    return _file(name)


def layers_of(release: Release, tasks: Collection[str]) -> LayersBody:
    """The merged model, as far as these tasks see it."""
    trunks = [_trunk(release, trunk, tasks) for trunk in release.manifest.trunks]
    return LayersBody(digest=release.digest, trunks=[trunk for trunk in trunks if trunk.tasks])


def _trunk(release: Release, trunk: TrunkEntry, tasks: Collection[str]) -> TrunkBody:
    entries = release.manifest.tasks
    branches = [_branch(release, name) for name in tasks if entries[name].backbone == trunk.spec]
    return TrunkBody(
        backbone=trunk.spec,
        num_layers=trunk.num_layers,
        layers=max((branch.tap_layer for branch in branches), default=0),
        tasks=sorted(branches, key=lambda branch: (branch.tap_layer, branch.name)),
    )


def _branch(release: Release, name: str) -> BranchBody:
    entry, spec = release.manifest.tasks[name], release.specs[name]
    kind, decision = kind_named(entry.kind), spec.effective_decision
    return BranchBody(
        name=name,
        tap_layer=entry.tap_layer,
        depth=entry.depth,
        precision=entry.precision,
        kind=entry.kind,
        input=entry.input,
        gives=kind.describe(
            len(entry.labels),
            threshold=decision.threshold,
            rejection=decision.rejection,
            crf=spec.head.crf,
        ),
        labels=kind.names(entry.labels),
        color=kind.color,
    )


def _file(name: str) -> Response:
    content = files("centra.serving").joinpath("page", name).read_bytes()
    return Response(content, headers=_HEADERS | {"Content-Type": _FILES[name]})
