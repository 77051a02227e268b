"""The server as an application of Ray Serve: two replicas on a cluster of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks import scale
from benchmarks.tools.doors import Door
from centra.bench.load import predict_calls
from centra.serving import Batcher
from centra.serving.http.app import create_app
from tests import support
from tests.serving.ray.cluster import TEXT, callers, deploy, eventually, free_ports, running_cluster
from tests.serving.servers import alike, make_modules, make_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from centra.formats.task_module import TaskModule
    from tests.serving.ray.cluster import Cluster
    from tests.serving.servers import ServedStore

pytest.importorskip("ray")

CONFIG = re.compile(r"```yaml\n(.*?import_path: centra.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def served(
    make_module: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    tmp_path_factory: pytest.TempPathFactory,
) -> ServedStore:
    """A store of this module's own, whose channel names release 7."""
    store = make_store(tmp_path_factory.mktemp("served"), tiny_backbone)
    store.publish(make_modules(make_module), number=7, version="2.1")
    return store


@pytest.fixture(scope="module")
def cluster(served: ServedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """``centra serve --engine ray`` on release 7."""
    with running_cluster(served, tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def scaled(cluster: Cluster, served: ServedStore) -> Iterator[Callable[[], int]]:
    """Deploys the guide's config file beside it, on its way from the first test on; the replicas' port."""
    (port,) = free_ports(1)
    with ThreadPoolExecutor() as pool:
        deployed = pool.submit(deploy, cluster, config_of_the_guide(served, port))

        def wait() -> int:
            deployed.result()
            return port

        yield wait


def config_of_the_guide(served: ServedStore, port: int) -> str:
    """The Serve config file of docs/scaling.md, on a store of ours, and quick to scale."""
    (config,) = CONFIG.findall((support.ROOT / "docs" / "scaling.md").read_text())
    changed = {
        "s3://models/centra#production": served.source,
        "replica_port: 8081": f"replica_port: {port}",
        "name: centra": "name: scaled",
        "route_prefix: /": "route_prefix: /scaled",
        "num_cpus: 4": "num_cpus: 0.1",
        "host: 0.0.0.0": "host: 127.0.0.1",
        "min_replicas: 2": "min_replicas: 1",
        "max_replicas: 8": "max_replicas: 2",
        "target_ongoing_requests: 16": "look_back_period_s: 1, upscale_delay_s: 0, downscale_delay_s: 0",
    }
    for one, other in changed.items():
        assert one in config
        config = config.replace(one, other)
    return config


async def asked_of_one_server(source: str, calls: list[tuple[str, str, Any]]) -> list[Any]:
    """What a plain server answers: statuses and documents."""
    async with Batcher(source, follow=False) as batcher:
        transport = httpx.ASGITransport(create_app(batcher))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return [
                answered(await client.request(method, path, json=body))
                for method, path, body in calls
            ]


def answered(response: httpx.Response) -> Any:
    """A status and a document, without what is each call's own."""
    try:
        document = response.json()
    except ValueError:
        return response.status_code, [
            line.split('"answer"')[0] for line in response.text.splitlines()
        ]
    if isinstance(document, dict):
        document = {n: v for n, v in document.items() if n not in ("request_id", "since")}
    return response.status_code, document


def test_by_both_doors_answers_are_those_of_the_plain_server(
    cluster: Cluster, served: ServedStore
) -> None:
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/v1/release", None),
        ("GET", "/readyz", None),
        ("GET", "/docs", None),
        ("GET", "/openapi.json", None),
        ("GET", "/nope", None),
        ("POST", "/v1/predict", {"inputs": [TEXT, {"text": "snow", "id": 3}], "top_k": 2}),
        ("POST", "/v1/predict", {"inputs": [TEXT], "tasks": ["nope"]}),
        ("POST", "/v1/predict", {"inputs": [TEXT] * 2000}),
        ("POST", "/intent/predict", {"inputs": TEXT}),
        ("GET", "/v2/models/intent", None),
    ]
    expected = asyncio.run(asked_of_one_server(served.source, calls))
    for client in (cluster.client, cluster.door):
        for (method, path, body), wanted in zip(calls, expected, strict=True):
            found = answered(client.request(method, path, json=body))
            assert alike(found, wanted), path


def test_what_is_around_answers_survives_the_proxy(cluster: Cluster) -> None:
    for client in (cluster.client, cluster.door):
        headers = {"X-Request-Id": "mine"}
        found = client.post("/v1/predict", json={"inputs": [TEXT]}, headers=headers)
        assert found.headers.get_list("x-request-id") == ["mine"]
        assert "trunk;dur=" in found.headers["server-timing"]
        lines = {"Accept": "application/x-ndjson"}
        with client.stream("POST", "/v1/predict", json={"inputs": [TEXT]}, headers=lines) as stream:
            assert stream.headers["content-type"] == "application/x-ndjson"
            *_, last = stream.iter_lines()
        assert last == '{"end":true}'
        assert client.post("/v1/predict", content=b"x" * (9 << 20)).status_code == 413
        assert client.get("/v1/release", headers={"Authorization": ""}).status_code == 401


def test_replicas_answer_grpc_themselves(cluster: Cluster) -> None:
    with grpc.insecure_channel(cluster.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready


def test_metrics_are_those_of_all_replicas(cluster: Cluster) -> None:
    for client in (cluster.client, cluster.door):
        both = eventually(
            lambda client=client: _both(cluster.series("centra_queue_tokens", client))
        )
        numbers = cluster.series("centra_release_number", client)
        assert numbers == dict.fromkeys(both, cluster.release())


def test_the_benchmark_of_scale_asks_both_doors(cluster: Cluster) -> None:
    token = cluster.client.headers["Authorization"].removeprefix("Bearer ")
    calls = predict_calls(inputs=[TEXT])
    doors = [
        Door(name=name, url=str(client.base_url), calls=calls, token=token)
        for name, client in (("proxy", cluster.client), ("own port", cluster.door))
    ]
    found = scale.Served(name="tiny")
    # A trial's moment passes without an answer where the machine is busy.
    scale.take_turns(found, doors, replace(scale.TRIAL, alone=1.0, seconds=1.0))
    assert found.asked.keys() == {"proxy", "own port"}
    assert all(min(asked.rates + asked.alone) > 0 for asked in found.asked.values())
    assert found.plain == {"own port": found.asked["proxy"].rates}


def test_a_call_whose_client_has_gone_is_cancelled(cluster: Cluster) -> None:
    for client in (cluster.client, cluster.door):

        def cancelled(client: httpx.Client = client) -> bool:
            with contextlib.suppress(httpx.TimeoutException):
                client.post("/v1/predict", json={"inputs": [TEXT] * 1024}, timeout=0.02)
            return 'outcome="cancelled"' in client.get("/metrics").text

        assert eventually(cancelled)


def test_a_release_is_rolled_under_load_without_a_failed_call(
    cluster: Cluster, served: ServedStore, make_module: Callable[..., TaskModule]
) -> None:
    before = cluster.release()
    with callers(cluster.client, cluster.door) as told:
        eventually(lambda: told[200, before] > 20)
        served.publish(make_modules(make_module) | {"intent": make_module(seed=9)}, number=8)
        numbers = eventually(
            lambda: {*(found := cluster.series("centra_release_number")).values()} == {8} and found
        )
        assert len(numbers) == 2
        answered = told[200, 8]
        eventually(lambda: told[200, 8] > answered + 20)
    assert told.keys() == {(200, before), (200, 8)}


def test_a_release_that_one_replica_refuses_is_refused_by_all(
    cluster: Cluster, served: ServedStore, make_module: Callable[..., TaskModule]
) -> None:
    modules = make_modules(make_module) | {"intent": make_module(seed=10)}
    bad = support.put_release(modules, [served.backbone.spec], served.store)
    support.flip(served.store.fetch(bad.tasks["intent"].digest), 4321)
    before = cluster.release()
    with callers(cluster.client, cluster.door) as told:
        served.move(bad, number=9)
        eventually(lambda: [*cluster.series("centra_release_refused").values()] == [1, 1])
        assert {*cluster.series("centra_release_number").values()} == {before}
        refused = cluster.door.get("/v1/release").json()["refused"]
        assert refused["release"] == 9
        assert "is corrupt" in refused["reason"]
    assert told.keys() == {(200, before)}


def test_a_replica_and_the_coordinator_that_are_killed_in_a_roll_are_replaced_while_others_answer(
    cluster: Cluster, served: ServedStore, make_module: Callable[..., TaskModule]
) -> None:
    release = cluster.release()
    before = eventually(lambda: _both(cluster.series("centra_queue_tokens")))
    modules = make_modules(make_module) | {"intent": make_module(seed=11)}
    good = support.put_release(modules, [served.backbone.spec], served.store)
    path = served.store.fetch(good.tasks["intent"].digest)
    data, whole = path.read_bytes(), path.with_name("whole")
    with path.open("r+b") as file:
        file.truncate(100 << 30)  # Nothing is written, and reading it takes a minute.
    with callers(cluster.door) as told:
        served.move(good, number=10)
        (preparing,) = eventually(lambda: cluster.replica_processes(reading=path))
        whole.write_bytes(data)
        whole.replace(path)
        for process in cluster.coordinator_processes():
            os.kill(process, signal.SIGKILL)
        os.kill(preparing, signal.SIGKILL)
        answered = sum(told.values())
        eventually(lambda: len({*cluster.series("centra_queue_tokens")} - before) == 1)
        after = eventually(lambda: _both(cluster.series("centra_queue_tokens")))
        eventually(lambda: {*cluster.series("centra_release_number").values()} == {10})
        eventually(lambda: sum(told.values()) > answered + 20)
    assert len(after & before) == 1
    assert told.keys() <= {None, (200, release), (200, 10)}
    assert told[None] <= 2


def test_replicas_come_and_go_with_load_past_the_proxy(
    cluster: Cluster, scaled: Callable[[], int]
) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{scaled()}", timeout=30) as door:
        eventually(lambda: cluster.client.get("/scaled/readyz").is_success)
        assert cluster.client.get("/scaled/v1/release").json() == door.get("/v1/release").json()
        with callers(door, count=24):
            eventually(lambda: _both(cluster.series("centra_queue_tokens", door)))
        eventually(lambda: len(cluster.series("centra_queue_tokens", door)) == 1)


def test_it_ends_with_all_calls_answered(cluster: Cluster) -> None:
    """The last test of a cluster."""
    release = cluster.client.get("/v1/release").json()
    cluster.wait_for(f"serves sha256:{release['digest'][:12]}, revision {release['revision']}")
    with callers(cluster.door) as told:
        eventually(lambda: sum(told.values()))
        cluster.process.send_signal(signal.SIGTERM)
        cluster.wait_for("ended")
    assert cluster.process.wait(60) == 0
    assert {key for key in told if key} == {(200, release["release"])}


def _both(replicas: dict[str, float]) -> set[str]:
    return {*replicas} if len(replicas) == 2 else set()
