"""A check of labelled data before anything is learnt from them: what is there, and what is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
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
from centra.data.repeats import find_repeats
from centra.errors import DataError
from centra.formats.jsonl import read_data, read_jsonl
from centra.progress import Progress, silent
from centra.system.files import encoding_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.data.inputs import Example
    from centra.data.labelling import Labelling
    from centra.data.lengths import Lengths, Truncated, Unit
    from centra.data.repeats import Repeats
    from centra.formats.contract import Contract
    from centra.store.s3.path import S3Path
    from centra.tokenization.text_encoder import TextEncoder

__all__ = ["CheckedFile", "DataCheck", "check_data"]

_FILES = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}
_EMPTY = "empty-text"
"""The code of the one fault that is told apart."""
_ANSWERS = {"label": "one label", "labels": "several labels", "tags": "a tag for each token"}


@dataclass(frozen=True, kw_only=True)
class CheckedFile:
    """A file of a split."""

    split: str
    path: Path | S3Path
    rows: int
    """All there are, those that cannot be used, too."""
    encoding: str


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """What a check of labelled data came to."""

    files: tuple[CheckedFile, ...]
    """One a split, in the order train, dev, test."""
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

    def only_in(self, label: str) -> str | None:
        """The one split that has a label; None where several do, or where there is one split."""
        having = [split for split, count in self.labels[label].items() if count]
        return having[0] if len(having) == 1 < len(self.files) else None


def check_data(
    data: Path | S3Path,
    *,
    encoder: TextEncoder | None = None,
    max_length: int | None = None,
    labelling: Labelling | None = None,
    progress: Progress = silent,
) -> DataCheck:
    """Check labelled data.

    Args:
        data: a folder with ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl``, of which any may be
            missing, or one such file.
        encoder: the backbone's, which tells how long texts are; None counts words or characters.
        max_length: the encoder's: tokens that are kept of an input.
        labelling: what the labels mean, where the data do not say it.
        progress: told of each file that is read.

    Raises:
        DataError: there is no such file, or one cannot be read at all; a row that can be read but
            not used is a finding.
        StoreError: data in a bucket cannot be reached.
    """
    files, splits, findings = _read(data, progress)
    contract, splits, remarks, faults = _contract(splits, labelling)
    findings += faults
    repeats = find_repeats(splits)
    counts = {name: count_labels(examples) for name, examples in splits.items()}
    unit, lengths, truncated = measure(splits, encoder)
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
    data: Path | S3Path, progress: Progress
) -> tuple[list[CheckedFile], dict[str, list[Example]], list[Finding]]:
    """The splits that there are, and a finding for each row that cannot be used."""
    files: list[CheckedFile] = []
    splits: dict[str, list[Example]] = {}
    faults: list[tuple[str, DataError]] = []
    for split, path, content in _contents(data):
        rows = [*read_jsonl(Path(str(path)), content)]
        characters = tagged_by_character(fields for _, fields in rows)
        examples = splits.setdefault(split, [])
        for where, fields in rows:
            try:
                examples.append(parse_example(fields, where, characters=characters))
            except DataError as error:
                faults.append((where, error))
        files.append(
            CheckedFile(split=split, path=path, rows=len(rows), encoding=encoding_of(content))
        )
        progress(f"read {path.name}", len(rows), len(rows))
    findings = _fault_findings(files, faults)
    if files[0].path != data:
        findings += [
            Finding(level="problem", code=f"no-{name}", text=f"there is no split {name}")
            for name in ("train", "dev")
            if name not in splits
        ]
    return files, splits, findings


def _contents(data: Path | S3Path) -> list[tuple[str, Path | S3Path, bytes]]:
    """Per split its file and the file's bytes."""
    if isinstance(data, Path) and not data.is_dir():
        split = next((name for name, file in _FILES.items() if data.name == file), data.stem)
        return [(split, data, read_data(data))]
    found: list[tuple[str, Path | S3Path, bytes]] = []
    for split, name in _FILES.items():
        file = data / name
        content = file.read_bytes() if not isinstance(file, Path) or file.is_file() else None
        if content is not None:
            found.append((split, file, content))
    if not found and isinstance(data, Path):
        read_data(data / _FILES["train"])  # It says what is there instead.
    if not found:
        raise DataError(f"{data}: holds none of {', '.join(_FILES.values())}")
    return found


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
