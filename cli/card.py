"""A model card, for a terminal and as Markdown that may stand as a model's README."""

from __future__ import annotations

import json
import re
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from cli.output import metrics_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from registry.cards import Card
    from registry.evaluations import EvaluationRow
    from registry.versions import VersionRow

__all__ = ["markdown", "text"]

_WIDTH = 100
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
"""What Markdown may take for a sign of its own."""


def text(card: Card) -> str:
    """The card in plain text."""
    metrics = [
        ("reported", metrics_text(card.version.metrics)),
        *(
            ("measured", f"{metrics_text(row.metrics)}, {_measured(row)}")
            for row in card.evaluations
        ),
    ]
    facts = [*_facts(card), ("labels", ", ".join(card.version.labels) or "-")]
    lines = [f"{card.reference}  {_standing(card)}, owned by {card.team}"]
    for title, rows in (("", facts), ("metrics", metrics), ("training", _training(card))):
        if rows:
            lines += ["", title] if title else []
            lines += [_wrapped(name, value) for name, value in rows]
    return "\n".join(lines)


def markdown(card: Card) -> str:
    """The card as a Markdown document."""
    version = card.version
    metrics = [
        *(
            (name, f"{value:.4f}", "its maker", "dev set")
            for name, value in version.metrics.items()
        ),
        *(
            (
                name,
                f"{value:.4f}",
                f"{row.by}, in release {row.release}, {_time(row.at)}",
                _data(row),
            )
            for row in card.evaluations
            for name, value in row.metrics.items()
        ),
    ]
    missing = "Not known: the store could not give the module." if card.remark else "None."
    blocks = [
        f"# {_escape(card.reference)}",
        _escape(
            f"Takes {_takes(version)} and gives {_gives(card)}. Made by {version.created_by} on "
            f"{version.created_at:%Y-%m-%d} for team {card.team}; {_standing(card)}."
        ),
        _table(("field", "value"), _facts(card)),
        "## Metrics",
        _table(("metric", "value", "measured by", "on"), metrics) or "None.",
        "## Training",
        _table(("field", "value"), _training(card)) or missing,
    ]
    if version.labels:
        labels = ((str(number), label) for number, label in enumerate(version.labels))
        blocks += ["## Labels", _table(("logit", "label"), labels)]
    return "\n\n".join(blocks)


def _facts(card: Card) -> list[tuple[str, str]]:
    version = card.version
    return [
        ("kind", version.kind),
        ("takes", _takes(version)),
        ("gives", _gives(card)),
        ("backbone", f"{version.backbone}, tap {version.tap_layer}, depth {version.depth}"),
        ("module", f"sha256:{version.digest}, {version.size:,} bytes"),
        ("made", f"{_time(version.created_at)} by {version.created_by}"),
        ("releases", _ranges(card.releases) or "-"),
        ("channels", ", ".join(card.channels) or "-"),
    ]


def _standing(card: Card) -> str:
    current = card.version.version == card.current
    version = "the current version" if current else f"the current version is {card.current}"
    return f"{version} of {'an active' if card.state == 'active' else 'a retired'} task"


def _takes(version: VersionRow) -> str:
    return "pairs of texts" if version.input == "pair" else "single texts"


def _gives(card: Card) -> str:
    count = len(card.version.labels)
    labels = f"{count} label{'' if count == 1 else 's'}"
    match card.version.kind:
        case "classification":
            return f"one of {labels}"
        case "multilabel":
            return f"any of {labels}" + (
                f", from a probability of {card.threshold:g}" if card.threshold is not None else ""
            )
        case "tagging":
            return f"spans, by {count} BIO tags"
        case _:
            return "a number"


def _training(card: Card) -> list[tuple[str, str]]:
    """What the module says of its training, in whatever words its maker chose."""
    rows = [(name, _value(value)) for name, value in card.training.items()]
    if card.teacher is not None:
        known = ", ".join(card.teacher.versions) or "not registered here"
        rows.append(("teacher", f"{known}, sha256:{card.teacher.digest}"))
    return rows


def _value(value: Any) -> str:
    if isinstance(value, dict):
        known = ((name, item) for name, item in value.items() if item is not None)
        return ", ".join(f"{name} {_value(item)}" for name, item in known)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _data(row: EvaluationRow) -> str:
    return f"{row.examples:,} examples, sha256:{row.data[:12]}"


def _measured(row: EvaluationRow) -> str:
    return f"in release {row.release}, {_data(row)}, {_time(row.at)} by {row.by}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers in short: ``1, 3 to 7, 9``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ", ".join(" to ".join(map(str, span)) for span in spans)


def _wrapped(name: str, value: str) -> str:
    lines = wrap(
        f"  {name:<10} {' '.join(value.split())}",
        _WIDTH,
        subsequent_indent=" " * 13,
        # A digest stays one word however narrow.
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; nothing where there are no rows."""
    lines = [f"| {' | '.join(map(_escape, row))} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *lines])


def _escape(value: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(value.split()))
