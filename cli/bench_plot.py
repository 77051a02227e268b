"""Latency and throughput of a release by batch, and of a server by percentile, as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.plots import save

if TYPE_CHECKING:
    from pathlib import Path

    from centra.bench import Report, SizeReport
    from centra.bench.load import LoadReport

__all__ = ["write_load_png", "write_png"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""One for each length, in turn; they stay apart for the colour-blind."""


def write_png(path: Path, report: Report) -> None:
    """Write two plots as one picture; no display is needed.

    Args:
        path: the file.
        report: what was measured; each length is a line, dashed for single models.

    Raises:
        StoreNotWritableError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, ScalarFormatter

    figure = Figure(figsize=(9.6, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    latency, throughput = figure.subplots(1, 2)
    lines: dict[int, list[SizeReport]] = {}
    for size in sorted(report.sizes, key=lambda size: (size.length, size.batch)):
        lines.setdefault(size.length, []).append(size)
    for number, (length, sizes) in enumerate(lines.items()):
        batches = [size.batch for size in sizes]
        style = {"color": _COLOURS[number % len(_COLOURS)], "marker": "o", "markersize": 4}
        label = f"{length} tokens"
        latency.plot(batches, [1000 * size.median for size in sizes], label=label, **style)
        throughput.plot(batches, [size.answers_per_second for size in sizes], label=label, **style)
        singles = [size.singles_median for size in sizes if size.singles_median is not None]
        if singles:
            style |= {"linestyle": "dashed", "markerfacecolor": "white"}
            latency.plot(batches, [1000 * seconds for seconds in singles], **style)
            answers = [
                size.batch * len(report.tasks) / seconds
                for size, seconds in zip(sizes, singles, strict=True)
            ]
            throughput.plot(batches, answers, **style)
    for axes, title in ((latency, "median latency, ms"), (throughput, "answers per second")):
        axes.set(title=title, xlabel="inputs a batch", xscale="log", yscale="log")
        axes.set_xticks(sorted({size.batch for size in report.sizes}))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
    latency.legend()
    tasks = f"{len(report.tasks)} tasks" if len(report.tasks) > 1 else report.tasks[0]
    compared = "; dashed: a full model per task" if report.sizes[0].singles_median else ""
    figure.suptitle(f"release {report.digest[:12]}, {tasks}, {report.engine} engine{compared}")
    save(figure, path)


def write_load_png(path: Path, report: LoadReport) -> None:
    """Write the latency of a server by percentile as one picture; no display is needed.

    Args:
        path: the file.
        report: what was measured.

    Raises:
        StoreNotWritableError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines = {"from when it was due": report.latency, **report.parts, "sent late": report.lateness}
    for number, (name, found) in enumerate(lines.items()):
        if found is None:
            continue
        # Each nine is as wide as the next: what is rare is what matters.
        points = [(1 / (1 - at / 100), 1000 * seconds) for at, seconds in found.curve if at < 100]
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            label=name,
            color=_COLOURS[number % len(_COLOURS)],
            linewidth=1 if number else 2,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = {1: "0", 2: "50", 10: "90", 100: "99", 1000: "99.9", 10000: "99.99"}
    right = axes.get_xlim()[1]
    shown = {place: name for place, name in ticks.items() if place <= right}
    axes.set_xticks([*shown], [*shown.values()])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(ScalarFormatter())
    rate = "closed loop" if report.rate is None else f"{report.rate:g} requests per second"
    axes.set(
        title=f"{report.url}, {rate}, {report.clients} clients",
        xlabel="percentile",
        ylabel="milliseconds",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)
