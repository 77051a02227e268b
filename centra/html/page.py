"""A page, from its title down: headings, paragraphs, facts, tables and figures, one after the other."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from centra.errors import StoreNotWritableError, UsageError
from centra.system.files import make_folder, replacing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

__all__ = ["Page", "check_name", "printable"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_UNPRINTABLE = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TALL = 25
"""A table of more rows is scrolled by itself."""
_SUFFIXES = (".html", ".htm")


class Page:
    """An HTML page that is written from top to bottom; whatever it is given is shown as it is."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        """Begin a page.

        Args:
            title: its heading, and its window's.
            subtitle: a line below.
        """
        self._root = ET.Element("html", {"lang": "en"})
        head = ET.SubElement(self._root, "head")
        ET.SubElement(head, "meta", {"charset": "utf-8"})
        ET.SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
        viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
        ET.SubElement(head, "meta", viewport)
        ET.SubElement(head, "title").text = printable(title)
        style = files("centra.html").joinpath("page.css").read_text(encoding="utf-8")
        ET.SubElement(head, "style").text = style
        self._body = ET.SubElement(self._root, "body")
        self._add("h1", title)
        if subtitle:
            self._add("p", subtitle, {"class": "muted"})
        self._contents = ET.SubElement(self._body, "nav")
        self._headings = 0

    def heading(self, text: str, level: int = 2) -> None:
        """Begin a part; those of level 2 are listed at the top."""
        if level > 2:
            self._add(f"h{level}", text)
            return
        self._headings += 1
        name = f"part-{self._headings}"
        self._add("h2", text, {"id": name})
        link = ET.SubElement(self._contents, "a", {"href": f"#{name}"})
        link.text, link.tail = printable(text), " "

    def text(self, text: str, *, bad: bool = False) -> None:
        """A paragraph; one that is bad is marked so."""
        self._add("p", text, {"class": "bad"} if bad else {})

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """What is what: names with their values."""
        group = ET.SubElement(self._body, "dl")
        for name, value in facts:
            ET.SubElement(group, "dt").text = printable(name)
            ET.SubElement(group, "dd", {"dir": "auto"}).text = printable(value)

    def table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        texts: Collection[int] = (),
    ) -> None:
        """A table; numbers stand right, and have four digits after the point where they are floats.

        Args:
            header: the names of the columns.
            rows: a cell for each; None for an empty one.
            texts: the places of columns with long texts, which may be broken.
        """
        rows = [*rows]
        numbers = {
            place
            for place in range(len(header))
            if all(isinstance(row[place], int | float | None) for row in rows)
        }
        tall = " tall" if len(rows) > _TALL else ""
        # So that it can be scrolled by the keyboard, too.
        frame = ET.SubElement(self._body, "div", {"class": f"scroll{tall}", "tabindex": "0"})
        table = ET.SubElement(frame, "table")
        line = ET.SubElement(ET.SubElement(table, "thead"), "tr")
        for place, name in enumerate(header):
            look = {"class": "number"} if place in numbers else {}
            cell = ET.SubElement(line, "th", look | {"dir": "auto"})
            cell.text = printable(name)
        body = ET.SubElement(table, "tbody")
        for row in rows:
            line = ET.SubElement(body, "tr")
            for place, value in enumerate(row):
                kind = "number" if place in numbers else "text" if place in texts else ""
                look = {"class": kind} if kind else {}
                cell = ET.SubElement(
                    line, "td", look if kind == "number" else look | {"dir": "auto"}
                )
                cell.text = printable(_shown(value))

    def figure(self, drawing: ET.Element, caption: str = "") -> None:
        """A plot of :mod:`centra.html.plots`, with a line below."""
        figure = ET.SubElement(self._body, "figure")
        figure.append(drawing)
        if caption:
            ET.SubElement(figure, "figcaption").text = printable(caption)

    def __str__(self) -> str:
        """The whole page."""
        return (
            "<!DOCTYPE html>\n" + ET.tostring(self._root, encoding="unicode", method="html") + "\n"
        )

    def write(self, path: Path) -> None:
        """Write the page into a file, in one step.

        Raises:
            UsageError: the file's name ends in something else than ``.html``.
            StoreNotWritableError: the folder cannot be written.
        """
        check_name(path)
        try:
            make_folder(path.parent)
            with replacing(path) as temporary:
                temporary.write_text(str(self), encoding="utf-8")
        except OSError as error:
            raise StoreNotWritableError(f"cannot write {path}: {error.strerror}") from error

    def _add(self, tag: str, text: str, look: dict[str, str] | None = None) -> None:
        ET.SubElement(self._body, tag, look or {}).text = printable(text)


def check_name(path: Path) -> None:
    """Refuse a file that is no page by its name, before anything is done for it.

    Raises:
        UsageError: its name ends in something else than ``.html``.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path}: the page is HTML; give it a name that ends in .html")


def printable(text: str) -> str:
    """A text as a page can hold it: with a sign in the place of what is no character."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.4f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
