"""Plots as SVG elements for a page, whose style gives them their colours in light, dark and print.

Each says in words what it shows, for who does not see it. Lengths are in pixels.
"""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from centra.html.page import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["bars", "curves", "histogram", "matrix"]

_WIDTH = 680
_SERIES = 4
"""So many looks there are; a fifth series has the first one's again."""
_BAR, _BETWEEN = 14, 10
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 34, 48
_LINE = 18
_DIGIT = 0.56
"""How wide a digit is, as a share of the size of its font."""
_SMALLEST, _USUAL = 8, 12
"""Sizes of fonts."""
_NAMES = 200
"""Of bars and matrices."""
_LONGEST = 28
"""Of a name that is shown, in Latin letters; a Chinese one is as wide as two."""


def bars(
    title: str, names: Sequence[str], series: Mapping[str, Sequence[float]], *, unit: str = ""
) -> ET.Element:
    """Bars that lie, for each name one of each series: how often labels occur in each split.

    Args:
        title: what is shown.
        names: of the groups of bars.
        series: a number, from 0, for each name.
        unit: behind the numbers.
    """
    group = _BAR * max(len(series), 1) + _BETWEEN
    height = _TOP + group * len(names) + 12
    drawing, root = _with_legend(title, height, [*series])
    largest = max((value for values in series.values() for value in values), default=0) or 1
    room = _WIDTH - _NAMES - 90
    for place, name in enumerate(names):
        top = _TOP + place * group
        middle = top + _BAR * len(series) / 2 + 4
        _text(root, _NAMES - 8, middle, name, anchor="end")
        for number, values in enumerate(series.values()):
            y, length = top + number * _BAR, room * values[place] / largest
            look = {"class": f"fill-{number % _SERIES + 1}"}
            bar = _rect(root, (_NAMES, y, max(length, 0.5), _BAR - 2), look)
            ET.SubElement(bar, "title").text = printable(f"{name}: {values[place]:,g}{unit}")
            shown = f"{_number(values[place])}{unit}"
            _text(root, _NAMES + length + 6, y + 10, shown, look="muted")
    return drawing


def histogram(
    title: str,
    edges: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    x_name: str,
    y_name: str = "rows",
    mark: tuple[float, str] | None = None,
) -> ET.Element:
    """Columns side by side: how many rows have which length.

    Args:
        title: what is shown.
        edges: where each column begins, and where the last one ends; they rise.
        series: a number, from 0, for each column.
        x_name, y_name: of the axes.
        mark: where to draw a line across, and what it says: a limit.
    """
    drawing, root = _with_legend(title, 280, [*series])
    largest = max((value for values in series.values() for value in values), default=0) or 1
    right = max(edges[-1], mark[0] * 1.05 if mark else edges[-1])
    frame = _Frame(x=(edges[0], right), y=(0.0, float(largest)), height=280)
    frame.draw(root, x_name, y_name)
    for number, values in enumerate(series.values()):
        for place, value in enumerate(values):
            left, end = frame.across(edges[place]), frame.across(edges[place + 1])
            width = (end - left) / len(series)
            top = frame.up(value)
            box = (left + number * width, top, max(width - 1, 0.5), frame.up(0) - top)
            bar = _rect(root, box, {"class": f"fill-{number % _SERIES + 1}"})
            between = f"{edges[place]:g} to {edges[place + 1]:g}: {value:,g}"
            ET.SubElement(bar, "title").text = between
    if mark:
        x = frame.across(mark[0])
        _path(root, f"M{x:.1f} {frame.up(largest):.1f}V{frame.up(0):.1f}", "mark")
        _text(root, x - 4, frame.up(largest) + 10, mark[1], anchor="end")
    return drawing


