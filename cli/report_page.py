"""A report on a task's answers as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.evaluation.calibration import distinct_shares
from centra.html import plots
from centra.html.page import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.evaluation.report import Report, Slice
    from registry.evaluations import Evaluated

__all__ = ["report_page"]

_DEVIATIONS = 20
"""Columns of the plot of how far numbers are off."""
_MANY_LABELS = 20
"""More are sorted, the weakest first."""
_LONG = 500
"""Characters of a text that are shown."""
_CURVES = 4
"""So many slices have a curve: more could not be told apart."""
_FEW = 50
"""The curve of a slice of fewer rows would be noise."""


def report_page(evaluated: Evaluated) -> Page:
    """The page of a report; it holds neither time nor person, so the same report gives the same page."""
    row, report = evaluated.row, evaluated.report
    page = Page(
        f"{row.task}@{row.version}",
        f"Measured in release {row.release} on {row.examples:,} rows",
    )
    page.facts(
        [
            *((name, f"{value:.4f}") for name, value in row.metrics.items()),
            *_error_of(report.all),
            # No number is quite right, so that counting those that are wrong would say nothing.
            *(
                []
                if report.deviations
                else [("rows with an error", f"{report.errors:,} of {report.all.rows:,}")]
            ),
            ("precision", str(row.precision)),
            ("engine", row.engine or "not recorded"),
            ("data", f"sha256:{row.data}"),
        ]
    )
    if report.all.classes:
        _add_classes(page, report)
    if report.all.faults:
        _add_faults(page, report)
    if report.all.calibration:
        _add_calibration(page, report)
    if report.all.kept:
        _add_kept(page, report)
    if report.deviations:
        _add_deviations(page, report.deviations)
    for column, slices in report.slices.items():
        _add_slices(page, column, slices)
    _add_worst(page, report)
    return page


def _error_of(one: Slice) -> list[tuple[str, str]]:
    return [
        *([("calibration error", f"{one.calibration.error:.4f}")] if one.calibration else []),
        *(
            [("mean deviation", f"{one.mean_deviation:.4f}")]
            if one.mean_deviation is not None
            else []
        ),
    ]


def _add_classes(page: Page, report: Report) -> None:
    page.heading("Labels")
    scores = [*report.all.classes]
    if len(scores) > _MANY_LABELS:
        last = "" if all(score.wanted for score in scores) else "; those never wanted stand last"
        page.text(f"{len(scores):,} labels, the weakest first{last}.")
        scores.sort(key=lambda score: (not score.wanted, score.f1))
    header = ("label", "wanted", "answered", "right", "precision", "recall", "F1")
    page.table(
        header,
        [(c.label, c.wanted, c.answered, c.right, c.precision, c.recall, c.f1) for c in scores],
    )
    if not report.confused:
        return
    names = [*report.confused]
    nothing = any(None in pair for pair in report.confusion)
    sides: list[str | None] = [*names, *([None] if nothing else [])]
    counts = [[report.confusion.get((one, other), 0) for other in sides] for one in sides]
    more = len({label for pair in report.confusion for label in pair} - {None}) - len(names)
    caption = "Rows are what was wanted, columns what was answered."
    if more:
        caption += f" {more} labels with fewer errors are left out."
    shown = [*names, *(["(nothing)"] if nothing else [])]
    page.figure(
        plots.matrix("Confusion matrix", shown, counts, rows="wanted", columns="answered"), caption
    )


def _add_faults(page: Page, report: Report) -> None:
    page.heading("Kinds of errors")
    faults = sorted(report.all.faults.items(), key=lambda fault: -fault[1])
    drawing = plots.bars(
        "Kinds of errors", [name for name, _ in faults], {"all": [count for _, count in faults]}
    )
    page.figure(drawing)


def _add_calibration(page: Page, report: Report) -> None:
    calibration = report.all.calibration
    assert calibration is not None
    page.heading("Calibration")
    page.text(
        f"The expected calibration error is {calibration.error:.4f}: so far is a score, on the mean, "
        "from the share of such answers that are right."
    )
    points = [(one.score, one.accuracy) for one in calibration.bins]
    drawing = plots.curves(
        "Calibration",
        {"all": points},
        x_name="score",
        y_name="share that is right",
        diagonal=True,
        dots=True,
    )
    page.figure(drawing, "Below the dashed line, scores promise too much; above it, too little.")
    page.table(
        ("scores", "count", "mean score", "share that is right"),
        [
            (f"{one.low:.2f} to {one.high:.2f}", one.count, one.score, one.accuracy)
            for one in calibration.bins
        ],
    )


def _add_kept(page: Page, report: Report) -> None:
    page.heading("Thresholds")
    kept = report.all.kept
    curves = {
        "share that is kept": [(one.threshold, one.coverage) for one in kept],
        "share of these that is right": [
            (one.threshold, one.accuracy) for one in kept if one.accuracy is not None
        ],
    }
    drawing = plots.curves("Thresholds", curves, x_name="threshold on the score", y_name="share")
    page.figure(drawing, "What is kept of the answers if those with lower scores are held back.")
    page.table(
        ("threshold", "kept", "right of these"),
        [(one.threshold, one.coverage, one.accuracy) for one in distinct_shares(kept)],
    )


def _add_deviations(page: Page, deviations: Sequence[float]) -> None:
    page.heading("Deviations")
    low, high = min(deviations), max(deviations)
    width = (high - low) / _DEVIATIONS or 1.0
    counts = [0] * _DEVIATIONS
    for deviation in deviations:
        counts[min(int((deviation - low) / width), _DEVIATIONS - 1)] += 1
    edges = [low + width * place for place in range(_DEVIATIONS + 1)]
    page.figure(
        plots.histogram("Deviations", edges, {"all": counts}, x_name="answered less wanted")
    )


def _add_slices(page: Page, column: str, slices: Sequence[Slice]) -> None:
    page.heading(f"By {column}")
    metrics = [*slices[0].metrics]
    rows = []
    for one in slices:
        errors = [value for _, value in _error_of(one)]
        rows.append(
            (one.value, one.rows, *(one.metrics.get(name) for name in metrics), *map(float, errors))
        )
    page.table((column, "rows", *metrics, *(name for name, _ in _error_of(slices[0]))), rows)
    lowest: dict[str, float] = {}
    for score in (score for one in slices for score in one.classes):
        f1 = score.f1 if score.wanted else 1.0
        lowest[score.label] = min(f1, lowest.get(score.label, f1))
    labels = [*lowest]
    if len(labels) > _MANY_LABELS:
        labels.sort(key=lambda label: lowest[label])
    if labels:
        page.text("F1 of each label, with how often it is wanted:")
        scores = [{score.label: score for score in one.classes} for one in slices]
        page.table(
            ("label", *(one.value for one in slices)),
            [
                (
                    label,
                    *(
                        f"{found[label].f1:.4f} ({found[label].wanted:,})" if label in found else ""
                        for found in scores
                    ),
                )
                for label in labels
            ],
        )
    faults = [*dict.fromkeys(fault for one in slices for fault in one.faults)]
    if faults:
        page.table(
            ("errors", *(one.value for one in slices)),
            [(fault, *(one.faults.get(fault, 0) for one in slices)) for fault in faults],
        )
    drawn = [one for one in slices if one.calibration and one.rows >= _FEW][:_CURVES]
    if drawn:
        points = {
            one.value: [(b.score, b.accuracy) for b in one.calibration.bins]
            for one in drawn
            if one.calibration
        }
        drawing = plots.curves(
            f"Calibration by {column}",
            points,
            x_name="score",
            y_name="share that is right",
            diagonal=True,
            dots=True,
        )
        few = (
            f" Slices of fewer than {_FEW} rows are left out, and more than {_CURVES}."
            if len(drawn) < len(slices)
            else ""
        )
        page.figure(drawing, f"Calibration by {column}.{few}")


def _add_worst(page: Page, report: Report) -> None:
    page.heading("Worst errors")
    if not report.worst:
        page.text("Every row was answered rightly.")
        return
    page.text(f"{len(report.worst):,} of {report.errors:,}, the worst first.")
    columns = [*report.slices]
    # Where all are wrong in the same way, as in most classifications, that is no news.
    faults = ["what is wrong"] if len({row.faults for row in report.worst}) > 1 else []
    page.table(
        ("text", "wanted", "answered", *faults, *columns, "where"),
        [
            (
                row.text if len(row.text) <= _LONG else f"{row.text[:_LONG]} …",
                row.wanted,
                row.answered,
                *([", ".join(row.faults)] if faults else []),
                *(row.slices[column] for column in columns),
                row.where,
            )
            for row in report.worst
        ],
        texts=(0,),
    )
