"""The calls that other servers of classifiers take, answered in their shape.

``POST /predict`` is that of Hugging Face's text-embeddings-inference, and ``POST /v1/classify`` that
of vLLM, with the scores by label that Lemonade gives. Scores come from the task's own activation: a
multilabel task's are not a softmax. What these shapes have no place for stands in headers: the
release, the task's version, and which inputs were cut.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation
from starlette.responses import Response  # noqa: TC002 - likewise

from centra.data.inputs import Input
from centra.errors import CentraError, NotFoundError
from centra.kinds import kind_named
from centra.runtime.queries import Query
from centra.serving.errors import TooLargeError
from centra.serving.http.call import (
    answer_all,
    channel_of,
    check_count,
    clock,
    read_as,
    tasks_of,
    timed_response,
)
from centra.serving.http.documents import answered_by, request_body
from centra.serving.http.paths import route_of
from centra.serving.http.problems import BodyError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.formats.manifest import TaskEntry
    from centra.serving.request import Request as Running

__all__ = ["router"]

router = APIRouter(tags=["drop-in"])

_ONE_OUTPUT = "LABEL_0"
"""What transformers calls the one output of a model that gives a number."""
_REFUSALS = (401, 403, 404, 408, 413, 422, 429, 503, 504)

_Text = Annotated[StrictStr, Field(title="a text")]
_Group = Annotated[list[StrictStr], Field(min_length=1, max_length=2, title="a text, or a pair")]


class _Body(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


class TeiBody(_Body):
    """A call of text-embeddings-inference."""

    inputs: _Text | _Group | list[_Group]
    """A text; a pair of texts; or several of them, each in a list of its own."""
    truncate: StrictBool | None = None
    """``false`` refuses a text that is too long; else it is cut, and a header says so."""
    truncation_direction: Literal["right", "Right"] = "right"
    raw_scores: StrictBool = False
    """Logits instead of scores."""


class TeiPrediction(_Body):
    """One label."""

    score: float
    label: str


class ClassifyBody(_Body):
    """A call of vLLM's classification."""

    input: _Text | list[_Text] | list[_Group]
    """A text; some texts; or some pairs, each in a list of its own."""
    model: str | None = None
    """The task; needed where the release holds several."""
    use_activation: StrictBool | None = None
    """``false`` gives logits instead of probabilities."""
    user: str | None = None
    """Not used."""
    priority: int | None = None
    """Not used."""
    request_id: str | None = None
    """Not used: see the header ``X-Request-Id``."""


class Classification(_Body):
    """What is said to one input."""

    index: int
    label: str | None
    """The best; null where a classification rejects the input."""
    probs: list[float]
    """By the task's activation, in the order of its labels."""
    num_classes: int


class Usage(_Body):
    """What was read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: Literal[0] = 0


class ClassifyAnswer(_Body):
    """The answers, in the order of the inputs."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classification]
    usage: Usage
    labels: dict[str, float] | None = None
    """Where one text was asked about: the score of each label."""


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """A task's scores for one input, in the order of its labels."""

    labels: list[str]
    scores: list[float]
    answer: dict[str, Any]
    """As ``/v1/predict`` gives it."""

    @property
    def by_label(self) -> dict[str, float]:
        return dict(zip(self.labels, self.scores, strict=True))


_TEI_EXAMPLES = {
    "a text": {"inputs": "wake me at seven"},
    "two texts": {"inputs": [["wake me at seven"], ["play some jazz"]]},
    "a pair": {"inputs": ["is it cold?", "what is the weather?"]},
}
_TEI_EXAMPLE = [{"score": 0.98, "label": "alarm"}, {"score": 0.02, "label": "music"}]


@router.post(
    "/predict/{task}",
    summary="As text-embeddings-inference",
    openapi_extra=request_body(TeiBody, _TEI_EXAMPLES),
    responses=answered_by(None, _TEI_EXAMPLE, statuses=_REFUSALS),
)
async def predict_task(request: Request, task: str) -> Response:
    """The scores of all labels of a task, best first; for several inputs a list of such lists."""
    return await _tei(request, task)


