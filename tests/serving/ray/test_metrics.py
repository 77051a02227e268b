"""The metrics of several replicas as one text that Prometheus reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from centra.serving.metrics import Metrics
from centra.serving.ray.metrics import OPENMETRICS, merged_metrics
from centra.serving.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric


def told(count: int) -> str:
    """What a replica tells that has answered so many requests."""
    metrics = Metrics()
    for _ in range(count):
        metrics.count_request("/v1/predict", "ok", 0.01)
    standing = Standing(
        release=7,
        digest="ab" * 32,
        channel="production",
        revision=3,
        since=datetime(2026, 1, 1, tzinfo=UTC),
        engine="onnx",
        modules={"intent": "abc"},
        versions={"intent": "2.1"},
    )
    return metrics.text([standing], OPENMETRICS)[0].decode()


def samples(families: Iterable[Metric], name: str) -> dict[tuple[str, ...], float]:
    """The values of a series, by replica and route."""
    return {
        (sample.labels["replica"], *filter(None, [sample.labels.get("route")])): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_each_series_has_its_replica(accept: str) -> None:
    text, content_type = merged_metrics({"one": told(2), "two": told(3)}, accept)
    if accept:
        assert content_type.startswith("application/openmetrics-text")
        families = [*openmetrics.text_string_to_metric_families(text.decode())]
    else:
        assert content_type.startswith("text/plain")
        families = [*text_string_to_metric_families(text.decode())]
    assert samples(families, "centra_requests_total") == {
        ("one", "/v1/predict"): 2,
        ("two", "/v1/predict"): 3,
    }
    assert samples(families, "centra_queue_tokens") == {("one",): 0, ("two",): 0}
    assert samples(families, "centra_release_info") == {("one",): 1, ("two",): 1}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_of_one_replica_all_is_as_its_own_server_says_it(accept: str) -> None:
    """Names, heads and order too, but for the label."""
    alone = told(1)
    merged = merged_metrics({"one": alone}, accept)[0].decode()
    without = merged.replace('{replica="one"}', "").replace('replica="one",', "")
    if accept:
        assert without == alone
        return
    heads = [line for line in without.splitlines() if line.startswith("#")]
    assert len(heads) == len({*heads})
    assert "# TYPE centra_requests_total counter" in heads
    assert "# TYPE centra_release_info gauge" in heads


def test_a_replica_that_tells_nothing_is_left_out() -> None:
    text = merged_metrics({"one": told(1), "two": ""}, "")[0].decode()
    assert 'replica="one"' in text
    assert 'replica="two"' not in text
