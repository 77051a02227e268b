"""Which output tensors a task has, and what its answers put into them.

They follow from the fields of its kind's answers, so that a kind of its own has outputs too: a text
or a number becomes an element, and what has another number of items from input to input becomes one
JSON text an input.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.serving.oip.tensors import BYTES, FP32, OutputTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from centra.kinds import Kind

__all__ = ["Output", "outputs_of"]


@dataclass(frozen=True, kw_only=True)
class Output:
    """An output tensor of a task."""

    name: str
    datatype: str
    read: Callable[[Mapping[str, Any]], Any]
    """From an answer to its element; to its elements, the best first, where it is :attr:`ranked`."""
    ranked: bool = False
    """Whether there are several elements an input, as many as ``top_k`` asks for."""

    @property
    def shape(self) -> list[int]:
        """As metadata give it: -1 for what depends on the request."""
        return [-1, -1] if self.ranked else [-1]

    def tensor(self, answers: Sequence[Mapping[str, Any]]) -> OutputTensor:
        """The tensor of some answers, ``(inputs,)`` or ``(inputs, top_k)``."""
        values = [self.read(answer) for answer in answers]
        shape: tuple[int, ...] = (len(values),)
        if self.ranked:
            shape = (len(values), len(values[0]))
            values = [value for row in values for value in row]
        return OutputTensor(name=self.name, datatype=self.datatype, shape=shape, values=values)


def outputs_of(kind: Kind) -> dict[str, Output]:
    """The outputs of a kind's tasks, by name, in order."""
    outputs = [output for field in kind.answer_fields for output in _of_field(field)]
    if kind.ranks_labels and "labels" not in kind.answer_fields:
        outputs += [
            Output(name="labels", datatype=BYTES, ranked=True, read=_each("top", "label")),
            Output(name="scores", datatype=FP32, ranked=True, read=_each("top", "score")),
        ]
    return {output.name: output for output in outputs}


def _of_field(field: str) -> list[Output]:
    match field:
        case "label":
            # A tensor of texts has no null: no label is the empty text, which no label can be.
            return [Output(name=field, datatype=BYTES, read=lambda answer: answer["label"] or "")]
        case "score" | "value":
            return [Output(name=field, datatype=FP32, read=lambda answer: answer[field])]
        case "labels":
            return [
                Output(name="labels", datatype=BYTES, read=_json_of_each("label")),
                Output(name="scores", datatype=BYTES, read=_json_of_each("score")),
            ]
        case _:
            return [Output(name=field, datatype=BYTES, read=lambda answer: _json(answer[field]))]


def _each(field: str, part: str) -> Callable[[Mapping[str, Any]], list[Any]]:
    return lambda answer: [found[part] for found in answer[field]]


def _json_of_each(part: str) -> Callable[[Mapping[str, Any]], str]:
    # The best ones where they are asked for, otherwise those that the task names.
    return lambda answer: _json([found[part] for found in answer.get("top", answer["labels"])])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
