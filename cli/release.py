"""``centra release``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.errors import VerificationError
from centra.html.page import check_name
from cli.completion import complete_channel, complete_release, complete_task, complete_version
from cli.context import json_option, open_registry, registry_for
from cli.exporting import export_release
from cli.listing import page_bounds, page_options, rows_of_page, time_options
from cli.options import COLUMNS, data_options
from cli.output import (
    account_line,
    metrics_text,
    print_json,
    print_table,
    remark,
    reporting,
)
from cli.report_text import print_slices
from cli.streams import mark_done

if TYPE_CHECKING:
    from centra.data.source import DataSource


@click.group()
def release() -> None:
    """Published releases. RELEASE is a number, a channel, or the start of a digest."""


release.add_command(export_release)


@release.command("list")
@click.option(
    "--channel", shell_complete=complete_channel, help="Only the one that this channel serves."
)
@click.option(
    "--task",
    shell_complete=complete_version,
    metavar="NAME[@VERSION]",
    help="Only those that hold this task or version.",
)
@time_options("published")
@page_options
@json_option("registry.documents.releases:ReleaseSummary", "array")
def list_command(*, limit: int | None, page: int, as_json: bool, **filters: Any) -> None:
    """List releases, the newest first."""
    from registry import releases

    rows = releases.list(open_registry(), **filters, **page_bounds(limit, page))
    rows = rows_of_page(rows, limit, page)
    if as_json:
        from registry.documents.releases import ReleaseSummary

        print_json([ReleaseSummary.of(row) for row in rows])
    else:
        print_table(
            ("release", "digest", "tasks", "channels", "made", "by"),
            [
                (
                    r.number,
                    r.digest[:12],
                    r.tasks,
                    ", ".join(r.channels) or "-",
                    f"{r.created_at:%Y-%m-%d %H:%M}",
                    r.created_by,
                )
                for r in rows
            ],
        )


@release.command()
@click.argument("reference", metavar="RELEASE", shell_complete=complete_release)
@json_option("registry.documents.releases:Release")
def show(reference: str, *, as_json: bool) -> None:
    """Show a release: its tasks, layers, taps and branches."""
    from cli.picture import picture
    from registry import graphs, releases, signatures

    registry = open_registry()
    detail = releases.show(registry, reference)
    signed = signatures.of_release(registry, detail.digest)
    if as_json:
        from registry.documents.releases import Release

        print_json(Release.of(detail, signed))
        return
    click.echo(
        f"release {detail.number}  sha256:{detail.digest}\n"
        f"made {detail.created_at:%Y-%m-%d %H:%M} UTC by {detail.created_by}"
        + (f", served by {', '.join(detail.channels)}" if detail.channels else "")
        + f"\n{account_line(detail.layers)}"
    )
    for row in signed:
        key = f"key sha256:{row.key}" if row.key else "a key that the log does not know"
        by = f", by {row.signed_by}" if row.signed_by else ""
        click.echo(f"has a signature with {key}{by}; check it: centra release verify --key")
    click.echo(f"\n{picture(graphs.build(detail))}")


@release.command()
@click.argument("reference", metavar="RELEASE", shell_complete=complete_release)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE.svg", help="Draw it into this file."
)
@json_option("registry.documents.graphs:Graph")
def graph(reference: str, *, output: Path | None, as_json: bool) -> None:
    """Draw a release: its frozen layers, the taps, each task's own layers and head."""
    from cli.drawing import write_svg
    from cli.picture import picture
    from registry import graphs, releases

    drawn = graphs.build(releases.show(open_registry(), reference))
    if output is not None:
        write_svg(drawn, output)
        mark_done()
    if as_json:
        from registry.documents.graphs import Graph

        print_json(Graph.of(drawn))
    elif output is not None:
        click.echo(str(output))
    else:
        click.echo(f"release {drawn.release}  {account_line(drawn.layers)}\n\n{picture(drawn)}")


@release.command()
@click.argument("before", metavar="RELEASE", shell_complete=complete_release)
@click.argument("after", metavar="RELEASE", shell_complete=complete_release)
@json_option("registry.documents.differences:ReleaseDifference")
def diff(before: str, after: str, *, as_json: bool) -> None:
    """Compare two releases: what changed in which task, and the proof for all others.

    A task that did not change has the same module, and reads the same frozen layers, digest by
    digest. Where one does not, that is shown, and the command ends with exit code 6.
    """
    from cli.differences import print_release_difference
    from registry import releases

    difference = releases.diff(open_registry(), before, after)
    if as_json:
        from registry.documents.differences import ReleaseDifference

        print_json(ReleaseDifference.of(difference))
    else:
        print_release_difference(difference)
    broken = [same.task for same in difference.unchanged if not same.identical]
    if broken:
        raise VerificationError(
            f"{', '.join(broken)}: the module is the same, but what it reads is not; do not serve "
            f"release {difference.after} before you know why"
        )


