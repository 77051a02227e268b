"""The page at /, in a browser: what people see first."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect

from tests.browsers import CHROMIUM
from tests.serving.servers import make_modules, make_store, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page, Route

    from centra.formats.task_module import TaskModule
    from tests import support
    from tests.serving.servers import Server

HOSTILE = ("<img src=x onerror=alert(1)>", "</script>&quot;", "\"'`${1}")
SIZES = {"phone": (360, 740), "desk": (1440, 900)}

at_both_sizes = pytest.mark.parametrize("visit", SIZES, indirect=True)
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")


@pytest.fixture(scope="module")
def server(
    make_module: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server on a release one of whose tasks has labels that are markup."""
    served = make_store(tmp_path_factory.mktemp("page"), tiny_backbone)
    hostile = {"hostile": make_module(labels=HOSTILE, seed=5)}
    served.publish(make_modules(make_module) | hostile, number=7, version="2.1")
    with running(served.source) as running_server:
        yield running_server


class Visit:
    """The page in a window, with what its console said."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.open()

    def open(self) -> None:
        self.page.goto(self.server.url)
        expect(self.page.locator("#model")).to_have_attribute("aria-busy", "false")

    def ask(self, text: str, second: str = "") -> None:
        self.page.get_by_label("Text", exact=True).fill(text)
        self.page.get_by_label("Second text").fill(second)
        self.page.get_by_role("button", name="Ask").click()

    def answer(self, task: str):
        return self.page.locator(f'.branch[data-task="{task}"]')

    def choose(self, *tasks: str) -> None:
        self.page.locator("#choose summary").click()
        self.page.get_by_role("button", name="None").click()
        for task in tasks:
            self.page.locator("#tasks").get_by_label(task, exact=True).check(force=True)

    def check_fits(self) -> None:
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(wider) == 0


@pytest.fixture
def visit(request: pytest.FixtureRequest, browser: Browser, server: Server) -> Iterator[Visit]:
    width, height = SIZES[getattr(request, "param", "phone")]
    context = browser.new_context(viewport={"width": width, "height": height})
    yield Visit(context.new_page(), server)
    context.close()


@at_both_sizes
def test_a_text_is_answered_by_every_task_and_the_way_there_is_marked(visit: Visit) -> None:
    visit.ask("wake me at seven", "yes it is")
    expect(visit.page.locator("#status")).to_contain_text("6 answers in")
    expect(visit.page.locator(".branch.answered.taken")).to_have_count(6)
    expect(visit.answer("stars").locator(".said")).to_have_text(re.compile(r"-?\d+\.\d+"))
    expect(visit.answer("intent").locator(".time")).to_contain_text("ms")
    for fact in ("7", "production"):
        expect(visit.page.locator("#release")).to_contain_text(fact)
    assert visit.page.locator(".stage.taken .layer").all_inner_texts()
    visit.check_fits()
    # An answer opens to the best labels, and says where it comes from.
    visit.answer("intent").locator("summary").click()
    expect(visit.answer("intent").locator("tr")).to_have_count(3)
    expect(visit.answer("intent").locator(".facts")).to_contain_text("reads layer 1, adds 1 layer")
    visit.check_fits()
    assert visit.complaints == []
    if folder := os.environ.get("SCREENSHOTS"):
        size = visit.page.viewport_size
        visit.page.screenshot(path=Path(folder, f"page-{size['width']}.png"), full_page=True)


def test_only_the_layers_that_were_needed_are_marked(visit: Visit) -> None:
    visit.choose("intent")
    visit.page.get_by_label("Text", exact=True).fill("wake me at seven")
    visit.page.keyboard.press("Control+Enter")
    expect(visit.page.locator("#status")).to_contain_text("intent: ")
    expect(visit.page.locator(".branch.answered")).to_have_count(1)
    expect(visit.page.locator(".branch.idle")).to_have_count(5)
    # Embeddings and layer 1 of the two that the release has.
    expect(visit.page.locator(".stage.taken")).to_have_count(2)
    expect(visit.page.locator(".stage.idle")).to_have_count(1)
    expect(visit.page.locator("#saving")).to_contain_text("2 layers computed: 1 shared")


def test_labels_are_text_whatever_they_say(visit: Visit) -> None:
    visit.ask("wake me at seven")
    said = visit.answer("hostile")
    expect(said.locator(".said .label")).to_be_visible()
    said.locator("summary").click()
    assert set(said.locator("th").all_inner_texts()) == set(HOSTILE)
    assert visit.page.locator("img").count() == 0
    assert visit.complaints == []


def test_spans_stand_where_they_are_in_a_text_beyond_the_basic_plane(visit: Visit) -> None:
    visit.choose("slots")
    text = "🎷 fly to new york 🎷 on monday"
    visit.ask(text)
    expect(visit.answer("slots")).to_have_class(re.compile("answered"))
    tagged = visit.answer("slots").locator(".tagged")
    if tagged.count():
        shown = tagged.evaluate(
            "e => { for (const t of e.querySelectorAll('.tag')) t.remove(); return e.textContent }"
        )
        assert shown == text
        answer = httpx.post(
            f"{visit.page.url}v1/predict", json={"inputs": [text], "tasks": ["slots"]}
        ).json()["answers"][0]["tasks"]["slots"]
        marks = [mark.evaluate("e => e.textContent") for mark in tagged.locator("mark").all()]
        assert marks == [span["text"] for span in answer["spans"]]


def test_what_was_cut_says_so(visit: Visit) -> None:
    visit.choose("intent")
    visit.ask("wake me at seven " * 40)
    expect(visit.answer("intent").locator(".cut")).to_contain_text("64 of")
    visit.check_fits()


@at_both_sizes
def test_what_cannot_be_asked_is_explained(visit: Visit) -> None:
    visit.ask("   ")
    expect(visit.page.get_by_role("alert").first).to_contain_text("empty")
    visit.ask("a" * 200_000)
    expect(visit.page.get_by_role("alert").first).to_contain_text("at most 100000 are taken")
    visit.choose("same")
    visit.ask("wake me at seven")
    expect(visit.page.get_by_role("alert").first).to_contain_text("second text")
    visit.check_fits()


def test_what_is_amiss_with_the_channel_shows_with_its_reason(visit: Visit) -> None:
    amiss = {
        "refused": {"release": 8, "reason": "task <b>intent</b>: parity failed"},
        "store_error": {"reason": "no answer from the store", "since": "2026-11-01T12:00:00Z"},
    }
    visit.page.route(
        "**/v1/release", lambda route: route.fulfill(json=route.fetch().json() | amiss)
    )
    visit.open()
    notices = visit.page.locator("#notices")
    expect(notices).to_contain_text("Release 8 was refused, and this one goes on: task <b>intent")
    expect(notices).to_contain_text("this release goes on: no answer from the store")
    visit.check_fits()


def test_a_server_that_is_gone_is_said_to_be(visit: Visit) -> None:
    visit.page.route("**/v1/predict", lambda route: route.abort())
    visit.ask("wake me at seven")
    expect(visit.page.get_by_role("alert").first).to_contain_text("cannot be reached")
    expect(visit.page.locator(".branch.waiting")).to_have_count(0)


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(visit: Visit) -> None:
    def cut(route: Route) -> None:
        body = route.fetch().body()
        route.fulfill(body=body[: body.rindex(b'{"end"') + 3], content_type="application/x-ndjson")

    visit.page.route("**/v1/predict", cut)
    visit.ask("wake me at seven")
    expect(visit.page.get_by_role("alert").first).to_contain_text("broke off")
    expect(visit.page.locator(".branch.answered")).to_have_count(5)


def test_a_bad_pair_keeps_no_single_text_from_its_answers(visit: Visit) -> None:
    visit.ask("wake me at seven", "a" * 200_000)
    expect(visit.page.locator("#status")).to_contain_text("5 answers in")
    expect(visit.page.get_by_role("alert").first).to_contain_text("at most 100000 are taken")


def test_a_channel_is_chosen_where_there_are_several(
    make_module: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    browser: Browser,
    tmp_path: Path,
) -> None:
    en = make_store(tmp_path, tiny_backbone)
    zh = replace(en, channel="staging")
    en.publish({"intent": make_module()}, number=7)
    zh.publish({"mood": make_module(seed=3), "slots": make_module("tagging")}, number=8)
    context = browser.new_context(viewport={"width": 360, "height": 740})
    with running("--channel", f"en={en.source}", "--channel", f"zh={zh.source}") as server:
        visit = Visit(context.new_page(), server)
        choice = visit.page.get_by_label("Channel", exact=True)
        expect(choice).to_have_value("en")
        visit.page.get_by_label("Text", exact=True).fill("wake me at seven")
        visit.page.get_by_role("button", name="Ask").click()
        expect(visit.answer("intent")).to_have_class(re.compile("answered"))
        choice.select_option("zh")
        expect(visit.page.locator("#release")).to_contain_text("staging")
        # What was written stays, to be asked there, too.
        visit.page.get_by_role("button", name="Ask").click()
        expect(visit.page.locator("#status")).to_contain_text("2 answers in")
        assert visit.page.url == f"{server.url}/channels/zh/"
        visit.page.reload()
        expect(choice).to_have_value("zh")
        expect(visit.page.locator(".branch")).to_have_count(2)
        visit.check_fits()
        assert visit.complaints == []
    context.close()


def test_a_token_is_asked_for_where_the_server_wants_one(visit: Visit) -> None:
    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer good":
            route.continue_()
        else:
            route.fulfill(status=401, json={"detail": "the call bears no token"})

    visit.page.route("**/v1/**", guard)
    visit.page.goto(visit.server.url)
    visit.page.get_by_label("Bearer token").fill("bad")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#login-problem")).to_contain_text("does not know this token")
    visit.page.get_by_label("Bearer token").fill("good")
    visit.page.get_by_role("button", name="Go on").click()
    expect(visit.page.locator("#model")).to_have_attribute("aria-busy", "false")
    visit.ask("wake me at seven")
    expect(visit.page.locator("#status")).to_contain_text("answers in")
    # This tab keeps it, until it is told to forget it.
    visit.open()
    visit.page.get_by_role("button", name="Forget token").click()
    expect(visit.page.get_by_label("Bearer token")).to_be_visible()


def test_the_page_is_its_own_and_nobody_elses(server: Server) -> None:
    page = httpx.get(server.url)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page.text)
    for name in re.findall(r'(?:src|href)="(static/[^"]+)"', page.text):
        assert httpx.get(f"{server.url}/{name}").status_code == 200
    assert httpx.get(f"{server.url}/static/..%2f__init__.py").status_code == 404
