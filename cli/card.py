"""A model card, for a terminal and as Markdown that may stand as a model's README.

Of a registered version, and of a module file that a fit has just chosen.
"""

from __future__ import annotations

import json
import re
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from centra.evaluation.calibration import distinct_shares
from centra.formats.template import PLAIN
from centra.kinds import kind_named
from centra.training.metrics import AGREEMENT
from cli.output import metrics_text, trial_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from centra.evaluation.summary import Confusion, Summary
    from centra.formats.task_module import ModuleFile
    from centra.training.trials import Trial
    from registry.cards import Card
    from registry.evaluations import EvaluationRow

__all__ = ["markdown", "module_markdown", "text"]

_WIDTH = 100
_NOTHING = "(nothing)"
_WEAKEST = 5
"""So many labels and confusions are told of in a terminal."""
_METRICS = ("metric", "value", "measured by", "on")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
"""What Markdown may take for a sign of its own."""

_POOLED = {
    "mean": "the mean of all tokens",
    "max": "the largest value of all tokens",
    "late": "the mean of all tokens behind the dense layer",
}


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
    training = _training(card.training, _teacher(card))
    parts = [("", facts), ("metrics", metrics), ("errors", _worst(card)), ("training", training)]
    for title, rows in parts:
        if rows:
            lines += ["", title] if title else []
            lines += [_wrapped(name, value) for name, value in rows]
    return "\n".join(lines)


def markdown(card: Card) -> str:
    """The card as a Markdown document."""
    version = card.version
    metrics = [
        *_reported(version.metrics),
        *(
            (
                name,
                f"{value:.4f}",
                f"{row.by}, in {_release(row)}{_computed(row)}, {_time(row.at)}",
                _data(row),
            )
            for row in card.evaluations
            for name, value in row.metrics.items()
        ),
    ]
    missing = "Not known: the store could not give the module." if card.remark else "None."
    return "\n\n".join(
        [
            f"# {_escape(card.reference)}",
            _escape(
                f"Takes {_takes(version.input)} and gives {_gives_version(card)}. Made by "
                f"{version.created_by} on {version.created_at:%Y-%m-%d} for team {card.team}; "
                f"{_standing(card)}."
            ),
            _table(("field", "value"), _facts(card)),
            "## Metrics",
            _table(_METRICS, metrics) or "None.",
            *_report(card),
            "## Training",
            _table(("field", "value"), _training(card.training, _teacher(card))) or missing,
            *_labels(version.labels),
        ]
    )


def module_markdown(
    task: str,
    backbone: str,
    module: ModuleFile,
    *,
    trials: Sequence[Trial],
    marks: Mapping[Trial, str],
    rule: str,
    picture: str,
) -> str:
    """The card of a module that was chosen among trials, as a Markdown document.

    It holds neither time nor person, so that the same fit gives the same card.

    Args:
        task: its name.
        backbone: NAME@VERSION.
        module: the chosen one.
        trials: all that were trained.
        marks: see :func:`cli.output.trial_table`.
        rule: how it was chosen, a sentence.
        picture: the address of the plot of the trials' scores.
    """
    spec = module.spec
    decision = spec.effective_decision
    gives = kind_named(spec.kind).describe(
        len(spec.labels),
        threshold=decision.threshold,
        rejection=decision.rejection,
        crf=spec.head.crf,
    )
    teacher = None if spec.teacher is None else f"sha256:{spec.teacher}"
    facts = [
        ("kind", spec.kind),
        ("takes", _takes(spec.input)),
        ("gives", gives),
        *_reads(decision.pooling, decision.template, decision.max_length),
        ("backbone", f"{backbone}, tap {spec.tap_layer}, depth {spec.depth}"),
        ("module", f"sha256:{module.digest}, {module.size:,} bytes"),
    ]
    header, rows = trial_table(trials, marks)
    return "\n\n".join(
        [
            f"# {_escape(task)}",
            _escape(f"Takes {_takes(spec.input)} and gives {gives}. {rule}"),
            _table(("field", "value"), facts),
            "## Metrics",
            _table(_METRICS, _reported(spec.metrics)),
            "## Training",
            _table(("field", "value"), _training(spec.training, teacher)),
            "## Trials",
            _table(header, rows),
            f"![Score against layers]({picture})",
            *_labels(spec.labels),
        ]
    )


