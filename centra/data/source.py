"""Where labelled data are, and how to read what they do not say themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from centra.errors import UsageError
from centra.store import open_path

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from centra.store.s3.path import S3Path

__all__ = ["DATA_FIELDS", "DataSource", "HubData", "Part", "check_encoding", "named_fields"]

DATA_FIELDS = ("text", "text_pair", "tokens", "label", "labels")
"""What makes an example; each is a column of this name, where no other is named."""
Part = Literal["train", "dev", "test"]
"""What is learnt from, what it is measured on meanwhile, and what at the end; the last is optional."""
_HUB = re.compile(
    r"hf://(?:datasets/)?(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
)


@dataclass(frozen=True, kw_only=True)
class HubData:
    """A data set of the Hugging Face hub: ``hf://ORG/NAME[/CONFIG][@REVISION]``."""

    name: str
    config: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, address: str) -> HubData:
        """Read an address.

        Raises:
            UsageError: it is none.
        """
        match = _HUB.fullmatch(address)
        if match is None:
            raise UsageError(
                f"{address!r} is no data set of the hub; expected hf://ORG/NAME, and perhaps "
                "/CONFIG and @REVISION",
                code="bad-hub-address",
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        """The address."""
        config = f"/{self.config}" if self.config else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.name}{config}{revision}"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Labelled data of any format; see :func:`centra.data.rows.read_part`."""

    place: Path | S3Path | HubData
    """A folder, a file, a folder that ``datasets`` saved, or a data set of the hub."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """By field (:data:`DATA_FIELDS`) the column's name, where it is another; in CoNLL and tables without
    a header its number, from 1."""
    encoding: str | None = None
    """Of text; None for UTF-8, or what a byte-order mark says."""
    splits: Mapping[Part, str] = field(default_factory=dict)
    """By part the split, or the file's name without suffix, where it is another."""

    @classmethod
    def of(
        cls,
        data: str | os.PathLike[str] | S3Path | DataSource,
        *,
        columns: Iterable[str] = (),
        encoding: str | None = None,
        splits: Iterable[str] = (),
    ) -> DataSource:
        """A source by its address, and what people say of it.

        Args:
            data: a path, ``s3://BUCKET/KEY`` or ``hf://ORG/NAME``; what is a source stays one.
            columns: ``FIELD=NAME`` each.
            encoding: as Python names it.
            splits: ``PART=NAME`` each, or ``NAME`` for the one that is measured on.

        Raises:
            UsageError: an address, a field, a part or an encoding that there is none of.
        """
        if isinstance(data, DataSource):
            return data
        if isinstance(data, str) and data.startswith("hf://"):
            place: Path | S3Path | HubData = HubData.parse(data)
        else:
            place = open_path(data)
        parts: dict[Part, str] = {}
        for text in splits:
            part, equals, name = text.partition("=")
            if not equals:
                part, name = "dev", text
            if part not in ("train", "dev") or not name:
                raise UsageError(
                    f"split {text!r}: expected train=NAME or dev=NAME, for example dev=validation",
                    code="bad-split",
                )
            parts["train" if part == "train" else "dev"] = name
        if encoding is not None:
            check_encoding(encoding)
        return cls(place=place, columns=named_fields(columns), encoding=encoding, splits=parts)

    def __str__(self) -> str:
        """Its address."""
        return str(self.place)

    def beside(self, folder: Path) -> DataSource:
        """The same, a relative path counting from a folder."""
        return replace(self, place=folder / self.place) if isinstance(self.place, Path) else self

    def absolute(self) -> DataSource:
        """The same, wherever the current folder is."""
        if isinstance(self.place, Path):
            return replace(self, place=self.place.absolute())
        return self


def named_fields(columns: Iterable[str], known: Iterable[str] = DATA_FIELDS) -> dict[str, str]:
    """The columns of fields, as people name them.

    Args:
        columns: ``FIELD=NAME`` each, for example ``text=utterance``.
        known: the fields that there are.

    Raises:
        UsageError: it has another form, an unknown field, or a field twice.
    """
    found: dict[str, str] = {}
    for text in columns:
        name, equals, column = text.partition("=")
        if not equals or not column:
            raise UsageError(
                f"column {text!r}: expected FIELD=NAME, for example text=utterance",
                code="bad-column",
            )
        if name not in (fields := [*known]):
            raise UsageError(
                f"{name!r} is no field; expected one of {', '.join(fields)}", code="unknown-field"
            )
        if name in found:
            raise UsageError(f"the column of {name!r} is named twice", code="bad-column")
        found[name] = column
    return found


def check_encoding(name: str) -> None:
    """Refuse a name of no encoding of text.

    Raises:
        UsageError: it is one.
    """
    try:
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"{name!r} is no encoding of text; expected for example utf-8, latin-1, cp1252, gb18030",
            code="unknown-encoding",
        ) from error
