"""Heads of task modules: how logits come from the last layer's hidden states.

All heads are of the same parts, each of which may be missing: the norm of a family whose layers end
without one, a dense layer with its activation, a norm behind it, and the output layer. The decision's
pooling says between which of them the tokens of an input become one row; a head on every token has
none.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field

from centra.data.words import Segmentation  # noqa: TC001 - pydantic reads it
from centra.families import family_named
from centra.families.description import Linear, Norm
from centra.formats.documents import Document

if TYPE_CHECKING:
    from centra.families.description import Shapes
    from centra.families.heads import Pooling
    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskSpec

__all__ = ["ACTIVATIONS", "Head", "HeadNorm", "HeadSpec", "HeadSteps"]

ACTIVATIONS = ("tanh", "gelu", "relu", "silu", "gelu_pytorch_tanh")
"""Of dense layers, by transformers' names."""


class HeadNorm(Document):
    """A norm behind the dense layer."""

    epsilon: Annotated[float, Field(gt=0, le=1)]
    kind: Literal["layer", "rms"] = Field(
        default="layer", exclude_if=lambda value: value == "layer"
    )
    bias: bool = Field(default=True, exclude_if=operator.truth)


class HeadSpec(Document):
    """How logits come from the last hidden states."""

    activation: Literal["tanh", "gelu", "relu", "silu", "gelu_pytorch_tanh"] | None = None
    """After the dense layer; None where there is none."""
    threshold: float = 0.5
    """Probability from which a multilabel task names a label."""
    crf: bool = Field(default=False, exclude_if=operator.not_)
    """A tagging head whose tags a linear-chain CRF decodes; see :mod:`centra.modeling.crf`.

    Written only where it holds: modules without one keep the bytes they had before there was one,
    and a Centra that knows no CRF refuses the field instead of decoding without it.
    """
    words: Segmentation = Field(default="unicode", exclude_if=lambda value: value == "unicode")
    """How the texts of a tagging task are cut into words; see :func:`centra.data.words.segment`.

    Written where it differs, as ``crf`` is.
    """
    tags: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)
    """What the logits of a tagging head stand for where they are no BIO tags, but mark a span's last
    word (``E-x``) or a span of one word (``S-x``), or have no ``B-x``; see :mod:`centra.data.tags`. Such a
    head answers in the BIO tags of the contract. Written only where there are some."""
    dense: bool | None = Field(default=None, exclude_if=lambda value: value is None)
    """Whether there is a dense layer, where that is not as usual: heads on one row have one, heads on
    every token have none. Written only there, as what follows is."""
    dense_bias: bool = Field(default=True, exclude_if=operator.truth)
    dense_norm: HeadNorm | None = Field(default=None, exclude_if=lambda value: value is None)
    """Behind the dense layer and its activation."""

    def fault(self, *, every_token: bool) -> str | None:
        """What in it contradicts itself, by name, to be followed by the task; None in a good one."""
        usual = not every_token
        if self.dense == usual:
            return "head.dense says what is usual, which is not written, of"
        has_dense = usual if self.dense is None else self.dense
        if has_dense != (self.activation is not None):
            return "head.activation does not suit"
        if not has_dense and (self.dense_norm is not None or not self.dense_bias):
            return "head.dense_bias and head.dense_norm are of a dense layer, which is not there in"
        return None

    def shapes(self, hidden: int, outputs: int) -> Shapes:
        """Of its tensors in a task module; the norm of a family is not among them."""
        found: Shapes = {"head.out.weight": (outputs, hidden), "head.out.bias": (outputs,)}
        if self.activation is not None:
            found["head.dense.weight"] = (hidden, hidden)
            if self.dense_bias:
                found["head.dense.bias"] = (hidden,)
        if self.dense_norm is not None:
            found |= _norm(self.dense_norm, hidden).shapes
        if self.crf:
            found |= {"head.crf.start": (outputs,), "head.crf.end": (outputs,)}
            found["head.crf.transitions"] = (outputs, outputs)
        return found


@dataclass(frozen=True, kw_only=True)
class HeadSteps:
    """Parts of a head that follow each other, row by row; those that are None are not there."""

    norm: Norm | None = None
    dense: Linear | None = None
    activation: str = ""
    """Of the dense layer."""
    dense_norm: Norm | None = None
    out: Linear | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return any((self.norm, self.dense, self.dense_norm, self.out))


@dataclass(frozen=True, kw_only=True)
class Head:
    """How a task's head looks on a backbone; its parts are named as in a task module."""

    on_tokens: HeadSteps
    """For every token of an input."""
    pooling: Pooling | None
    """What makes one row of them; None for a head on every token."""
    on_rows: HeadSteps
    """For these rows."""

    @classmethod
    def of(cls, spec: TaskSpec, backbone: BackboneSpec) -> Head:
        """The head of a task on a backbone."""
        hidden, head = backbone.hidden_size, spec.head
        norm = family_named(backbone.family).head_norm(backbone.config)
        steps = HeadSteps(
            norm=None if norm is None else replace(norm, name=f"head.{norm.name}"),
            dense=None
            if head.activation is None
            else Linear(name="head.dense", inputs=hidden, outputs=hidden, bias=head.dense_bias),
            activation=head.activation or "",
            dense_norm=None if head.dense_norm is None else _norm(head.dense_norm, hidden),
            out=Linear(name="head.out", inputs=hidden, outputs=spec.outputs),
        )
        nothing = HeadSteps()
        if spec.reads_every_token:
            return cls(on_tokens=steps, pooling=None, on_rows=nothing)
        pooling = cast("Pooling", spec.decision.pooling)
        match pooling:
            case "first":
                on_tokens, on_rows = nothing, steps
            case "late":
                # The output layer is linear, so it gives the mean's logits as the mean of logits.
                on_tokens, on_rows = replace(steps, out=None), HeadSteps(out=steps.out)
            case _:
                on_tokens, on_rows = HeadSteps(norm=steps.norm), replace(steps, norm=None)
        return cls(on_tokens=on_tokens, pooling=pooling, on_rows=on_rows)

    @property
    def reads_first(self) -> bool:
        """Whether it reads the first token alone."""
        return self.pooling == "first"


def _norm(norm: HeadNorm, hidden: int) -> Norm:
    return Norm(
        name="head.dense_norm", size=hidden, epsilon=norm.epsilon, kind=norm.kind, bias=norm.bias
    )
