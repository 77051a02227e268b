"""A dev split of labelled data: stratified, the same each time, and with no text that train has, too."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.data.findings import count_labels
from centra.data.inputs import examples_of
from centra.data.repeats import text_key
from centra.data.rows import has_part, is_undivided, read_part
from centra.data.source import DataSource
from centra.errors import ConflictError, DataError, StoreNotWritableError, UsageError
from centra.formats.documents import canonical_json, sha256
from centra.progress import Progress, silent
from centra.system.files import make_folder, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from centra.data.inputs import Example
    from centra.data.labelling import Labelling
    from centra.store.s3.path import S3Path

__all__ = ["DEV_SHARE", "DataSplit", "choose_dev", "split_data"]

DEV_SHARE = 0.1
"""Of the rows."""
_TRAIN, _DEV = "train.jsonl", "dev.jsonl"
_BINS = 10
"""Values are split so that each tenth of them has its share."""
_NOTHING = ""
"""The stratum of rows without any label or entity."""


@dataclass(frozen=True, kw_only=True)
class DataSplit:
    """Data that were split, and the files that have them now."""

    train: Path
    dev: Path
    rows: Mapping[str, int]
    """In each."""
    changed: bool
    """Whether a file was written; false where both were there as they are."""
    remarks: tuple[str, ...] = ()
    """What was left out."""


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The rows of one text, which stay together."""

    rows: tuple[int, ...]
    weights: Mapping[str, int]
    """How much of each label they have."""


def split_data(
    source: str | Path | S3Path | DataSource,
    output: Path,
    *,
    share: float = DEV_SHARE,
    seed: int = 0,
    labelling: Labelling | None = None,
    progress: Progress = silent,
) -> DataSplit:
    """Set rows of labelled data aside to measure on; see :func:`choose_dev`.

    Args:
        source: labelled rows: a file, or what :func:`centra.data.rows.read_part` reads, without a part
            to measure on.
        output: a folder, which gets ``train.jsonl`` and ``dev.jsonl`` with the rows as they are, in
            their order.
        share, seed: see :func:`choose_dev`.
        labelling: what the labels mean, where the data do not say it.
        progress: told when the data are read.

    Raises:
        DataError: missing, empty or malformed data, or fewer than two texts.
        UsageError: the share is out of bounds, or the data have a part to measure on.
        ConflictError: there are other data in the output.
        StoreNotWritableError: the output cannot be written.
    """
    from centra.training.contract_inference import infer_contract

    source = DataSource.of(source)
    part = read_part(source, "train")
    if not is_undivided(source) and has_part(source, "dev"):
        raise UsageError(
            f"{source} has a dev split; to split its training data again, name the file: {part.name}"
        )
    examples = infer_contract(examples_of(part, progress), [], labelling).train
    chosen = choose_dev(examples, share, seed)
    rows = [json.dumps(fields, ensure_ascii=False) for _, fields in part.rows]
    parts = {
        # In this order: what ends in between has no train.jsonl, and is no data to train on.
        output / _DEV: [row for i, row in enumerate(rows) if i in chosen],
        output / _TRAIN: [row for i, row in enumerate(rows) if i not in chosen],
    }
    changed = _write({path: "".join(f"{row}\n" for row in part) for path, part in parts.items()})
    return DataSplit(
        train=output / _TRAIN,
        dev=output / _DEV,
        rows={path.stem: len(part) for path, part in reversed(parts.items())},
        changed=changed,
        remarks=part.remarks,
    )


