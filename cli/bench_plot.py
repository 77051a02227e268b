"""Latency and throughput of a release by batch, as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.plots import save

if TYPE_CHECKING:
    from pathlib import Path

    from centra.bench import Report, SizeReport

__all__ = ["write_png"]

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
