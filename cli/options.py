"""Types of options: lengths of time, moments, the feature cache, several numbers in one; devices.

``7d`` or ``12h`` is a length; as a moment it means so long ago. Moments are in UTC unless they say
otherwise, as all times that Centra prints.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.formats.sizes import parse_size
from cli.completion import complete_path

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from centra.training.features import MachineCache

__all__ = [
    "COLUMNS",
    "DURATION",
    "FEATURE_CACHE",
    "FOLDER",
    "LABELS",
    "NUMBERS",
    "TIME",
    "change_options",
    "column_option",
    "data_options",
    "device_options",
    "duration_text",
    "encoding_option",
    "template_option",
    "words_option",
]

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_NUMBERS = re.compile(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=365 * 1900)
"""Further back no calendar goes."""


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions
    """A length of time, as :class:`datetime.timedelta`."""

    name = "duration"

    def convert(
        self,
        value: str | timedelta,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> timedelta:
        """Read ``30m``."""
        if isinstance(value, timedelta):
            return value
        duration = _parse_duration(value)
        if duration is None:
            self.fail(
                f"{value!r} is no duration: expected for example 0s, 30m, 12h, 7d", param, ctx
            )
        return duration


class _Time(click.ParamType):  # type: ignore[type-arg]
    """A moment, as :class:`datetime.datetime` in UTC; or how long ago, as a timedelta.

    So long ago by which clock, only the database knows.
    """

    name = "time"

    def convert(
        self,
        value: str | datetime | timedelta,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime | timedelta:
        """Read ``2026-11-01``, ``2026-11-01T12:00``, ``2026-11-01T12:00+02:00`` or ``7d``."""
        if isinstance(value, datetime | timedelta):
            return value
        ago = _parse_duration(value)
        if ago is not None and ago <= _LONGEST:
            return ago
        try:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time: expected for example 2026-11-01, 2026-11-01T12:00 "
                "(UTC unless it says otherwise), or 7d for so long ago",
                param,
                ctx,
            )


class _Labels(click.ParamType):  # type: ignore[type-arg]
    """Labels in their order: ``A,B,C``, or a file of them, as a tuple."""

    name = "labels"

    def convert(
        self,
        value: str | tuple[str, ...],
        _param: click.Parameter | None,
        _ctx: click.Context | None,
    ) -> tuple[str, ...]:
        """Read either: what has a comma is no file."""
        from centra.data.labels import check_labels, read_labels

        if isinstance(value, tuple):
            return value
        if "," not in value:
            return read_labels(Path(value))
        labels = tuple(label.strip() for label in value.split(","))
        check_labels(labels, value)
        return labels


class _Place(click.Path):
    """A path of this machine, or ``s3://BUCKET/KEY`` as :class:`centra.store.s3.path.S3Path`."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Read either."""
        from centra.store import open_path

        place = open_path(value)
        return super().convert(place, param, ctx) if isinstance(place, Path) else place


class _FeatureCache(click.ParamType):  # type: ignore[type-arg]
    """Where frozen hidden states are kept, as :class:`centra.training.features.MachineCache`."""

    name = "size"

    def convert(
        self,
        value: str | MachineCache,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> MachineCache | None:
        """Read ``20GB``, ``auto`` or ``off``."""
        from centra.training.features import MachineCache

        if isinstance(value, MachineCache):
            return value
        if value == "off":
            return None
        if value == "auto":
            return MachineCache()
        budget = parse_size(value)
        if budget is None:
            self.fail(
                f"{value!r} is no size: expected for example 20GB, '500 MB', auto, or off",
                param,
                ctx,
            )
        return MachineCache(budget)


class _Columns(click.ParamType):  # type: ignore[type-arg]
    """Names of columns, with commas between them, each once."""

    name = "columns"

    def convert(
        self,
        value: str | tuple[str, ...],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, ...]:
        """Read ``length,source``."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
        if not all(names):
            self.fail(f"{value!r} names no column between two commas", param, ctx)
        return names


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers from 1, as a tuple."""

    name = "numbers"

    def convert(
        self,
        value: str | tuple[int, ...],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, ...]:
        """Read ``1,8,32``."""
        if isinstance(value, tuple):
            return value
        if not _NUMBERS.fullmatch(value):
            self.fail(
                f"{value!r} are no numbers: expected whole numbers from 1, for example 1,8,32",
                param,
                ctx,
            )
        return tuple(int(number) for number in value.split(","))


DURATION = _Duration()
"""``0s``, ``30m``, ``12h``, ``7d``, ``2w``: a :class:`datetime.timedelta`."""
FEATURE_CACHE = _FeatureCache()
"""``20GB``, ``500 MB``, ``auto``: a :class:`centra.training.features.FeatureCache`; ``off``: None."""
LABELS = _Labels()
FOLDER = _Place(path_type=Path, file_okay=False)
"""A folder of this machine or in a bucket."""
COLUMNS = _Columns()
NUMBERS = _Numbers()
"""``1,8,32``: a tuple of whole numbers from 1."""
TIME = _Time()
"""A date, or a date and time: a :class:`datetime.datetime` in UTC; how long ago: a timedelta."""


words_option = click.option(
    "--words",
    type=click.Choice(["unicode", "characters", "tokenizer", "spaces"]),
    help="How a tagging task's texts are cut into words: Unicode's words; characters (default for "
    "data that are tagged so); those that the tokenizer does not continue (default for "
    "checkpoints); or what spaces separate.",
)
"""See :func:`centra.data.words.segment`."""


column_option = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=NAME",
    help="The column of a field (text, text_pair, tokens; of examples label, labels), where it has "
    "another name, e.g. text=utterance; in CoNLL and tables without a header its number, from 1.",
)
encoding_option = click.option(
    "--encoding",
    metavar="NAME",
    help="Of text files, e.g. latin-1; default UTF-8, or what a byte-order mark says.",
)
_DATA_HELP = (
    "Folder with train.* and dev.* as JSONL, JSON, CSV, TSV, Parquet or CoNLL; or one that datasets "
    "saved; also s3://BUCKET/KEY, and hf://ORG/NAME on the hub."
)


