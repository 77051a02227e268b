"""What the labels of data mean to a task: classes or values, names or their places, which tags.

Data say what they can: a label is a text or a number, one or several. The rest follows from a task's
kind and labels, or from what its team says in a :class:`Labelling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import DataError
from centra.kinds import kind_named
from centra.progress import Progress, Remark, silent, unheard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from centra.data.inputs import Example
    from centra.data.reading import Reading
    from centra.data.source import DataSource
    from centra.data.tags import Scheme
    from centra.data.words import Segmentation
    from centra.formats.task_module import TaskSpec
    from centra.formats.thresholds import Thresholds
    from centra.store.s3.path import S3Path

__all__ = ["Labelling", "read_as", "read_for"]


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What a team says of its data's labels, where the data alone do not."""

    kind: str | None = None
    """None for what the labels look like."""
    labels: tuple[str, ...] = ()
    """All there are, in their order; none for those that the training data have."""
    tags: Scheme | None = None
    """The scheme of a tagging task's tags; None to find it."""
    words: Segmentation | None = None
    """How a tagging task's texts are cut into words; None for Unicode's, or a teacher's."""
    thresholds: Thresholds | None = None
    """From which scores labels are named; None for the kind's usual ones, or a teacher's."""


def read_as(
    name: str, examples: Sequence[Example], labels: Sequence[str] = (), tags: Scheme | None = None
) -> Reading:
    """Read the labels of examples as a task of a kind has them.

    See :func:`centra.data.reading.name_numbers` for whole numbers.

    Args:
        name: the task's kind.
        examples: as :func:`centra.data.inputs.read_examples` gives them, or read before.
        labels: the task's, in their order, if they are known.
        tags: the scheme of tags; None to find it.

    Raises:
        DataError: an example of another kind, or tags of no scheme; file and line are named.
    """
    kind = kind_named(name)
    for example in examples:
        if not kind.suits(example):
            raise DataError(
                f"{example.where}: {_found(example)}; a {name} task has {kind.expected_label}"
            )
    return kind.read_labels(examples, labels, tags)


def read_for(
    spec: TaskSpec,
    data: str | Path | S3Path | DataSource,
    progress: Progress = silent,
    remark: Remark = unheard,
) -> list[Example]:
    """Read the labelled examples to measure on as a task has them.

    Args:
        spec: the task's module.
        data: a file, a folder of which ``dev.*`` is taken, or any other source; see
            :func:`centra.data.rows.read_part`.
        progress: told when all are read.
        remark: told what was taken for what.

    Raises:
        DataError: see :func:`centra.data.inputs.examples_of` and :func:`read_as`; or a text where the
            task takes pairs, or a pair where it takes a text.
    """
    from centra.data.inputs import examples_of
    from centra.data.rows import read_part
    from centra.data.source import DataSource

    part = read_part(DataSource.of(data), "dev")
    for text in part.remarks:
        remark(text)
    examples = examples_of(part, progress)
    reading = read_as(spec.kind, examples, spec.logit_names)
    for text in reading.remarks:
        remark(text)
    for example in reading.examples:
        if example.input.form != spec.input:
            takes = "a pair of texts" if spec.input == "pair" else "a single text"
            raise DataError(f"{example.where}: the task takes {takes}")
    return reading.examples


def _found(example: Example) -> str:
    if isinstance(example.label, tuple):
        return "'labels' is a list" + ("" if example.input.tokens is None else " of tags")
    what = "a text" if isinstance(example.label, str) else "a number"
    return f"label {example.label!r} is {what}"
