"""What a fine-tuned checkpoint's ``config.json`` says of its task: kind and labels.

The kind is decided as transformers' models decide on their loss: by ``problem_type``; without one, a
single output is a regression, and several are classes. Several outputs without a ``problem_type``
may also have been trained as independent labels, which only whoever trained them can say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from centra.data.labels import label_remarks
from centra.errors import FormatError, IncompatibleError, UsageError
from centra.kinds import KINDS, kind_named
from centra.progress import Notice, Remark, unheard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.kinds import Kind

__all__ = ["read_task"]

_ID = re.compile(r"0|[1-9][0-9]{0,8}")
_PLACEHOLDER = re.compile(r"LABEL_[0-9]+")


def read_task(
    config: Mapping[str, Any],
    outputs: int,
    *,
    tagging: bool,
    kind: str | None = None,
    labels: Sequence[str] | None = None,
    where: str,
    remark: Remark = unheard,
) -> tuple[str, tuple[str, ...]]:
    """The kind of a checkpoint's task, and the labels of its outputs in their order.

    Args:
        config: the content of its ``config.json``.
        outputs: how many its head has.
        tagging: whether its class is a token classifier.
        kind: what its owner says; counts where the checkpoint says nothing.
        labels: what its owner says; these count instead of those in the config.
        where: what to call it in errors.
        remark: told what was taken for granted, and of labels that seem not to be meant.

    Raises:
        UsageError: the checkpoint says another kind than was declared, or has another number of
            outputs than labels were given.
        FormatError: ids have a gap or do not begin at 0, a label is no text, there are more or fewer
            than outputs, or ``label2id`` says otherwise than ``id2label``.
        IncompatibleError: a regression with several outputs.
    """
    if labels is None:
        _check_count(config, outputs, where)
    elif len(labels) != outputs:
        raise UsageError(
            f"{where}: its head has {outputs} outputs, but {len(labels)} labels were given; give "
            "one for each output, in their order"
        )
    kind = _kind(config, outputs, kind, where, remark, tagging=tagging)
    if not kind_named(kind).has_labels:
        if labels is not None:
            raise UsageError(f"{where}: is a {kind}, which has no labels")
        return kind, ()
    names = tuple(labels) if labels is not None else _from_config(config, outputs, where)
    _check_labels(names, where)
    for text in label_remarks(names):
        remark(text)
    return kind, names


_MEND = "Mend id2label and label2id in its config.json, or declare the labels."


def _kind(
    config: Mapping[str, Any],
    outputs: int,
    declared: str | None,
    where: str,
    remark: Remark,
    *,
    tagging: bool,
) -> str:
    problem = config.get("problem_type")
    if tagging:
        kinds = [kind for kind in KINDS.values() if kind.reads_every_token]
        return _agreed(kinds, declared, "is a token classifier", where)
    if problem is None:
        return _unsaid(outputs, declared, where, remark)
    problems = [kind.problem_type for kind in KINDS.values() if kind.problem_type]
    if problem not in problems:
        raise FormatError(
            f"{where}: config.json says problem_type {problem!r:.60}; expected "
            f"{', '.join(problems)} or null"
        )
    kinds = [kind for kind in KINDS.values() if kind.problem_type == problem]
    kind = _agreed(kinds, declared, f"says problem_type {problem!r}", where)
    _check_outputs(kind, outputs, where)
    return kind


def _agreed(kinds: Sequence[Kind], declared: str | None, says: str, where: str) -> str:
    """The kind that was declared, or else the first, where it is one of these."""
    names = [kind.name for kind in kinds]
    if declared not in (None, *names):
        raise UsageError(
            f"{where}: {says}, which makes it a {names[0]} task; it cannot be declared {declared}"
        )
    return declared or names[0]


def _unsaid(outputs: int, declared: str | None, where: str, remark: Remark) -> str:
    if declared is not None:
        if kind_named(declared).reads_every_token:
            raise UsageError(
                f"{where}: is a classifier of whole texts; it cannot be declared {declared}"
            )
        _check_outputs(declared, outputs, where)
        return declared
    problem = "regression" if outputs == 1 else "single_label_classification"
    kind = next(kind.name for kind in KINDS.values() if kind.problem_type == problem)
    if outputs == 1:
        remark(f"taken for a {kind}, as transformers takes one output without a problem_type")
    else:
        remark(
            Notice(
                f"taken for a {kind}: its config.json has no problem_type, and each of its labels "
                "may have been trained by itself",
                code="kind-assumed",
            )
        )
    return kind


def _check_outputs(name: str, outputs: int, where: str) -> None:
    kind = kind_named(name)
    if not kind.has_labels and outputs > 1:
        raise IncompatibleError(
            f"{where}: is a {name} with {outputs} outputs; a Centra task gives one number. "
            "Fine-tune one task per number, each with a head of one output."
        )
    if outputs < kind.least_labels:
        raise IncompatibleError(
            f"{where}: has one output, and a {name} needs two. One output with a threshold "
            "is a multilabel task with one label; one number is a regression.",
            code="kind-must-be-declared",
        )


def _check_count(config: Mapping[str, Any], outputs: int, where: str) -> None:
    table = config.get("id2label")
    if isinstance(table, dict):
        stated, says = len(table), f"names {len(table)} labels ({_some(list(table.values()))})"
    elif table is not None:
        raise FormatError(
            f"{where}: id2label in its config.json is no object from ids to labels. {_MEND}",
            code="labels-unusable",
        )
    else:
        stated = config.get("num_labels", 2)  # transformers' default
        says = f"names no labels (id2label) and says num_labels {stated!r:.60}"
    if type(stated) is not int or stated != outputs:
        raise FormatError(
            f"{where}: its config.json {says}, but its head has {outputs} outputs. {_MEND}",
            code="labels-unusable",
        )


def _from_config(config: Mapping[str, Any], outputs: int, where: str) -> tuple[str, ...]:
    table = config.get("id2label")
    if table is None:
        return tuple(f"LABEL_{i}" for i in range(outputs))
    ids = [int(key) if _ID.fullmatch(key) else -1 for key in table]
    if sorted(ids) != list(range(outputs)):
        raise FormatError(
            f"{where}: id2label in its config.json has the ids {_some(list(table))}; expected "
            f"{_some(list(range(outputs)))}. {_MEND}",
            code="labels-unusable",
        )
    labels = tuple(_text(table[str(i)], i, where) for i in range(outputs))
    _check_inverse(labels, config.get("label2id"), where)
    return labels


def _text(label: object, number: int, where: str) -> str:
    if type(label) is int:
        return str(label)
    if not isinstance(label, str):
        raise FormatError(
            f"{where}: label {number} is {label!r:.60}; expected a text. {_MEND}",
            code="labels-unusable",
        )
    return label


def _check_inverse(labels: Sequence[str], inverse: object, where: str) -> None:
    """Refuse a ``label2id`` that says otherwise; transformers' made-up names say nothing."""
    if inverse is None:
        return
    if not isinstance(inverse, dict):
        raise FormatError(
            f"{where}: label2id in its config.json is no object from labels to ids. {_MEND}",
            code="labels-unusable",
        )
    if all(_PLACEHOLDER.fullmatch(label) for label in inverse) and not {*labels} & {*inverse}:
        return
    expected = {label: str(i) for i, label in enumerate(labels)}
    found = {label: str(i) for label, i in inverse.items()}
    if found != expected:
        label = next(name for name in (*labels, *found) if found.get(name) != expected.get(name))
        raise FormatError(
            f"{where}: its config.json contradicts itself: label {label!a} is "
            f"{expected.get(label, 'missing')} in id2label and {found.get(label, 'missing')!s:.60} "
            f"in label2id, so nobody can say what the head's outputs mean. {_MEND}",
            code="labels-unusable",
        )


def _check_labels(labels: Sequence[str], where: str) -> None:
    firsts: dict[str, int] = {}
    for number, label in enumerate(labels):
        first, fault = firsts.setdefault(label, number), None
        if first < number:
            fault = f"is also label {first}"
        elif not label.strip():
            fault = "is empty"
        elif any("\ud800" <= letter <= "\udfff" for letter in label):
            fault = "holds half of a character (a lone surrogate), which no file or terminal takes"
        if fault:
            raise FormatError(
                f"{where}: label {number}, {label!a}, {fault}. {_MEND}", code="labels-unusable"
            )


def _some(items: Sequence[object]) -> str:
    shown = ", ".join(ascii(str(item))[1:-1] for item in items[:6])
    return shown + (" …" if len(items) > 6 else "")
