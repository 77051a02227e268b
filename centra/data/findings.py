"""What is wrong with labelled data, or odd about them, in sentences: what a check of data comes to."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from centra.data.lengths import spans_of
from centra.data.repeats import find_repeats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.data.inputs import Example
    from centra.data.lengths import Truncated
    from centra.data.repeats import Repeats, SplitRow

__all__ = [
    "TRAIN",
    "Finding",
    "broken_text_findings",
    "count_labels",
    "label_findings",
    "repeat_findings",
    "rows_text",
    "split_findings",
    "truncation_findings",
]

TRAIN = "train"
"""The split that is learnt from."""
_FEW = 5
"""With fewer rows a label can hardly be learnt."""
_IMBALANCE = 50
"""So many times the rows of the rarest label are worth a word."""
_SHOWN = 5
"""So many labels are named in a sentence."""

_BROKEN = {
    "the replacement character � stands for what could not be decoded": "\N{REPLACEMENT CHARACTER}",
    "UTF-8 was read as another encoding (é became Ã©)": (
        "[ÂÃ][\x80-\xaa\xac-\xba\xbc-\xbf]|â€[^\\w\\s]|ðŸ"
    ),
    "there are control characters": "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
}
"""Signs of a text that was broken before it came here, as patterns."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about data that their team should know."""

    level: Literal["problem", "warning"]
    """A problem is refused by training."""
    code: str
    """What it is, for programs."""
    text: str
    places: tuple[str, ...] = ()
    """The rows that it is about, by file and line."""


def split_findings(splits: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """What training does not refuse, but its team should know, of examples that have been read.

    Args:
        splits: by name, their examples as :func:`centra.data.labelling.read_as` gives them.
    """
    counts = {name: count_labels(examples) for name, examples in splits.items()}
    return [
        *repeat_findings(splits, find_repeats(splits)),
        *label_findings(splits, counts),
        *broken_text_findings(splits),
    ]


def count_labels(examples: Sequence[Example]) -> Counter[str]:
    """How many rows have each label, or how many entities are of each type; of values nothing."""
    counts: Counter[str] = Counter()
    for example in examples:
        if example.label_form == "tags":
            counts.update(name for name, _, _ in spans_of(example))
        elif isinstance(example.label, str):
            counts[example.label] += 1
        elif isinstance(example.label, tuple):
            counts.update(example.label)
    return counts


def repeat_findings(splits: Mapping[str, Sequence[Example]], repeats: Repeats) -> list[Finding]:
    """Texts that several rows share, as sentences: leaks, contradictions, duplicates."""
    found = []
    names = [*splits]
    for place, into in enumerate(names):
        for of in names[:place]:
            if rows := repeats.leaked(into, of):
                text = f"{len(rows)} of {rows_text(len(splits[into]))} of {into} are in {of}, too"
                if of == TRAIN:
                    text += f": what is measured on {into} is partly learnt by heart"
                found.append(_warning("leak", text, rows))
    if repeats.contradictions:
        rows = [row for group in repeats.contradictions for row in group]
        count = len(repeats.contradictions)
        what = "text has" if count == 1 else "texts have"
        text = f"{count} {what} different labels in different rows ({rows_text(len(rows))})"
        found.append(_warning("contradiction", text, rows))
    for name, examples in splits.items():
        rows = [row for group in repeats.duplicates if group[0].split == name for row in group[1:]]
        if rows:
            text = f"{len(rows)} of {rows_text(len(examples))} of {name} repeat another one"
            found.append(_warning("duplicate", text, rows))
    return found


def label_findings(
    splits: Mapping[str, Sequence[Example]], counts: Mapping[str, Mapping[str, int]]
) -> list[Finding]:
    """Labels that only some splits know, and those that are rare.

    Args:
        splits: by name.
        counts: per split what :func:`count_labels` gives.
    """
    found: list[Finding] = []
    train = counts.get(TRAIN, {})
    if not splits.get(TRAIN):
        return found
    for name in splits:
        unknown = [label for label in counts[name] if label not in train]
        if name != TRAIN and unknown:
            known = {*unknown}
            rows = (e.where for e in splits[name] if known & count_labels([e]).keys())
            text = f"{_labels(unknown)} only in {name}, and cannot be learnt: {_named(unknown)}"
            found.append(
                Finding(level="problem", code="label-not-in-train", text=text, places=(*rows,))
            )
        unmeasured = [label for label in train if label not in counts[name]]
        if name != TRAIN and splits[name] and unmeasured:
            text = (
                f"{_labels(unmeasured)} not in {name}, and not measured there: {_named(unmeasured)}"
            )
            found.append(Finding(level="warning", code="label-not-measured", text=text))
    if rare := sorted((label for label in train if train[label] < _FEW), key=train.__getitem__):
        text = f"{_labels(rare)} fewer than {_FEW} times in {TRAIN}: {_named(rare)}"
        found.append(Finding(level="warning", code="rare-label", text=text))
    if train and max(train.values()) > _IMBALANCE * min(train.values()):
        often, seldom = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
        text = (
            f"unbalanced: {often!r} is in {TRAIN} {train[often]} times, {seldom!r} {train[seldom]}; "
            "look at scores that weigh labels alike (macro_f1)"
        )
        found.append(Finding(level="warning", code="imbalance", text=text))
    return found


def truncation_findings(
    splits: Mapping[str, Sequence[Example]], truncated: Mapping[str, Truncated], max_length: int
) -> list[Finding]:
    """What truncation cuts off, as sentences.

    Args:
        splits: by name.
        truncated: per split what is cut.
        max_length: tokens that are kept.
    """
    found = []
    for name, cut in truncated.items():
        if not cut.places:
            continue
        text = f"{len(cut.places)} of {rows_text(len(splits[name]))} of {name} are cut at {max_length} tokens"
        if cut.entities:
            lost = (
                f"{kind} {count} of {cut.all_entities[kind]}"
                for kind, count in cut.entities.items()
            )
            text += f", and with them entities: {', '.join(lost)}"
        found.append(Finding(level="warning", code="truncated", text=text, places=cut.places))
    return found


def broken_text_findings(splits: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """Texts that look as if they were decoded wrongly before, as sentences."""
    found = []
    for what, pattern in _BROKEN.items():
        search = re.compile(pattern).search
        rows = [
            example.where
            for examples in splits.values()
            for example in examples
            if search(example.input.text) or search(example.input.text_pair or "")
        ]
        if rows:
            text = f"{rows_text(len(rows))} may be broken: {what}"
            found.append(
                Finding(level="warning", code="broken-text", text=text, places=tuple(rows))
            )
    return found


def rows_text(count: int) -> str:
    """So many rows, for people."""
    return f"{count} row" if count == 1 else f"{count} rows"


def _warning(code: str, text: str, rows: Sequence[SplitRow]) -> Finding:
    places = tuple(row.example.where for row in rows)
    return Finding(level="warning", code=code, text=text, places=places)


def _labels(labels: Sequence[str]) -> str:
    return "1 label is" if len(labels) == 1 else f"{len(labels)} labels are"


def _named(labels: Sequence[str]) -> str:
    return ", ".join(labels[:_SHOWN]) + (" …" if len(labels) > _SHOWN else "")
