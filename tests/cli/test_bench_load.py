"""``centra bench --url``: what a load came to, as table, JSON and picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.helpers import centra, read, refused
from tests.serving.fake import DIGEST, FakeServer, running, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORT = ("--for", "1s", "--warm-up", "0s", "--clients", "2")


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(whole)


@pytest.fixture
def url(server: FakeServer) -> Iterator[str]:
    with running(server) as url:
        yield url


def test_the_table_and_the_picture_of_a_rate(url: str, tmp_path: Path) -> None:
    """No registry is needed, and none is opened."""
    result = centra("bench", "--url", url, "--rate", "40", *SHORT, "--plot", tmp_path / "load.png")
    assert (
        "open loop: 40 requests per second, a Poisson process; at most 2 clients" in result.stdout
    )
    for line in ("from when it was due", "queue", "trunk", "sent late", "requests waited"):
        assert line in result.stdout
    assert f"release {DIGEST[:12]} answered" in result.stdout
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_rate_clients_wait_for_their_answers(url: str, server: FakeServer) -> None:
    found = read(
        "bench", "--url", url, *SHORT, "--length", "4,9", "--batch", "3", "--task", "slots"
    )
    assert (found["rate"], found["lateness"], found["unsent"]) == (None, None, 0)
    assert found["answered"] == found["planned"] == found["latency"]["count"] > 0
    for _, asked in server.requests:
        assert (len(asked["inputs"]), asked["tasks"]) == (3, ["slots"])
    lengths = {len(text.split()) + 2 for _, asked in server.requests for text in asked["inputs"]}
    assert lengths == {4, 9}


def test_inputs_and_a_token_come_from_files(url: str, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('{"text": "wake me", "label": "alarm"}\n')
    (tmp_path / "token").write_text("secret\n")
    given = ("--input", tmp_path / "asked.jsonl", "--token-file", tmp_path / "token")
    centra("bench", "--url", url, *SHORT, *given)
    headers, asked = server.requests[-1]
    assert asked == {"inputs": [{"text": "wake me"}]}
    assert headers["authorization"] == "Bearer secret"


def test_what_fails_is_shown(url: str, server: FakeServer) -> None:
    def reply(asked: dict[str, object]) -> tuple[int, object]:
        return whole(asked) if len(server.requests) == 1 else (429, {"title": "too busy"})

    server.reply = reply
    result = centra("bench", "--url", url, *SHORT)
    assert "rejected (429)" in result.stdout
    assert "too busy" in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("1", "--url", "http://localhost:1"), "RELEASE is about a release that is loaded here"),
        (("--url", "http://localhost:1", "--threads", "1"), "--threads is about a release"),
        (("--url", "http://localhost:1", "--singles"), "--singles is about a release"),
        (("--rate", "5"), "--rate is about a server: name it with --url"),
        (("--for", "5s"), "--for is about a server"),
        (("--url", "http://localhost:1", "--for", "0s"), "--for: nothing can be measured"),
        (("--url", "localhost"), "'localhost' is no URL of a server"),
    ],
)
def test_options_of_servers_and_of_releases_exclude_each_other(
    words: tuple[str, ...], says: str
) -> None:
    refused("bench", *words, code=2, says=says)


def test_an_address_without_a_server_is_told(url: str) -> None:
    refused("bench", "--url", "http://127.0.0.1:1", *SHORT, code=3, says="does not answer")
