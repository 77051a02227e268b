"""Bodies of calls: read within bounds of size and time, parsed strictly, checked by a model."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from centra.formats.strict_json import parse_json
from centra.serving.errors import OverloadedError, TooLargeError
from centra.serving.http.problems import BodyError, SlowBodyError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["check_body", "parse_body", "read_body"]

BODY_SECONDS = 30.0
"""How long the whole body of a call may take to arrive."""
_SMALL = 64 * 2**10
"""Bytes of a body that are always read."""
_TOGETHER = 32
"""So many bodies of the largest size are read at once."""
_WINDOWS = {"gzip": 31, "deflate": 15}
"""How zlib is told the two encodings of HTTP."""
_MOST_PARTS = 200_000
"""Lists, objects and keys of a body; the largest of honest ones have some ten thousand."""
_DEPTH = 64
"""Levels of nesting; honest bodies have under ten."""
_NESTED = (dict, list)
_KEY = re.compile(rb'"[ \t\r\n]*:')
_LONG_NUMBER = re.compile(rb"[0-9]{19}")

Model = TypeVar("Model", bound=BaseModel)


class _Shared:
    """Memory for the large bodies that are on their way, all together."""

    def __init__(self) -> None:
        self._taken = 0

    def take(self, size: int, most: int) -> None:
        """Take so many bytes.

        Raises:
            OverloadedError: that would be more than there may be.
        """
        if self._taken + size > most:
            raise OverloadedError(
                "the large bodies of other calls are on their way; try again, or send fewer inputs "
                "at once",
                retry_after=1.0,
            )
        self._taken += size

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        self._taken -= size


_shared = _Shared()


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body of a call.

    A small one is always read. Large ones share the memory of some, so that no number of clients
    who begin one and never end it takes all that there is.

    Args:
        request: nothing of its body has been read.
        limit: bytes that it may have.

    Raises:
        TooLargeError: it is longer, or says that it is.
        OverloadedError: it is large, and too many large ones are on their way.
        SlowBodyError: it did not end in time.
        ClientDisconnect: the client went away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = taken = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                if size > _SMALL:
                    _shared.take(size - _SMALL - taken, _TOGETHER * limit)
                    taken = size - _SMALL
    except TimeoutError as error:
        raise SlowBodyError(
            f"the body did not end within {BODY_SECONDS:g} seconds; {size:,} bytes of it came"
        ) from error
    finally:
        _shared.give_back(taken)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    return _decompressed(b"".join(chunks), encoding, limit)


def parse_body(data: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        BodyError: it is no JSON in UTF-8, is nested too deep, or can be read in two ways: a key that
            stands twice.
        TooLargeError: it has so many parts that reading it would hold up all other calls.
    """
    if data.count(b"[") + data.count(b"{") > _MOST_PARTS:
        raise _too_many_parts()
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BodyError(f"the body is not JSON in UTF-8: {error}", code="not-json") from error
    # Each key stands before a colon, so as many colons as keys mean that no key stands twice. More
    # may stand in texts, which is rare: only then it is read again, by the reader that tells. So it
    # is with numbers of more digits than 64 bits have, which this one makes others of.
    keys = _count_keys(value)
    if _LONG_NUMBER.search(data) or len(_KEY.findall(data)) != keys:
        try:
            return parse_json(data.decode())
        except ValueError as error:
            raise BodyError(f"the body is ambiguous JSON: {error}", code="not-json") from error
    return value


def check_body(model: type[Model], value: Any) -> Model:
    """A body as its model has it.

    Raises:
        BodyError: it is not as the model says; the first field that is wrong is named.
    """
    if isinstance(value, dict) and model.model_config.get("extra") == "forbid":
        # The model would make an error of each, however many.
        for name in value:
            if name not in model.model_fields:
                raise BodyError(f"{_path((name,))}: {_no_field(model)}", field=_path((name,)))
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = _path(first["loc"])
        named = f"{where}: " if where else "the body: "
        raise BodyError(named + _explain(first, model), field=where or None) from error


def _decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """A body as it was before it was compressed, within the same limit."""
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise BodyError(
            f"header Content-Encoding is {encoding[:60]!r}; expected gzip or deflate, or none"
        )
    decompressor = zlib.decompressobj(_WINDOWS[encoding])
    try:
        data = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise BodyError(f"the body is not compressed with {encoding}: {error}") from error
    if len(data) > limit:
        raise _too_large(limit)
    if not decompressor.eof or decompressor.unused_data:
        raise BodyError(f"the body is not one whole stream of {encoding}")
    return data


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"the body has more than {limit:,} bytes; send fewer inputs at once",
        field="body",
        limit=limit,
    )


def _too_many_parts() -> TooLargeError:
    return TooLargeError(
        f"the body has more than {_MOST_PARTS:,} lists, objects and keys; send fewer inputs at once",
        field="body",
        limit=_MOST_PARTS,
    )


def _count_keys(value: Any) -> int:
    """How many keys all objects have.

    Raises:
        BodyError: lists and objects are nested too deep.
        TooLargeError: there are too many of them.
    """
    keys, parts, level = 0, 0, [value]
    for _ in range(_DEPTH):
        below: list[Any] = []
        for part in level:
            inner = part
            if isinstance(part, dict):
                keys += len(part)
                inner = part.values()
            elif not isinstance(part, list):
                continue
            below += [item for item in inner if type(item) in _NESTED]
        parts += len(below)
        if keys + parts > _MOST_PARTS:
            raise _too_many_parts()
        if not below:
            return keys
        level = below
    raise BodyError("the body is nested too deep", code="not-json")


def _path(location: tuple[int | str, ...]) -> str:
    """``inputs[3].text``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path[:200]


def _no_field(model: type[BaseModel]) -> str:
    return f"there is no such field; expected {', '.join(sorted(model.model_fields))}"


def _explain(error: Any, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        return _no_field(model)
    if error["type"] == "model_type":
        return "expected a JSON object"
    text: str = error["msg"]
    return text[0].lower() + text[1:]