def template_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a task's texts are put in; see :mod:`centra.formats.template`."""
    return click.option(
        "--template",
        multiple=True,
        callback=_one_or_two,
        metavar="TEXT",
        help="What each text is put in, with {text} for it, in training and in every answer, e.g. "
        "'query: {text}'; twice for a pair's first and second text.",
    )(command)


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every change of a channel can be told; see :func:`registry.channels.revisions.already_made`."""
    expect = click.option(
        "--expect-revision",
        "expect",
        type=click.IntRange(min=0),
        metavar="N",
        help="Only while the channel is at this revision, 0 for a new one; safe to repeat.",
    )
    force = click.option(
        "--force", is_flag=True, help="Whatever of others' this undoes; the log shows it."
    )
    return expect(force(command))


def data_options(
    name: str = "--data", **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Labelled data, and how to read them; the command gets ``data``.

    Args:
        name: of the option that says where they are; or, without ``--``, of the argument.
        options: further ones of :func:`click.option` for it. Where it may be given several times,
            ``data`` is what was given, and ``reading`` makes of one its
            :class:`centra.data.source.DataSource`.
    """
    usual: dict[str, Any] = {"help": _DATA_HELP, "metavar": "PATH", **options}
    if name.startswith("--"):
        given = click.option(name, "data", shell_complete=complete_path, **usual)
    else:
        given = click.argument("data", metavar=name, shell_complete=complete_path)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_source(
            *args: Any,
            data: str | tuple[str, ...] | None,
            columns: tuple[str, ...],
            encoding: str | None,
            splits: tuple[str, ...],
            **others: Any,
        ) -> Any:
            from centra.data.source import DataSource

            if not data and (columns or encoding or splits):
                raise click.UsageError(
                    f"--column, --encoding and --split say how {name} is read; give {name}, too"
                )
            reading = partial(DataSource.of, columns=columns, encoding=encoding, splits=splits)
            if isinstance(data, str):
                return command(*args, data=reading(data), **others)
            if data is None:
                return command(*args, data=None, **others)
            return command(*args, data=data, reading=reading, **others)

        for option in (
            click.option(
                "--split",
                "splits",
                multiple=True,
                metavar="[PART=]NAME",
                help="The split, or the file's name, of the part train or dev, where it has another; "
                "NAME alone is the one to measure on.",
            ),
            encoding_option,
            column_option,
            given,
        ):
            with_source = option(with_source)
        return with_source

    return decorate


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where and how exactly the torch engine computes; see :func:`centra.load_release`."""
    dtype = click.option(
        "--dtype",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        help="Of the torch engine; default fp32 on the CPU and bf16 on a GPU.",
    )
    device = click.option(
        "--device",
        metavar="cpu|cuda|cuda:N",
        help="Where to compute; default a GPU that torch sees, else the CPU.",
    )
    return device(dtype(command))


def duration_text(length: timedelta) -> str:
    """A length of time for people, in its largest whole unit: ``3 days``, ``1 hour``."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def _one_or_two(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> str | tuple[str, str]:
    """One template for all texts, or one for each of a pair."""
    from centra.formats.template import PLAIN, parse_templates

    match given or (PLAIN,):
        case [str() as one]:
            templates: str | tuple[str, str] = one
        case [str() as first, str() as second]:
            templates = first, second
        case _:
            raise click.BadParameter(
                f"is given {len(given)} times; expected once, or twice for pairs"
            )
    try:
        parse_templates(templates)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return templates


def _parse_duration(text: str) -> timedelta | None:
    match = _DURATION.fullmatch(text)
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    except OverflowError:
        return None
