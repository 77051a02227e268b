"""What the labels of data mean to a task: classes or values, names or their places, which tags.

Data say what they can: a label is a text or a number, one or several. The rest follows from a task's
kind and labels, or from what its team says in a :class:`Labelling`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from centra.data.labels import number_label
from centra.data.tags import TagError, detect_scheme, strays, to_bio
from centra.errors import DataError
from centra.progress import Progress, Remark, silent, unheard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from centra.data.inputs import Example
    from centra.data.tags import Notation, Scheme
    from centra.data.words import Segmentation
    from centra.formats.task_module import Kind, TaskSpec

__all__ = ["Labelling", "Reading", "read_as", "read_for"]

_NUMBER = re.compile(r"\s*[-+]?\d+(\.\d*)?\s*")
_EXPECTED: dict[Kind, str] = {
    "classification": "'label', a text or a whole number",
    "multilabel": "'text' with 'labels', a list",
    "regression": "'label', a number",
    "tagging": "'tokens' with 'labels', a tag for each",
}


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What a team says of its data's labels, where the data alone do not."""

    kind: Kind | None = None
    """None for what the labels look like."""
    labels: tuple[str, ...] = ()
    """All there are, in their order; none for those that the training data have."""
    tags: Scheme | None = None
    """The scheme of a tagging task's tags; None to find it."""
    words: Segmentation | None = None
    """How a tagging task's texts are cut into words; None for Unicode's, or a teacher's."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Examples whose labels are as a task of their kind has them."""

    examples: list[Example]
    """A class's name, several, a value, or BIO tags."""
    remarks: list[str]
    """What was taken for what."""
    scheme: Scheme = "bio"
    """The scheme of tags that these were."""


def read_as(
    kind: Kind, examples: Sequence[Example], labels: Sequence[str] = (), tags: Scheme | None = None
) -> Reading:
    """Read the labels of examples as a task of a kind has them.

    A whole number is the class that is called by its digits. Where the task has labels and none of
    them is a number, it is the place of one, from 0.

    Args:
        kind: the task's.
        examples: as :func:`centra.data.inputs.read_examples` gives them, or read before.
        labels: the task's, in their order, if they are known.
        tags: the scheme of tags; None to find it.

    Raises:
        DataError: an example of another kind, or tags of no scheme; file and line are named.
    """
    for example in examples:
        if not _is_of(kind, example):
            raise DataError(
                f"{example.where}: {_found(example)}; a {kind} task has {_EXPECTED[kind]}"
            )
    if kind == "regression":
        values = [
            replace(e, label=float(e.label)) for e in examples if not isinstance(e.label, tuple)
        ]
        return Reading(examples=values, remarks=[])
    if kind == "tagging" and not labels:
        for example in examples:
            if example.numbers:
                raise DataError(
                    f"{example.where}: the tags are numbers; --labels FILE names them, one a line in "
                    "their order"
                )
    named, remarks = _named(examples, labels)
    if kind != "tagging":
        return Reading(examples=named, remarks=remarks)
    return _as_bio(named, labels, tags, remarks)


def read_for(
    spec: TaskSpec,
    path: Path,
    progress: Progress = silent,
    remark: Remark = unheard,
    data: bytes | None = None,
) -> list[Example]:
    """Read labelled examples from a file as a task has them.

    Args:
        spec: the task's module.
        path, data: see :func:`centra.data.inputs.read_examples`.
        progress: told when all are read.
        remark: told what was taken for what.

    Raises:
        DataError: see :func:`centra.data.inputs.read_examples` and :func:`read_as`; or a text where the
            task takes pairs, or a pair where it takes a text.
    """
    from centra.data.inputs import read_examples

    reading = read_as(spec.kind, read_examples(path, progress, data), spec.logit_names)
    for text in reading.remarks:
        remark(text)
    for example in reading.examples:
        if example.input.form != spec.input:
            takes = "a pair of texts" if spec.input == "pair" else "a single text"
            raise DataError(f"{example.where}: the task takes {takes}")
    return reading.examples


