"""``centra bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.bench_load import load_options, ms
from cli.completion import complete_release, complete_task
from cli.context import json_option, release_or_default
from cli.options import NUMBERS, device_options
from cli.output import print_json, print_table, reporting
from cli.plots import require_matplotlib

if TYPE_CHECKING:
    from centra.bench import Report, SizeReport
    from centra.formats.manifest import ReleaseManifest
    from centra.store import BlobReader


@click.command()
@click.argument("reference", metavar="[RELEASE]", required=False, shell_complete=complete_release)
@click.option(
    "--batch",
    "batches",
    type=NUMBERS,
    default="1,8,32",
    show_default=True,
    help="Numbers of inputs.",
)
@click.option(
    "--length",
    "lengths",
    type=NUMBERS,
    help="Numbers of tokens of each input; default 16,32,128, as far as the backbone takes them.",
)
@click.option(
    "--task",
    "tasks",
    shell_complete=complete_task,
    multiple=True,
    help="Only these; default all on single texts. May be given several times.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Processors to use; default all.")
@click.option(
    "--engine",
    type=click.Choice(["onnx", "torch"]),
    help="Default torch on a GPU, else onnx where onnxruntime is installed.",
)
@device_options
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How often all sizes take their turn.",
)
@click.option("--singles", is_flag=True, help="Compare with a full model per task.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Also draw latency and throughput by batch; of a server, latency by percentile.",
)
@load_options
@json_option("registry.documents.bench:Bench", url="registry.documents.load:BenchLoad")
def bench(
    reference: str | None,
    *,
    batches: tuple[int, ...],
    lengths: tuple[int, ...] | None,
    tasks: tuple[str, ...],
    threads: int | None,
    engine: str | None,
    device: str | None,
    dtype: str | None,
    rounds: int,
    singles: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Time a release on this machine, by batch and length, and part by part; or a server.

    RELEASE is a number, channel or digest; a release folder; or STORE#CHANNEL; default what the
    channel production serves, or else latest. Its share of the floor says how near it is to what
    this machine can do at best.

    With --url a server is asked at a rate, and every answer is timed from the moment when its request
    was due: what a slow server makes its users wait counts.
    """
    from centra.bench import bench as run

    require_matplotlib(plot)
    manifest, reader = _find(reference)
    with reporting() as progress:
        report = run(
            manifest,
            reader,
            tasks=tasks or None,
            batches=batches,
            lengths=lengths,
            rounds=rounds,
            engine=engine,
            threads=threads,
            device=device,
            dtype=dtype,
            singles=singles,
            progress=progress,
        )
    if as_json:
        from registry.documents.bench import Bench

        print_json(Bench.of(report))
    else:
        _print(report)
    if plot is not None:
        from cli.bench_plot import write_png

        write_png(plot, report)


def _find(reference: str | None) -> tuple[ReleaseManifest, BlobReader]:
    from centra.releases.find import find_release
    from registry import releases

    registry, reference = release_or_default(reference)
    if registry is None:
        location = find_release(reference)
        return location.manifest, location.reader
    return releases.show(registry, reference).manifest, registry.store


def _print(report: Report) -> None:
    threads = "torch's threads" if report.threads is None else _counted(report.threads, "thread")
    if report.dtype is not None:
        threads = f"{report.dtype} on {report.device}, {threads}"
    click.echo(
        f"release {report.digest[:12]}, {report.engine} engine, {threads}; "
        f"{_counted(len(report.tasks), 'task')}: {', '.join(report.tasks)}"
    )
    if report.floor is not None:
        click.echo(
            f"at best this machine does {report.floor.flops / 1e9:,.0f} Gflop/s "
            f"and reads {report.floor.bandwidth / 1e9:,.1f} GB/s"
        )
    click.echo()
    singles = report.sizes[0].singles_median is not None
    headers = ["batch", "length", "median ms", "p95 ms", "inputs/s", "answers/s", "of the floor"]
    rows = [
        [
            str(size.batch),
            str(size.length),
            ms(size.median),
            ms(size.p95),
            f"{size.inputs_per_second:,.0f}",
            f"{size.answers_per_second:,.0f}",
            "-" if size.floor_share is None else f"{size.floor_share:.0%}",
            *_compared(size),
        ]
        for size in report.sizes
    ]
    print_table([*headers, *(("singles ms", "faster") if singles else ())], rows)
    if singles:
        click.echo("singles: a full model per task, one after the other, by the same engine")
    parts = report.parts
    total = parts.shared + sum(task.median for task in parts.tasks)
    click.echo(f"\npart by part, batch {parts.batch}, length {parts.length}")
    rows = [["(shared)", "", "", ms(parts.shared), f"{parts.shared / total:.0%}"]]
    rows += [
        [
            task.task,
            str(task.tap_layer),
            str(task.depth),
            ms(task.median),
            f"{task.median / total:.0%}",
        ]
        for task in parts.tasks
    ]
    print_table(("task", "tap", "depth", "median ms", "share"), rows)


def _compared(size: SizeReport) -> tuple[str, ...]:
    if size.singles_median is None or size.singles_ratio is None:
        return ()
    return ms(size.singles_median), f"{size.singles_ratio:.2f} times"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