def _facts(card: Card) -> list[tuple[str, str]]:
    version = card.version
    return [
        ("kind", version.kind),
        ("takes", _takes(version.input)),
        ("gives", _gives_version(card)),
        *_reads(card.pooling, card.template, card.max_length),
        ("backbone", f"{version.backbone}, tap {version.tap_layer}, depth {version.depth}"),
        ("module", f"sha256:{version.digest}, {version.size:,} bytes"),
        ("made", f"{_time(version.created_at)} by {version.created_by}"),
        *([("from", card.source)] if card.source else []),
        ("releases", _ranges(card.releases) or "-"),
        *([("in int8", _ranges(card.int8))] if card.int8 else []),
        ("channels", ", ".join(card.channels) or "-"),
    ]


def _standing(card: Card) -> str:
    current = card.version.version == card.current
    version = "the current version" if current else f"the current version is {card.current}"
    return f"{version} of {'an active' if card.state == 'active' else 'a retired'} task"


def _takes(form: str) -> str:
    return "pairs of texts" if form == "pair" else "single texts"


def _reads(
    pooling: str, template: str | tuple[str, str], max_length: int | None
) -> list[tuple[str, str]]:
    """How a task reads texts, where that is not as usual."""
    templates = template if isinstance(template, tuple) else (template,)
    said = [
        *([_POOLED[pooling]] if pooling in _POOLED else []),
        *([" and ".join(map(repr, templates))] if {*templates} != {PLAIN} else []),
        *([f"at most {max_length} tokens"] if max_length else []),
    ]
    return [("reads", ", ".join(said))] if said else []


def _gives_version(card: Card) -> str:
    version = card.version
    return kind_named(version.kind).describe(
        len(version.labels), threshold=card.threshold, rejection=card.rejection, crf=card.crf
    )


def _reported(metrics: Mapping[str, float]) -> list[tuple[str, str, str, str]]:
    """What the module's maker says of it."""
    return [
        (
            name,
            f"{value:.4f}",
            "its maker",
            "dev set, against its teacher's answers" if name.startswith(AGREEMENT) else "dev set",
        )
        for name, value in metrics.items()
    ]


def _newest_report(card: Card) -> tuple[EvaluationRow, Summary] | None:
    return next(((row, row.summary) for row in card.evaluations if row.summary), None)


def _worst(card: Card) -> list[tuple[str, str]]:
    """What the newest measurement says of the answers, in short."""
    newest = _newest_report(card)
    if newest is None:
        return []
    _, summary = newest
    wanted = (score for score in summary.all.classes if score.wanted)
    weakest = sorted(wanted, key=lambda score: score.f1)[:_WEAKEST]
    labels = [f"{c.label} {c.f1:.3f} ({c.right:,} of {c.wanted:,})" for c in weakest if c.f1 < 1]
    confusions = [
        f"{' → '.join(_pair(one))} ({one.count:,})" for one in summary.confusions[:_WEAKEST]
    ]
    rows = [("all", _errors(summary)), ("weakest", ", ".join(labels))]
    rows += [("confused", ", ".join(confusions))]
    return [(name, value) for name, value in rows if value]


def _errors(summary: Summary) -> str:
    """How much is wrong, a sentence."""
    # No number is quite right, so that counting those that are wrong would say nothing.
    if summary.all.mean_deviation is not None:
        return (
            f"the mean deviation of {summary.all.rows:,} rows is {summary.all.mean_deviation:.4f}"
        )
    text = f"{summary.errors:,} of {summary.all.rows:,} rows have an error"
    if summary.all.calibration:
        text += f"; the expected calibration error is {summary.all.calibration.error:.4f}"
    return text


