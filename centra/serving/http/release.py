"""What is served: ``GET /v1/release``, and the probes of whoever runs the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation
from starlette.responses import Response

from centra.serving.http.call import channel_of, serving_of, tasks_of
from centra.serving.http.documents import ReleaseBody, answered_by
from centra.serving.http.predict import modules_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from centra.serving.follower import Following
    from centra.serving.served import ServedRelease
    from centra.serving.served_channel import ServedChannel

__all__ = ["follower_document", "moment", "release_document", "router"]

router = APIRouter()

_EXAMPLE = {
    "release": 7,
    "digest": "9f2c…",
    "channel": "production",
    "revision": 12,
    "since": "2026-11-01T12:00:00Z",
    "tasks": {
        "intent": {
            "version": "2.1",
            "module": "4be1d1f1c0aa",
            "kind": "classification",
            "input": "single",
            "labels": ["alarm", "music"],
        }
    },
    "refused": None,
    "store_error": None,
    "shadow": None,
}


@router.get(
    "/v1/release",
    tags=["release"],
    summary="What is served",
    responses=answered_by(ReleaseBody, _EXAMPLE, statuses=(401,)),
)
async def release(request: Request) -> Response:
    """What is served, since when, and what was refused and why."""
    return _json(release_document(channel_of(request), tasks_of(request)))


@router.get("/livez", tags=["probes"], summary="Whether the process answers")
@router.head("/livez", include_in_schema=False)
async def live() -> Response:
    """Always 200 while the process answers."""
    return _json({"status": "alive"})


@router.get("/readyz", tags=["probes"], summary="Whether calls are answered")
@router.head("/readyz", include_in_schema=False)
async def ready(request: Request) -> Response:
    """200 while calls are answered; 503 once the server ends."""
    if serving_of(request).ready:
        return _json({"status": "ready"})
    return _json({"status": "ending"}, status=503)


@router.get("/health", include_in_schema=False)
@router.head("/health", include_in_schema=False)
async def health(request: Request) -> Response:
    """What other servers call ``/readyz``."""
    return await ready(request)


def release_document(channel: ServedChannel, tasks: Collection[str]) -> dict[str, Any]:
    """What ``/v1/release`` says.

    Args:
        channel: that is served.
        tasks: those to name.
    """
    served = channel.served
    return {
        "release": served.number,
        "digest": served.digest,
        "channel": served.channel,
        "revision": served.revision,
        "since": moment(served.since),
        "tasks": {name: _task(served, name) for name in tasks},
        **follower_document(channel.follower),
        "shadow": _shadow(channel, tasks),
    }


def follower_document(follower: Following | None) -> dict[str, Any]:
    """What is amiss with following a channel: ``refused`` and ``store_error``."""
    return {"refused": _refused(follower), "store_error": _store_error(follower)}


def moment(when: datetime) -> str:
    """A time, in UTC."""
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


def _refused(follower: Following | None) -> dict[str, Any] | None:
    refused = None if follower is None else follower.refused
    if refused is None:
        return None
    return {"release": refused.release, "reason": refused.reason}


def _shadow(channel: ServedChannel, tasks: Collection[str]) -> dict[str, Any] | None:
    """What the shadow found: of all tasks, its own too, unless some that are served stay unnamed."""
    if channel.shadow is None:
        return None
    report = channel.shadow.report() | {"store_error": _store_error(channel.shadow.follower)}
    if len(tasks) < len(channel.served.tasks):
        known = {task: found for task, found in report["tasks"].items() if task in tasks}
        return {**report, "tasks": known}
    return report


def _store_error(follower: Following | None) -> dict[str, Any] | None:
    fault = None if follower is None else follower.store_error
    return None if fault is None else {"reason": fault.reason, "since": moment(fault.since)}


def _task(served: ServedRelease, name: str) -> dict[str, Any]:
    entry = served.release.manifest.tasks[name]
    return {
        **modules_of(served)[name],
        "kind": entry.kind,
        "input": entry.input,
        "labels": list(entry.labels),
    }


def _json(value: Any, *, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")