def _notation(
    examples: Sequence[Example], labels: Sequence[str], tags: Scheme | None = None
) -> Notation:
    """How the tags of examples are written: as the labels, where these have them all."""
    found = {tag for example in examples for tag in _several(example)}
    try:
        return detect_scheme(labels if found <= {*labels} else found, tags)
    except TagError as error:
        places = (example.where for example in examples if error.tag in _several(example))
        raise DataError(f"{next(places, 'labels')}: {error}") from error


def _as_bio(
    examples: Sequence[Example], labels: Sequence[str], tags: Scheme | None, remarks: list[str]
) -> Reading:
    notation = _notation(examples, labels, tags)
    plain = [[notation.plain(tag) for tag in _several(example)] for example in examples]
    counts = [strays(sentence) for sentence in plain]
    inside, begun = sum(count[0] for count in counts), sum(count[1] for count in counts)
    if notation.scheme == "bio" and inside and not begun:
        notation = replace(notation, scheme="iob1")
    if notation.scheme != "bio" or not notation.is_bio:
        merged = "; words of one type in a row are one span" if notation.scheme == "io" else ""
        remarks = [*remarks, f"{notation}: converted to BIO{merged}"]
    elif inside:
        remarks = [*remarks, f"{inside} spans begin with an I- tag; it is read as B-"]
    read = [
        replace(example, label=tuple(to_bio(sentence)))
        for example, sentence in zip(examples, plain, strict=True)
    ]
    return Reading(examples=read, remarks=remarks, scheme=notation.scheme)


def _named(examples: Sequence[Example], labels: Sequence[str]) -> tuple[list[Example], list[str]]:
    """Examples with names instead of numbers, and what to say of that."""
    numbers = {text for example in examples for text in _digits(example)}
    if not numbers:
        return [*examples], []
    remarks = []
    names = {text: text for text in numbers}
    if labels and not any(_NUMBER.fullmatch(label) for label in labels):
        names = {str(place): label for place, label in enumerate(labels)}
        remarks.append(
            f"{len(numbers)} whole numbers as labels: taken as places in the task's labels, "
            f"from 0, which is {labels[0]!r}"
        )
    return [_renamed(example, names, len(labels)) for example in examples], remarks


def _renamed(example: Example, names: dict[str, str], count: int) -> Example:
    numbers = _digits(example)
    for number in numbers:
        if number not in names:
            raise DataError(
                f"{example.where}: {number} is the place of no label: there are {count}, and places "
                f"count from 0 to {count - 1}"
            )
    if not numbers:
        return example
    found = tuple(names[number] for number in numbers)
    label = found if isinstance(example.label, tuple) else found[0]
    return replace(example, label=label, numbers=False)


def _digits(example: Example) -> tuple[str, ...]:
    """The decimal digits of an example's numbers; none where its labels are texts."""
    if isinstance(example.label, tuple):
        return example.label if example.numbers else ()
    digits = None if isinstance(example.label, str) else number_label(example.label)
    return () if digits is None else (digits,)


def _several(example: Example) -> Iterable[str]:
    return example.label if isinstance(example.label, tuple) else ()


def _is_of(kind: Kind, example: Example) -> bool:
    """Whether a task of a kind may have an example's label."""
    label = example.label
    if isinstance(label, tuple):
        return kind == ("multilabel" if example.input.tokens is None else "tagging")
    if kind == "classification":
        return isinstance(label, str) or number_label(label) is not None
    return kind == "regression" and not isinstance(label, str)


def _found(example: Example) -> str:
    if isinstance(example.label, tuple):
        return "'labels' is a list" + ("" if example.input.tokens is None else " of tags")
    what = "a text" if isinstance(example.label, str) else "a number"
    return f"label {example.label!r} is {what}"