@release.command()
@click.argument(
    "reference",
    metavar="RELEASE|FOLDER|STORE#CHANNEL|oci://ADDRESS",
    shell_complete=complete_release,
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PUBLIC_KEY.pem",
    help="Require a signature by this key, or another that is given.",
)
@json_option("registry.documents.releases:Verification")
def verify(reference: str, *, keys: tuple[Path, ...], as_json: bool) -> None:
    """Hash every file of a release and run every task on its probe."""
    from registry import releases

    with reporting() as progress:
        verification = releases.verify(registry_for(reference), reference, progress, keys=keys)
    if as_json:
        from registry.documents.releases import Verification

        print_json(Verification.of(verification))
        return
    if verification.signed_by:
        click.echo(f"signed with key sha256:{verification.signed_by}")
    click.echo(f"{verification.files} files, {verification.size:,} bytes: every digest is right")
    for task, largest in verification.parity.items():
        of_what = " in float32, though it is served in int8" if task in verification.int8 else ""
        click.echo(f"  {task:<24} parity, logits differ by at most {largest:.1e}{of_what}")


@release.command()
@click.argument("reference", metavar="RELEASE", shell_complete=complete_release)
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PRIVATE_KEY.pem",
    help="An elliptic-curve key: P-256, P-384 or P-521.",
)
@click.option("--passphrase-env", metavar="VARIABLE", help="What holds the key's passphrase.")
@json_option("registry.documents.signatures:SignatureChange")
def sign(reference: str, *, key: Path, passphrase_env: str | None, as_json: bool) -> None:
    """Sign a release with an offline key.

    The signature lies in the store and in pulled folders, where 'model_signing verify key' of the
    package model-signing accepts it too.
    """
    from registry import signatures

    if passphrase_env is not None and passphrase_env not in os.environ:
        raise click.BadParameter(
            f"the variable {passphrase_env} is not set", param_hint="--passphrase-env"
        )
    passphrase = os.environ[passphrase_env] if passphrase_env else None
    signed = signatures.sign(open_registry(), reference, key, passphrase=passphrase)
    mark_done()
    remark("signed" if signed.changed else "nothing to do: signed with this key already")
    if as_json:
        from registry.documents.signatures import SignatureChange

        print_json(SignatureChange.of(signed))
    else:
        click.echo(f"release {signed.release}  key sha256:{signed.key}")


@release.command()
@click.argument(
    "reference", metavar="RELEASE|STORE#CHANNEL|oci://ADDRESS", shell_complete=complete_release
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The folder.")
@json_option("registry.documents.releases:PulledRelease")
def pull(reference: str, output: Path, *, as_json: bool) -> None:
    """Write a release as a folder; files that are there already are not moved again."""
    from registry import releases

    with reporting() as progress:
        digest, written = releases.pull(registry_for(reference), reference, output, progress)
    mark_done()
    remark(f"{written:,} bytes written, sha256:{digest}")
    if as_json:
        from registry.documents.releases import PulledRelease

        print_json(PulledRelease.of(output, digest, written))
    else:
        click.echo(str(output))


@release.command()
@click.argument("reference", metavar="RELEASE", shell_complete=complete_release)
@click.option(
    "--task", shell_complete=complete_task, required=True, help="A task that the release holds."
)
@data_options(
    required=True,
    help="A file of JSONL, JSON, CSV, TSV, Parquet or CoNLL, or a folder with dev.* of one; or one that "
    "datasets saved; also s3://BUCKET/KEY, and hf://ORG/NAME on the hub.",
)
@click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write a report: labels, errors, calibration, thresholds, and the worst errors.",
)
@click.option(
    "--slice",
    "slices",
    type=COLUMNS,
    default=(),
    metavar="COLUMN,...",
    help="Report also by the values of columns of the data's rows, or by length.",
)
@json_option(
    "registry.documents.evaluations:EvaluationChange",
    report="registry.documents.reports:EvaluationReport",
    slice="registry.documents.reports:EvaluationReport",
)
def evaluate(
    reference: str,
    *,
    task: str,
    data: DataSource,
    page: Path | None,
    slices: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure a task of the merged release on data, and record the metrics.

    Gates can demand metrics that were measured so, on data with the same fingerprint. With --report
    or --slice, --json prints the report too.
    """
    from registry import evaluations

    if page is not None:
        check_name(page)
    report = None
    with reporting() as progress:
        measure = (open_registry(), reference, task, data, progress)
        if page is not None or slices:
            evaluated = evaluations.report(*measure, slices=slices, remark=remark)
            row, new, report = evaluated.row, evaluated.new, evaluated.report
        else:
            row, new = evaluations.evaluate(*measure, remark=remark)
    mark_done()
    remark("recorded" if new else "nothing to do: recorded already")
    if page is not None:
        from cli.report_page import report_page

        report_page(evaluated).write(page)
        remark(f"report: {page}")
    if as_json and report is not None:
        from registry.documents.reports import EvaluationReport

        print_json(EvaluationReport.made(evaluated))
    elif as_json:
        from registry.documents.evaluations import EvaluationChange

        print_json(EvaluationChange.made(row, changed=new))
    else:
        click.echo(
            f"{row.task}@{row.version} in release {row.release}"
            f"{'' if row.precision == 'fp32' else f' ({row.precision})'}: "
            f"{metrics_text(row.metrics)}\n"
            f"on {row.examples} examples, data sha256:{row.data}\n"
            f"with {row.engine or 'an engine that was not recorded'}"
        )
        if report is not None:
            print_slices(report)
