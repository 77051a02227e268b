"""A task's contract, inferred from its labelled data and from what its team says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.data.labelling import Labelling, read_as
from centra.data.labels import label_remarks, near_label, number_label
from centra.data.reading import all_labels
from centra.errors import DataError
from centra.formats.contract import Contract
from centra.kinds import KINDS, kind_named
from centra.progress import Notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data.inputs import Example
    from centra.data.tags import Scheme
    from centra.formats.task_module import TaskSpec
    from centra.kinds import Kind

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
    labelling = labelling or Labelling()
    examples = [*train, *dev]
    _check_alike(examples)
    name, remarks = (labelling.kind, []) if labelling.kind else _kind(examples, labelling, like)
    kind = kind_named(name)
    if labelling.tags and not kind.reads_every_token:
        raise DataError(f"tags were said to be {labelling.tags}, but this is a {name} task")
    if labelling.labels and not kind.has_labels:
        raise DataError(f"a set of labels was given, but this is a {name} task, which has none")
    reading = read_as(name, examples, labelling.labels, labelling.tags)
    read = reading.examples[: len(train)], reading.examples[len(train) :]
    if labelling.labels:
        labels = kind.given_labels(examples, labelling.labels, labelling.tags)
        remarks = remarks + _unused(kind, labels, read[0])
    else:
        labels = kind.find_labels(train, read[0])
        if like is not None and {*labels} == {*like.labels}:
            labels = like.labels
    _check_known(labels, reading.examples, labelling)
    return InferredContract(
        contract=Contract(kind=name, input=examples[0].input.form, labels=labels),
        train=read[0],
        dev=read[1],
        scheme=reading.scheme,
        remarks=[*remarks, *reading.remarks, *label_remarks(kind.names(labels))],
    )


def _kind(
    examples: Sequence[Example], labelling: Labelling, like: TaskSpec | None
) -> tuple[str, list[str]]:
    """The kind that the labels look like, and what to say of that."""
    numbers: dict[str, None] = {}
    for example in examples:
        label = example.label
        if isinstance(label, float | int):
            digits = number_label(label)
            if digits is None:
                name = next(kind.name for kind in KINDS.values() if kind.suits(example))
                return name, [f"label {label} ({example.where}) has a fraction: {name}"]
            numbers[digits] = None
        elif isinstance(label, tuple) and example.numbers:
            numbers |= dict.fromkeys(label)
    name, form = _likely_kind(examples[0]), examples[0].label_form
    if like is not None and not labelling.labels and _may_be(like.kind, examples):
        name = like.kind
    if not numbers or labelling.labels or form == "tags" or not kind_named(name).has_labels:
        return name, []
    code = "number-classes" if form == "label" else "number-labels"
    return name, [Notice(f"{len(numbers)} whole numbers as labels: taken as classes", code=code)]


def _may_be(name: str, examples: Sequence[Example]) -> bool:
    kind = kind_named(name)
    return all(kind.label_form == e.label_form and kind.suits(e) for e in examples)


def _likely_kind(example: Example) -> str:
    """The first kind that has labels of an example's form; a number counts as a class."""
    return next(kind.name for kind in KINDS.values() if kind.label_form == example.label_form)


def _check_alike(examples: Sequence[Example]) -> None:
    first = examples[0]
    texts = numbers = None
    # Of a table a part whose labels are all numbers cannot know that others have names, too.
    named = {example.label for example in examples if isinstance(example.label, str)}
    for example in examples:
        if (example.label_form, example.input.form) != (first.label_form, first.input.form):
            raise DataError(
                f"{example.where}: a {_likely_kind(example)} example with a {example.input.form} "
                f"input; {first.where} is {_likely_kind(first)} with a {first.input.form} input, and "
                "a task takes one kind"
            )
        if isinstance(example.label, float | int) and number_label(example.label) in named:
            continue
        if example.numbers or isinstance(example.label, float | int):
            numbers = numbers or example
        elif example.label:
            texts = texts or example
        if texts and numbers:
            raise DataError(
                f"{numbers.where} has a number as its label, {texts.where} a text; write them all "
                "as texts, or all as numbers"
            )


def _check_known(labels: Sequence[str], examples: Sequence[Example], labelling: Labelling) -> None:
    known = {*labels}
    for example in examples:
        for label in all_labels(example):
            if label not in known:
                values = (
                    not (labelling.kind or labelling.labels) and label.removeprefix("-").isdecimal()
                )
                raise DataError(
                    f"{example.where}: {_unknown(label, labels, labelling)}",
                    code="unknown-number" if values else "unknown-label",
                    label=label,
                    labels=[*labels],
                )


def _unknown(label: str, labels: Sequence[str], labelling: Labelling) -> str:
    """That a label is not in the set, and what may have been meant."""
    where = (
        "is none of the labels given" if labelling.labels else "does not occur in the training data"
    )
    known = ", ".join(labels[:_SHOWN]) + (" …" if len(labels) > _SHOWN else "")
    near = near_label(label, labels)
    hint = f"; {near!r} is nearly the same" if near else ""
    return f"label {label!r} {where}; known are {known}{hint}"


def _unused(kind: Kind, labels: Sequence[str], train: Sequence[Example]) -> list[str]:
    found = {*kind.names([label for example in train for label in all_labels(example)])}
    unused = [name for name in kind.names(labels) if name not in found]
    if not unused:
        return []
    shown = ", ".join(unused[:_SHOWN]) + (" …" if len(unused) > _SHOWN else "")
    return [f"{len(unused)} of the labels given are in no row of the training data: {shown}"]