@router.post(
    "/predict",
    summary="As text-embeddings-inference, with the task in the query",
    openapi_extra=request_body(TeiBody, _TEI_EXAMPLES),
    responses=answered_by(None, _TEI_EXAMPLE, statuses=_REFUSALS),
)
async def predict_default(request: Request, task: str | None = None) -> Response:
    """The same; without `?task=` where the release holds one task alone."""
    return await _tei(request, task)


@router.post(
    "/v1/classify",
    summary="As vLLM",
    openapi_extra=request_body(
        ClassifyBody,
        {"a text": {"model": "intent", "input": "wake me at seven"},
         "some texts": {"model": "intent", "input": ["wake me at seven", "play some jazz"]}},
    ),
    responses=answered_by(
        ClassifyAnswer,
        {
            "id": "classify-0f9a…",
            "object": "list",
            "created": 1767225600,
            "model": "intent",
            "data": [{"index": 0, "label": "alarm", "probs": [0.98, 0.02], "num_classes": 2}],
            "usage": {"prompt_tokens": 6, "total_tokens": 6, "completion_tokens": 0},
        },
        statuses=_REFUSALS,
    ),
)  # fmt: skip
async def classify(request: Request) -> Response:
    """The probabilities of all labels of a task, in the order of its labels."""
    body = await read_as(request, ClassifyBody)
    name, entry = _task(request, body.model, "model")
    one = isinstance(body.input, str)
    values = [body.input] if isinstance(body.input, str) else body.input
    check_count(request, len(values), "input")
    inputs = [_input(value, entry, f"input[{i}]") for i, value in enumerate(values)]
    raw = body.use_activation is False
    running, found = await _scores(request, inputs, name, entry, raw=raw, field="input")
    began = clock()
    answer = {
        "id": f"classify-{request.scope['state']['request_id']}",
        "object": "list",
        "created": int(time.time()),
        "model": name,
        "data": [
            {
                "index": place,
                "label": _best(scored),
                "probs": scored.scores,
                "num_classes": len(scored.labels),
            }
            for place, scored in enumerate(found)
        ],
        "usage": {
            "prompt_tokens": running.tokens,
            "total_tokens": running.tokens,
            "completion_tokens": 0,
        },
        **({"labels": found[0].by_label} if one else {}),
    }
    encoded = orjson.dumps(answer)
    return timed_response(encoded, running, clock() - began, _headers(running, name, found))


async def _tei(request: Request, task: str | None) -> Response:
    try:
        body = await read_as(request, TeiBody)
        name, entry = _task(request, task, "task")
        if not isinstance(body.inputs, str):
            check_count(request, len(body.inputs), "inputs")
        one, inputs = _tei_inputs(body.inputs, entry)
        running, found = await _scores(
            request, inputs, name, entry, raw=body.raw_scores, field="inputs"
        )
        if body.truncate is False:
            _refuse_cut(found)
    except CentraError as error:
        return _tei_refusal(request, error)
    began = clock()
    answers = [
        [
            {"score": score, "label": label}
            for label, score in sorted(scored.by_label.items(), key=lambda item: -item[1])
        ]
        for scored in found
    ]
    encoded = orjson.dumps(answers[0] if one else answers)
    timing = running.timing
    parts = {
        "x-tokenization-time": timing.tokenise,
        "x-queue-time": timing.queue,
        "x-inference-time": timing.trunk + timing.branch,
    }
    headers = {part: str(round(seconds * 1000)) for part, seconds in parts.items()}
    return timed_response(
        encoded, running, clock() - began, {**headers, **_headers(running, name, found)}
    )


def _task(request: Request, name: str | None, field: str) -> tuple[str, TaskEntry]:
    """The task that a call is about.

    Raises:
        NotFoundError: the release does not hold it.
        BodyError: none is named of several, or it gives no scores of labels.
    """
    served, known = channel_of(request).served, tasks_of(request)
    if name is None:
        if len(known) != 1:
            raise BodyError(
                f"{field}: this release holds {len(known)} tasks; name one of {', '.join(known)}",
                field=field,
            )
        (name,) = known
    if name not in served.tasks:
        raise NotFoundError(
            f"this release holds no task {name[:80]!r}; it holds {', '.join(known)}",
            code="no-such-task",
            field=field,
        )
    entry = served.release.manifest.tasks[name]
    if kind_named(entry.kind).reads_every_token:
        raise BodyError(
            f"{field}: task {name} labels parts of a text; ask for it at /v1/predict", field=field
        )
    return name, entry


