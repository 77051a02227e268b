"""A merged model as an SVG drawing: self-contained, without scripts, on a ground of its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from centra.errors import StoreNotWritableError, UsageError
from centra.kinds import KINDS
from centra.system.files import make_folder, replacing
from cli import shapes
from cli.output import account_line
from cli.picture import branch_label
from cli.shapes import GROUND, INK, LINE, MUTED, SANS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry.graphs import Branch, Graph, Trunk

__all__ = ["svg", "write_svg"]

_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

_SHEET = {"fill": GROUND, "stroke": "#d0d7de"}
_FROZEN = {"fill": "#dbeafe", "stroke": "#3b82f6"}
_EMBEDDINGS = {"fill": "#e0e7ff", "stroke": "#6366f1"}
_UNUSED = {"fill": "#f6f8fa", "stroke": "#d0d7de", "stroke-dasharray": "4 3"}
_OWN = {"fill": "#fef3c7", "stroke": "#d97706"}
_SAVED = {"fill": "#eaeef2", "stroke": "none"}

# Lengths in pixels.
_MARGIN = 32
_HEADER = 128
_TITLE = 54
_LEGEND = 46
_LAYER_WIDTH, _LAYER_HEIGHT, _GAP = 176, 34, 14
_ROW = 38
"""From one branch to the next at the same tap."""
_BUS = 30
"""From the trunk to where the branches of a tap part."""
_BOX, _STEP = 24, 34
"""A layer of a task's own, and from one to the next."""
_HEAD_HEIGHT = 28
_BETWEEN = 64
_BAR = 420


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Where the parts of one trunk lie, from its own corner."""

    trunk: Trunk
    tops: list[int]
    """The upper edge of the embeddings and of each layer."""
    head: int
    """The left edge of all heads."""
    head_width: int
    height: int

    @property
    def width(self) -> int:
        return max(
            self.head + self.head_width, shapes.text_width(self.trunk.backbone, 16, bold=True)
        )


def svg(graph: Graph) -> str:
    """Draw a release.

    The frozen layers run down, those that the release does not need faded; each branch leaves at
    its tap, through the task's own layers to its head.
    """
    panels = [_lay_out(trunk) for trunk in graph.trunks]
    account = account_line(graph.layers)
    inner = max(
        sum(panel.width for panel in panels) + _BETWEEN * (len(panels) - 1),
        shapes.text_width(account, 14),
        _legend_width(),
        _BAR,
    )
    width = inner + 2 * _MARGIN
    body = max(panel.height for panel in panels)
    height = _HEADER + body + _LEGEND + 2 * _MARGIN
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": str(width),
            "height": str(height),
            "viewBox": f"0 0 {width} {height}",
            "role": "img",
            "font-family": SANS,
            "fill": INK,
        },
    )
    ET.SubElement(root, "title").text = f"Release {graph.release}"
    ET.SubElement(root, "desc").text = f"{graph.digest}: {account}"
    shapes.rect(root, (0.5, 0.5, width - 1, height - 1), _SHEET, rx=10)
    _draw_header(shapes.group(root, _MARGIN, _MARGIN), graph, account)
    x = _MARGIN
    for panel in panels:
        _draw_panel(shapes.group(root, x, _MARGIN + _HEADER), panel)
        x += panel.width + _BETWEEN
    _draw_legend(shapes.group(root, _MARGIN, height - _MARGIN - 14))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def write_svg(graph: Graph, path: Path) -> None:
    """Write the drawing to a file, in one step.

    Raises:
        UsageError: the file's name ends in something else than ``.svg``.
        StoreNotWritableError: the folder cannot be written.
    """
    if path.suffix.lower() != ".svg":
        raise UsageError(f"{path}: the drawing is SVG; give it a name that ends in .svg")
    try:
        make_folder(path.parent)
        with replacing(path) as temporary:
            temporary.write_text(svg(graph), encoding="utf-8")
    except OSError as error:
        raise StoreNotWritableError(f"cannot write {path}: {error.strerror}") from error


def _lay_out(trunk: Trunk) -> _Panel:
    tops, y = [], _TITLE
    for layer in range(len(trunk.layers) + 1):
        tops.append(y)
        rows = sum(branch.tap_layer == layer for branch in trunk.branches)
        y += max(_LAYER_HEIGHT, rows * _ROW) + _GAP
    depth = max(branch.depth for branch in trunk.branches)
    names = max(shapes.text_width(f"{b.task}@{b.version}", 14, bold=True) for b in trunk.branches)
    labels = max(shapes.text_width(branch_label(b), 12) for b in trunk.branches)
    return _Panel(
        trunk=trunk,
        tops=tops,
        head=_LAYER_WIDTH + 2 * _BUS + depth * _STEP,
        head_width=names + labels + 46,
        height=y - _GAP,
    )


def _draw_header(group: ET.Element, graph: Graph, account: str) -> None:
    shapes.text(group, 0, 20, f"Release {graph.release}", size=24, weight="600")
    shapes.text(group, 0, 44, f"sha256:{graph.digest}", size=12, family=_MONO, fill=MUTED)
    shapes.text(group, 0, 78, account, size=14)
    layers, x = graph.layers, 0.0
    for count, look in (
        (layers.shared, _FROZEN),
        (layers.task, _OWN),
        (layers.single_task - layers.total, _SAVED),
    ):
        share = _BAR * count / max(layers.single_task, layers.total, 1)
        if share > 0:
            shapes.rect(group, (x, 90, share, 12), look)
            x += share


def _draw_panel(group: ET.Element, panel: _Panel) -> None:
    trunk, tops = panel.trunk, panel.tops
    shapes.text(group, 0, 16, trunk.backbone, size=16, weight="600")
    held = sum(layer.digest is not None for layer in trunk.layers)
    shapes.text(
        *(group, 0, 36, f"{trunk.digest[:12]} · {held} of {len(trunk.layers)} layers"),
        size=12,
        fill=MUTED,
    )
    middle = _LAYER_WIDTH / 2
    for layer, (top, below) in enumerate(pairwise(tops), 1):
        faded = layer > held
        shapes.path(group, f"M{middle} {top + _LAYER_HEIGHT}V{below}", faded=faded)
    _draw_layer(group, tops[0], "embeddings", trunk.embeddings, _EMBEDDINGS)
    for frozen, top in zip(trunk.layers, tops[1:], strict=True):
        look = _UNUSED if frozen.digest is None else _FROZEN
        _draw_layer(group, top, f"layer {frozen.number}", frozen.digest, look)
    for layer, top in enumerate(tops):
        branches = [branch for branch in trunk.branches if branch.tap_layer == layer]
        for row, branch in enumerate(branches):
            _draw_branch(group, panel, branch, top + _LAYER_HEIGHT / 2, row * _ROW)
        if branches:
            shapes.circle(group, _LAYER_WIDTH, top + _LAYER_HEIGHT / 2)


def _draw_layer(
    group: ET.Element, top: int, name: str, digest: str | None, look: dict[str, str]
) -> None:
    shapes.rect(group, (0, top, _LAYER_WIDTH, _LAYER_HEIGHT), look, rx=7, title=digest)
    ink = INK if digest else LINE
    y = top + _LAYER_HEIGHT / 2 + 5
    shapes.text(group, 12, y, name, size=13, weight="600", fill=ink)
    end = digest[:8] if digest else "not needed"
    shapes.text(
        *(group, _LAYER_WIDTH - 12, y, end),
        size=11,
        family=_MONO if digest else SANS,
        fill=MUTED if digest else LINE,
        anchor="end",
    )


def _draw_branch(group: ET.Element, panel: _Panel, branch: Branch, tap: float, down: int) -> None:
    """Draw one branch, so many pixels below its tap."""
    y, part = tap + down, _LAYER_WIDTH + _BUS
    line = f"M{_LAYER_WIDTH} {y}"
    if down:
        line = f"M{part - 8} {tap}q8 0 8 8V{y - 8}q0 8 8 8"
    shapes.path(group, f"{line}H{panel.head}")
    for number in range(branch.depth):
        x = part + _BUS / 2 + number * _STEP
        shapes.rect(group, (x, y - _BOX / 2, _BOX, _BOX), _OWN, rx=5)
        shapes.text(
            group, x + _BOX / 2, y + 4, str(number + 1), size=11, fill="#92400e", anchor="middle"
        )
    color = KINDS[branch.kind].color if branch.kind in KINDS else LINE
    top = y - _HEAD_HEIGHT / 2
    reads = f"reads layer {branch.tap_layer}, adds {branch.depth}"
    title = (
        f"{branch.task}@{branch.version}: {branch_label(branch)}, {reads}\nsha256:{branch.digest}"
    )
    shapes.rect(group, (panel.head, top, panel.head_width, _HEAD_HEIGHT), _SHEET, rx=6, title=title)
    shapes.rect(group, (panel.head, top, 6, _HEAD_HEIGHT), {"fill": color}, rx=3)
    text = shapes.text(group, panel.head + 16, y + 5, branch.task, size=14, weight="600")
    version = ET.SubElement(text, "tspan", {"font-weight": "400", "fill": MUTED})
    version.text = f"@{branch.version}"
    end = panel.head + panel.head_width - 12
    shapes.text(group, end, y + 4, branch_label(branch), size=12, fill=color, anchor="end")


def _legend() -> Iterator[tuple[int, str, dict[str, str]]]:
    """Where each sign of the legend stands, what it says, and its look."""
    x = 0
    for text, look in (
        ("frozen layer, computed once for all tasks", _FROZEN),
        ("layer of the backbone that no task needs", _UNUSED),
        ("a task's own layer", _OWN),
    ):
        yield x, text, look
        x += shapes.text_width(text, 12) + 44


def _legend_width() -> int:
    x, text, _ = [*_legend()][-1]
    return x + shapes.text_width(text, 12) + 22


def _draw_legend(group: ET.Element) -> None:
    for x, text, look in _legend():
        shapes.rect(group, (x, 0, 14, 14), look, rx=3)
        shapes.text(group, x + 22, 12, text, size=12, fill=MUTED)
