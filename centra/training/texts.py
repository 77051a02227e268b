"""Texts for a teacher to answer: rows with and without labels, lines of a file, files of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.data.inputs import Example, Input, parse_example, tagged_by_character
from centra.errors import DataError
from centra.formats.documents import canonical_json, sha256
from centra.formats.jsonl import read_data, read_jsonl
from centra.system.files import decode_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.store.s3.path import S3Path

__all__ = ["Text", "Texts", "read_texts"]

_TRAIN, _DEV = "train.jsonl", "dev.jsonl"
_EXPECTED = (
    f"expected a folder with {_TRAIN}, a folder of .txt files of one text each, a .txt file of one "
    "text a line, or a .jsonl file"
)
_SHARE, _MOST = 10, 2000
"""One text in so many is for the dev set, where there is none, up to so many in all."""
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Text:
    """One input, which may have a label."""

    input: Input
    where: str
    """File and line, for errors."""
    example: Example | None = None
    """The input with its label."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What is learnt from, and what it is measured on."""

    train: Sequence[Text]
    dev: Sequence[Text]
    remarks: tuple[str, ...] = ()
    """What was taken for what."""


def read_texts(data: Path | S3Path) -> Texts:
    """Read inputs of which none need have a label.

    Args:
        data: a folder with ``train.jsonl`` and perhaps ``dev.jsonl``; or a folder of ``.txt`` files,
            each one text; or a ``.txt`` file, each line one text; or a file of rows as ``train.jsonl``
            has them. Without a dev set one text in ten becomes it, by the digest of its text, so that
            it is the same each time, and equal texts are not torn apart.

    Raises:
        DataError: there is none of these, or a row cannot be read; file and line are named.
        StoreError: a bucket cannot be reached.
    """
    remarks: list[str] = []
    names, read = _folder(data)
    if names is None:
        found = _rows(str(data), Path(data.name).suffix, read(""))
    elif _TRAIN in names:
        found = _rows(f"{data}/{_TRAIN}", ".jsonl", read(_TRAIN))
    else:
        files = [name for name in sorted(names) if name.endswith(".txt")]
        if not files:
            shown = ", ".join(sorted(names)[:_SHOWN]) or "nothing"
            raise DataError(f"{data}: holds {shown}; {_EXPECTED}")
        decoded = {f"{data}/{name}": _decoded(f"{data}/{name}", read(name)) for name in files}
        found = [
            Text(input=Input.parse(text.strip(), where), where=where)
            for where, text in decoded.items()
            if text.strip()
        ]
        if empty := len(decoded) - len(found):
            remarks.append(f"{empty} of {len(decoded)} files hold no text, and are left out")
    if not found:
        raise DataError(f"{data}: holds no texts; {_EXPECTED}")
    dev = None
    if names is not None and _TRAIN in names and _DEV in names:
        dev = _rows(f"{data}/{_DEV}", ".jsonl", read(_DEV))
        if not dev:
            raise DataError(f"{data}/{_DEV}: holds no texts")
    _check_alike([*found, *(dev or ())])
    if dev is None:
        found, dev = _split(found)
        if not found:
            raise DataError(f"{data}: holds one text; training and measuring take at least two")
        remarks.append(
            f"no {_DEV}: {len(dev)} of {len(found) + len(dev)} texts are set aside to measure on"
        )
    return Texts(train=found, dev=dev, remarks=tuple(remarks))


def _folder(data: Path | S3Path) -> tuple[set[str] | None, Callable[[str], bytes]]:
    """The names of a folder's files, None of a file; and what reads one of them."""
    if isinstance(data, Path):
        names = {path.name for path in data.iterdir()} if data.is_dir() else None
        return names, lambda name: read_data(data / name if name else data)

    def read(name: str) -> bytes:
        file = data / name if name else data
        content = file.read_bytes()
        if content is None:
            raise DataError(f"{file}: no such file")
        return content

    inside = {name for name in data.names() if "/" not in name}
    is_file = not inside and Path(data.name).suffix in (".txt", ".jsonl")
    return (None if is_file else inside), read


def _rows(file: str, suffix: str, data: bytes) -> list[Text]:
    if suffix == ".txt":
        lines = enumerate(_decoded(file, data).splitlines(), 1)
        return [
            Text(input=Input.parse(line.strip(), f"{file}:{number}"), where=f"{file}:{number}")
            for number, line in lines
            if line.strip()
        ]
    if suffix != ".jsonl":
        raise DataError(f"{file}: {_EXPECTED}")
    rows = [*read_jsonl(Path(file), data)]
    characters = tagged_by_character(fields for _, fields in rows)
    return [_row(fields, where, characters) for where, fields in rows]


def _row(fields: object, where: str, characters: bool | None) -> Text:  # noqa: FBT001 - private
    """One row; without ``label`` and ``labels``, or where they are null, it is a text alone."""
    labelled = isinstance(fields, Mapping) and any(
        fields.get(name) is not None for name in ("label", "labels")
    )
    if labelled:
        example = parse_example(fields, where, characters=characters)
        return Text(input=example.input, where=where, example=example)
    match fields:
        case {"tokens": [*tokens], "text": str() as text}:
            item = Input.of_tokens(tokens, where, text, characters=characters)
        case {"tokens": [*tokens], **rest} if not rest.keys() & {"text", "text_pair"}:
            item = Input.of_tokens(tokens, where, characters=characters)
        case _:
            item = Input.parse(fields, where)
    return Text(input=item, where=where)


def _decoded(file: str, data: bytes) -> str:
    try:
        return decode_text(data)
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error})") from error


def _check_alike(texts: Sequence[Text]) -> None:
    first = texts[0]
    for text in texts:
        if text.input.form != first.input.form:
            raise DataError(
                f"{text.where}: a {text.input.form} input; {first.where} is {first.input.form}, and a "
                "task takes one kind"
            )


def _split(texts: Sequence[Text]) -> tuple[list[Text], list[Text]]:
    """Those to learn from, and those to measure on."""
    digests = [sha256(canonical_json([text.input.text, text.input.text_pair])) for text in texts]
    order = sorted({*digests})
    aside = {*order[: min(-(-len(order) // _SHARE), _MOST)]}
    parts: tuple[list[Text], list[Text]] = ([], [])
    for text, digest in zip(texts, digests, strict=True):
        parts[digest in aside].append(text)
    return parts
