"""``centra data``: labelled data before anything is learnt from them."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.data.tags import SCHEMES
from centra.kinds import KINDS
from cli.completion import complete_backbone_or_path
from cli.context import json_option, open_registry
from cli.options import LABELS, data_options
from cli.output import print_json, print_table, remark, reporting
from cli.streams import mark_done, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from centra.data.check import DataCheck
    from centra.data.labelling import Labelling
    from centra.data.source import DataSource
    from centra.data.tags import Scheme
    from centra.progress import Progress
    from centra.tokenization.text_encoder import TextEncoder

_COMMONEST, _RAREST = 20, 10
"""So many labels are shown of many."""
_WIDTH = 60
"""Characters of a label that are shown."""
_PLACES = 5
"""So many rows of a finding are shown."""


@click.group()
def data() -> None:
    """Labelled data: check them, set rows aside to measure on."""


def _label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the labels mean; the command gets a :class:`centra.data.labelling.Labelling`."""

    @wraps(command)
    def with_labelling(
        *args: Any,
        kind: str | None,
        labels: tuple[str, ...],
        tags: Scheme | None,
        **options: Any,
    ) -> Any:
        from centra.data.labelling import Labelling

        return command(*args, labelling=Labelling(kind=kind, labels=labels, tags=tags), **options)

    kind = click.option(
        "--kind",
        type=click.Choice([*KINDS]),
        help="Of the task; default what the labels look like.",
    )
    labels = click.option(
        "--labels",
        type=LABELS,
        default=(),
        metavar="A,B,…|FILE",
        help="All labels in their order, apart by commas, or a file of them: whole numbers in the data "
        "are places in it.",
    )
    tags = click.option(
        "--tags",
        type=click.Choice(SCHEMES),
        help="The scheme of a tagging task's tags; default what they look like.",
    )
    return kind(labels(tags(with_labelling)))


@data.command()
@data_options("DIR|FILE")
@click.option(
    "--backbone",
    shell_complete=complete_backbone_or_path,
    metavar="NAME|DIR",
    help="Whose tokens are counted: of the registry, or the folder of a checkpoint; default words, or "
    "characters of scripts without spaces, and then nothing is known of truncation.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=0),
    default=0,
    help="Tokens kept of each input; default the backbone's maximum.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a page with plots.",
)
@_label_options
@json_option("registry.documents.data:DataCheck")
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    data: DataSource,
    backbone: str | None,
    max_length: int,
    html: Path | None,
    labelling: Labelling,
    as_json: bool,
) -> None:
    """Say what labelled data hold, and what is wrong with them.

    DIR has train.*, dev.* and perhaps test.* as JSONL, JSON, CSV, TSV, Parquet or CoNLL, or is what
    datasets saved; also s3://BUCKET/KEY, and hf://ORG/NAME on the hub. Rows, labels and their balance, lengths and what truncation cuts, repeated texts and those with
    different labels, texts that several splits have, labels that only one knows, rows that cannot be
    used. Changes nothing. Ends with exit code 1 where training would refuse the data.
    """
    from centra.data.check import check_data
    from centra.html.page import check_name

    if html is not None:
        check_name(html)
    with reporting() as progress, _encoder(backbone, max_length, progress) as (encoder, limit):
        found = check_data(
            data,
            encoder=encoder,
            max_length=limit,
            labelling=labelling,
            progress=progress,
        )
    for text in found.remarks:
        remark(text)
    if html is not None:
        from cli.data_page import data_page

        data_page(found, str(data)).write(html)
    if as_json:
        from registry.documents.data import DataCheck

        print_json(DataCheck.of(found))
    else:
        _print(found)
    if found.problems:
        ctx.exit(1)


@data.command()
@data_options("DIR|FILE")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder that gets train.jsonl and dev.jsonl.",
)
@click.option(
    "--dev",
    "share",
    type=float,
    default=0.1,
    show_default=True,
    help="Share of the dev split.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Another one gives another choice."
)
@_label_options
@json_option("registry.documents.data:DataSplit")
def split(
    *,
    data: DataSource,
    output: Path,
    share: float,
    seed: int,
    labelling: Labelling,
    as_json: bool,
) -> None:
    """Set a part of labelled data aside to measure on.

    DIR has train.* and no dev.*, in any format that check reads. Each label, type of entity or tenth of the values has its share of it; rows of the same text stay
    together. The same rows and seed give the same split, in whatever order the rows come.
    """
    from centra.data.split import split_data

    with reporting() as progress:
        found = split_data(
            data,
            output,
            share=share,
            seed=seed,
            labelling=labelling,
            progress=progress,
        )
    mark_done()
    for text in found.remarks:
        remark(text)
    if as_json:
        from registry.documents.data import DataSplit

        print_json(DataSplit.of(found))
        return
    for name, rows in found.rows.items():
        click.echo(f"{getattr(found, name)}: {rows} rows")


