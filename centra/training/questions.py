"""What a teacher of any family is asked for a task, and who is refused as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.data.reading import all_labels
from centra.data.tags import TagError, bio_labels, detect_scheme
from centra.data.words import are_characters
from centra.errors import ConflictError, DataError, UsageError
from centra.training.answers import Question
from centra.training.recipe import DEFAULT_HYPOTHESIS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data.inputs import Example
    from centra.data.labelling import Labelling
    from centra.training.teacher import Teacher
    from centra.training.texts import Text

__all__ = ["other_labels", "question_for"]

_SHOWN = 12
"""So many labels are listed."""


def question_for(
    teacher: Teacher,
    texts: Sequence[Text],
    examples: Sequence[Example],
    labelling: Labelling,
    hypothesis: str | None,
) -> tuple[Question, str, list[str]]:
    """What to ask a teacher for a task.

    Args:
        teacher: who is asked.
        texts: what it is asked about.
        examples: those of them that have labels.
        labelling: what the task's labels are, where that is not what the teacher's are.
        hypothesis: of a model of natural-language inference, with ``{}`` for the label.

    Returns:
        The question, the task's kind, and what was taken for what.

    Raises:
        ConflictError: the teacher's labels or kind are not the task's.
        UsageError: a hypothesis without its place, or for a teacher that takes none.
        DataError: pairs, for a model of natural-language inference.
    """
    if teacher.kind == "tagging":
        if hypothesis is not None:
            raise _no_inference(teacher)
        return _question_of_tags(teacher, examples, labelling), "tagging", []
    wanted = labelling.labels or _given(examples)
    own = {*teacher.labels}
    if teacher.kind == "classification" and teacher.entailment is not None:
        if wanted and not {*wanted} <= own:
            several = any(example.label_form == "labels" for example in examples)
            kind = labelling.kind or ("multilabel" if several else "classification")
            return _question_of_inference(teacher, texts, wanted, kind, hypothesis), kind, []
        if hypothesis is not None and not wanted:
            raise UsageError(
                f"{teacher.name}: a hypothesis was given, and no labels to put into it",
                code="labels-missing",
            )
    if hypothesis is not None:
        raise _no_inference(teacher)
    if teacher.kind == "regression":
        return Question(labels=(), logits=((0,),)), "regression", []
    if wanted and not labelling.labels and not {*wanted} <= own:
        raise other_labels(teacher, wanted, "the data")
    kind = teacher.kind
    if kind == "classification" and labelling.kind == "multilabel":
        raise ConflictError(
            f"{teacher.name}: gives one of its labels (its problem_type says no other), but the task "
            "was said to be multilabel",
            code="teacher-differs",
            teacher=teacher.name,
            differs="kind",
        )
    labels = labelling.labels or teacher.labels
    remarks: list[str] = []
    places = {label: place for place, label in enumerate(teacher.labels)}
    if {*labels} != own:
        nameless = teacher.labels == tuple(f"LABEL_{place}" for place in range(len(own)))
        if not (nameless and len(labels) == len(own)):
            raise other_labels(teacher, labels, "the task")
        remarks = ["the teacher gives its labels no names: taken in the order of those given"]
        places = {label: place for place, label in enumerate(labels)}
    return Question(labels=labels, logits=tuple((places[x],) for x in labels)), kind, remarks


def _question_of_inference(
    teacher: Teacher,
    texts: Sequence[Text],
    labels: tuple[str, ...],
    kind: str,
    hypothesis: str | None,
) -> Question:
    hypothesis = hypothesis or DEFAULT_HYPOTHESIS
    if hypothesis.count("{}") != 1:
        raise UsageError(
            f"hypothesis {hypothesis!r}: expected {{}} once, where the label goes",
            code="bad-hypothesis",
        )
    if kind not in ("classification", "multilabel"):
        raise UsageError(
            f"{teacher.name}: a model of natural-language inference teaches classification or "
            f"multilabel, not {kind}",
            code="bad-setting",
            setting="kind",
        )
    if texts[0].input.form == "pair":
        raise DataError(
            f"{texts[0].where}: a pair of texts; a model of natural-language inference holds a "
            "hypothesis against one text"
        )
    if kind == "multilabel" and teacher.contradiction is None:
        raise ConflictError(
            f"{teacher.name}: its labels are {', '.join(teacher.labels)}; for labels that do not "
            "compete one of them must be a contradiction",
            code="teacher-differs",
            teacher=teacher.name,
            differs="labels",
        )
    return Question(
        labels=labels,
        hypotheses=tuple(hypothesis.replace("{}", label) for label in labels),
        entailment=teacher.entailment or 0,
        contradiction=teacher.contradiction if kind == "multilabel" else None,
    )


def _question_of_tags(
    teacher: Teacher, examples: Sequence[Example], labelling: Labelling
) -> Question:
    try:
        notation = detect_scheme(teacher.labels)
    except TagError as error:
        raise ConflictError(
            f"{teacher.name}: its labels are no tags of one scheme ({error})",
            code="teacher-differs",
            teacher=teacher.name,
            differs="labels",
        ) from error
    if notation.scheme == "io":
        raise ConflictError(
            f"{teacher.name}: its labels ({_listed(teacher.labels)}) do not say where a span begins; "
            "a teacher of tags must have B- tags",
            code="teacher-differs",
            teacher=teacher.name,
            differs="labels",
        )
    plain = [notation.plain(tag) for tag in teacher.labels]
    labels = bio_labels(plain)
    if labelling.labels and {*labelling.labels} != {*labels}:
        raise other_labels(teacher, labelling.labels, "the task")
    labels = labelling.labels or labels
    marks = {"B": "BS", "I": "IE"}
    columns = tuple(
        tuple(
            i
            for i, tag in enumerate(plain)
            if tag == label or (label != "O" and tag[0] in marks[label[0]] and tag[2:] == label[2:])
        )
        for label in labels
    )
    tokens = [token for example in examples for token in example.input.tokens or ()]
    words = labelling.words or ("characters" if tokens and are_characters(tokens) else "unicode")
    return Question(labels=labels, logits=columns, words=words)


def _given(examples: Sequence[Example]) -> tuple[str, ...]:
    """The labels that rows have, sorted; none of numbers."""
    return tuple(sorted({label for example in examples for label in all_labels(example)}))


def other_labels(teacher: Teacher, labels: Sequence[str], whose: str) -> ConflictError:
    """The refusal of labels that a teacher does not give."""
    inference = (
        ""
        if teacher.kind == "tagging"
        else "; nor does one of them say that a text entails a hypothesis"
    )
    return ConflictError(
        f"{whose} has the labels {_listed(labels)}; the teacher {teacher.name} has "
        f"{_listed(teacher.labels)}{inference}",
        code="teacher-differs",
        teacher=teacher.name,
        differs="labels",
        labels=[*labels],
        teacher_labels=[*teacher.labels],
    )


def _no_inference(teacher: Teacher) -> UsageError:
    return UsageError(
        f"{teacher.name}: takes no hypothesis: none of its labels ({_listed(teacher.labels)}) says "
        "that a text entails one",
        code="no-inference",
    )


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:_SHOWN]) + (f" … ({len(labels)})" if len(labels) > _SHOWN else "")