def _tei_inputs(inputs: str | list[Any], entry: TaskEntry) -> tuple[bool, list[Input]]:
    """Whether they are one, and the inputs."""
    flat = isinstance(inputs, str) or isinstance(inputs[0], str)
    if flat and len(inputs) == 2 and not isinstance(inputs, str) and entry.input == "single":
        raise BodyError(
            "inputs: two texts in one list are a pair, which this task does not take; several "
            'inputs are written [["…"], ["…"]]',
            field="inputs",
        )
    values = [inputs] if flat else inputs
    return flat, [_input(value, entry, f"inputs[{i}]") for i, value in enumerate(values)]


def _input(value: str | Sequence[str], entry: TaskEntry, where: str) -> Input:
    texts = [value] if isinstance(value, str) else [*value]
    if len(texts) != (2 if entry.input == "pair" else 1):
        wanted = "a pair of texts" if entry.input == "pair" else "a single text"
        raise BodyError(f"{where}: this task takes {wanted}", field=where)
    try:
        return Input.parse(texts[0] if len(texts) == 1 else texts, where)
    except CentraError as error:
        raise BodyError(str(error), field=where) from error


async def _scores(
    request: Request,
    inputs: Sequence[Input],
    name: str,
    entry: TaskEntry,
    *,
    raw: bool,
    field: str,
) -> tuple[Running, list[_Scored]]:
    """A task's scores, or its logits; the first input that fails fails all."""
    labels = list(entry.labels)
    top_k = len(labels) if labels and not raw else None
    queries = [Query(input=item, tasks=(name,), top_k=top_k, logits=raw) for item in inputs]
    running, answers = await answer_all(request, queries)
    found = []
    for place, answer in enumerate(answers):
        error = answer.error or answer.errors.get(name)
        if error is not None:
            if isinstance(error, CentraError):
                error.data.setdefault("field", f"{field}[{place}]")
            raise error
        found.append(_scored(labels, answer.answers[name], raw=raw))
    return running, found


def _scored(labels: list[str], answer: dict[str, Any], *, raw: bool) -> _Scored:
    if raw:
        scores = list(answer["logits"])
    elif labels:
        by_label = {entry["label"]: entry["score"] for entry in answer["top"]}
        scores = [by_label[label] for label in labels]
    else:
        scores = [answer["value"]]
    return _Scored(labels=labels or [_ONE_OUTPUT], scores=scores, answer=answer)


def _best(scored: _Scored) -> str | None:
    if "label" in scored.answer:
        label: str | None = scored.answer["label"]
        return label
    return max(scored.by_label.items(), key=lambda item: item[1])[0]


def _refuse_cut(found: Sequence[_Scored]) -> None:
    for place, scored in enumerate(found):
        if cut := scored.answer.get("truncated"):
            raise TooLargeError(
                f"inputs[{place}]: must have at most {cut['kept']} tokens; given: {cut['tokens']}",
                field=f"inputs[{place}]",
                limit=cut["kept"],
            )


def _headers(running: Running, name: str, found: Sequence[_Scored]) -> dict[str, str]:
    served = running.served
    cut = [
        f"{place}={cut['kept']}/{cut['tokens']}"
        for place, scored in enumerate(found)
        if (cut := scored.answer.get("truncated"))
    ]
    headers = {
        "X-Centra-Release": "" if served.number is None else str(served.number),
        "X-Centra-Digest": served.digest,
        "X-Centra-Version": served.versions.get(name, ""),
        "X-Centra-Module": served.module(name),
        "X-Centra-Truncated": ", ".join(cut[:100]),
    }
    return {header: value for header, value in headers.items() if value}


def _tei_refusal(request: Request, error: CentraError) -> Response:
    """A problem document with the two members that clients of text-embeddings-inference read."""
    problem = Problem.of(error)
    kinds = {413: "Validation", 422: "Validation", 404: "Validation", 429: "Overloaded"}
    extra = {"error": problem.detail, "error_type": kinds.get(problem.status, "Backend")}
    problem = Problem(**{**vars(problem), "extra": extra})
    return problem.response(route_of(request.scope), request.scope["state"]["request_id"])
