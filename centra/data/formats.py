"""The formats that files of data are in: each is told by the file's suffix, and by nothing else."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal, cast, get_args

from centra.errors import UsageError

__all__ = ["DATA_SUFFIXES", "SUFFIXES", "DataFormat", "FileFormat", "format_of", "output_name"]

FileFormat = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "conll", "conllu", "txt"]
"""Of files of inputs, which are answered row by row."""
DataFormat = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "conll", "conllu"]
"""Of files of labelled examples."""
_OTHER_NAMES = {"ndjson": "jsonl", "pq": "parquet", "text": "txt"}
SUFFIXES = (
    ".jsonl",
    ".csv",
    ".tsv",
    ".parquet",
    ".arrow",
    ".txt",
    *(f".{name}" for name in _OTHER_NAMES),
)
"""How the names of files of inputs end that are looked for in folders; a .json file may be anything."""
DATA_SUFFIXES: dict[str, DataFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".conll": "conll",
    ".conll03": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".txt": "conll",
    ".conllu": "conllu",
    ".conllup": "conllu",
}
"""The format of files of labelled examples by how their names end."""
_PACKED = ("gz", "bz2", "xz", "zst", "zip")


def format_of(name: str) -> FileFormat:
    """The format of a file of inputs.

    Args:
        name: the file's, or a path or address that ends in it.

    Raises:
        UsageError: its suffix stands for none that is read.
    """
    suffix = PurePath(name).suffix.removeprefix(".").lower()
    suffix = _OTHER_NAMES.get(suffix, suffix)
    if suffix in get_args(FileFormat):
        return cast("FileFormat", suffix)
    what = f"the suffix .{suffix} stands for no format that is read"
    if suffix in _PACKED:
        what = "it is compressed; unpack it first"
    elif not suffix:
        what = "its name has no suffix, which tells the format"
    raise UsageError(
        f"{name}: {what}; expected .jsonl, .json, .csv, .tsv, .parquet, .arrow, .conll, or .txt for "
        "lines of text",
        code="unknown-file-format",
        file=name,
    )


def output_name(name: str) -> str:
    """What the file of answers to a file of inputs is called.

    Args:
        name: of the file of inputs, without its folder.

    Returns:
        The same; ``NAME.jsonl`` where its format has no place for answers: of lines of text, of one JSON
        document and of CoNLL; and ``NAME.parquet`` of Arrow.
    """
    form = format_of(name)
    if form in ("jsonl", "csv", "tsv", "parquet"):
        return name
    return f"{PurePath(name).stem}.{'parquet' if form == 'arrow' else 'jsonl'}"
