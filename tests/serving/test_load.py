"""Load: requests leave by the clock, time counts from when they were due, and every answer is read."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from centra.bench.load import Load, Target, predict_calls, run_load
from centra.errors import CentraError, DataError, NotAllowedError, NotFoundError, UsageError
from tests.serving.fake import DIGEST, FakeServer, running, whole

if TYPE_CHECKING:
    from centra.bench.load import LoadReport


def loaded(server: FakeServer, *, token: str | None = None, **settings: Any) -> LoadReport:
    """Put a load on a server."""
    calls = predict_calls(tasks=settings.pop("tasks", ()), batches=settings.pop("batches", (1,)))
    settings = {"warm_up": 0, "seconds": 0.3} | settings
    with running(server) as url:
        target = Target.parse(url, token=token)
        return asyncio.run(run_load(target, calls, Load(**settings)))


def test_every_request_is_counted_once() -> None:
    """Whatever becomes of it."""
    turns = iter(range(10**6))

    def reply(asked: dict[str, Any]) -> tuple[int, Any]:
        match next(turns) % 4:
            case 1:
                return 429, {"title": "busy"}
            case 2:
                return 500, {"title": "broken"}
            case 3:
                return 200, {"answers": []}
            case _:
                return whole(asked)

    report = loaded(FakeServer(reply), rate=200, clients=2, batches=(3,))
    assert report.planned == report.answered + report.rejected + report.failed + report.unsent
    assert report.errors.keys() == {"500", "not whole"}
    assert report.failed == report.errors["500"] + report.errors["not whole"]
    assert min(report.answered, report.rejected, report.failed) > 0
    assert "busy" in (report.first_error or "")
    assert report.releases == {DIGEST: report.answered}
    assert report.inputs_per_second == pytest.approx(3 * report.requests_per_second)
    assert report.answers_per_second == pytest.approx(6 * report.requests_per_second)


def test_the_same_seed_plans_the_same_requests() -> None:
    found = []
    for seed in (1, 1, 2):
        server = FakeServer(whole)
        # More clients than requests, so that each is sent when it is due.
        report = loaded(server, rate=100, clients=64, seed=seed)
        found.append(
            (report.planned, sorted(json.dumps(asked) for _, asked in server.requests[1:]))
        )
    assert found[0] == found[1] != found[2]
    assert 10 < found[0][0] < 60


def test_what_waits_for_a_slow_server_counts_from_when_it_was_due() -> None:
    """While one answer takes long, moments pass; a closed loop would not notice."""
    server = FakeServer(whole)
    due = threading.Event()

    def reply(asked: dict[str, Any]) -> tuple[int, Any]:
        if len(server.requests) == 5:
            due.wait(0.2)  # All of the server stands still.
        return whole(asked)

    server.reply = reply
    report = loaded(server, rate=200, clients=1, seconds=0.5)
    assert report.waited >= 20
    assert report.latency is not None
    # Of about a hundred requests some forty were due in those 0.2 s: evenly, so half waited over 0.1 s.
    assert sum(seconds > 0.05 for _, seconds in report.latency.curve) > 1
    assert report.latency.p90 > 0.05
    assert report.latency.max >= 0.2


def test_what_was_never_sent_counts() -> None:
    server = FakeServer(whole)

    def reply(asked: dict[str, Any]) -> tuple[int, Any]:
        if len(server.requests) == 2:
            server.gate.clear()  # From now on nothing is answered.
        return whole(asked)

    server.reply = reply
    report = loaded(server, rate=100, clients=2, timeout=0.6)
    assert report.unsent > 0
    assert report.errors == {"timeout": 2}
    assert report.planned == report.answered + report.unsent + 2
    assert report.latency is not None
    assert report.latency.count == report.planned
    assert report.latency.max >= 0.6


def test_no_more_requests_wait_than_there_are_clients() -> None:
    server = FakeServer(whole)
    report = loaded(server, clients=3)
    assert server.at_once <= 3
    assert report.rate is None
    assert report.lateness is None
    assert (report.waited, report.unsent) == (0, 0)
    assert report.answered == report.planned > 3


def test_the_warm_up_counts_nothing() -> None:
    server = FakeServer(whole)
    report = loaded(server, clients=1, warm_up=0.2, seconds=0.2)
    assert len(server.requests) > report.planned + 1


def test_a_connection_that_the_server_closes_is_made_again() -> None:
    server = FakeServer(whole)
    server.close_after = 2
    report = loaded(server, clients=2)
    assert report.failed == 0
    assert report.answered > 4


def test_parts_are_those_that_the_server_names() -> None:
    report = loaded(FakeServer(whole), clients=1)
    assert {name: round(part.median, 4) for name, part in report.parts.items()} == {
        "queue": 0.0015,
        "trunk": 0.004,
    }


def test_a_token_and_tasks_are_sent() -> None:
    server = FakeServer(whole)
    loaded(server, token="secret", tasks=("slots",))
    headers, asked = server.requests[-1]
    assert headers["authorization"] == "Bearer secret"
    assert asked["tasks"] == ["slots"]


def test_answers_about_other_tasks_are_not_whole() -> None:
    server = FakeServer(lambda asked: whole({**asked, "tasks": ["slots"]}))
    with pytest.raises(CentraError, match="answered are the tasks slots"):
        loaded(server, tasks=("intent", "slots"))


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (401, NotAllowedError, "answers 401"),
        (404, NotFoundError, "answers 404"),
        (503, CentraError, "answers 503.*not ready"),
    ],
)
def test_a_server_that_refuses_is_told_before_the_load(
    status: int, error: type[CentraError], says: str
) -> None:
    server = FakeServer(lambda _: (status, {"detail": "not ready"}))
    with pytest.raises(error, match=says):
        loaded(server, rate=1000)
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_told() -> None:
    with running(FakeServer(whole)) as url:
        pass
    with pytest.raises(NotFoundError, match="does not answer"):
        asyncio.run(run_load(Target.parse(url), predict_calls(), Load(seconds=1)))


@pytest.mark.parametrize(
    "url", ["localhost:80", "http://", "ftp://a", "http://a:b", "http://a/?q=1"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"URL|asks for something"):
        Target.parse(url)


def test_an_address_is_shown_without_its_secret() -> None:
    target = Target.parse("https://ada:secret@example.org/models/")
    assert target.url == "https://example.org:443/models"
    assert "secret" not in repr(target)


def test_inputs_are_sent_without_their_labels() -> None:
    inputs = [
        {"text": "a", "label": "x"},
        {"text": "a", "text_pair": "b", "tasks": ["same"]},
        {"tokens": ["a", "b"], "tags": ["O", "O"]},
        "plain",
        ("a", "b"),
    ]
    calls = predict_calls(inputs=inputs)
    assert [json.loads(call.body)["inputs"] for call in calls] == [
        [{"text": "a"}],
        [{"text": "a", "text_pair": "b", "tasks": ["same"]}],
        [{"tokens": ["a", "b"]}],
        ["plain"],
        [{"text": "a", "text_pair": "b"}],
    ]
    with pytest.raises(DataError, match="input 2"):
        predict_calls(inputs=["a", {"label": "x"}])


def test_made_up_texts_have_the_lengths_and_batches_that_were_asked_for() -> None:
    sizes = set()
    for call in predict_calls(lengths=(4, 9), batches=(1, 2)):
        texts = json.loads(call.body)["inputs"]
        sizes |= {(len(texts), len(text.split()) + 2) for text in texts}
    assert sizes == {(1, 4), (1, 9), (2, 4), (2, 9)}
