"""A number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from centra.data.reading import Reading
from centra.errors import DataError
from centra.kinds.base import Kind
from centra.kinds.judgement import Judgement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from centra.data.inputs import Example, Input
    from centra.data.tags import Scheme
    from centra.formats.task_module import TaskSpec
    from centra.kinds.base import ColumnType
    from centra.kinds.chain import Chain
    from centra.modeling.crf import LinearChain
    from centra.tokenization.text_encoder import Row

__all__ = ["Regression"]

_CLOSE = 0.05
"""Numbers agree that differ by no more than this share of all exact answers' span."""


class Regression(Kind):
    """Answers ``{"value"}``."""

    name = "regression"
    least_labels = 0
    expected_label = "'label', a number"
    answer_fields = ("value",)
    metrics = ("pearson", "spearman")
    activations = ("none", "sigmoid")
    problem_type = "regression"
    color = "#be123c"

    def outputs(self, names: Sequence[str]) -> int:
        """One."""
        return 1

    def suits(self, example: Example) -> bool:
        """Whether it has a number."""
        return not isinstance(example.label, str | tuple)

    def read_labels(
        self,
        examples: Sequence[Example],
        labels: Sequence[str],
        scheme: Scheme | None,
    ) -> Reading:
        """The values."""
        values = [
            replace(e, label=float(e.label)) for e in examples if not isinstance(e.label, tuple)
        ]
        return Reading(examples=values, remarks=[])

    def find_labels(
        self,
        written: Sequence[Example],
        read: Sequence[Example],
    ) -> tuple[str, ...]:
        """None."""
        return ()

    def target(self, spec: TaskSpec, example: Example, row: Row) -> np.ndarray:
        """The value ``()``."""
        import numpy as np

        return np.array(example.label, dtype=np.float32)

    def loss(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        chain: LinearChain | None = None,
    ) -> torch.Tensor:
        """The mean squared difference."""
        from torch.nn import functional

        return functional.mse_loss(logits.float()[:, 0], targets)

    def soft_loss(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        targets: torch.Tensor,
        *,
        temperature: float,
        chain: LinearChain | None = None,
    ) -> torch.Tensor:
        """The mean squared difference."""
        from torch.nn import functional

        return functional.mse_loss(student.float(), teacher.float())

    def told_label(self, labels: Sequence[str], logits: np.ndarray) -> float:
        """The number."""
        return float(logits[0, 0])

    def first_bias(self, targets: Sequence[np.ndarray]) -> float | None:
        """The mean, so that the head need not first learn the scale of the values."""
        import numpy as np

        return float(np.mean(targets))

    def decode(
        self,
        spec: TaskSpec,
        logits: np.ndarray,
        inputs: Sequence[Input],
        rows: Sequence[Row],
        chain: Chain | None = None,
    ) -> list[dict[str, Any]]:
        """``{"value"}``."""
        from centra.kinds.probabilities import activate

        scores = activate(logits, spec.effective_decision.activation)
        return [{"value": float(row[0])} for row in scores]

    def outcomes(
        self,
        labels: Sequence[str],
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
        answers_to_tokens: Sequence[Mapping[str, Any]] | None = None,
    ) -> np.ndarray:
        """The value that was answered, and the one that was wanted."""
        import numpy as np

        expected = [_value(example) for example in examples]
        return np.array([[answer["value"] for answer in answers], expected], dtype=np.float64).T

    def metrics_of(self, labels: Sequence[str], outcomes: np.ndarray) -> dict[str, float]:
        """Pearson and Spearman correlation; 0 where one side is constant."""
        from centra.kinds.metrics import pearson, spearman

        predicted, expected = outcomes.T
        return {"pearson": pearson(predicted, expected), "spearman": spearman(predicted, expected)}

    def judge(self, answer: Mapping[str, Any], example: Example) -> Judgement:
        """By how far the value is off."""
        deviation = answer["value"] - _value(example)
        return Judgement(
            right=None,
            cost=abs(deviation),
            wanted=f"{_value(example):g}",
            answered=self.answer_text(answer)[0],
            deviation=deviation,
        )

    def comparable(
        self,
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
    ) -> list[Any]:
        """The values."""
        return [answer["value"] for answer in answers]

    def agreement(self, exact: Sequence[Any], approximate: Sequence[Any]) -> float:
        """The share of values that are close."""
        close = _CLOSE * (max(exact) - min(exact))
        equal = [abs(a - b) <= close for a, b in zip(exact, approximate, strict=True)]
        return equal.count(True) / len(equal)

    def distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
        """Numbers say the same that are close, for their size."""
        first, second = one["value"], other["value"]
        size = max(1.0, abs(first), abs(second))
        difference: float = abs(first - second)
        return difference if difference <= _CLOSE * size else None

    def columns(self) -> dict[str, ColumnType]:
        """``value``."""
        return {"value": "number"}

    def answer_text(self, answer: Mapping[str, Any]) -> tuple[str, str]:
        """The value."""
        return f"{answer['value']:.3f}", ""

    def describe(
        self,
        labels: int,
        *,
        threshold: float | tuple[float, ...] | None = None,
        rejection: float | None = None,
        crf: bool = False,
    ) -> str:
        """``a number``."""
        return "a number"


def _value(example: Example) -> float:
    if not isinstance(example.label, float | int):
        raise DataError(f"{example.where}: expected 'label' to be a number")
    return float(example.label)
