"""What a server tells Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from centra.errors import DataError
from centra.serving import Batcher
from centra.serving.compute import BatchRecord, TaskRecord
from centra.serving.errors import CancelledError, OverloadedError
from centra.serving.metrics import Metrics
from centra.serving.request import Timing
from centra.serving.standing import Standing, standings_of
from tests.serving.channels import Channel
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore
    from tests import support

STANDING = Standing(
    release=7,
    digest="ab" * 32,
    channel="production",
    revision=12,
    since=datetime(2026, 1, 2, tzinfo=UTC),
    engine="onnx",
    modules={"intent": "0123456789ab", "slots": "ba9876543210"},
    versions={"intent": "2.1"},
)


class Server:
    """Metrics of a server that stands as it is told."""

    def __init__(self) -> None:
        self.standings = [STANDING]
        self.metrics = Metrics()

    def change(self, **fields: object) -> None:
        self.standings = [replace(one, **fields) for one in self.standings]

    def batch(self, *tasks: TaskRecord, tokens: int = 1, inputs: int = 1) -> None:
        self.metrics.batch_done(
            BatchRecord(
                served=None,
                inputs=inputs,
                tokens=tokens,
                seconds=0.01,
                trunk_seconds=0.005,
                tasks=tasks,
                failed=False,
            )
        )

    def series(self) -> dict[tuple[str, frozenset[str]], float]:
        """The value of each series but those of the process, by its name and the values of its labels."""
        text, _ = self.metrics.text(self.standings)
        return {
            (sample.name, frozenset(sample.labels.values())): sample.value
            for family in parse(text.decode())
            for sample in family.samples
            if sample.name.startswith("centra_")
        }

    def value(self, name: str, *labels: str) -> float | None:
        return self.series().get((name, frozenset(labels)))


@pytest.fixture
def server() -> Server:
    return Server()


def test_requests_count_by_route_and_outcome_with_how_long_they_took(server: Server) -> None:
    for seconds in (0.0004, 0.003, 99.0):
        server.metrics.count_request("/v1/predict", "ok", seconds)
    server.metrics.count_request("/v1/predict", "overloaded", 0.001)
    server.metrics.refused(OverloadedError("full", retry_after=1))
    assert server.value("centra_requests_total", "/v1/predict", "ok") == 3
    assert server.value("centra_requests_total", "/v1/predict", "overloaded") == 1
    assert server.value("centra_errors_total", "overloaded") == 1
    bucket = "centra_request_seconds_bucket"
    assert server.value(bucket, "/v1/predict", "0.0005") == 1
    # A request that took just as long as a bound is under it.
    assert server.value(bucket, "/v1/predict", "0.001") == 2
    assert server.value(bucket, "/v1/predict", "8.192") == 3
    assert server.value(bucket, "/v1/predict", "+Inf") == 4
    assert server.value("centra_request_seconds_count", "/v1/predict") == 4
    assert server.value("centra_request_seconds_sum", "/v1/predict") == pytest.approx(99.0044)


def test_batches_and_answers_are_counted(server: Server) -> None:
    server.batch(
        TaskRecord(task="intent", answered=3, failed=0, seconds=0.002), tokens=40, inputs=3
    )
    server.batch(TaskRecord(task="intent", answered=0, failed=1, seconds=0.001), tokens=2, inputs=1)
    assert server.value("centra_tokens_total") == 42
    assert server.value("centra_inputs_total") == 4
    assert server.value("centra_batch_tokens_sum") == 42
    assert server.value("centra_batch_inputs_bucket", "1.0") == 1
    assert server.value("centra_answers_total", "intent") == 3
    assert server.value("centra_answer_errors_total", "intent") == 1
    assert server.value("centra_branch_seconds_total", "intent") == pytest.approx(0.003)
    # A task that nobody asked is there from the beginning, so that its first answer is a growth.
    assert server.value("centra_answers_total", "slots") == 0


def test_the_parts_of_a_request_are_counted_and_the_errors_of_its_inputs(server: Server) -> None:
    timing = Timing(tokenise=0.0001, queue=0.002, trunk=0.004, branch=0.001)
    errors = [DataError("empty"), KeyError("a bug")]
    done = {
        "timing": timing,
        "failure": None,
        "errors": (),
        "channel": "",
        "computed": (0.0, 0.004, 0.005),
    }
    server.metrics.request_done(SimpleNamespace(**done | {"errors": errors}))
    server.metrics.count_serialised(0.0003)
    for part in ("tokenise", "queue", "trunk", "branch", "serialise"):
        assert server.value("centra_part_seconds_count", part) == 1
    assert server.value("centra_errors_total", DataError("").code) == 1
    assert server.value("centra_errors_total", "internal") == 1
    # One that was not computed, or was given up, says nothing of how long requests take.
    gone = CancelledError("gone")
    server.metrics.request_done(SimpleNamespace(**done | {"failure": gone, "errors": [gone]}))
    server.metrics.request_done(SimpleNamespace(**done | {"computed": None}))
    assert server.value("centra_part_seconds_count", "queue") == 1
    assert server.value("centra_errors_total", "cancelled") == 1


def test_what_is_served_is_one_series(server: Server) -> None:
    assert server.value("centra_release_info", "7", "ab" * 32, "production") == 1
    assert server.value("centra_release_number") == 7
    assert server.value("centra_channel_revision") == 12
    assert server.value("centra_task_info", "intent", "2.1", "0123456789ab") == 1
    assert server.value("centra_task_info", "slots", "", "ba9876543210") == 1
    server.change(release=8, digest="cd" * 32, revision=13)
    assert [key for key in server.series() if key[0] == "centra_release_info"] == [
        ("centra_release_info", frozenset({"8", "cd" * 32, "production"}))
    ]


def test_a_bare_folder_has_no_number_no_channel_and_no_store(server: Server) -> None:
    server.change(release=None, channel=None, revision=None, versions={})
    names = {name for name, _ in server.series()}
    assert not names & {"centra_release_number", "centra_channel_revision", "centra_store_up"}
    assert "centra_release_info" in names


def test_a_refused_release_and_a_store_that_is_gone_show(server: Server) -> None:
    server.change(store_reachable=True)
    assert server.value("centra_store_up") == 1
    assert server.value("centra_release_refused") == 0
    server.change(store_reachable=False, refused=1, refusing=True, swapped=4)
    assert server.value("centra_store_up") == 0
    assert server.value("centra_release_refused") == 1
    assert server.value("centra_releases_refused_total") == 1
    assert server.value("centra_releases_swapped_total") == 4


def test_the_queue_is_read_when_it_is_asked_for(server: Server) -> None:
    server.change(queue_tokens=90, queue_inputs=4, queue_age=0.25)
    assert server.value("centra_queue_tokens") == 90
    assert server.value("centra_queue_inputs") == 4
    assert server.value("centra_queue_age_seconds") == 0.25


def test_a_task_that_the_release_lacks_has_no_series(server: Server) -> None:
    server.change(shadow={"intent": (10, 2), "slots": (10, 1)})
    for task in ("intent", "slots", "weather"):
        server.batch(TaskRecord(task=task, answered=5, failed=1, seconds=0.1))
    assert server.value("centra_answers_total", "intent") == 5
    assert not [labels for _, labels in server.series() if "weather" in labels]
    server.change(modules={"intent": "0123456789ab"})
    assert not [labels for _, labels in server.series() if "slots" in labels]
    assert server.value("centra_shadow_answers_total", "intent") == 10
    assert server.value("centra_shadow_differences_total", "intent") == 2
    # It comes back as a new one.
    server.change(modules=STANDING.modules)
    assert server.value("centra_answers_total", "slots") == 0
    assert server.value("centra_answers_total", "intent") == 5


def test_labels_are_data(server: Server) -> None:
    server.change(channel='a"b\\c\nd')
    assert server.value("centra_release_info", "7", "ab" * 32, 'a"b\\c\nd') == 1


def test_who_asks_for_openmetrics_gets_it(server: Server) -> None:
    server.metrics.count_request("/v1/predict", "ok", 0.001)
    text, content_type = server.metrics.text(
        [STANDING], "application/openmetrics-text; version=1.0.0"
    )
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name for family in parse_openmetrics(text.decode())}
    assert {"centra_requests", "centra_release", "centra_part_seconds"} <= families
    text, content_type = server.metrics.text([STANDING])
    assert content_type.startswith("text/plain; version=0.0.4")


def test_a_server_that_follows_a_channel_tells_of_what_happens_to_it(
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> None:
    channel = Channel(backbone_store, tiny_backbone.spec)
    staging = Channel(backbone_store, tiny_backbone.spec, name="staging")
    channel.publish({"intent": make_module(seed=1), "slots": make_module("tagging")})
    staging.publish({"intent": make_module(seed=2)})
    server = Server()

    async def main() -> None:
        options = {"engine": "onnx", "threads": 1, "interval": 3600}
        async with Batcher(
            channel.source, shadow=staging.source, observer=server.metrics, **options
        ) as batcher:
            assert await asyncio.to_thread(batcher.shadow.loaded.wait, 60)
            await batcher.predict(["wake me", "now"], "intent")
            await asyncio.to_thread(batcher.shadow._answered.join)
            server.standings = standings_of(batcher)
            assert server.value("centra_release_number") == 1
            assert server.value("centra_answers_total", "intent") == 2
            assert server.value("centra_shadow_answers_total", "intent") == 2
            assert server.value("centra_part_seconds_count", "branch") == 1
            assert server.value("centra_answers_total", "slots") == 0

            channel.publish({"intent": make_module(seed=2)})
            await asyncio.to_thread(batcher.follower.check_now)
            server.standings = standings_of(batcher)
            assert server.value("centra_release_number") == 2
            assert server.value("centra_channel_revision") == 2
            assert server.value("centra_releases_swapped_total") == 1
            assert server.value("centra_answers_total", "slots") is None

            bad = channel.publish({"intent": make_module(seed=3)})
            channel.store.remove(bad.tasks["intent"].digest)
            await asyncio.to_thread(batcher.follower.check_now)
            server.standings = standings_of(batcher)
            assert server.value("centra_release_refused") == 1
            assert server.value("centra_releases_refused_total") == 1
            assert server.value("centra_store_up") == 1

            channel.store.root.joinpath("channels").rename(channel.store.root / "gone")
            await asyncio.to_thread(batcher.follower.check_now)
            server.standings = standings_of(batcher)
            assert server.value("centra_store_up") == 0
            assert server.value("centra_release_number") == 2

    asyncio.run(main())


def test_the_guide_and_the_dashboard_name_what_there_is(server: Server) -> None:
    server.change(store_reachable=True, shadow={"intent": (1, 0)})
    server.metrics.count_request("/v1/predict", "ok", 0.001)
    server.metrics.count_error(DataError("empty"))
    made = {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in server.series()}
    guide = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.*?) \|", guide, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(centra_\w+)`", cell)} == made
    dashboard = (ROOT / "examples" / "grafana" / "centra.json").read_text(encoding="utf-8")
    drawn = {re.sub(r"_(bucket|sum|count)$", "", n) for n in re.findall(r"centra_\w+", dashboard)}
    assert drawn <= made
    assert json.loads(dashboard)["panels"]


def test_two_servers_of_a_process_count_apart(server: Server) -> None:
    other = Server()
    other.metrics.refused(OverloadedError("full", retry_after=1))
    assert other.value("centra_errors_total", "overloaded") == 1
    assert server.value("centra_errors_total", "overloaded") is None
