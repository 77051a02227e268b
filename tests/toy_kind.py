"""A kind of task that Centra does not have: ratings, labels in an order, of which one is given.

The head gives one number, the place on the scale; an answer is the label that is nearest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.kinds.base import Kind, label_index, label_indices
from centra.kinds.judgement import Judgement, Pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from centra.data.inputs import Example, Input
    from centra.formats.task_module import TaskSpec
    from centra.kinds.chain import Chain
    from centra.kinds.judgement import Fault
    from centra.modeling.crf import LinearChain
    from centra.tokenization.text_encoder import Row

__all__ = ["Rating"]


class Rating(Kind):
    """Answers ``{"label", "value"}``: the nearest label, and the place on the scale from 0."""

    name = "rating"
    least_labels = 2
    expected_label = "'label', a text"
    answer_fields = ("label", "value")
    metrics = ("closeness", "accuracy")
    activations = ("none",)
    color = "#b45309"

    def outputs(self, names: Sequence[str]) -> int:
        return 1

    def suits(self, example: Example) -> bool:
        return isinstance(example.label, str)

    def target(self, spec: TaskSpec, example: Example, row: Row) -> np.ndarray:
        import numpy as np

        place = label_index(spec.labels, example.label, example)
        return np.array(place, dtype=np.float32)

    def told_label(self, labels: Sequence[str], logits: np.ndarray) -> str:
        place = round(float(logits[0, 0]))
        return labels[min(max(place, 0), len(labels) - 1)]

    def first_bias(self, targets: Sequence[np.ndarray]) -> float | None:
        import numpy as np

        return float(np.mean(targets))

    def loss(
        self, logits: torch.Tensor, targets: torch.Tensor, chain: LinearChain | None = None
    ) -> torch.Tensor:
        return (logits.float()[:, 0] - targets).square().mean()

    def soft_loss(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        targets: torch.Tensor,
        *,
        temperature: float,
        chain: LinearChain | None = None,
    ) -> torch.Tensor:
        return (student.float() - teacher.float()).square().mean()

    def decode(
        self,
        spec: TaskSpec,
        logits: np.ndarray,
        inputs: Sequence[Input],
        rows: Sequence[Row],
        chain: Chain | None = None,
    ) -> list[dict[str, Any]]:
        values = [float(value) for value in logits[:, 0]]
        last = len(spec.labels) - 1
        return [
            {"label": spec.labels[min(max(round(value), 0), last)], "value": value}
            for value in values
        ]

    def outcomes(
        self,
        labels: Sequence[str],
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
        answers_to_tokens: Sequence[Mapping[str, Any]] | None = None,
    ) -> np.ndarray:
        import numpy as np

        index = {label: place for place, label in enumerate(labels)}
        wanted = [label_indices(e, index, (e.label,))[0] for e in examples]
        steps = [abs(index[a["label"]] - place) for a, place in zip(answers, wanted, strict=True)]
        return np.array(steps)[:, None]

    def metrics_of(self, labels: Sequence[str], outcomes: np.ndarray) -> dict[str, float]:
        return {
            "closeness": 1 - float(outcomes.mean()) / (len(labels) - 1),
            "accuracy": float((outcomes == 0).mean()),
        }

    def judge(self, answer: Mapping[str, Any], example: Example) -> Judgement:
        wanted, answered = str(example.label), answer["label"]
        right = wanted == answered
        fault: Fault | None = None if right else "wrong label"
        return Judgement(
            right=right,
            cost=0.0 if right else 1.0,
            wanted=wanted,
            answered=answered,
            pairs=(Pair(wanted=wanted, answered=answered, fault=fault),),
        )

    def comparable(
        self, answers: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        return [answer["label"] for answer in answers]

    def distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
        same = one["label"] == other["label"]
        return abs(one["value"] - other["value"]) if same else None

    def answer_text(self, answer: Mapping[str, Any]) -> tuple[str, str]:
        return answer["label"], f"{answer['value']:.3f}"

    def describe(
        self,
        labels: int,
        *,
        threshold: float | tuple[float, ...] | None = None,
        rejection: float | None = None,
        crf: bool = False,
    ) -> str:
        return f"a rating on a scale of {labels}"
