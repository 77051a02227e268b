"""What a release answers, as documents: one :class:`Prediction` an input.

The runtime answers in plain values of these shapes, which nothing checks while it serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Answer",
    "Label",
    "LabelAnswer",
    "LabelsAnswer",
    "Prediction",
    "Span",
    "SpansAnswer",
    "Truncation",
    "ValueAnswer",
    "prediction",
]


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, use_attribute_docstrings=True
    )


class Truncation(_Part):
    """Of an input that is longer than the task's backbone reads."""

    tokens: int
    """How many it has."""
    kept: int
    """How many of them were read."""


class Answer(_Part):
    """What the answers of all kinds have in common."""

    truncated: Truncation | None = Field(default=None, exclude_if=lambda value: value is None)
    """Left out where the whole input was read."""
    logits: list[float] | list[list[float]] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """What the task's head gives: a number for each of its outputs, for tagging so for each token;
    left out where they were not asked for."""


class Label(_Part):
    """One of several labels."""

    label: str
    score: float
    """Its probability, or what else the task's decision makes of logits."""


class _RankedAnswer(Answer):
    top: list[Label] | None = Field(default=None, exclude_if=lambda value: value is None)
    """The best labels, as many as were asked for, whatever the thresholds; left out where none
    were asked for."""


class LabelAnswer(_RankedAnswer):
    """Of a classification task."""

    label: str | None
    """Null where the score is below the task's rejection."""
    score: float
    """Its probability, or what else the task's decision makes of logits."""


class LabelsAnswer(_RankedAnswer):
    """Of a multilabel task."""

    labels: list[Label]
    """Those from the task's threshold on, the best first."""


class ValueAnswer(Answer):
    """Of a regression task."""

    value: float


class Span(_Part):
    """A part of the input with a label."""

    label: str
    text: str
    """What lies between ``start`` and ``end``."""
    start: int
    """In Unicode code points of the text; where the input was given as tokens, in tokens."""
    end: int
    """After the last, likewise."""
    words: tuple[int, int]
    """The first word, and the one after the last."""
    score: float
    """The mean of its words' probabilities."""


class SpansAnswer(Answer):
    """Of a tagging task."""

    spans: list[Span]
    """In the order of the input."""


class Prediction(BaseModel):
    """The answers to one input: under each task's name its answer.

    It has no field ``schema``, because any other name is a task's.
    """

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, LabelAnswer | LabelsAnswer | ValueAnswer | SpansAnswer]

    id: Any = Field(default=None, exclude_if=lambda value: value is None)
    """The input's own, as it was given; left out where it has none."""
    error: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Why the input was not answered; left out where it was."""


def prediction(
    answers: Mapping[str, Any], *, given: Mapping[str, Any], error: str | None = None
) -> dict[str, Any]:
    """A :class:`Prediction` as plain values.

    Args:
        answers: by task.
        given: ``id``, where the input has one.
        error: why there are no answers.
    """
    return {**given, **(answers if error is None else {"error": error})}
