"""Texts for a teacher to answer: rows with and without labels, lines of a file, files of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.data.content import read_content
from centra.data.encodings import decode
from centra.data.formats import DATA_SUFFIXES
from centra.data.inputs import Example, Input, parse_example, tagged_by_character
from centra.data.rows import PartRows, has_part, read_file, read_part
from centra.data.source import DataSource, HubData
from centra.errors import DataError
from centra.formats.documents import canonical_json, sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.store.s3.path import S3Path

__all__ = ["Text", "Texts", "read_texts"]

_DEV = "dev.jsonl"
_EXPECTED = (
    "expected a folder with train.jsonl, a folder of .txt files of one text each, a .txt file of one "
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


def read_texts(data: Path | S3Path | DataSource) -> Texts:
    """Read inputs of which none need have a label.

    Args:
        data: what :func:`centra.data.rows.read_part` reads, of which the part to measure on may be
            missing; or a folder of ``.txt`` files, each one text; or a ``.txt`` file, each line one
            text; or a file of rows. Without a dev set one text in ten becomes it, by the digest of its
            text, so that it is the same each time, and equal texts are not torn apart.

    Raises:
        DataError: there is none of these, or a row cannot be read; file and line are named.
        StoreError: a bucket cannot be reached.
    """
    source = DataSource.of(data)
    remarks: list[str] = []
    dev = None
    if has_part(source, "train"):
        part = read_part(source, "train", labelled=False)
        found = _texts_of(part)
        remarks += part.remarks
        if has_part(source, "dev"):
            part = read_part(source, "dev", labelled=False)
            dev = _texts_of(part)
            remarks += part.remarks
            if not dev:
                raise DataError(f"{part.name}: holds no texts")
    elif _is_file(source.place):
        found, remarks = _file_texts(source)
    else:
        found, remarks = _folder_texts(source)
    if not found:
        raise DataError(f"{source}: holds no texts; {_EXPECTED}")
    _check_alike([*found, *(dev or ())])
    if dev is None:
        found, dev = _split(found)
        if not found:
            raise DataError(f"{source}: holds one text; training and measuring take at least two")
        remarks.append(
            f"no {_DEV}: {len(dev)} of {len(found) + len(dev)} texts are set aside to measure on"
        )
    return Texts(train=found, dev=dev, remarks=tuple(remarks))


def _is_file(place: Path | S3Path | HubData) -> bool:
    if isinstance(place, HubData):
        return False
    if isinstance(place, Path):
        return not place.is_dir()
    return Path(place.name).suffix in (".txt", *DATA_SUFFIXES) and not any(
        "/" not in name for name in place.names()
    )


def _file_texts(source: DataSource) -> tuple[list[Text], list[str]]:
    """The texts of a file, of a ``.txt`` file each line, and what to say of them."""
    file = source.place
    assert not isinstance(file, HubData)
    suffix = Path(file.name).suffix
    if suffix != ".txt":
        if suffix not in DATA_SUFFIXES:
            raise DataError(f"{file}: {_EXPECTED}")
        part = PartRows.of([read_file(file, source, labelled=False)])
        return _texts_of(part), [*part.remarks]
    lines = enumerate(_decoded(file, source).splitlines(), 1)
    found = [
        Text(input=Input.parse(line.strip(), f"{file}:{number}"), where=f"{file}:{number}")
        for number, line in lines
        if line.strip()
    ]
    return found, []


def _folder_texts(source: DataSource) -> tuple[list[Text], list[str]]:
    """The texts of a folder of ``.txt`` files, and what to say of them."""
    folder = source.place
    assert not isinstance(folder, HubData)
    if isinstance(folder, Path):
        names = sorted(path.name for path in folder.iterdir())
    else:
        names = sorted(name for name in folder.names() if "/" not in name)
    files = [name for name in names if name.endswith(".txt")]
    if not files:
        shown = ", ".join(names[:_SHOWN]) or "nothing"
        raise DataError(f"{folder}: holds {shown}; {_EXPECTED}")
    decoded = {f"{folder}/{name}": _decoded(folder / name, source) for name in files}
    found = [
        Text(input=Input.parse(text.strip(), where), where=where)
        for where, text in decoded.items()
        if text.strip()
    ]
    empty = len(decoded) - len(found)
    remark = f"{empty} of {len(decoded)} files hold no text, and are left out"
    return found, [remark] if empty else []


def _texts_of(part: PartRows) -> list[Text]:
    characters = tagged_by_character(fields for _, fields in part.rows)
    return [_row(fields, where, characters) for where, fields in part.rows]


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


def _decoded(file: Path | S3Path, source: DataSource) -> str:
    return decode(read_content(file), str(file), source.encoding)


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
