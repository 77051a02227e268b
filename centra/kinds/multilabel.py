"""Any of several labels, each by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.errors import DataError
from centra.kinds.base import Kind, label_index, label_indices, largest_difference
from centra.kinds.judgement import Judgement, Pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from centra.data.inputs import Example, Input
    from centra.formats.task_module import TaskSpec
    from centra.kinds.base import ColumnType
    from centra.kinds.chain import Chain
    from centra.modeling.crf import LinearChain
    from centra.tokenization.text_encoder import Row

__all__ = ["Multilabel"]


class Multilabel(Kind):
    """Answers ``{"labels": [{"label", "score"}]}``, best first, from the threshold on."""

    name = "multilabel"
    least_labels = 1
    label_form = "labels"
    expected_label = "'text' with 'labels', a list"
    answer_fields = ("labels",)
    metrics = ("micro_f1", "macro_f1")
    activations = ("sigmoid", "softmax", "none")
    takes_threshold = True
    ranks_labels = True
    problem_type = "multi_label_classification"
    color = "#7c3aed"

    def suits(self, example: Example) -> bool:
        """Whether it has a list of labels for a text."""
        return example.label_form == self.label_form

    def target(self, spec: TaskSpec, example: Example, row: Row) -> np.ndarray:
        """0 or 1 for each label, ``(labels,)``."""
        import numpy as np

        if not isinstance(example.label, tuple):
            raise DataError(f"{example.where}: expected 'labels', a list of strings")
        values = np.zeros(len(spec.labels), dtype=np.float32)
        values[[label_index(spec.labels, label, example) for label in example.label]] = 1.0
        return values

    def loss(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        chain: LinearChain | None = None,
    ) -> torch.Tensor:
        """Binary cross-entropy, the mean over the labels."""
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(logits.float(), targets)

    def soft_loss(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        targets: torch.Tensor,
        *,
        temperature: float,
        chain: LinearChain | None = None,
    ) -> torch.Tensor:
        """The divergence over each label's yes and no; see :mod:`centra.kinds.probabilities`."""
        import torch

        from centra.kinds.probabilities import divergence

        # As two logits per label, yes and no, the labels are so many small classifications.
        student, teacher = (
            torch.stack([x, -x], -1) / 2 for x in (student.float(), teacher.float())
        )
        return divergence(student, teacher, temperature)

    def told_label(self, labels: Sequence[str], logits: np.ndarray) -> tuple[str, ...]:
        """Those that are more likely than not."""
        return tuple(label for label, logit in zip(labels, logits[0], strict=True) if logit >= 0)

    def decode(
        self,
        spec: TaskSpec,
        logits: np.ndarray,
        inputs: Sequence[Input],
        rows: Sequence[Row],
        chain: Chain | None = None,
    ) -> list[dict[str, Any]]:
        """``{"labels": [{"label", "score"}]}``, best first."""
        import numpy as np

        from centra.kinds.probabilities import activate

        decision = spec.effective_decision
        scores = activate(logits, decision.activation)
        named = scores >= np.asarray(decision.threshold, dtype=scores.dtype)
        return [
            {
                "labels": [
                    {"label": spec.labels[i], "score": float(row[i])}
                    for i in np.argsort(-row, kind="stable")
                    if chosen[i]
                ]
            }
            for row, chosen in zip(scores, named, strict=True)
        ]

    def outcomes(
        self,
        labels: Sequence[str],
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
        answers_to_tokens: Sequence[Mapping[str, Any]] | None = None,
    ) -> np.ndarray:
        """Whether each label is named, then whether each is wanted."""
        import numpy as np

        index = {label: i for i, label in enumerate(labels)}
        predicted, expected = np.zeros((2, len(examples), len(index)), dtype=bool)
        for i, (example, answer) in enumerate(zip(examples, answers, strict=True)):
            predicted[i, [index[found["label"]] for found in answer["labels"]]] = True
            expected[i, label_indices(example, index, example.label)] = True
        return np.hstack([predicted, expected])

    def metrics_of(self, labels: Sequence[str], outcomes: np.ndarray) -> dict[str, float]:
        """Micro and macro F1 of the labels that are named."""
        from centra.kinds.metrics import multilabel_f1

        return multilabel_f1(outcomes[:, : len(labels)], outcomes[:, len(labels) :])

    def judge(self, answer: Mapping[str, Any], example: Example) -> Judgement:
        """Label by label; what was named with confidence, or was far from being named, is worst."""
        assert isinstance(example.label, tuple)
        wanted = {*example.label}
        named = {found["label"]: found["score"] for found in answer["labels"]}
        scores = {found["label"]: found["score"] for found in answer["top"]}
        missed = [label for label in example.label if label not in named]
        spurious = [label for label in named if label not in wanted]
        pairs = [
            *(Pair(wanted=label, answered=label) for label in named if label in wanted),
            *(Pair(wanted=label, answered=None, fault="missed") for label in missed),
            *(Pair(wanted=None, answered=label, fault="spurious") for label in spurious),
        ]
        costs = [1 - scores[label] for label in missed] + [scores[label] for label in spurious]
        return Judgement(
            right=not costs,
            cost=sum(costs),
            wanted=", ".join(example.label) or "-",
            answered=self.answer_text(answer)[0],
            pairs=tuple(pairs),
            claims=tuple((score, label in wanted) for label, score in scores.items()),
            decisions=tuple((score, label in wanted) for label, score in named.items()),
        )

    def comparable(
        self,
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
    ) -> list[Any]:
        """The sets of labels."""
        return [{label["label"] for label in answer["labels"]} for answer in answers]

    def distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
        """By the scores of the labels that are named."""
        first, second = (
            {x["label"]: x["score"] for x in answer["labels"]} for answer in (one, other)
        )
        return largest_difference(first, second)

    def columns(self) -> dict[str, ColumnType]:
        """``labels``, the best first, and ``scores``, one for each."""
        return {"labels": "texts", "scores": "numbers"}

    def cells(self, answer: Mapping[str, Any]) -> list[Any]:
        """A list of names, and one of scores."""
        return [[found[field] for found in answer["labels"]] for field in ("label", "score")]

    def answer_text(self, answer: Mapping[str, Any]) -> tuple[str, str]:
        """The labels; ``-`` for none."""
        labels = answer["labels"]
        text = ", ".join(found["label"] for found in labels)
        return text or "-", ", ".join(f"{found['score']:.3f}" for found in labels)

    def describe(
        self,
        labels: int,
        *,
        threshold: float | tuple[float, ...] | None = None,
        rejection: float | None = None,
        crf: bool = False,
    ) -> str:
        """``any of 3 labels, from a probability of 0.5``."""
        text = f"any of {labels} label{'' if labels == 1 else 's'}"
        if isinstance(threshold, tuple):
            return f"{text}, each from a probability of its own"
        return text if threshold is None else f"{text}, from a probability of {threshold:g}"
