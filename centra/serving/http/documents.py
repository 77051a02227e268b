"""The bodies of calls and of their answers, as models: what is checked, and what /docs shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, StrictBool, StrictInt

from centra.formats.answers import LabelAnswer, LabelsAnswer, SpansAnswer, ValueAnswer
from centra.serving.http.problems import PROBLEM_JSON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ChannelsBody",
    "InputBody",
    "PredictBody",
    "PredictionBody",
    "ProblemBody",
    "ReleaseBody",
    "answered_by",
    "request_body",
]


class _Body(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True
    )


class InputBody(_Body):
    """One input: a text, a pair of texts, or a text in tokens."""

    text: str | None = None
    text_pair: str | None = None
    """The second text, for tasks on pairs."""
    tokens: list[str] | None = None
    """The text as words, instead of ``text``; spans then count words."""
    id: Any = None
    """Comes back with the answer."""
    tasks: list[str] | None = None
    """The tasks for this input alone; default those of the request."""


class PredictBody(_Body):
    """Inputs, and what is asked of them."""

    inputs: list[SkipValidation[str | tuple[str, str] | InputBody]]
    """Texts, pairs of texts, or objects."""
    tasks: list[str] | None = None
    """The tasks; default all that the release holds for such an input."""
    top_k: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = None
    """So many best labels with their scores, besides each answer."""
    logits: StrictBool = False
    """The raw logits besides each answer."""
    timeout_ms: Annotated[StrictInt, Field(ge=1, le=3_600_000)] | None = None
    """After so many milliseconds nobody waits for the answer: it is not computed any more."""
    timing: StrictBool = False
    """In the answer, too, where its time went."""


class TruncatedBody(_Body):
    """Of an input that is longer than what was read of it."""

    given: int
    """Tokens that it has."""
    kept: int
    """Tokens that were read."""


class _Versioned(BaseModel):
    version: str | None
    """The task's version; null where the release came from a folder or a digest."""
    module: str
    """The start of the digest of the module that answered."""


class VersionedLabel(_Versioned, LabelAnswer):
    """Of a classification task."""


class VersionedLabels(_Versioned, LabelsAnswer):
    """Of a multilabel task."""


class VersionedValue(_Versioned, ValueAnswer):
    """Of a regression task."""


class VersionedSpans(_Versioned, SpansAnswer):
    """Of a tagging task."""


class ReleaseName(_Body):
    """Which release answered."""

    release: int | None
    """Its number; null where it came from a folder or a digest."""
    digest: str


class AnswerBody(_Body):
    """What is said to one input; ``error`` stands alone, beside ``id``."""

    id: Any = None
    truncated: TruncatedBody | None = None
    tasks: dict[str, VersionedLabel | VersionedLabels | VersionedValue | VersionedSpans] = {}
    errors: dict[str, str] = {}
    """Of tasks that failed."""
    error: str | None = None
    """Why the input as a whole was not answered."""


class PredictionBody(_Body):
    """The answers, in the order of the inputs."""

    release: ReleaseName
    answers: list[AnswerBody]
    timing: dict[str, float] | None = None
    """Milliseconds of each part."""


class ServedTask(_Body):
    """A task of the release that is served."""

    version: str | None
    module: str
    kind: str
    input: str
    labels: list[str]


class RefusedBody(_Body):
    """A release that was not taken, and why."""

    release: int | None
    reason: str


class StoreErrorBody(_Body):
    """What keeps the server from its store."""

    reason: str
    since: str


class NamedRelease(_Body):
    """A release."""

    release: int | None
    digest: str


class ScoreDifference(_Body):
    """How far the scores of the same answers are apart."""

    mean: float
    largest: float


class ComparedTask(_Body):
    """How a task's answers differ in the shadow's release."""

    compared: int
    """Answers; each of them says the same or something different."""
    same: int
    different: int
    errors: int
    """Inputs that the shadow has no answer to."""
    only_served: int
    """Inputs whose task the shadow's release does not hold."""
    only_shadow: int
    """Inputs whose task it holds alone."""
    score_difference: ScoreDifference | None


class ShadowBody(_Body):
    """The release that answers a share of the inputs too, and how it differs."""

    release: NamedRelease | None
    """None until it is loaded."""
    channel: str | None
    revision: int | None
    share: float
    failure: str | None
    """Why it is not loaded."""
    refused: RefusedBody | None
    store_error: StoreErrorBody | None
    against: NamedRelease | None
    """What it is compared with."""
    inputs: int
    """That were compared."""
    dropped: int
    """That there was no time for."""
    tasks: dict[str, ComparedTask]


class ReleaseBody(_Body):
    """What is served."""

    release: int | None
    digest: str
    channel: str | None
    revision: int | None
    since: str
    """When it was ready to answer, in UTC."""
    tasks: dict[str, ServedTask]
    refused: RefusedBody | None
    """What the channel names, where it could not be taken; the one before is served."""
    store_error: StoreErrorBody | None
    """Why it is not known what the channel names now; what it named before is served."""
    shadow: ShadowBody | None
    """Where there is one."""


class ChannelBody(_Body):
    """A channel of this server."""

    name: str | None
    """What calls choose it by; null where there is one, and nothing to choose."""
    release: int | None
    digest: str
    channel: str | None
    """Whose pointer named the release."""
    revision: int | None
    since: str
    """When the release was ready to answer, in UTC."""
    refused: RefusedBody | None
    store_error: StoreErrorBody | None


class ChannelsBody(_Body):
    """The channels that are served."""

    channels: list[ChannelBody]
    """The first answers calls that choose none."""


class ProblemBody(BaseModel):
    """A refusal (RFC 9457); further members may stand beside these."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    """Stable, for programs."""
    field: str | None = None
    """The part of the request that is wrong: ``inputs[3].text``."""
    request_id: str | None = None
    """What the server's log calls the call."""


def request_body(
    model: type[BaseModel], examples: Mapping[str, Any], *, required: bool = True
) -> dict[str, Any]:
    """``openapi_extra`` of a call whose body is read by hand.

    The models inside stay under ``$defs``, from where the application moves them to where
    references look for them.

    Args:
        model: of the body.
        examples: bodies by what they show.
        required: whether there must be one.
    """
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    named = {title: {"value": value} for title, value in examples.items()}
    content = {"application/json": {"schema": schema, "examples": named}}
    return {"requestBody": {"required": required, "content": content}}


def answered_by(
    model: type[BaseModel] | None, example: Any = None, *, statuses: Sequence[int] = ()
) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a call: its answer with an example, and the refusals that callers meet."""
    shown = {"content": {"application/json": {"example": example}}} if example is not None else {}
    answers: dict[int | str, dict[str, Any]] = {
        200: {**({"model": model} if model else {}), "description": "The answer.", **shown}
    }
    problem = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    for status in statuses:
        answers[status] = {"content": problem, "description": _REFUSALS[status]}
    return answers


_REFUSALS = {
    401: "No token, or one that the server does not know.",
    403: "The token may not ask for this.",
    404: "There is no such task.",
    408: "The body did not arrive in time.",
    413: "More than the server takes; the field is named.",
    422: "The body is wrong as a whole; the field is named.",
    429: "Too much waits already, or the token's rate is used up; see Retry-After.",
    503: "The server ends.",
    504: "The time that the caller gave is over.",
}
