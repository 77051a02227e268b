"""A check of labelled data before anything is learnt from them: what is there, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from centra.data.findings import (
    Finding,
    broken_text_findings,
    count_labels,
    label_findings,
    repeat_findings,
    rows_text,
    truncation_findings,
)
from centra.data.inputs import parse_example, tagged_by_character
from centra.data.lengths import measure
from centra.data.readers import TORN_ROW
from centra.data.repeats import find_repeats
from centra.data.rows import (
    is_undivided,
    part_names,
    read_files,
    read_part,
    torn_text,
)
from centra.data.source import DataSource, HubData
from centra.errors import DataError
from centra.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from centra.data.inputs import Example
    from centra.data.labelling import Labelling
    from centra.data.lengths import Lengths, Truncated, Unit
    from centra.data.repeats import Repeats
    from centra.data.rows import FileRows
    from centra.data.source import Part
    from centra.formats.contract import Contract
    from centra.store.s3.path import S3Path
    from centra.tokenization.text_encoder import TextEncoder

__all__ = ["CheckedFile", "DataCheck", "check_data"]

_PARTS: tuple[Part, ...] = ("train", "dev", "test")
_EMPTY = "empty-text"
"""The code of the one fault that is told apart."""
_ANSWERS = {"label": "one label", "labels": "several labels", "tags": "a tag for each token"}


@dataclass(frozen=True, kw_only=True)
class CheckedFile:
    """A file of a split, or a split of ``datasets``."""

    split: str
    path: str
    """Or address."""
    rows: int
    """All there are, those that cannot be used, too."""
    encoding: str | None
    """None where it is no text."""


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """What a check of labelled data came to."""

    files: tuple[CheckedFile, ...]
    """In the order train, dev, test; several of a split that is in shards."""
    contract: Contract | None
    """What the data say of their task; None where they contradict themselves."""
    labels: Mapping[str, Mapping[str, int]]
    """Per label and split the rows that have it, or the entities of a type; empty for values."""
    values: Mapping[str, tuple[float, float, float]]
    """Of regression per split the least, the mean and the largest value."""
    unit: Unit
    """What lengths are counted in."""
    max_length: int | None
    """Tokens that are kept of an input; None without a backbone."""
    lengths: Mapping[str, Lengths]
    """Per split that has rows."""
    truncated: Mapping[str, Truncated] | None
    """Per split what is cut off; None without a backbone."""
    repeats: Repeats
    findings: tuple[Finding, ...]
    """Problems first."""
    remarks: tuple[str, ...]
    """What the labels were taken for."""

    @property
    def problems(self) -> list[Finding]:
        """What training would refuse."""
        return [finding for finding in self.findings if finding.level == "problem"]

    @property
    def rows(self) -> dict[str, int]:
        """All rows of each split, in the order of the files."""
        rows = dict.fromkeys((file.split for file in self.files), 0)
        for file in self.files:
            rows[file.split] += file.rows
        return rows

    def only_in(self, label: str) -> str | None:
        """The one split that has a label; None where several do, or where there is one split."""
        counts = self.labels[label]
        having = [split for split, count in counts.items() if count]
        return having[0] if len(having) == 1 < len(counts) else None


def check_data(
    data: str | Path | S3Path | DataSource,
    *,
    encoder: TextEncoder | None = None,
    max_length: int | None = None,
    labelling: Labelling | None = None,
    progress: Progress = silent,
) -> DataCheck:
    """Check labelled data.

    Args:
        data: what :func:`centra.data.rows.read_files` reads, of which any part may be missing; or one
            file. A part ``test`` without labels is left out.
        encoder: the backbone's, which tells how long texts are; None counts words or characters.
        max_length: the encoder's: tokens that are kept of an input.
        labelling: what the labels mean, where the data do not say it.
        progress: told of each file that is read.

    Raises:
        DataError: there is no such file, or one cannot be read at all; a row that cannot be read, or
            not used, is a finding.
        StoreError: data in a bucket cannot be reached.
    """
    files, splits, findings = _read(DataSource.of(data), progress)
    contract, splits, remarks, faults = _contract(splits, labelling)
    findings += faults
    repeats = find_repeats(splits)
    counts = {name: count_labels(examples) for name, examples in splits.items()}
    unit, lengths, truncated = measure(splits, encoder, progress)
    findings += label_findings(splits, counts)
    findings += repeat_findings(splits, repeats)
    if truncated is not None and max_length is not None:
        findings += truncation_findings(splits, truncated, max_length)
    findings += broken_text_findings(splits)
    order = dict.fromkeys(label for count in counts.values() for label, _ in count.most_common())
    return DataCheck(
        files=tuple(files),
        contract=contract,
        labels={label: {name: counts[name][label] for name in splits} for label in order},
        values={name: found for name in splits if (found := _values(splits[name])) is not None},
        unit=unit,
        max_length=max_length,
        lengths=lengths,
        truncated=truncated,
        repeats=repeats,
        findings=tuple(sorted(findings, key=lambda finding: finding.level)),
        remarks=tuple(remarks),
    )


def _read(
    source: DataSource, progress: Progress
) -> tuple[list[CheckedFile], dict[str, list[Example]], list[Finding]]:
    """The splits that there are, and a finding for each row that cannot be used."""
    files: list[CheckedFile] = []
    splits: dict[str, list[Example]] = {}
    faults: list[tuple[str, DataError]] = []
    findings: list[Finding] = []
    for split, parts in _parts(source).items():
        rows = [row for file in parts for row in file.kept]
        files += [
            CheckedFile(split=split, path=file.name, rows=len(file.rows), encoding=file.encoding)
            for file in parts
        ]
        findings += [
            Finding(level="warning", code=TORN_ROW, text=torn_text(file), places=(*file.torn,))
            for file in parts
            if file.torn
        ]
        progress(f"read {parts[0].name.rpartition('/')[2]}", len(rows), len(rows))
        if split == "test" and rows and not any(_is_labelled(row) for _, row in rows):
            text = f"no row of {split} has a label: nothing can be measured on it"
            findings.append(Finding(level="warning", code="no-labels", text=text))
            continue
        characters = tagged_by_character(fields for _, fields in rows)
        examples = splits.setdefault(split, [])
        for where, row in rows:
            try:
                if isinstance(row, DataError):
                    raise row
                examples.append(parse_example(row, where, characters=characters))
            except DataError as error:
                faults.append((where, error))
    findings += _fault_findings(files, faults)
    if not is_undivided(source):
        findings += [
            Finding(level="problem", code="missing-split", text=f"there is no split {name}")
            for name in ("train", "dev")
            if name not in splits
        ]
    return files, splits, findings


def _parts(source: DataSource) -> dict[str, list[FileRows]]:
    """Per split its files."""
    place = source.place
    if is_undivided(source) and not isinstance(place, HubData):
        stem = PurePath(place.name).stem
        name = next((part for part in _PARTS if stem in part_names(source, part)), stem)
        return {name: read_files(source, "train")}
    found: dict[str, list[FileRows]] = {}
    for part in _PARTS:
        # What was said to be another part is not looked at twice.
        others = {PurePath(name).stem for other, name in source.splits.items() if other != part}
        if others & {*part_names(source, part)}:
            continue
        if files := read_files(source, part, labelled=part != "test"):
            found[part] = files
    if not found:
        read_part(source, "train")  # It says what is there instead.
    return found


def _is_labelled(row: object) -> bool:
    fields = row if isinstance(row, Mapping) else {}
    return any(fields.get(name) is not None for name in ("label", "labels"))


def _fault_findings(
    files: Sequence[CheckedFile], faults: Sequence[tuple[str, DataError]]
) -> list[Finding]:
    """What is wrong with rows that cannot be used, and with files that have none."""
    found = []
    if empty := tuple(where for where, error in faults if error.code == _EMPTY):
        text = f"{rows_text(len(empty))} without a text"
        found.append(Finding(level="problem", code=_EMPTY, text=text, places=empty))
    if others := [(where, error) for where, error in faults if error.code != _EMPTY]:
        text = f"{rows_text(len(others))} that cannot be used; the first is {others[0][1]}"
        places = tuple(where for where, _ in others)
        found.append(Finding(level="problem", code="unusable-row", text=text, places=places))
    found += [
        Finding(level="problem", code="no-rows", text=f"{file.path}: holds no examples")
        for file in files
        if not file.rows
    ]
    return found


def _contract(
    splits: dict[str, list[Example]], labelling: Labelling | None
) -> tuple[Contract | None, dict[str, list[Example]], list[str], list[Finding]]:
    """What the data say of their task; the splits as that has them, without rows of another sort."""
    from centra.training.contract_inference import infer_contract

    forms = Counter((e.label_form, e.input.form) for part in splits.values() for e in part)
    if not forms:
        return None, splits, [], []
    ((label_form, input_form), _), *others = forms.most_common()
    findings = []
    if others:
        odd = [
            example.where
            for part in splits.values()
            for example in part
            if (example.label_form, example.input.form) != (label_form, input_form)
        ]
        text = (
            f"{rows_text(len(odd))} of another sort: most have a {input_form} input and "
            f"{_ANSWERS[label_form]}, and a task takes one kind"
        )
        findings.append(Finding(level="problem", code="another-sort", text=text, places=tuple(odd)))
        splits = {
            name: [e for e in part if (e.label_form, e.input.form) == (label_form, input_form)]
            for name, part in splits.items()
        }
    examples = [example for part in splits.values() for example in part]
    try:
        # As if all were learnt from: labels that only one split knows are findings of their own.
        found = infer_contract(examples, [], labelling)
    except DataError as error:
        findings.append(Finding(level="problem", code="labels-unusable", text=str(error)))
        return None, splits, [], findings
    read = iter(found.train)
    splits = {name: [next(read) for _ in part] for name, part in splits.items()}
    return found.contract, splits, found.remarks, findings


def _values(examples: Sequence[Example]) -> tuple[float, float, float] | None:
    values = [e.label for e in examples if isinstance(e.label, int | float)]
    return (min(values), sum(values) / len(values), max(values)) if values else None
