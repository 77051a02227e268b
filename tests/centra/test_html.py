"""Pages and their plots: that they stand alone, show what they are given, and can be read in print and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from centra.errors import UsageError
from centra.html import plots
from centra.html.page import Page

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

HOSTILE = "<script>alert(1)</script> </style> & \"'"


@pytest.fixture(scope="module")
def page() -> Page:
    page = Page(HOSTILE, "a page")
    page.heading("Facts")
    page.facts([("rows", "3"), (HOSTILE, HOSTILE)])
    page.table(("label", "count", "text"), [(HOSTILE, 1234, "a\x00b\ud800"), ("b", None, "c")])
    page.heading("Plots")
    names = [HOSTILE, "a label with a name that is much too long to be shown"]
    page.figure(plots.bars("labels", names, {"train": [3, 0], "dev": [1, 1]}), HOSTILE)
    page.figure(plots.bars("nothing", [], {}))
    edges = [0, 10, 20]
    page.figure(
        plots.histogram("lengths", edges, {"train": [3, 1]}, x_name="tokens", mark=(32, "maximum"))
    )
    lines = {"all": [(0.1, 0.2), (0.5, float("nan")), (0.9, 1.0)], "none": []}
    page.figure(plots.curves("curve", lines, x_name="x", y_name="y", diagonal=True, dots=True))
    page.figure(plots.matrix("m", names, [[3, 1], [0, 0]], rows="wanted", columns="answered"))
    return page


def test_a_page_holds_no_markup_of_its_data_and_nothing_to_fetch(page: Page) -> None:
    text = str(page)
    assert "<script" not in text
    assert "http://" not in text.replace("http-equiv", "")
    assert "https://" not in text
    text.encode()  # a lone surrogate has become a sign


def test_a_page_is_written_with_a_name_of_its_kind_alone(page: Page, tmp_path: Path) -> None:
    page.write(tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text() == str(page)
    with pytest.raises(UsageError, match=r"ends in \.html"):
        page.write(tmp_path / "page.pdf")


def test_a_browser_shows_it_in_light_dark_and_print(
    page: Page, tmp_path: Path, browser: Browser
) -> None:
    page.write(tmp_path / "page.html")
    said: list[str] = []
    shown = browser.new_page(viewport={"width": 400, "height": 800})
    shown.on("console", lambda message: said.append(message.text))
    shown.on("request", lambda request: said.append(request.url))
    shown.goto((tmp_path / "page.html").as_uri())
    assert said == [(tmp_path / "page.html").as_uri()]  # nothing else is fetched, no complaint
    assert shown.title() == HOSTILE
    assert shown.locator("h1").inner_text() == HOSTILE
    assert shown.locator("td.number").first.inner_text() == "1,234"
    assert shown.get_by_role("img").count() == 5
    assert shown.evaluate("document.documentElement.scrollWidth") <= 400
    colours = []
    for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
        shown.emulate_media(media=media, color_scheme=scheme)
        colours.append(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] == colours[2] != colours[1]
    shown.close()
