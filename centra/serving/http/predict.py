"""``POST /v1/predict``: every task's answer to every input, at once or line by line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import orjson
from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation
from starlette.responses import Response, StreamingResponse

from centra.data.inputs import Input
from centra.errors import CentraError, DataError
from centra.runtime.queries import Query
from centra.serving.http.call import (
    answer_all,
    channel_of,
    check_count,
    clock,
    read_as,
    reason,
    serving_of,
    submit,
    tasks_of,
    timed_response,
    timing_header,
    timing_parts,
    while_connected,
)
from centra.serving.http.documents import (
    InputBody,
    PredictBody,
    PredictionBody,
    answered_by,
    request_body,
)
from centra.serving.http.problems import BodyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from centra.serving.request import InputAnswer, TaskAnswer
    from centra.serving.request import Request as Running
    from centra.serving.served import ServedRelease

__all__ = ["router"]

NDJSON = "application/x-ndjson"
_NUMBERED = re.compile(r"^input \d+\b")
_FIELDS = InputBody.model_fields.keys()

router = APIRouter()

_EXAMPLES = {
    "a text, every task": {"inputs": ["wake me at seven"]},
    "some tasks, with scores": {"inputs": ["wake me at seven"], "tasks": ["intent"], "top_k": 3},
    "different inputs": {
        "inputs": [
            {"id": "a", "text": "wake me at seven", "tasks": ["intent"]},
            {"id": "b", "text": "is it cold?", "text_pair": "what is the weather?"},
            {"id": "c", "tokens": ["fly", "to", "new", "york"]},
        ],
        "timeout_ms": 500,
        "timing": True,
    },
}
_EXAMPLE = {
    "release": {"release": 7, "digest": "9f2c…"},
    "answers": [
        {
            "id": None,
            "truncated": None,
            "tasks": {
                "intent": {
                    "version": "2.1",
                    "module": "4be1d1f1c0aa",
                    "label": "alarm",
                    "score": 0.98,
                }
            },
            "errors": {},
        }
    ],
}


@router.post(
    "/v1/predict",
    tags=["predict"],
    summary="Answer inputs",
    openapi_extra=request_body(PredictBody, _EXAMPLES),
    responses=answered_by(
        PredictionBody, _EXAMPLE, statuses=(401, 403, 408, 413, 422, 429, 503, 504)
    ),
)
async def predict(request: Request) -> Response:
    """Every task's answer to every input.

    An input that is malformed has an error in its place, and keeps no other from its answers. With
    `Accept: application/x-ndjson` each answer is sent the moment its branch is done, one JSON object
    a line: first the release, then answers as they come, then `{"end": true}`.
    """
    body = await read_as(request, PredictBody)
    check_count(request, len(body.inputs), "inputs")
    _check_tasks(body.tasks, request)
    items = [_read(value, place, body) for place, value in enumerate(body.inputs)]
    wants_lines = NDJSON in request.headers.get("accept", "")
    for _, item in items:
        if isinstance(item, Exception):
            serving_of(request).metrics.count_error(item)
    queries = [item for _, item in items if isinstance(item, Query)]
    if not queries:
        return _unasked(request, items)
    seconds = body.timeout_ms / 1000 if body.timeout_ms else None
    if wants_lines:
        return await _lines(request, items, seconds, timing=body.timing)
    running, answers = await answer_all(request, queries, seconds=seconds)
    began = clock()
    modules = modules_of(running.served)
    answered = iter(answers)
    encoded = orjson.dumps(
        [
            _refused(given, item, place)
            if isinstance(item, Exception)
            else _answer(given, next(answered), modules, place)
            for place, (given, item) in enumerate(items)
        ]
    )
    return _response(running, encoded, clock() - began, timing=body.timing)


def _check_tasks(tasks: Sequence[str] | None, request: Request) -> None:
    """Refuse tasks of a whole request that the release does not hold.

    Raises:
        BodyError: it lacks one, or none is asked for.
    """
    if tasks is None:
        return
    if not tasks:
        raise BodyError("tasks: expected at least one; leave it out for all", field="tasks")
    known = channel_of(request).served.tasks
    for place, task in enumerate(tasks):
        if task not in known:
            raise BodyError(
                f"tasks[{place}]: this release holds no task {task[:80]!r}; it holds "
                f"{', '.join(tasks_of(request))}",
                field=f"tasks[{place}]",
                code="no-such-task",
            )


def modules_of(served: ServedRelease) -> Mapping[str, dict[str, Any]]:
    """Of each task the ``version`` and ``module`` that its answers name."""
    known = _modules.get(served)
    if known is None:
        known = {
            task: {"version": served.versions.get(task), "module": served.module(task)}
            for task in served.tasks
        }
        _modules[served] = known
    return known


_modules: WeakKeyDictionary[ServedRelease, dict[str, dict[str, Any]]] = WeakKeyDictionary()

_Item = tuple[Any, Query | DataError]
"""The ``id`` of an input, and what is asked about it, or why it cannot be."""


def _read(value: Any, place: int, body: PredictBody) -> _Item:
    where = f"inputs[{place}]"
    given, tasks = None, body.tasks
    try:
        if isinstance(value, dict):
            given = _own_id(value, where)
            tasks = _own_tasks(value, where) or tasks
            value = {name: part for name, part in value.items() if name not in ("id", "tasks")}
        return given, Query(
            input=Input.parse(value, where),
            tasks=None if tasks is None else tuple(tasks),
            top_k=body.top_k,
            logits=body.logits,
        )
    except DataError as error:
        return given, error


def _own_id(value: dict[str, Any], where: str) -> Any:
    given = value.get("id")
    try:
        orjson.dumps(given)
    except orjson.JSONEncodeError as error:
        raise DataError(
            f"{where}: 'id' cannot be sent back: {error}; write it as a text"
        ) from error
    return given


def _own_tasks(value: dict[str, Any], where: str) -> list[str] | None:
    for name in value:
        if name not in _FIELDS:
            raise DataError(
                f"{where}: there is no field {name[:60]!r}; expected {', '.join(sorted(_FIELDS))}"
            )
    tasks = value.get("tasks")
    if tasks is None:
        return None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(t, str) for t in tasks):
        raise DataError(f"{where}: 'tasks' must be a list of names")
    return tasks


def _answer(
    given: Any, answer: InputAnswer, modules: Mapping[str, dict[str, Any]], place: int
) -> dict[str, Any]:
    if answer.error is not None:
        return _refused(given, answer.error, place)
    return {
        "id": given,
        "truncated": answer.truncated,
        "tasks": {task: modules[task] | answer.answers[task] for task in sorted(answer.answers)},
        "errors": {task: reason(error) for task, error in sorted(answer.errors.items())},
    }


def _refused(given: Any, error: Exception, place: int) -> dict[str, Any]:
    return {"id": given, "error": _reason(error, place)}


def _reason(error: Exception, place: int) -> str:
    """What is told of an error; of inputs the batcher counts those alone that it was given."""
    return _NUMBERED.sub(f"inputs[{place}]", reason(error))


def _name(served: ServedRelease) -> dict[str, Any]:
    return {"release": served.number, "digest": served.digest}


def _response(running: Running, answers: bytes, seconds: float, *, timing: bool) -> Response:
    name = orjson.dumps(_name(running.served))
    parts = b""
    if timing:
        parts = b',"timing":' + orjson.dumps(timing_parts(running.timing, seconds))
    body = b'{"release":' + name + b',"answers":' + answers + parts + b"}"
    return timed_response(body, running, seconds)


def _unasked(request: Request, items: Sequence[_Item]) -> Response:
    """What is said where no input can be asked about."""
    served = channel_of(request).served
    answers = [
        _refused(given, error, place)
        for place, (given, error) in enumerate(items)
        if isinstance(error, Exception)
    ]
    if NDJSON in request.headers.get("accept", ""):
        lines: list[dict[str, Any]] = [{"release": _name(served)}]
        lines += [{"input": place, **answer} for place, answer in enumerate(answers)]
        lines.append({"end": True})
        return Response(b"".join(map(_line, lines)), media_type=NDJSON)
    return Response(
        orjson.dumps({"release": _name(served), "answers": answers}),
        media_type="application/json",
    )


async def _lines(
    request: Request, items: Sequence[_Item], seconds: float | None, *, timing: bool
) -> Response:
    """The answers line by line; headers leave with the first."""
    queries = [item for _, item in items if isinstance(item, Query)]
    async with while_connected(request):
        running = await submit(request, queries, seconds=seconds)
        answers = aiter(running)
        first = await anext(answers)
    if running.failure is not None and first.task is None and first.error is running.failure:
        raise running.failure
    places = [place for place, (_, item) in enumerate(items) if isinstance(item, Query)]
    modules = modules_of(running.served)

    async def lines() -> AsyncIterator[bytes]:
        try:
            yield _line({"release": _name(running.served)})
            for place, (given, item) in enumerate(items):
                if isinstance(item, Exception):
                    yield _line({"input": place, **_refused(given, item, place)})
            answer = first
            while True:
                began, place = clock(), places[answer.place]
                line = _answer_line(place, items[place][0], answer, modules)
                encoded = _line(line | _timing_of(answer, running) if timing else line)
                running.serialised += clock() - began
                yield encoded
                try:
                    answer = await anext(answers)
                except StopAsyncIteration:
                    break
            parts = timing_parts(running.timing, running.serialised)
            yield _line({"end": True, **({"timing": parts} if timing else {})})
        finally:
            running.cancel()

    return StreamingResponse(
        lines(), media_type=NDJSON, headers={"Server-Timing": timing_header(running.timing)}
    )


def _answer_line(
    place: int, given: Any, answer: TaskAnswer, modules: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    line: dict[str, Any] = {"input": place, "id": given}
    if answer.task is not None:
        line["task"] = answer.task
    if answer.error is not None or answer.task is None:
        return {**line, "error": _reason(answer.error or CentraError("no answer"), place)}
    return {**line, "answer": modules[answer.task] | (answer.answer or {})}


def _timing_of(answer: TaskAnswer, running: Running) -> dict[str, Any]:
    """Milliseconds of a task's own way, which is shorter than the request's."""
    if answer.task is None or answer.task not in running.took:
        return {}
    _, trunk, branch = running.took[answer.task][-1]
    return {"timing": {"trunk": round(trunk * 1000, 3), "branch": round(branch * 1000, 3)}}


def _line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
