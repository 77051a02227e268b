"""What a kind of task is: everything that differs between one kind and another, in one class.

The rest of Centra asks a kind and knows none by its name. A kind imports numpy and torch inside its
methods alone, so that its facts cost nothing: a registry that lists tasks, a plan of a training and
the command line need no more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from centra.data.reading import Reading, all_labels, name_numbers
from centra.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from centra.data.inputs import Example, Input, LabelForm
    from centra.data.tags import Scheme
    from centra.formats.contract import InputForm
    from centra.formats.decision import Activation
    from centra.formats.task_module import TaskSpec
    from centra.kinds.chain import Chain
    from centra.kinds.judgement import Judgement
    from centra.modeling.crf import LinearChain
    from centra.tokenization.text_encoder import Row

__all__ = ["ColumnType", "Kind", "label_index", "label_indices", "largest_difference"]

K = TypeVar("K")

ColumnType = Literal["text", "number", "count", "texts", "numbers", "spans", "json"]
"""What a column of answers holds: a text, a number, a whole number, lists of texts or numbers, spans,
or any plain value."""

_SHOWN = 10
"""So many labels are named."""


class Kind(ABC):
    """A kind of task. Its subclasses are values: they hold no state."""

    name: ClassVar[str]
    """As specs, manifests and the database have it; at most 16 characters."""
    head_reads: ClassVar[Literal["first token", "every token"]] = "first token"
    inputs: ClassVar[tuple[InputForm, ...]] = ("single", "pair")
    """What its tasks may take."""
    least_labels: ClassVar[int]
    """How many labels a task needs; 0 for a kind that has none."""
    label_form: ClassVar[LabelForm] = "label"
    """How its data give labels."""
    expected_label: ClassVar[str]
    """The same in words, for errors."""
    answer_fields: ClassVar[tuple[str, ...]]
    """What each of its answers has, whatever is asked for besides; see :meth:`decode`."""
    metrics: ClassVar[tuple[str, ...]]
    """All better when higher; the first is the default for early stopping and for comparisons."""
    further_metrics: ClassVar[tuple[str, ...]] = ()
    """What :meth:`score` may tell besides, which nothing is selected by."""
    activations: ClassVar[tuple[Activation, ...]]
    """What a task's decision may make of its logits; the first is the default."""
    takes_threshold: ClassVar[bool] = False
    """Whether a threshold decides which labels are named."""
    takes_rejection: ClassVar[bool] = False
    """Whether an answer may be none of the labels."""
    ranks_labels: ClassVar[bool] = False
    """Whether an answer may be the best of several labels; see :meth:`best_labels`."""
    problem_type: ClassVar[str | None] = None
    """What transformers calls a classifier of texts of this kind in its ``config.json``."""
    color: ClassVar[str] = "#57534e"
    """Of its branches in drawings."""

    @property
    def reads_every_token(self) -> bool:
        """Whether logits are ``(batch, seq, outputs)``, not ``(batch, outputs)``."""
        return self.head_reads == "every token"

    @property
    def has_labels(self) -> bool:
        """Whether its tasks have labels."""
        return self.least_labels > 0

    def outputs(self, names: Sequence[str]) -> int:
        """How many logits a head has.

        Args:
            names: the labels, or what the head's own logits are called.
        """
        return len(names)

    def check(self, spec: TaskSpec) -> None:  # noqa: B027 - most kinds have no more to check
        """Refuse a spec that contradicts its kind, beyond what the facts above say.

        Raises:
            ValueError: naming the field.
        """

    # Labelled data

    @abstractmethod
    def suits(self, example: Example) -> bool:
        """Whether an example's label, as it is written, may be one of such a task."""

    def read_labels(
        self,
        examples: Sequence[Example],
        labels: Sequence[str],
        scheme: Scheme | None,
    ) -> Reading:
        """Read the labels of examples that suit as a task has them.

        Args:
            examples: as they are written.
            labels: the task's, in their order, if they are known.
            scheme: of tags; None to find it.

        Raises:
            DataError: naming file and line.
        """
        named, remarks = name_numbers(examples, labels)
        return Reading(examples=named, remarks=remarks)

    def find_labels(self, written: Sequence[Example], read: Sequence[Example]) -> tuple[str, ...]:
        """The labels of the training data, sorted; numbers by their value.

        Args:
            written: the examples as they are written.
            read: the same, as :meth:`read_labels` gives them.
        """
        found = {label for example in read for label in all_labels(example)}
        numbers = any(e.numbers or not isinstance(e.label, str | tuple) for e in written)
        by_value = numbers and all(label.removeprefix("-").isdecimal() for label in found)
        return tuple(sorted(found, key=int) if by_value else sorted(found))

    def given_labels(
        self,
        examples: Sequence[Example],
        labels: tuple[str, ...],
        scheme: Scheme | None,
    ) -> tuple[str, ...]:
        """The labels of a task whose team gave these.

        Raises:
            DataError: they are none that such a task can have.
        """
        return labels

    def names(self, labels: Sequence[str]) -> list[str]:
        """What people call the labels."""
        return [*labels]

    # Training

    @abstractmethod
    def target(self, spec: TaskSpec, example: Example, row: Row) -> np.ndarray:
        """What the head should say for one example, in the form that :meth:`loss` takes.

        Of a kind that reads every token ``(seq, …)``, padded by
        :data:`centra.kinds.tagging.IGNORED`.

        Raises:
            DataError: a label that the task does not know.
        """

    @abstractmethod
    def loss(
        self, logits: torch.Tensor, targets: torch.Tensor, chain: LinearChain | None = None
    ) -> torch.Tensor:
        """The training loss of a batch, in float32.

        Args:
            logits: ``(batch, outputs)``, or ``(batch, seq, outputs)``.
            targets: as :meth:`target`, stacked.
            chain: the CRF of a head that has one.
        """

    @abstractmethod
    def soft_loss(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        targets: torch.Tensor,
        *,
        temperature: float,
        chain: LinearChain | None = None,
    ) -> torch.Tensor:
        """How far a student's answers are from its teacher's.

        Args:
            student: logits, ``(batch, outputs)`` or ``(batch, seq, outputs)``.
            teacher: likewise, through :func:`centra.training.soft_targets.soft_logits`.
            targets: as :meth:`target`, stacked.
            temperature: divides both.
            chain: of a student with a CRF.
        """

    @abstractmethod
    def told_label(
        self, labels: Sequence[str], logits: np.ndarray
    ) -> str | float | tuple[str, ...]:
        """The label that a teacher's logits give an example without one, as examples have it.

        Args:
            labels: the task's.
            logits: ``(1, outputs)``, or ``(words, outputs)``.
        """

    def first_bias(self, targets: Sequence[np.ndarray]) -> float | None:
        """Where the head's bias begins to learn from; None for zero."""
        return None

    # Answers

    @abstractmethod
    def decode(
        self,
        spec: TaskSpec,
        logits: np.ndarray,
        inputs: Sequence[Input],
        rows: Sequence[Row],
        chain: Chain | None = None,
    ) -> list[dict[str, Any]]:
        """The answers of a batch, one per input, by the task's decision.

        Args:
            spec: labels, head and decision.
            logits: ``(batch, outputs)``, or ``(batch, seq, outputs)``.
            inputs: the inputs, for their words.
            rows: the same inputs encoded, for where each word's first token is.
            chain: what decodes, for a head with a CRF.
        """

    def best_labels(
        self, spec: TaskSpec, logits: np.ndarray, counts: Sequence[int]
    ) -> list[list[dict[str, Any]]]:
        """The best labels of each input of a batch with their scores, whatever the thresholds.

        Of a kind that ranks labels.

        Args:
            spec: labels and decision.
            logits: ``(batch, outputs)``, an output for each label.
            counts: how many labels each input wants; it has fewer where the task has fewer.

        Returns:
            Per input ``{"label", "score"}``, the best first; among equals the first label.
        """
        from centra.kinds.probabilities import activate

        scores = activate(logits, spec.effective_decision.activation)
        # Stable, so that of equal scores the first label is the best, as in answers.
        order = (-scores).argsort(axis=-1, kind="stable")
        return [
            [{"label": spec.labels[i], "score": float(row[i])} for i in best[:count]]
            for row, best, count in zip(scores, order, counts, strict=True)
        ]

    def score(
        self,
        labels: Sequence[str],
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
        answers_to_tokens: Sequence[Mapping[str, Any]] | None = None,
    ) -> dict[str, float]:
        """The metrics of a task's answers to labelled examples.

        Args:
            labels, answers, examples, answers_to_tokens: as for :meth:`outcomes`.

        Raises:
            DataError: an example of another kind, or a label that the task does not know.
        """
        return self.metrics_of(labels, self.outcomes(labels, answers, examples, answers_to_tokens))

    @abstractmethod
    def outcomes(
        self,
        labels: Sequence[str],
        answers: Sequence[Mapping[str, Any]],
        examples: Sequence[Example],
        answers_to_tokens: Sequence[Mapping[str, Any]] | None = None,
    ) -> np.ndarray:
        """What came of each example in numbers, all that :meth:`metrics_of` needs.

        They are kept with a measurement, so a kind that changes what they mean must tell them apart
        by their number of columns.

        Args:
            labels: the task's.
            answers: to the texts of the examples.
            examples: labelled.
            answers_to_tokens: to the tokens of the examples, of a kind that reads every token.

        Returns:
            ``(examples, columns)``.

        Raises:
            DataError: an example of another kind, or a label that the task does not know.
        """

    @abstractmethod
    def metrics_of(self, labels: Sequence[str], outcomes: np.ndarray) -> dict[str, float]:
        """The metrics of examples by their outcomes.

        Args:
            labels: the task's.
            outcomes: rows of :meth:`outcomes`, in any choice and any number of times.
        """

    def right_rows(self, outcomes: np.ndarray) -> dict[str, np.ndarray]:
        """By each metric that is a share of right rows, which ones those are, ``(examples,)``."""
        return {}

    @abstractmethod
    def judge(self, answer: Mapping[str, Any], example: Example) -> Judgement:
        """What the answer to an example's text is worth.

        Args:
            answer: of a kind that ranks labels with ``"top"``, all labels with their scores.
            example: labelled, with labels that the task knows.
        """

    @abstractmethod
    def comparable(
        self, answers: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        """What must be equal for two sets of answers to agree, an item per input or word."""

    def agreement(self, exact: Sequence[Any], approximate: Sequence[Any]) -> float:
        """The share of what is :meth:`comparable` that agrees."""
        equal = [a == b for a, b in zip(exact, approximate, strict=True)]
        return equal.count(True) / len(equal)

    @abstractmethod
    def distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
        """How far apart two answers to one input are that say the same; None where they do not.

        Of labels and spans it is the largest difference of their scores, and of numbers their own.
        """

    @abstractmethod
    def answer_text(self, answer: Mapping[str, Any]) -> tuple[str, str]:
        """An answer for people, and its score in words; nothing for the score where it has none."""

    def columns(self) -> dict[str, ColumnType]:
        """The columns that its answers have in a table, in their order."""
        return dict.fromkeys(self.answer_fields, "json")

    def cells(self, answer: Mapping[str, Any]) -> list[Any]:
        """What an answer has in each of :meth:`columns`."""
        return [answer[field] for field in self.answer_fields]

    @abstractmethod
    def describe(
        self,
        labels: int,
        *,
        threshold: float | tuple[float, ...] | None = None,
        rejection: float | None = None,
        crf: bool = False,
    ) -> str:
        """What its tasks give, for people: ``one of 3 labels``.

        Args:
            labels: how many.
            threshold, rejection: of its decision, where they are known.
            crf: whether a CRF decodes.
        """


def largest_difference(one: Mapping[K, float], other: Mapping[K, float]) -> float | None:
    """The largest difference of two sets of scores for the same things; None where these differ."""
    if one.keys() != other.keys():
        return None
    return max((abs(score - other[key]) for key, score in one.items()), default=0.0)


def label_index(labels: Sequence[str], label: object, example: Example) -> int:
    """The place of a training example's label among a task's.

    Raises:
        DataError: it has none.
    """
    if label not in labels:
        raise DataError(
            f"{example.where}: label {label!r} does not occur in the training data; "
            f"known are {', '.join(labels[:_SHOWN])}{' …' if len(labels) > _SHOWN else ''}"
        )
    return labels.index(str(label))


def label_indices(example: Example, index: Mapping[str, int], labels: object) -> list[int]:
    """The places of a labelled example's labels.

    Raises:
        DataError: they are none of the task's.
    """
    if not isinstance(labels, tuple) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{example.where}: its label is of another kind than the task's")
    unknown = [label for label in labels if label not in index]
    if unknown:
        known = ", ".join(repr(label) for label in [*index][:_SHOWN])
        more = ", …" if len(index) > _SHOWN else ""
        raise DataError(
            f"{example.where}: the task has no label {unknown[0]!r}; it has {known}{more}"
        )
    return [index[label] for label in labels]