def curves(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_name: str,
    y_name: str,
    x: tuple[float, float] = (0.0, 1.0),
    y: tuple[float, float] = (0.0, 1.0),
    diagonal: bool = False,
    dots: bool = False,
) -> ET.Element:
    """Curves through points.

    Args:
        title: what is shown.
        series: points ``(x, y)`` in the order of x.
        x_name, y_name: of the axes.
        x, y: their first and last value.
        diagonal: also draw where both are equal.
        dots: also mark the points.
    """
    drawing, root = _with_legend(title, 320, [*series])
    frame = _Frame(x=x, y=y, height=320)
    frame.draw(root, x_name, y_name)
    if diagonal:
        low, high = max(x[0], y[0]), min(x[1], y[1])
        places = [(frame.across(value), frame.up(value)) for value in (low, high)]
        _path(root, "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places), "mark")
    for number, points in enumerate(series.values()):
        kept = [point for point in points if all(map(math.isfinite, point))]
        places = [(frame.across(a), frame.up(b)) for a, b in kept]
        if places:
            line = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
            _path(root, line, f"curve stroke-{number % _SERIES + 1}")
        for (a, b), (left, top) in zip(kept, places, strict=True) if dots else ():
            at = {"cx": f"{left:.1f}", "cy": f"{top:.1f}", "r": "4"}
            dot = ET.SubElement(root, "circle", at | {"class": f"fill-{number % _SERIES + 1}"})
            ET.SubElement(dot, "title").text = f"{a:.4g}: {b:.4g}"
    return drawing


def matrix(
    title: str, names: Sequence[str], counts: Sequence[Sequence[int]], *, rows: str, columns: str
) -> ET.Element:
    """A table of counts in which more is darker, by the share of its row.

    What is off the diagonal has another colour, and is seen however rare it is.

    Args:
        title: what is shown.
        names: of the rows and of the columns.
        counts: ``(rows, columns)``.
        rows, columns: what they are: ``wanted``, ``answered``.
    """
    side = min(44, max(16, (_WIDTH - _NAMES) // max(len(names), 1)))
    above = 30 + min(max((_columns(_short(name)) for name in names), default=0), _LONGEST) * 5.2
    width = max(_WIDTH, _NAMES + side * len(names) + 110)
    root = _drawing(title, above + side * len(names) + 16, width)
    _text(root, _NAMES - 8, above - 8, f"{rows} ↓  {columns} →", anchor="end", look="muted")
    for place, name in enumerate(names):
        middle = place * side + side / 2 + 4
        _text(root, _NAMES - 8, above + middle, name, anchor="end")
        label = _text(root, 0, 0, name)
        label.set("transform", f"translate({_NAMES + middle:.0f} {above - 6:.0f}) rotate(-45)")
    for row, values in enumerate(counts):
        total = sum(values) or 1
        for column, count in enumerate(values):
            box = (_NAMES + column * side, above + row * side, side, side)
            share = count / total
            # Never so dark that the ink upon it cannot be read.
            dark = 0.5 * share if row == column else 0.12 + 0.43 * math.sqrt(share)
            look = {"class": "cell" if row == column else "cell wrong"}
            cell = _rect(root, box, look | {"fill-opacity": f"{dark if count else 0:.3f}"})
            what = f"{rows} {names[row]}, {columns} {names[column]}: {count:,}"
            ET.SubElement(cell, "title").text = printable(what)
            size = min(_USUAL, int((side - 2) / (_DIGIT * len(f"{count:,}"))), side * 5 // 8)
            if count and size >= _SMALLEST:
                text = _text(root, box[0] + side / 2, box[1] + side / 2 + size / 3, f"{count:,}")
                text.set("text-anchor", "middle")
                text.set("font-size", f"{size}")
    return root


class _Frame:
    """The plane of a plot with two axes."""

    def __init__(self, *, x: tuple[float, float], y: tuple[float, float], height: int) -> None:
        self.x, self.y = ((low, high if high > low else low + 1.0) for low, high in (x, y))
        self.bottom = height - _BOTTOM

    def across(self, value: float) -> float:
        low, high = self.x
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def up(self, value: float) -> float:
        low, high = self.y
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return self.bottom - share * (self.bottom - _TOP)

    def draw(self, root: ET.Element, x_name: str, y_name: str) -> None:
        """Draw both axes with their values and names."""
        for value in _ticks(*self.y):
            y = self.up(value)
            _path(root, f"M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}", "grid")
            _text(root, _LEFT - 6, y + 4, _number(value), anchor="end", look="muted")
        for value in _ticks(*self.x):
            x = self.across(value)
            _path(root, f"M{x:.1f} {self.bottom}v4", "axis")
            _text(root, x, self.bottom + 18, _number(value), anchor="middle", look="muted")
        _path(root, f"M{_LEFT} {self.bottom}H{_WIDTH - _RIGHT}", "axis")
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        _text(root, middle, self.bottom + 38, x_name, anchor="middle")
        label = _text(root, 0, 0, y_name, anchor="middle")
        label.set("transform", f"translate(14 {(self.bottom + _TOP) / 2:.0f}) rotate(-90)")


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two, five or so."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _drawing(title: str, height: float, width: float = _WIDTH) -> ET.Element:
    size = {"width": f"{width:.0f}", "height": f"{height:.0f}"}
    box = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "role": "img", "font-size": "12"}
    root = ET.Element("svg", size | box)
    ET.SubElement(root, "title").text = printable(title)
    return root


def _with_legend(title: str, height: float, names: Sequence[str]) -> tuple[ET.Element, ET.Element]:
    """A drawing that says which look is which series, where there are several, and the plot in it."""
    places: list[tuple[float, float]] = []
    x, y = float(_LEFT), 8.0
    for name in names if len(names) > 1 else ():
        room = 34 + 7 * _columns(_short(name))
        if places and x + room > _WIDTH:
            x, y = float(_LEFT), y + _LINE
        places.append((x, y))
        x += room
    root = _drawing(title, height + y - 8)
    for number, (name, (left, top)) in enumerate(zip(names, places, strict=False)):
        _rect(root, (left, top, 12, 12), {"class": f"fill-{number % _SERIES + 1}"})
        _text(root, left + 18, top + 10, name)
    return root, ET.SubElement(root, "g", {"transform": f"translate(0 {y - 8:.0f})"})


def _text(
    root: ET.Element, x: float, y: float, text: str, *, anchor: str = "start", look: str = ""
) -> ET.Element:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    element = ET.SubElement(root, "text", place | ({"class": look} if look else {}))
    element.text = printable(_short(text))
    return element


def _rect(
    root: ET.Element, box: tuple[float, float, float, float], look: dict[str, str]
) -> ET.Element:
    sizes = zip(("x", "y", "width", "height"), box, strict=True)
    return ET.SubElement(root, "rect", {name: f"{size:.1f}" for name, size in sizes} | look)


def _path(root: ET.Element, d: str, look: str) -> None:
    ET.SubElement(root, "path", {"d": d, "class": look})


def _short(text: str) -> str:
    if _columns(text) <= _LONGEST:
        return text
    kept = text[: _LONGEST - 1]
    while _columns(kept) > _LONGEST - 1:
        kept = kept[:-1]
    return f"{kept}…"


def _columns(text: str) -> int:
    """How wide a text is, in Latin letters."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
