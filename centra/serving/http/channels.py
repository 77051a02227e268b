"""Which channel a call is for, where several are served: a header or a prefix of its path says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation
from starlette.responses import RedirectResponse, Response

from centra.errors import UsageError
from centra.serving.channels import no_such_channel
from centra.serving.http.call import caller_of, serving_of
from centra.serving.http.documents import ChannelsBody, answered_by
from centra.serving.http.paths import split_channel
from centra.serving.http.release import follower_document, moment

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from centra.serving.http.call import Serving
    from centra.serving.served_channel import ServedChannel
    from centra.serving.tokens import Caller

__all__ = ["HEADER", "Choosing", "chosen", "router"]

HEADER = "Centra-Channel"

router = APIRouter()

_EXAMPLE = {
    "channels": [
        {
            "name": "en",
            "release": 7,
            "digest": "9f2c…",
            "channel": "production",
            "revision": 12,
            "since": "2026-11-01T12:00:00Z",
            "refused": None,
            "store_error": None,
        }
    ]
}


@router.get(
    "/v1/channels",
    tags=["release"],
    summary="The channels that are served",
    responses=answered_by(ChannelsBody, _EXAMPLE, statuses=(401,)),
)
async def channels(request: Request) -> Response:
    """What each serves, the default first: it answers calls that choose none.

    A call chooses one by the header `Centra-Channel: NAME`, or by `/channels/NAME` before its path.
    """
    serving = serving_of(request)
    allowed = _allowed(serving, caller_of(request))
    found = [_document(one) for one in serving.batcher.channels.values() if one.name in allowed]
    return Response(orjson.dumps({"channels": found}), media_type="application/json")


class Choosing:
    """Finds the channel that a call is for, and takes its prefix from the path; inside the guard."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a call.

        Raises:
            NotFoundError: there is no such channel.
            UsageError: its header and its path, or two headers, name different ones.
        """
        if scope["type"] == "http":
            named, path = split_channel(scope)
            given = [*Headers(scope=scope).getlist(HEADER), *([] if named is None else [named])]
            scope["state"]["channel"] = chosen(self._serving, scope["state"].get("caller"), given)
            if named is not None:
                scope["root_path"] = f"{scope.get('root_path', '')}/channels/{named}"
                scope["path"] = scope["root_path"] + path
                if not path:
                    await RedirectResponse(f"{named}/")(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def chosen(serving: Serving, caller: Caller | None, given: list[str]) -> ServedChannel:
    """The channel that a call is for.

    Args:
        serving: what serves.
        caller: who calls; None where anybody may, or nobody has been asked.
        given: the names that the call holds; without any it is the default.

    Raises:
        NotFoundError: there is no such channel.
        UsageError: different ones are named.
    """
    served = serving.batcher.channels
    if len({*given}) > 1:
        names = " and ".join(repr(name[:80]) for name in given)
        raise UsageError(f"a call is for one channel; it names {names}", code="several-channels")
    if not given:
        return served.choose()
    (name, *_) = given
    if not name or name not in served:
        raise no_such_channel(name, [*filter(None, _allowed(serving, caller))])
    return served[name]


def _allowed(serving: Serving, caller: Caller | None) -> list[str]:
    """The channels that a caller may know of; none where tokens are asked for and there is none."""
    served = serving.batcher.channels
    if caller is not None:
        return caller.allowed_channels(served)
    return [*served] if serving.tokens is None else []


def _document(channel: ServedChannel) -> dict[str, Any]:
    served = channel.served
    return {
        "name": channel.name or None,
        "release": served.number,
        "digest": served.digest,
        "channel": served.channel,
        "revision": served.revision,
        "since": moment(served.since),
        **follower_document(channel.follower),
    }