def choose_dev(examples: Sequence[Example], share: float = DEV_SHARE, seed: int = 0) -> set[int]:
    """Choose the rows to measure on.

    Each label has its share of its rows among them (of values each tenth, of tags each type of
    entity), the rarest first, and each stays in the rows that are left. Rows of the same text stay
    together, see :func:`centra.data.repeats.text_key`. The choice follows from texts, labels and
    seed, not from the order of the rows.

    Args:
        examples: as :func:`centra.data.labelling.read_as` gives them.
        share: of the rows; above 0 and below 1.
        seed: another one gives another choice.

    Returns:
        The places of the rows among the examples.

    Raises:
        UsageError: the share is out of bounds.
        DataError: there are fewer than two texts.
    """
    if not 0 < share < 1:
        raise UsageError(
            f"a dev split of {share:g} was asked for: expected a share between 0 and 1"
        )
    groups = _groups(examples, seed)
    if len(groups) < 2:
        what = "text is" if groups else "texts are"
        raise DataError(f"{len(groups)} {what} there; training and measuring take at least two")
    by_label: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        for label in group.weights:
            by_label.setdefault(label, []).append(place)
    dev: dict[int, bool] = {}
    over = 0.0
    for label in sorted(by_label, key=lambda name: (len(by_label[name]), name)):
        places = by_label[label]
        weight = {place: groups[place].weights[label] for place in places}
        open_places = [place for place in places if place not in dev]
        left_in_train = any(not dev[place] for place in places if place in dev)
        taken = sum(weight[place] for place in places if dev.get(place))
        # What rounding one label's share has left over goes to the next.
        wanted = share * sum(weight.values()) - taken + over
        for place in open_places:
            last = place == open_places[-1] and not left_in_train
            dev[place] = not last and 2 * wanted >= weight[place]
            wanted -= weight[place] * dev[place]
            left_in_train = left_in_train or not dev[place]
        over = max(-0.5, min(0.5, wanted))
    chosen = [place for place, aside in dev.items() if aside] or [_smallest(groups)]
    return {row for place in chosen for row in groups[place].rows}


def _write(files: Mapping[Path, str]) -> bool:
    """Write files that are not there; whether any was missing.

    Raises:
        ConflictError: one is there with other content.
        StoreNotWritableError: they cannot be written.
    """
    contents = {path: text.encode() for path, text in files.items()}
    try:
        missing = [path for path in contents if not path.exists()]
        for path, content in contents.items():
            if path not in missing and path.read_bytes() != content:
                raise ConflictError(
                    f"{path} holds other data; give a folder that has none",
                    code="other-data",
                    path=str(path),
                )
        for path in missing:
            make_folder(path.parent)
            with replacing(path) as temporary:
                temporary.write_bytes(contents[path])
    except OSError as error:
        raise StoreNotWritableError(
            f"cannot write {error.filename or 'the data'}: {error.strerror}",
            code="folder-not-writable",
        ) from error
    return bool(missing)


def _groups(examples: Sequence[Example], seed: int) -> list[_Group]:
    """The rows of each text, in an order that only the seed and the texts decide."""
    rows: dict[tuple[str, str | None], list[int]] = {}
    for row, example in enumerate(examples):
        rows.setdefault(text_key(example.input), []).append(row)
    strata = [*_strata(examples)]
    order = sorted(rows, key=lambda key: sha256(canonical_json([seed, *key])))
    groups = []
    for key in order:
        weights: Counter[str] = Counter()
        for row in rows[key]:
            weights.update(strata[row])
        groups.append(_Group(rows=tuple(rows[key]), weights=weights))
    return groups


def _strata(examples: Sequence[Example]) -> Iterable[Counter[str]]:
    """What each example adds to what is to be shared out."""
    values = sorted(e.label for e in examples if isinstance(e.label, int | float))
    bounds = [values[len(values) * i // _BINS] for i in range(1, _BINS)] if values else []
    for example in examples:
        if isinstance(example.label, int | float):
            bin_ = sum(example.label >= bound for bound in bounds)
            yield Counter({f"{bin_}": 1})
        else:
            yield count_labels([example]) or Counter({_NOTHING: 1})


def _smallest(groups: Sequence[_Group]) -> int:
    return min(range(len(groups)), key=lambda place: len(groups[place].rows))
