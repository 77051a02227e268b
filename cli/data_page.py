"""What a check of labelled data came to, as a page with plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.html import plots
from centra.html.page import Page
from cli.data import places_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data.check import DataCheck
    from centra.data.repeats import SplitRow

__all__ = ["data_page"]

_BARS = 25
"""So many labels are drawn; the table has them all."""
_COLUMNS = 24
"""Of the histogram."""
_GROUPS = 100
"""So many texts of a sort are listed."""
_PLACES = 20
"""So many rows of a finding."""
_TEXT = 300
"""Characters of a text that are shown."""


def data_page(found: DataCheck, name: str) -> Page:
    """Draw up a page.

    Args:
        found: what the check came to.
        name: what was checked, for people.
    """
    page = Page(f"Data: {name}", _subtitle(found))
    _findings(page, found)
    _splits(page, found)
    if found.labels:
        _labels(page, found)
    if found.lengths:
        _lengths(page, found)
    _repeats(page, "Texts in several splits", found.repeats.leaks)
    _repeats(page, "Texts with different labels", found.repeats.contradictions)
    _repeats(page, "Repeated rows", found.repeats.duplicates)
    return page


def _subtitle(found: DataCheck) -> str:
    rows = ", ".join(f"{count:,} rows of {split}" for split, count in found.rows.items())
    if found.contract is None:
        return rows
    inputs = "pairs of texts" if found.contract.input == "pair" else "texts"
    return f"{found.contract.kind} of {inputs}: {rows}"


def _findings(page: Page, found: DataCheck) -> None:
    page.heading("Findings")
    problems = len(found.problems)
    text = f"Problems: {problems}, warnings: {len(found.findings) - problems}."
    page.text(text, bad=bool(problems))
    if found.findings:
        page.table(
            ["", "what", "", "rows"],
            [
                [each.level, each.code, each.text, places_text(each.places, _PLACES)]
                for each in found.findings
            ],
            texts=(2, 3),
        )
    for text in found.remarks:
        page.text(f"{text}.")


def _splits(page: Page, found: DataCheck) -> None:
    page.heading("Splits")
    header = ["split", "file", "rows", "encoding"]
    header += ["least", "mean", "largest value"] * bool(found.values)
    nothing = (None, None, None)
    page.table(
        header,
        [
            [file.split, file.path, file.rows, file.encoding or "-"]
            + ([*found.values.get(file.split, nothing)] if found.values else [])
            for file in found.files
        ],
        texts=(1,),
    )


def _labels(page: Page, found: DataCheck) -> None:
    splits = [*next(iter(found.labels.values()))]
    tagging = found.contract is not None and found.contract.kind == "tagging"
    page.heading("Entities" if tagging else "Labels")
    totals = {name: sum(counts[name] for counts in found.labels.values()) for name in splits}
    labels = [*found.labels]
    drawn = labels[:_BARS]
    shares = {
        name: [100 * found.labels[label][name] / (totals[name] or 1) for label in drawn]
        for name in splits
    }
    caption = "Share of each split, the commonest first"
    if len(labels) > len(drawn):
        caption += f"; {len(labels) - len(drawn)} rarer ones are in the table alone"
    page.figure(plots.bars("Share of each label by split", drawn, shares, unit=" %"), caption)
    page.table(
        ["entity" if tagging else "label", *splits, "only in"],
        [
            [label, *(found.labels[label][name] for name in splits), found.only_in(label)]
            for label in labels
        ],
    )


def _lengths(page: Page, found: DataCheck) -> None:
    page.heading("Lengths")
    longest = max(length for each in found.lengths.values() for length in each.counts)
    width = max(1, -(-(longest + 1) // _COLUMNS))
    edges = [*range(0, longest + 1 + width, width)]
    columns = {
        split: [
            100
            * sum(n for length, n in each.counts.items() if low <= length < low + width)
            / each.total
            for low in edges[:-1]
        ]
        for split, each in found.lengths.items()
    }
    limit = found.max_length
    page.figure(
        plots.histogram(
            "How many inputs have which length",
            edges,
            columns,
            x_name=found.unit,
            y_name="% of the split",
            mark=None if limit is None else (limit, f"kept: {limit}"),
        ),
        "Before anything is cut off",
    )
    header = ["split", "mean", "median", "95 %", "longest"]
    rows: list[list[object]] = [
        [split, round(each.mean, 2), each.at(0.5), each.at(0.95), each.at(1)]
        for split, each in found.lengths.items()
    ]
    if found.truncated is not None:
        header += ["rows cut", "entities cut"]
        for row in rows:
            cut = found.truncated[str(row[0])]
            lost = (
                f"{kind} {count} of {cut.all_entities[kind]}"
                for kind, count in cut.entities.items()
            )
            row += [len(cut.places), ", ".join(lost)]
    page.table(header, rows)
    if found.truncated is None:
        page.text(
            f"Counted in {found.unit}. What is cut off is known where a backbone is named, whose "
            "tokens are counted."
        )


def _repeats(page: Page, title: str, groups: Sequence[Sequence[SplitRow]]) -> None:
    if not groups:
        return
    page.heading(f"{title}: {len(groups):,}")
    if len(groups) > _GROUPS:
        page.text(f"The first {_GROUPS}:")
    page.table(
        ["text", "rows"],
        [[_text(group[0]), ", ".join(map(_row, group[:_PLACES]))] for group in groups[:_GROUPS]],
        texts=(0, 1),
    )


def _text(row: SplitRow) -> str:
    item = row.example.input
    text = item.text if item.text_pair is None else f"{item.text} ‖ {item.text_pair}"
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} …"


def _row(row: SplitRow) -> str:
    example = row.example
    place = example.where.rpartition("/")[2]
    if not isinstance(example.label, tuple):
        return f"{place} {example.label}"
    names = [label for label in example.label if label != "O"]
    return f"{place} {', '.join(names) or '-'}"
