"""The report of runtime.py, and its plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tools.common import goal_table, report, table
from benchmarks.tools.findings import (
    ABOVE,
    ADAPTERS,
    EAGER,
    ONNX,
    PEERS,
    PEFT,
    QUICK_SIZES,
    TABLE,
    Findings,
)
from benchmarks.tools.turns import size_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["plot", "text_of"]


def text_of(found: Findings, title: str, settings: list[str], picture: Path | None) -> str:
    """The report as Markdown.

    Args:
        found: what was measured.
        title: its heading.
        settings: how.
        picture: beside it, where one was drawn.
    """
    sizes = [size for size in TABLE if ("S", size) in found.times]
    rows = [
        [
            way,
            *(
                f"{1000 * found.median(way, size):.0f}" if (way, size) in found.times else ""
                for size in sizes
            ),
        ]
        for way in ("S", "M", ONNX, *PEERS.values(), "H")
        if any((way, size) in found.times for size in sizes)
    ]
    body = [
        *goal_table(found.goals),
        "",
        "Milliseconds for a batch, all tasks answered, by inputs × tokens:",
        "",
        *table(("", *map(size_text, sizes)), rows),
        "",
        *(line for text in found.lines for line in (text, "")),
    ]
    if picture:
        body += [f"![times and streaming]({picture.name})"]
    return report(title, "runtime.py", body, settings)


def plot(found: Findings, path: Path) -> None:
    """Times by way, and when the answers of S arrive."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ways = ("S", "M", ONNX, EAGER, ADAPTERS, ABOVE, PEFT)
    for number, size in enumerate(QUICK_SIZES):
        places = [i + 0.38 * number for i in range(len(ways))]
        times = [1000 * found.median(way, size) for way in ways]
        left.barh(places, times, height=0.36, label=size_text(size))
    left.set_yticks([i + 0.19 for i in range(len(ways))], ways)
    left.invert_yaxis()
    left.set_xscale("log")
    left.set_xlabel("milliseconds for all tasks")
    left.legend(title="inputs × tokens")
    shares = [100 * (i + 1) / len(found.arrivals) for i in range(len(found.arrivals))]
    right.step([1000 * t for t in found.arrivals], shares, where="post")
    right.set_xlim(left=0)
    right.set_xlabel("milliseconds, S streamed, 1 × 32")
    right.set_ylabel("% of tasks answered")
    figure.savefig(path, dpi=110)