def _report(card: Card) -> list[str]:
    """What the newest measurement says of the answers, in Markdown."""
    newest = _newest_report(card)
    if newest is None:
        return []
    row, summary = newest
    found, errors = summary.all, _errors(summary)
    calibration = found.calibration.bins if found.calibration else ()
    tables: list[tuple[str, Sequence[str], list[Sequence[str]]]] = [
        (
            "Labels",
            ("label", "wanted", "answered", "right", "precision", "recall", "F1"),
            [
                (
                    c.label,
                    *_counts(c.wanted, c.answered, c.right),
                    *_shares(c.precision, c.recall, c.f1),
                )
                for c in found.classes
            ],
        ),
        (
            "Kinds of errors",
            ("error", "count"),
            [(fault, f"{count:,}") for fault, count in found.faults.items()],
        ),
        (
            "Most frequent confusions",
            ("wanted", "answered", "count"),
            [(*_pair(one), f"{one.count:,}") for one in summary.confusions],
        ),
        (
            "Calibration",
            ("scores", "count", "mean score", "share that is right"),
            [
                (f"{b.low:.2f} to {b.high:.2f}", f"{b.count:,}", *_shares(b.score, b.accuracy))
                for b in calibration
            ],
        ),
        (
            "Thresholds on the score",
            ("threshold", "share that is kept", "share of these that is right"),
            [
                (f"{one.threshold:.2f}", *_shares(one.coverage, one.accuracy))
                for one in distinct_shares(found.kept)
            ],
        ),
    ]
    return [
        "## What it gets wrong",
        _escape(f"{errors[0].upper()}{errors[1:]}: {_measured(row)}."),
        *(
            part
            for title, header, rows in tables
            if rows
            for part in (f"### {title}", _table(header, rows))
        ),
    ]


def _counts(*counts: int) -> list[str]:
    return [f"{count:,}" for count in counts]


def _shares(*shares: float | None) -> list[str]:
    return ["" if share is None else f"{share:.4f}" for share in shares]


def _pair(confusion: Confusion) -> tuple[str, str]:
    return confusion.wanted or _NOTHING, confusion.answered or _NOTHING


def _training(training: Mapping[str, Any], teacher: str | None) -> list[tuple[str, str]]:
    """What the module says of its training, in whatever words its maker chose."""
    rows = [(name, _value(value)) for name, value in training.items()]
    return rows if teacher is None else [*rows, ("teacher", teacher)]


def _teacher(card: Card) -> str | None:
    if card.teacher is None:
        return None
    known = ", ".join(card.teacher.versions) or "not registered here"
    return f"{known}, sha256:{card.teacher.digest}"


def _labels(labels: Sequence[str]) -> list[str]:
    rows = ((str(number), label) for number, label in enumerate(labels))
    return ["## Labels", _table(("logit", "label"), rows)] if labels else []


def _value(value: Any) -> str:
    if isinstance(value, dict):
        known = ((name, item) for name, item in value.items() if item is not None)
        return ", ".join(f"{name} {_value(item)}" for name, item in known)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _data(row: EvaluationRow) -> str:
    return f"{row.examples:,} examples, sha256:{row.data[:12]}"


def _measured(row: EvaluationRow) -> str:
    return f"in {_release(row)}, {_data(row)}{_computed(row)}, {_time(row.at)} by {row.by}"


def _release(row: EvaluationRow) -> str:
    return f"release {row.release}" + ("" if row.precision == "fp32" else f" ({row.precision})")


def _computed(row: EvaluationRow) -> str:
    """What computed a measurement; a word of warning where one in int8 does not say."""
    if not row.counts:
        return ", with an engine that was not recorded, so that no gate takes it"
    return f", with {row.engine}" if row.engine else ""


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
