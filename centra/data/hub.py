"""Data of the library ``datasets``: a data set of the hub, or a folder that ``save_to_disk`` wrote."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.data.readers import json_value, other_columns
from centra.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from centra.data.source import HubData

__all__ = [
    "dataset_rows",
    "has_split",
    "is_saved_dataset",
    "is_undivided",
    "kept_files",
    "label_names",
]

_ONE, _SEVERAL = "state.json", "dataset_dict.json"


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return (folder / _SEVERAL).is_file() or (
        (folder / _ONE).is_file() and (folder / "dataset_info.json").is_file()
    )


def is_undivided(folder: Path) -> bool:
    """Whether what ``save_to_disk`` wrote into a folder has no splits."""
    return not (folder / _SEVERAL).is_file()


def has_split(place: Path | HubData, names: Sequence[str]) -> bool:
    """Whether a data set has a split of one of some names; one without splits has them all.

    Raises:
        UsageError, DataError: see :func:`dataset_rows`.
    """
    found = _load(place)
    return not isinstance(found, dict) or any(name in found for name in names)


def kept_files(place: HubData) -> list[Path]:
    """The Arrow files of all splits of a data set of the hub, on this machine.

    Raises:
        UsageError, DataError: see :func:`dataset_rows`.
    """
    found = _load(place)
    splits = found.values() if isinstance(found, dict) else [found]
    return [Path(file["filename"]) for split in splits for file in split.cache_files]


def dataset_rows(
    place: Path | HubData, names: tuple[str, ...], columns: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a split, with its place: what it has by field, and by other column of texts or numbers.

    Numbers that stand for named classes are given by their names.

    Args:
        place: the folder, or the data set.
        names: what the split may be called, the likeliest first.
        columns: by field the name of its column.

    Raises:
        UsageError: ``datasets`` is not installed.
        DataError: there is no such data set, split or column.
    """
    found = _load(place)
    if isinstance(found, dict):
        name = next((name for name in names if name in found), None)
        if name is None:
            raise DataError(
                f"{place}: has no split {names[0]!r}; it has {', '.join(found)}",
                code="no-split",
            )
        rows, where = found[name], f"{place}[{name}]"
    else:
        rows, where = found, str(place)
    missing = [c for field, c in columns.items() if c != field and c not in rows.column_names]
    if missing:
        raise DataError(
            f"{where}: has no column {missing[0]!r}; it has {', '.join(rows.column_names)}",
            code="no-column",
        )
    used = {field: c for field, c in columns.items() if c in rows.column_names}
    if not {"text", "tokens"} & used.keys():
        raise DataError(
            f"{where}: has no column {columns['text']!r}, nor {columns['tokens']!r}; it has "
            f"{', '.join(rows.column_names)}",
            code="no-text-column",
            file=where,
        )
    others = [
        column
        for column in other_columns(rows.column_names, columns)
        if _is_plain(rows.features[column])
    ]
    read = {**used, **dict(zip(others, others, strict=True))}
    name_of = {name: label_names(rows.features[column]) for name, column in read.items()}
    name_of |= {name: _plain_value(name_of[name]) for name in others}
    for number, row in enumerate(rows.select_columns([*dict.fromkeys(read.values())]), 1):
        yield (
            f"{where}: row {number}",
            {name: name_of[name](row[column]) for name, column in read.items()},
        )


def label_names(feature: Any) -> Callable[[Any], Any]:
    """What makes names of a column's numbers, where they stand for named classes."""
    inner = getattr(feature, "feature", None)
    names = getattr(feature, "names", None)
    if inner is not None and (several := getattr(inner, "names", None)):
        return lambda value: value and [_name(several, one) for one in value]
    if names:
        return lambda value: _name(names, value)
    return lambda value: value


def _plain_value(named: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: json_value(named(value))


def _is_plain(feature: Any) -> bool:
    """Whether a column has texts, numbers or classes: what its rows can be sliced by."""
    kind = str(getattr(feature, "dtype", "")) if not getattr(feature, "feature", None) else ""
    return kind.startswith(("int", "uint", "float", "bool", "string", "large_string"))


def _name(names: list[str], value: Any) -> Any:
    """The class of a number; None for -1, which stands for no label."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value == -1:
            return None
        if 0 <= value < len(names):
            return names[value]
    return value


def _load(place: Path | HubData) -> Any:
    datasets = _datasets()
    if not isinstance(place, Path) and Path(place.name).exists():
        raise DataError(
            f"{place}: here lies {place.name}, which datasets would read instead of the hub; give the path "
            "of what lies here, or go to another folder",
            code="local-and-hub",
        )
    try:
        if isinstance(place, Path):
            return datasets.load_from_disk(str(place))
        return _load_from_hub(place)
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise DataError(
            f"{place}: cannot be read by datasets ({reason or type(error).__name__})",
            code="dataset-unreadable",
        ) from error


@lru_cache(1)  # The hub is asked for each part.
def _load_from_hub(place: HubData) -> Any:
    return _datasets().load_dataset(place.name, place.config, revision=place.revision)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "these data need datasets, which is not installed: pip install 'centra[datasets]'",
            code="extra-missing",
            extra="datasets",
        ) from error
    datasets.disable_progress_bars()
    return datasets
