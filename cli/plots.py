"""Score against layers: what the trials of a task came to, in a terminal and as PNG."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

from centra.errors import StoreNotWritableError, UsageError
from centra.system.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from centra.training.trials import Trial

__all__ = ["draw", "require_matplotlib", "save", "write_png"]

_HEIGHT = 18
"""Lines, with title and axes."""
_SIGNS = {"teacher": "o", "teacher, pruned": "-", "student": "x", "chosen": "#"}
_COLOURS = {"teacher": "#0072B2", "teacher, pruned": "#999999", "student": "#D55E00"}
"""That stay apart for the colour-blind and in print."""


def draw(task: str, trials: Sequence[Trial], chosen: Trial) -> str:
    """A plot in plain characters, as wide as the terminal up to 100.

    Args:
        task: its name.
        trials: at least one.
        chosen: the one among them to mark.
    """
    import plotext

    series = _series(trials) | {"chosen": [chosen]}
    figure = plotext.figure.clear()
    figure.theme("colorless")
    figure.plot_size(min(shutil.get_terminal_size().columns, 100), _HEIGHT)
    for name, points in series.items():
        signal = figure.signal(
            [trial.task_layers for trial in points],
            [trial.score for trial in points],
            marker=_SIGNS[name],
        )
        figure.draw(signal)
    figure.title(f"{task}: {chosen.metric.replace('_', ' ')}, in points")
    signs = "   ".join(f"{_SIGNS[name]} {name}" for name in series)
    figure.label(f"layers of its own      {signs}", "x")
    figure.ruler("x").ticks(sorted({trial.task_layers for trial in trials}))
    text: str = figure.build().string(colorless=True)
    return text


def write_png(path: Path, task: str, trials: Sequence[Trial], chosen: Trial) -> None:
    """Write a plot as a picture; no display is needed.

    Args:
        path: the file.
        task: its name.
        trials: at least one.
        chosen: the one among them to mark.

    Raises:
        StoreNotWritableError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in _series(trials).items():
        layers = [trial.task_layers for trial in points]
        scores = [trial.score for trial in points]
        axes.scatter(layers, scores, s=22, color=_COLOURS[name], label=name)
        if name != "teacher, pruned":
            best = {
                number: max(s for n, s in zip(layers, scores, strict=True) if n == number)
                for number in sorted(set(layers))
            }
            axes.plot([*best], [*best.values()], color=_COLOURS[name], linewidth=1)
    axes.scatter(
        [chosen.task_layers],
        [chosen.score],
        s=160,
        facecolors="none",
        edgecolors="black",
        linewidths=1.5,
        label="chosen",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.set(
        title=task,
        xlabel="layers of its own",
        ylabel=f"{chosen.metric.replace('_', ' ')} on the dev set, in points",
    )
    axes.legend()
    save(figure, path)


def require_matplotlib(path: Path | None) -> None:
    """Refuse a picture that could not be drawn, before anything is done for it.

    Args:
        path: its file; None where there is to be none.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if path is not None and find_spec("matplotlib") is None:
        raise UsageError("--plot needs an extra: pip install 'centra[train]'")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        StoreNotWritableError: the file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
    except OSError as error:
        raise StoreNotWritableError(f"cannot write {path}: {error.strerror}") from error


def _series(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """The trials by what they are."""
    series: dict[str, list[Trial]] = {}
    for trial in trials:
        name = "teacher, pruned" if trial.pruned else trial.role
        series.setdefault(name, []).append(trial)
    return series
