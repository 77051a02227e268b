"""One label of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.data.labels import number_label
from centra.kinds.base import Kind, label_index, label_indices
from centra.kinds.judgement import Judgement, Pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from centra.data.inputs import Example, Input
    from centra.formats.task_module import TaskSpec
    from centra.kinds.base import ColumnType
    from centra.kinds.chain import Chain
    from centra.kinds.judgement import Fault
    from centra.modeling.crf import LinearChain
    from centra.tokenization.text_encoder import Row

__all__ = ["Classification"]

REJECTED = -1
"""The place of no label."""


class Classification(Kind):
    """Answers ``{"label", "score"}``; where its score is below the decision's rejection, no label."""

    name = "classification"
    least_labels = 2
    expected_label = "'label', a text or a whole number"
    answer_fields = ("label", "score")
    metrics = ("accuracy", "macro_f1", "matthews")
    activations = ("softmax", "sigmoid", "none")
    takes_rejection = True
    ranks_labels = True
    problem_type = "single_label_classification"
    color = "#0f766e"

    def suits(self, example: Example) -> bool:
        """Whether it has a text or a whole number."""
        label = example.label
        return isinstance(label, str) or (
            not isinstance(label, tuple) and number_label(label) is not None
        )

    def target(self, spec: TaskSpec, example: Example, row: Row) -> np.ndarray:
        """The label's index ``()``."""
        import numpy as np

        return np.array(label_index(spec.labels, str(example.label), example))

    def loss(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        chain: LinearChain | None = None,
    ) -> torch.Tensor:
        """Cross-entropy."""
        from torch.nn import functional

        return functional.cross_entropy(logits.float(), targets)

    def soft_loss(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        targets: torch.Tensor,
        *,
        temperature: float,
        chain: LinearChain | None = None,
    ) -> torch.Tensor:
        """The divergence over the labels; see :func:`centra.kinds.probabilities.divergence`."""
        from centra.kinds.probabilities import divergence

        return divergence(student.float(), teacher.float(), temperature)

    def told_label(self, labels: Sequence[str], logits: np.ndarray) -> str:
        """The best label, the first of equals."""
        return labels[int(logits[0].argmax())]

    def decode(
        self,
        spec: TaskSpec,
        logits: np.ndarray,
        inputs: Sequence[Input],
        rows: Sequence[Row],
        chain: Chain | None = None,
    ) -> list[dict[str, Any]]:
        """``{"label", "score"}`` of the best label, the first of equals."""
        from centra.kinds.probabilities import activate

        decision = spec.effective_decision
        scores = activate(logits, decision.activation)
        best = scores.argmax(axis=-1)
        answers = [
            {"label": spec.labels[i], "score": float(row[i])}
            for i, row in zip(best, scores, strict=True)
        ]
        if decision.rejection is None:
            return answers
        return [
            answer if answer["score"] >= decision.rejection else answer | {"label": None}
            for answer in answers
        ]

    def outcomes(
        self,
        labels: Sequence[str],
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
        answers_to_tokens: Sequence[Mapping[str, Any]] | None = None,
    ) -> np.ndarray:
        """The places of the label that was answered, :data:`REJECTED` for none, and of the wanted."""
        import numpy as np

        index = {label: i for i, label in enumerate(labels)}
        expected = [label_indices(e, index, (e.label,))[0] for e in examples]
        predicted = [index.get(answer["label"], REJECTED) for answer in answers]
        return np.array([predicted, expected]).T

    def metrics_of(self, labels: Sequence[str], outcomes: np.ndarray) -> dict[str, float]:
        """Accuracy, macro F1 and Matthews correlation; an answer without a label is a wrong one."""
        from centra.kinds.metrics import accuracy, macro_f1, matthews

        predicted, expected = outcomes.T
        return {
            "accuracy": accuracy(predicted, expected),
            "macro_f1": macro_f1(predicted, expected),
            "matthews": matthews(predicted, expected),
        }

    def right_rows(self, outcomes: np.ndarray) -> dict[str, np.ndarray]:
        """Of accuracy, those with the wanted label."""
        return {"accuracy": outcomes[:, 0] == outcomes[:, 1]}

    def judge(self, answer: Mapping[str, Any], example: Example) -> Judgement:
        """By the label; confident errors are the worst. An answer without a label is a missed one."""
        wanted, answered = str(example.label), answer["label"]
        scores = {found["label"]: found["score"] for found in answer["top"]}
        best = answer["top"][0]
        right = best["label"] == wanted
        fault: Fault | None = None
        if answered is None:
            fault = "missed"
        elif not right:
            fault = "wrong label"
        return Judgement(
            right=fault is None,
            cost=0.0 if fault is None else best["score"] - scores[wanted],
            wanted=wanted,
            answered=" ".join(text for text in self.answer_text(answer) if text),
            pairs=(Pair(wanted=wanted, answered=answered, fault=fault),),
            claims=((best["score"], right),),
            decisions=((best["score"], right),),
        )

    def comparable(
        self,
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
    ) -> list[Any]:
        """The labels."""
        return [answer["label"] for answer in answers]

    def distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
        """By the score of the label."""
        same = one["label"] == other["label"]
        return abs(one["score"] - other["score"]) if same else None

    def columns(self) -> dict[str, ColumnType]:
        """``label`` and ``score``."""
        return {"label": "text", "score": "number"}

    def answer_text(self, answer: Mapping[str, Any]) -> tuple[str, str]:
        """The label; ``-`` for none."""
        label = answer["label"]
        return "-" if label is None else label, f"{answer['score']:.3f}"

    def describe(
        self,
        labels: int,
        *,
        threshold: float | tuple[float, ...] | None = None,
        rejection: float | None = None,
        crf: bool = False,
    ) -> str:
        """``one of 3 labels``."""
        text = f"one of {labels} label{'' if labels == 1 else 's'}"
        return text if rejection is None else f"{text}, or none below a score of {rejection:g}"
