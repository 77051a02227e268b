"""What a check of labelled data came to, and data that were split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from centra.data import check, findings, lengths, repeats, split

__all__ = ["DataCheck", "DataSplit"]


class DataFile(Document):
    """A file of a split, or a split of ``datasets``."""

    split: str
    """``train``, ``dev`` or ``test``; of a single file of another name, that name."""
    path: str
    rows: int
    """All there are, those that cannot be used, too."""
    encoding: str | None
    """``utf-8``, what a byte-order mark says or what was given, as Python names it; null of Parquet and
    ``datasets``, which are no text."""


class LabelCount(Document):
    """How often a label is there."""

    label: str
    """Of tagging the type of an entity."""
    counts: dict[str, int]
    """Per split the rows that have it; of tagging the entities."""
    only_in: str | None
    """The one split that has it; null where several do, or where there is one split."""


class ValueRange(Document):
    """The values of a split of regression data."""

    least: float
    mean: float
    largest: float


class LengthSummary(Document):
    """How long the inputs of a split are, before anything is cut off."""

    mean: float
    median: int
    p95: int
    """95 % of the inputs are not longer."""
    largest: int

    @classmethod
    def of(cls, lengths: lengths.Lengths) -> LengthSummary:
        """The document of lengths."""
        return cls(
            mean=round(lengths.mean, 2),
            median=lengths.at(0.5),
            p95=lengths.at(0.95),
            largest=lengths.at(1),
        )


class TruncatedRows(Document):
    """What truncation cuts off a split."""

    rows: int
    """That lose something."""
    places: list[str]
    """Of these rows: file and line."""
    entities: dict[str, int]
    """Of tagging per type the entities that are cut, in part or whole."""

    @classmethod
    def of(cls, truncated: lengths.Truncated) -> TruncatedRows:
        """The document of what is cut off."""
        return cls(
            rows=len(truncated.places),
            places=[*truncated.places],
            entities=dict(truncated.entities),
        )


class RepeatedRow(Document):
    """A row whose text another one has, too."""

    split: str
    place: str
    """File and line."""
    label: str | float | list[str]
    """Or several labels, or a tag for each token, in BIO."""


class RepeatedText(Document):
    """A text, or pair of texts, that several rows have."""

    text: str
    """As the first of them writes it."""
    text_pair: str | None
    rows: list[RepeatedRow]

    @classmethod
    def of(cls, group: Iterable[repeats.SplitRow]) -> RepeatedText:
        """The document of the rows of a text."""
        rows = [*group]
        first = rows[0].example.input
        return cls(
            text=first.text,
            text_pair=first.text_pair,
            rows=[
                RepeatedRow(
                    split=row.split,
                    place=row.example.where,
                    label=[*label] if isinstance(label := row.example.label, tuple) else label,
                )
                for row in rows
            ],
        )


class DataFinding(Document):
    """Something about data that their team should know."""

    level: str
    """``problem``, which training refuses, or ``warning``."""
    code: str
    """What it is, for programs."""
    text: str
    places: list[str]
    """The rows that it is about: file and line."""

    @classmethod
    def of(cls, finding: findings.Finding) -> DataFinding:
        """The document of a finding."""
        return cls(
            level=finding.level,
            code=finding.code,
            text=finding.text,
            places=[*finding.places],
        )


class DataCheck(Document):
    """What a check of labelled data came to."""

    schema_: str = schema("data-check")
    kind: str | None
    """Of the task that the data look like; null where they contradict themselves."""
    input: str | None
    """``single`` or ``pair``, likewise."""
    files: list[DataFile]
    """In the order train, dev, test; several of a split that is in shards."""
    rows: dict[str, int]
    """Per split."""
    labels: list[LabelCount]
    """The commonest of the first split first; none of regression."""
    values: dict[str, ValueRange]
    """Of regression per split."""
    unit: str
    """What lengths are counted in: ``tokens`` of a backbone, special ones included; else ``words``, or
    ``characters`` of scripts without spaces."""
    max_length: int | None
    """Tokens that are kept of an input; null without a backbone."""
    lengths: dict[str, LengthSummary]
    """Per split that has rows."""
    truncated: dict[str, TruncatedRows] | None
    """Per split that has rows; null without a backbone."""
    duplicates: list[RepeatedText]
    """Rows of one split with the same text and the same answer. Texts are the same where they differ only
    by case, white space or Unicode form."""
    leaks: list[RepeatedText]
    """Rows of several splits with the same text."""
    contradictions: list[RepeatedText]
    """Rows with the same text and different answers."""
    findings: list[DataFinding]
    """Problems first."""

    @classmethod
    def of(cls, found: check.DataCheck) -> DataCheck:
        """The document of a check."""
        return cls(
            kind=found.contract.kind if found.contract else None,
            input=found.contract.input if found.contract else None,
            files=[
                DataFile(split=file.split, path=file.path, rows=file.rows, encoding=file.encoding)
                for file in found.files
            ],
            rows=found.rows,
            labels=[
                LabelCount(label=label, counts=dict(counts), only_in=found.only_in(label))
                for label, counts in found.labels.items()
            ],
            values={
                split: ValueRange(least=least, mean=mean, largest=largest)
                for split, (least, mean, largest) in found.values.items()
            },
            unit=found.unit,
            max_length=found.max_length,
            lengths={split: LengthSummary.of(each) for split, each in found.lengths.items()},
            truncated=None
            if found.truncated is None
            else {split: TruncatedRows.of(cut) for split, cut in found.truncated.items()},
            duplicates=[RepeatedText.of(group) for group in found.repeats.duplicates],
            leaks=[RepeatedText.of(group) for group in found.repeats.leaks],
            contradictions=[RepeatedText.of(group) for group in found.repeats.contradictions],
            findings=[DataFinding.of(finding) for finding in found.findings],
        )


class DataSplit(Document):
    """Data that were split into those to learn from and those to measure on."""

    schema_: str = schema("data-split")
    train: str
    """The file."""
    dev: str
    """Likewise."""
    rows: dict[str, int]
    """In each."""
    changed: bool

    @classmethod
    def of(cls, found: split.DataSplit) -> DataSplit:
        """The document of data that were split."""
        return cls(
            train=str(found.train),
            dev=str(found.dev),
            rows=dict(found.rows),
            changed=found.changed,
        )
