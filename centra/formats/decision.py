"""How a task's logits become its answer: what an update may change under the same contract.

A module says what differs from its kind's usual decision, and nothing where nothing does, so that
modules keep the bytes that they had before there was one. A multilabel task's one threshold stands
in its head, where it has always stood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from centra.errors import FormatError, IncompatibleError
from centra.families.heads import POOLINGS
from centra.formats.documents import Document
from centra.formats.template import PLAIN, parse_templates

if TYPE_CHECKING:
    from centra.formats.task_module import TaskSpec
    from centra.kinds import Kind

__all__ = ["Activation", "Decision", "DecisionChange"]

Activation = Literal["softmax", "sigmoid", "none"]
"""What makes scores of logits."""


def _is_none(value: object) -> bool:
    return value is None


class Decision(Document):
    """How logits become an answer; a field at its default is not written."""

    activation: Activation | None = Field(default=None, exclude_if=_is_none)
    """None for the kind's own: softmax over classes and tags, sigmoid of labels, none of a value."""
    threshold: float | tuple[float, ...] | None = Field(default=None, exclude_if=_is_none)
    """The score from which a multilabel task names a label: one, or one for each label; None for
    the head's threshold."""
    rejection: float | None = Field(default=None, exclude_if=_is_none)
    """The score below which a classification gives no label; None never does."""
    max_length: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=_is_none)
    """Tokens kept of each input, where fewer than the backbone's maximum."""
    template: str | tuple[str, str] = Field(default=PLAIN, exclude_if=lambda value: value == PLAIN)
    """What each text is put in, or the first and the second of a pair, at ``{text}``; see
    :mod:`centra.formats.template`."""
    pooling: str = Field(default="first", exclude_if=lambda value: value == "first")
    """How one row is made of an input's tokens; one of :data:`centra.families.heads.POOLINGS`."""

    def check(self, spec: TaskSpec, kind: Kind, where: str) -> None:
        """Refuse a decision that contradicts its module, or that this Centra does not carry out.

        Raises:
            FormatError: it contradicts the kind, the labels or the head; the field is named.
            IncompatibleError: a field that this Centra cannot honour; it is named.
        """
        if self.activation not in (None, *kind.activations):
            raise IncompatibleError(
                f"{where}: decision.activation is {self.activation}; a {kind.name} task takes "
                f"{' or '.join(kind.activations)}"
            )
        if self.threshold is not None and not kind.takes_threshold:
            raise FormatError(f"{where}: decision.threshold does not suit a {kind.name} task")
        if self.threshold is not None and spec.head.threshold != _usual_threshold(spec):
            raise FormatError(f"{where}: decision.threshold and head.threshold are both set")
        if isinstance(self.threshold, tuple) and len(self.threshold) != len(spec.labels):
            raise FormatError(
                f"{where}: decision.threshold has {len(self.threshold)} numbers for "
                f"{len(spec.labels)} labels; expected one, or one for each"
            )
        if self.rejection is not None and not kind.takes_rejection:
            raise FormatError(f"{where}: decision.rejection does not suit a {kind.name} task")
        if self.pooling not in POOLINGS:
            raise IncompatibleError(
                f"{where}: decision.pooling is {self.pooling!r:.60}, which this Centra cannot serve; "
                f"expected one of {', '.join(POOLINGS)}"
            )
        if self.pooling != "first" and kind.reads_every_token:
            raise FormatError(
                f"{where}: decision.pooling does not suit a {kind.name} task, which answers for "
                "every token"
            )
        if self.pooling == "late" and spec.head.activation is None:
            raise FormatError(
                f"{where}: decision.pooling is 'late', behind the dense layer, which its head does "
                "not have"
            )
        if isinstance(self.template, tuple) and spec.input != "pair":
            raise FormatError(f"{where}: decision.template is two, but the task takes single texts")
        try:
            parse_templates(self.template)
        except ValueError as error:
            raise FormatError(f"{where}: decision.template: {error}") from error

    def completed(self, spec: TaskSpec, kind: Kind) -> Decision:
        """The same with what the kind and the head say where this says nothing."""
        threshold = self.threshold
        if threshold is None and kind.takes_threshold:
            threshold = spec.head.threshold
        activation = self.activation or kind.activations[0]
        return self.model_copy(update={"activation": activation, "threshold": threshold})

    def changes(self, new: Decision) -> list[DecisionChange]:
        """How another decision differs from this one, field by field."""
        return [
            DecisionChange(field=name, before=getattr(self, name), after=getattr(new, name))
            for name in type(self).model_fields
            if getattr(self, name) != getattr(new, name)
        ]


@dataclass(frozen=True, kw_only=True)
class DecisionChange:
    """A field in which two decisions differ."""

    field: str
    before: float | str | tuple[float, ...] | tuple[str, str] | None
    after: float | str | tuple[float, ...] | tuple[str, str] | None

    def __str__(self) -> str:
        """For people: ``threshold: 0.5 → 0.4``."""
        return f"{self.field}: {_shown(self.before)} → {_shown(self.after)}"


def _usual_threshold(spec: TaskSpec) -> float:
    usual: float = type(spec.head).model_fields["threshold"].default
    return usual


def _shown(value: float | str | tuple[float, ...] | tuple[str, str] | None) -> str:
    if isinstance(value, tuple):
        return ", ".join(repr(one) if isinstance(one, str) else f"{one:g}" for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    # What begins or ends with a space is shown with it.
    return "none" if not value else repr(value) if str(value) != str(value).strip() else str(value)
