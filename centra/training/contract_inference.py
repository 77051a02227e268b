"""A task's contract, inferred from its labelled data and from what its team says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.data.labelling import Labelling, read_as
from centra.data.labels import label_remarks, near_label, number_label
from centra.data.tags import TagError, bio_labels, detect_scheme
from centra.errors import DataError
from centra.formats.contract import Contract

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from centra.data.inputs import Example
    from centra.data.tags import Scheme
    from centra.formats.task_module import Kind, TaskSpec

__all__ = ["InferredContract", "infer_contract"]

_SHOWN = 10
"""So many labels are named in a message."""


@dataclass(frozen=True, kw_only=True)
class InferredContract:
    """A task's contract, and its data as they are read under it."""

    contract: Contract
    train: list[Example]
    dev: list[Example]
    scheme: Scheme
    """The scheme of tags that the data had."""
    remarks: list[str]
    """What was taken for what, and what is odd about the labels."""


def infer_contract(
    train: Sequence[Example],
    dev: Sequence[Example],
    labelling: Labelling | None = None,
    like: TaskSpec | None = None,
) -> InferredContract:
    """Infer a task's contract from its examples.

    Whole numbers are classes, unless there is a fraction among them or the team says otherwise.
    Labels that the team gives no order are sorted, numbers by their value, so that two runs on the
    same label set agree.

    Args:
        train: gives the labels, if the team does not.
        dev: may have no other labels; whether there are fractions is seen in both.
        labelling: what the team says.
        like: a module that these data may belong to: with one of regression whole numbers are
            values, and the same labels have its order.

    Raises:
        DataError: examples of different kinds or inputs, or not of those that were said; a label
            that is not in the set. File and line are named.
    """
    said = labelling or Labelling()
    examples = [*train, *dev]
    _check_alike(examples)
    kind, remarks = (said.kind, []) if said.kind else _kind(examples, said, like)
    if said.tags and kind != "tagging":
        raise DataError(f"tags were said to be {said.tags}, but this is a {kind} task")
    if said.labels and kind == "regression":
        raise DataError("a set of labels was given, but this is a regression task, which has none")
    reading = read_as(kind, examples, said.labels, said.tags)
    read = reading.examples[: len(train)], reading.examples[len(train) :]
    if said.labels:
        labels = _given_tags(examples, said) if kind == "tagging" else said.labels
        remarks = remarks + _unused(kind, labels, read[0])
    else:
        labels = _found_labels(kind, train, read[0])
        if like is not None and {*labels} == {*like.labels}:
            labels = like.labels
    _check_known(labels, reading.examples, said)
    return InferredContract(
        contract=Contract(kind=kind, input=examples[0].input.form, labels=labels),
        train=read[0],
        dev=read[1],
        scheme=reading.scheme,
        remarks=[*remarks, *reading.remarks, *label_remarks(_names(kind, labels))],
    )


def _kind(
    examples: Sequence[Example], said: Labelling, like: TaskSpec | None
) -> tuple[Kind, list[str]]:
    """What the labels look like, and what to say of that."""
    numbers: dict[str, None] = {}
    for example in examples:
        label = example.label
        if isinstance(label, float | int):
            digits = number_label(label)
            if digits is None:
                return "regression", [f"label {label} ({example.where}) has a fraction: regression"]
            numbers[digits] = None
        elif example.numbers:
            numbers |= dict.fromkeys(_several(example))
    kind = _structure(examples[0])
    if not numbers or said.labels or kind == "tagging":
        return kind, []
    if kind == "classification" and like is not None and like.kind == "regression":
        return "regression", []
    remark = f"{len(numbers)} whole numbers as labels: taken as classes; "
    remark += "--kind regression says otherwise, " if kind == "classification" else ""
    return kind, [f"{remark}--labels FILE names them"]


