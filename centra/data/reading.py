"""The labels of examples as tasks have them: names for numbers, BIO for the tags of any scheme."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from centra.data.labels import number_label
from centra.data.tags import TagError, detect_scheme, strays, to_bio
from centra.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data.inputs import Example
    from centra.data.tags import Notation, Scheme

__all__ = ["Reading", "all_labels", "name_numbers", "read_as_bio"]

_NUMBER = re.compile(r"\s*[-+]?\d+(\.\d*)?\s*")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Examples whose labels are as a task of their kind has them."""

    examples: list[Example]
    """A class's name, several, a value, or BIO tags."""
    remarks: list[str]
    """What was taken for what."""
    scheme: Scheme = "bio"
    """The scheme of tags that these were."""


def all_labels(example: Example) -> tuple[str, ...]:
    """An example's labels as they were read; a value is none."""
    return (example.label,) if isinstance(example.label, str) else _several(example)


def name_numbers(
    examples: Sequence[Example], labels: Sequence[str]
) -> tuple[list[Example], list[str]]:
    """Examples with names instead of numbers, and what to say of that.

    A whole number is the class that is called by its digits. Where the task has labels and none of
    them is a number, it is the place of one, from 0.

    Args:
        examples: as they are written, or read before.
        labels: the task's, in their order, if they are known.

    Raises:
        DataError: a number is the place of no label.
    """
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


def read_as_bio(
    examples: Sequence[Example], labels: Sequence[str], scheme: Scheme | None
) -> Reading:
    """Read tags of any scheme, or the numbers of such tags, as BIO tags.

    Args:
        examples: with a tag per token.
        labels: the task's, or those of its head's logits, if they are known.
        scheme: of the tags; None to find it.

    Raises:
        DataError: tags of no scheme, or numbers without labels that name them.
    """
    for example in examples if not labels else ():
        if example.numbers:
            raise DataError(
                f"{example.where}: the tags are numbers, and no labels are given that name them",
                code="unnamed-tags",
            )
    named, remarks = name_numbers(examples, labels)
    notation = _notation(named, labels, scheme)
    plain = [[notation.plain(tag) for tag in _several(example)] for example in named]
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
        for example, sentence in zip(named, plain, strict=True)
    ]
    return Reading(examples=read, remarks=remarks, scheme=notation.scheme)


def _notation(
    examples: Sequence[Example], labels: Sequence[str], scheme: Scheme | None
) -> Notation:
    """How the tags of examples are written: as the labels, where these have them all."""
    found = {tag for example in examples for tag in _several(example)}
    try:
        return detect_scheme(labels if found <= {*labels} else found, scheme)
    except TagError as error:
        places = (example.where for example in examples if error.tag in _several(example))
        raise DataError(f"{next(places, 'labels')}: {error}") from error


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


def _several(example: Example) -> tuple[str, ...]:
    return example.label if isinstance(example.label, tuple) else ()