def places_text(places: Sequence[str], most: int) -> str:
    """Rows by file and line, for people: ``train.jsonl:3, 17, and 4 more``."""
    shown, last = "", None
    for place in places[:most]:
        file, _, line = place.rpartition(":")
        shown += f", {line.strip()}" if file == last else f"{'; ' if shown else ''}{place}"
        last = file
    left = len(places) - most
    return f"{shown}, and {left:,} more" if left > 0 else shown


@contextmanager
def _encoder(
    backbone: str | None, max_length: int, progress: Progress
) -> Iterator[tuple[TextEncoder | None, int | None]]:
    """A backbone's tokenizer and the tokens it keeps; None without a backbone."""
    if backbone is None:
        if max_length:
            raise click.UsageError("--max-length needs --backbone, whose tokens are counted")
        yield None, None
        return
    from centra.tokenization.text_encoder import TextEncoder
    from centra.training.backbone import Backbone, opened_backbone

    source: Backbone | Path
    if Path(backbone).is_dir():
        source = Path(backbone)
    elif "/" in backbone:
        raise click.UsageError(f"--backbone {backbone}: there is no such folder")
    else:
        from registry import backbones

        registry = open_registry()
        source = Backbone(spec=backbones.spec(registry, backbone), reader=registry.store)
    with opened_backbone(source, progress) as opened:
        most = opened.spec.max_length
        encoder = TextEncoder.of(opened.spec, opened.reader, max_length=max_length)
        yield encoder, min(max_length or most, most)


def _print(found: DataCheck) -> None:
    _print_splits(found)
    if found.labels:
        click.echo()
        _print_labels(found)
    click.echo()
    for finding in found.findings:
        click.echo(f"{finding.level:<8} {finding.code:<18} {printable(finding.text)}")
        if finding.places:
            click.echo(f"{'':<27} {printable(places_text(finding.places, _PLACES))}")
    problems = len(found.problems)
    click.echo(f"problems: {problems}, warnings: {len(found.findings) - problems}")


def _print_splits(found: DataCheck) -> None:
    limit = f" of {found.max_length}" if found.max_length else ""
    headers = ["split", "rows", "encoding", f"{found.unit}{limit}: median", "95 %", "longest"]
    headers += ["cut"] * (found.truncated is not None)
    headers += ["least", "mean", "largest value"] * bool(found.values)
    rows = []
    for split, count in found.rows.items():
        lengths = found.lengths.get(split)
        encodings = {file.encoding or "-" for file in found.files if file.split == split}
        row: list[object] = [split, count, ", ".join(sorted(encodings))]
        row += [lengths.at(share) for share in (0.5, 0.95, 1)] if lengths else ["-"] * 3
        if found.truncated is not None:
            cut = found.truncated.get(split)
            row.append(len(cut.places) if cut else "-")
        if found.values:
            row += [f"{value:g}" for value in found.values.get(split, ())] or ["-"] * 3
        rows.append(row)
    print_table(headers, rows)


def _print_labels(found: DataCheck) -> None:
    splits = [*next(iter(found.labels.values()))]
    totals = {name: sum(counts[name] for counts in found.labels.values()) for name in splits}
    what = "entity" if found.contract and found.contract.kind == "tagging" else "label"
    headers = [what, *(title for name in splits for title in (name, "share"))]
    labels = [*found.labels]
    if len(labels) > _COMMONEST + _RAREST:
        left_out = len(labels) - _COMMONEST - _RAREST
        labels = [*labels[:_COMMONEST], *labels[-_RAREST:]]
        remark(f"{left_out} labels between the commonest and the rarest are not shown")
    print_table(headers, [_label_row(found, label, splits, totals) for label in labels])


def _label_row(
    found: DataCheck, label: str, splits: Sequence[str], totals: dict[str, int]
) -> list[object]:
    row: list[object] = [label if len(label) <= _WIDTH else f"{label[:_WIDTH]}…"]
    for name in splits:
        count = found.labels[label][name]
        row += [count, f"{count / totals[name]:.1%}" if totals[name] else "-"]
    return row
