"""Shapes and lines of text, as elements of an SVG drawing. Lengths are in pixels."""

from __future__ import annotations

from xml.etree import ElementTree as ET

__all__ = [
    "GROUND",
    "INK",
    "LINE",
    "MUTED",
    "SANS",
    "circle",
    "group",
    "path",
    "rect",
    "text",
    "text_width",
]

SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

INK, MUTED, LINE, GROUND = "#1f2328", "#59636e", "#8c959f", "#ffffff"


def group(parent: ET.Element, x: float, y: float) -> ET.Element:
    """A group, moved so far to the right and down."""
    return ET.SubElement(parent, "g", {"transform": f"translate({x:g} {y:g})"})


def rect(
    parent: ET.Element,
    box: tuple[float, float, float, float],
    look: dict[str, str],
    *,
    rx: int = 0,
    title: str | None = None,
) -> None:
    """A box, ``(x, y, width, height)``, with round corners and a text that shows when pointed at."""
    sizes = zip(("x", "y", "width", "height", "rx"), (*box, rx), strict=True)
    element = ET.SubElement(parent, "rect", {name: f"{size:g}" for name, size in sizes} | look)
    if title:
        ET.SubElement(element, "title").text = title


def circle(parent: ET.Element, x: float, y: float) -> None:
    """A dot where a line leaves."""
    attributes = {"cx": f"{x:g}", "cy": f"{y:g}", "r": "5", "fill": INK, "stroke": GROUND}
    ET.SubElement(parent, "circle", attributes | {"stroke-width": "1.5"})


def path(parent: ET.Element, d: str, *, faded: bool = False) -> None:
    """A line along ``d``, in SVG's own letters."""
    stroke = "#d0d7de" if faded else LINE
    ET.SubElement(parent, "path", {"d": d, "fill": "none", "stroke": stroke, "stroke-width": "1.5"})


def text(
    parent: ET.Element,
    x: float,
    y: float,
    content: str,
    *,
    size: int,
    weight: str = "400",
    family: str = SANS,
    fill: str = INK,
    anchor: str = "start",
) -> ET.Element:
    """A line of text, which can be added to."""
    attributes = {"x": f"{x:g}", "y": f"{y:g}", "font-size": str(size), "fill": fill}
    if weight != "400":
        attributes["font-weight"] = weight
    if family != SANS:
        attributes["font-family"] = family
    if anchor != "start":
        attributes["text-anchor"] = anchor
    element = ET.SubElement(parent, "text", attributes)
    element.text = content
    return element


def text_width(content: str, size: int, *, bold: bool = False) -> int:
    """About how wide a line is; a little too much rather than too little."""
    narrow, wide = set("iljtfr.,:;'|! "), set("mwMW@%")
    units = sum(0.36 if c in narrow else 0.95 if c in wide else 0.6 for c in content)
    return round(units * size * (1.08 if bold else 1.0)) + 2