def _check_alike(examples: Sequence[Example]) -> None:
    first = examples[0]
    texts = numbers = None
    for example in examples:
        if (_structure(example), example.input.form) != (_structure(first), first.input.form):
            raise DataError(
                f"{example.where}: a {_structure(example)} example with a {example.input.form} input; "
                f"{first.where} is {_structure(first)} with a {first.input.form} input, and a task "
                "takes one kind"
            )
        if example.numbers or isinstance(example.label, float | int):
            numbers = numbers or example
        elif example.label:
            texts = texts or example
        if texts and numbers:
            raise DataError(
                f"{numbers.where} has a number as its label, {texts.where} a text; write them all "
                "as texts, or all as numbers"
            )


def _given_tags(examples: Sequence[Example], said: Labelling) -> tuple[str, ...]:
    """The BIO tags of a set of tags that was given: as they are, or those of its types."""
    try:
        notation = detect_scheme([*said.labels, "O"], said.tags)
    except TagError as error:
        raise DataError(f"the labels given: {error}") from error
    if notation.is_bio:
        return said.labels
    for example in examples:
        if example.numbers:
            raise DataError(
                f"{example.where}: tags are numbers, which the labels given name as "
                f"{notation.scheme.upper()} tags; a number must name a BIO tag, or measurements of "
                "the task could not tell what it means. Write the tags' names into the data"
            )
    return bio_labels(notation.plain(tag) for tag in said.labels)


def _found_labels(kind: Kind, train: Sequence[Example], read: Sequence[Example]) -> tuple[str, ...]:
    """The labels of the training data, sorted."""
    if kind == "regression":
        return ()
    found = {label for example in read for label in _all_labels(example)}
    if kind == "tagging":
        return bio_labels(f"B-{name}" for name in sorted({tag[2:] for tag in found - {"O"}}))
    numbers = any(
        example.numbers or not isinstance(example.label, str | tuple) for example in train
    )
    return tuple(sorted(found, key=int) if numbers else sorted(found))


def _check_known(labels: Sequence[str], examples: Sequence[Example], said: Labelling) -> None:
    known = {*labels}
    for example in examples:
        for label in _all_labels(example):
            if label not in known:
                raise DataError(f"{example.where}: {_unknown(label, labels, said)}")


def _unknown(label: str, labels: Sequence[str], said: Labelling) -> str:
    """That a label is not in the set, and what may have been meant."""
    where = "is none of the labels given" if said.labels else "does not occur in the training data"
    known = ", ".join(labels[:_SHOWN]) + (" …" if len(labels) > _SHOWN else "")
    near = near_label(label, labels)
    hint = f"; {near!r} is nearly the same" if near else ""
    if label.removeprefix("-").isdecimal() and not (said.kind or said.labels):
        hint += "; if these are values and not classes, say --kind regression"
    return f"label {label!r} {where}; known are {known}{hint}"


def _unused(kind: Kind, labels: Sequence[str], train: Sequence[Example]) -> list[str]:
    found = _names(kind, {label for example in train for label in _all_labels(example)})
    unused = [name for name in _names(kind, labels) if name not in found]
    if not unused:
        return []
    shown = ", ".join(unused[:_SHOWN]) + (" …" if len(unused) > _SHOWN else "")
    return [f"{len(unused)} of the labels given are in no row of the training data: {shown}"]


def _names(kind: Kind, labels: Iterable[str]) -> list[str]:
    """The labels themselves; of tags, their types."""
    if kind != "tagging":
        return [*labels]
    return [*dict.fromkeys(tag[2:] for tag in labels if tag != "O")]


def _structure(example: Example) -> Kind:
    """The kind that an example has the form of, where a number counts as a class."""
    if not isinstance(example.label, tuple):
        return "classification"
    return "multilabel" if example.input.tokens is None else "tagging"


def _several(example: Example) -> tuple[str, ...]:
    return example.label if isinstance(example.label, tuple) else ()


def _all_labels(example: Example) -> tuple[str, ...]:
    """An example's labels as they were read; a value is none."""
    return (example.label,) if isinstance(example.label, str) else _several(example)
