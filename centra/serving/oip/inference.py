"""Inference by the Open Inference Protocol, the same for HTTP and gRPC: tensors to tensors.

The protocol knows no answer for a part of a request: where one input cannot be answered the whole
request is refused, naming it. Requests of others in the same batch do not notice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from centra.errors import DataError, UsageError
from centra.runtime.queries import Query
from centra.serving.oip.metadata import find_model
from centra.serving.oip.tensors import shown, texts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.serving.oip.metadata import Model
    from centra.serving.oip.outputs import Output
    from centra.serving.oip.tensors import InputTensor, OutputTensor
    from centra.serving.request import InputAnswer
    from centra.serving.request import Request as Running
    from centra.serving.served_channel import ServedChannel
    from centra.serving.tokens import Caller

__all__ = ["InferRequest", "InferResponse", "infer"]

_OF_THE_PROTOCOL = {
    "binary_data_output",
    "content_type",
    "headers",
    "priority",
    "sequence_end",
    "sequence_id",
    "sequence_start",
}
"""Parameters that clients of other servers send unasked and that change no answer here."""
_MICROSECOND = 1e-6
_LONGEST = 3600.0
"""Seconds that a client may say it waits; whoever says more waits so long."""


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """A request for inference as a client gives it; nothing is checked yet."""

    model: str
    version: str = ""
    """Empty for the one that is served."""
    id: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    inputs: Sequence[InputTensor]
    outputs: Sequence[str] = ()
    """The names of those that are wanted; all where there are none."""


@dataclass(frozen=True, kw_only=True)
class InferResponse:
    """The answer to a request for inference."""

    model: str
    version: str
    id: str
    parameters: Mapping[str, str | int]
    """``digest`` and ``release`` of the release that answered, ``module`` of the task's module; and
    ``truncated``, a JSON list of ``{"input", "tokens", "kept"}``, where inputs were cut."""
    outputs: list[OutputTensor]
    running: Running
    """Knows where the time went."""


class Submit(Protocol):
    """Sends queries to be answered, within what the caller may."""

    async def __call__(self, queries: Sequence[Query], *, seconds: float | None) -> Running: ...


async def infer(
    channel: ServedChannel,
    request: InferRequest,
    submit: Submit,
    *,
    most_inputs: int,
    caller: Caller | None = None,
    seconds: float | None = None,
) -> InferResponse:
    """Answer a request.

    Args:
        channel: whose release is asked.
        request: the request.
        submit: sends it to the batcher.
        most_inputs: of one request.
        caller: who asks; None where everybody may.
        seconds: how long the client waits, where its transport says so; the request's parameter
            ``timeout`` may be shorter.

    Raises:
        NotFoundError: no such task, or another version of it.
        NotAllowedError: the caller may not ask for it.
        DataError: an input tensor is missing, unknown or malformed, or an input is.
        UsageError: an unknown output or parameter, or a wrong value of one.
        OverloadedError, TooLargeError, DeadlineError, ClosedError: see :meth:`Batcher.submit`.
        Exception: the task failed.
    """
    timeout = _shortest(seconds, _timeout(request))
    while True:
        asked = find_model(channel.served, request.model, request.version, caller)
        queries = _queries(asked, request, most_inputs)
        running = await submit(queries, seconds=timeout)
        try:
            model = find_model(running.served, request.model, request.version, caller)
        except Exception:
            running.cancel()
            raise
        # Another release may have taken over meanwhile, in which the task is another one.
        if model.spec.contract == asked.spec.contract:
            break
        running.cancel()
    wanted = _wanted_outputs(model, request)
    inputs = await running.collect()
    if running.failure is not None:
        raise running.failure
    answers = [_answer(given, model.name) for given in inputs]
    return InferResponse(
        model=model.name,
        version=model.version,
        id=request.id,
        parameters=model.identity | _truncated(answers),
        outputs=[output.tensor(answers) for output in wanted],
        running=running,
    )


def _queries(model: Model, request: InferRequest, most: int) -> list[Query]:
    """The inputs, each with what is asked of it."""
    _check_parameters(request)
    given: dict[str, InputTensor] = {}
    for tensor in request.inputs:
        if tensor.name not in model.inputs:
            raise DataError(
                f"there is no input {shown(tensor.name)}; task {model.name} takes "
                f"{' and '.join(model.inputs)}",
                code="wrong-tensor",
            )
        if tensor.name in given:
            raise DataError(f"input {tensor.name} is given twice", code="wrong-tensor")
        given[tensor.name] = tensor
    for name in model.inputs:
        if name not in given:
            raise DataError(
                f"input {name} is missing; task {model.name} takes {' and '.join(model.inputs)}",
                code="wrong-tensor",
            )
    columns = {name: texts_of(given[name], most) for name in model.inputs}
    sizes = {name: len(texts) for name, texts in columns.items()}
    if len({*sizes.values()}) > 1:
        found = " and ".join(f"{name} has {size}" for name, size in sizes.items())
        raise DataError(
            f"{found} elements; expected one text_pair for each text", code="wrong-tensor"
        )
    top_k = _top_k(model, request)
    return [
        Query(input=dict(zip(columns, texts, strict=True)), tasks=(model.name,), top_k=top_k)
        for texts in zip(*columns.values(), strict=True)
    ]


def _wanted_outputs(model: Model, request: InferRequest) -> list[Output]:
    """Those that are named, otherwise all; of ranked ones only where ``top_k`` asks for them."""
    if not request.outputs:
        ranked = "top_k" in request.parameters
        return [output for output in model.outputs.values() if ranked or not output.ranked]
    for i, name in enumerate(request.outputs):
        if name not in model.outputs:
            raise UsageError(
                f"there is no output {shown(name)}; task {model.name} gives "
                f"{', '.join(model.outputs)}",
                code="no-such-output",
            )
        if name in request.outputs[:i]:
            raise UsageError(f"output {name} is wanted twice", code="no-such-output")
    return [model.outputs[name] for name in request.outputs]


def _check_parameters(request: InferRequest) -> None:
    for name in request.parameters:
        if name not in ("timeout", "top_k", *_OF_THE_PROTOCOL) and not name.startswith("triton_"):
            raise UsageError(
                f"there is no parameter {shown(name)}; known are timeout and top_k",
                code="no-such-parameter",
            )


def _top_k(model: Model, request: InferRequest) -> int | None:
    """So many best labels; all where ranked outputs are wanted and no number is given."""
    _wanted_outputs(model, request)
    value = request.parameters.get("top_k")
    if value is None:
        ranked = any(model.outputs[name].ranked for name in request.outputs)
        return len(model.spec.labels) if ranked else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(
            f"parameter top_k is {shown(value)}; expected a whole number from 1",
            code="wrong-parameter",
        )
    return min(value, max(1, len(model.spec.labels)))


def _timeout(request: InferRequest) -> float | None:
    """Seconds; the protocol counts microseconds, and 0 is no limit."""
    value = request.parameters.get("timeout")
    if value is None or (value == 0 and value is not False):
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(
            f"parameter timeout is {shown(value)}; expected a whole number of microseconds",
            code="wrong-parameter",
        )
    return value * _MICROSECOND


def _shortest(*timeouts: float | None) -> float | None:
    given = [timeout for timeout in timeouts if timeout is not None]
    return min(*given, _LONGEST) if given else None


def _answer(given: InputAnswer, task: str) -> dict[str, Any]:
    if error := given.error or given.errors.get(task):
        raise error
    return given.answers[task]


def _truncated(answers: Sequence[Mapping[str, Any]]) -> dict[str, str | int]:
    cut = [
        {"input": place, **answer["truncated"]}
        for place, answer in enumerate(answers)
        if "truncated" in answer
    ]
    return {"truncated": json.dumps(cut)} if cut else {}
