"""Releases that change while clients ask: nobody waits, fails, or hears two releases at once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from centra.releases.signing import sign
from centra.runtime.queries import Query
from centra.runtime.release import Release
from centra.serving import Batcher
from tests import support
from tests.serving.channels import Channel
from tests.serving.servers import alike, make_store, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore
    from tests.serving.servers import ServedStore

TEXTS = ["wake me at seven", "play some jazz in new york, please", "is there snow", "go to rome"]
CLIENTS, EACH = 6, 3
"""Every client has so many answers of each release before the next one comes."""


@dataclass
class Clients:
    """Clients that ask until they are told to stop, and check what they get."""

    batcher: Batcher
    offline: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Per release what it answers to the texts when it is asked alone."""
    heard: Counter[tuple[int, str]] = field(default_factory=Counter)
    """How often each client heard of each release."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    done: bool = False

    async def ask(self, client: int) -> None:
        place = client
        while not self.done:
            asked = [place % len(TEXTS), (place + 1) % len(TEXTS)]
            tasks = None if place % 3 else ("slots",)
            place += 1
            request = await self.batcher.submit([Query(input=TEXTS[i], tasks=tasks) for i in asked])
            answers = await request.collect()
            digest = request.served.digest
            for i, answer in zip(asked, answers, strict=True):
                assert (answer.error, answer.errors) == (None, {})
                expected = self.offline[digest][i]
                names = expected.keys() if tasks is None else tasks
                assert alike(answer.answers, {name: expected[name] for name in names})
            async with self.changed:
                self.heard[client, digest] += 1
                self.changed.notify_all()

    async def until_all_heard_of(self, digest: str) -> None:
        def all_heard() -> bool:
            return all(self.heard[client, digest] >= EACH for client in range(CLIENTS))

        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(all_heard), 60)


@pytest.fixture
def channel(backbone_store: LocalStore, tiny_backbone: support.Backbone) -> Channel:
    return Channel(backbone_store, tiny_backbone.spec)


def test_releases_are_promoted_while_clients_ask(
    channel: Channel, make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    key = support.make_key(tmp_path / "key.pem")
    modules = {"slots": make_module("tagging", tap=2), "stars": make_module("regression", tap=0)}
    sets = [{**modules, "intent": make_module(seed=seed)} for seed in range(5)]
    sets[2]["new"] = make_module("multilabel", seed=9)
    del sets[3]["stars"]

    def release(number: int, *, signed: bool = True) -> ReleaseManifest:
        manifest = support.put_release(sets[number], [channel.backbone], channel.store)
        if signed:
            channel.store.write_signature(manifest.digest, sign(manifest, channel.store, key).data)
        return manifest

    good = [release(number) for number in range(4)]
    unsigned = release(4, signed=False)
    channel.move(good[0])
    offline = {}
    for manifest in good:
        with Release.load(manifest, channel.store, engine="onnx", threads=2) as alone:
            offline[manifest.digest] = alone.predict(TEXTS)

    async def serve() -> None:
        batcher = Batcher(
            channel.source, keys=support.public(key), engine="onnx", threads=2, interval=3600
        )
        async with batcher, asyncio.TaskGroup() as group:
            assert batcher.follower is not None
            clients = Clients(batcher, offline)
            for client in range(CLIENTS):
                group.create_task(clients.ask(client))
            await clients.until_all_heard_of(good[0].digest)
            for manifest in (good[1], unsigned, good[2], good[0], good[3]):
                clients.heard.clear()
                channel.move(manifest)
                await asyncio.to_thread(batcher.follower.check_now)
                served = manifest if manifest is not unsigned else good[1]
                await clients.until_all_heard_of(served.digest)
                refused = batcher.follower.refused
                assert (refused is not None) == (manifest is unsigned)
                assert batcher.served.digest == served.digest
            channel.store.fetch(good[1].tasks["intent"].digest).unlink()
            clients.heard.clear()
            channel.move(good[1])
            await asyncio.to_thread(batcher.follower.check_now)
            assert batcher.follower.refused is not None
            await clients.until_all_heard_of(good[3].digest)
            clients.done = True

    asyncio.run(serve())


def test_a_shadow_compares_what_clients_were_answered(
    channel: Channel, make_module: Callable[..., TaskModule]
) -> None:
    channel.publish({"intent": make_module(seed=1), "slots": make_module("tagging", seed=2)})
    staging = Channel(channel.store, channel.backbone, name="staging")
    staging.publish({"intent": make_module(seed=3), "slots": make_module("tagging", seed=2)})

    async def serve() -> dict[str, Any]:
        batcher = Batcher(
            channel.source, shadow=staging.source, engine="onnx", threads=2, interval=3600
        )
        async with batcher:
            assert batcher.shadow is not None
            assert await asyncio.to_thread(batcher.shadow.loaded.wait, 60)
            answers = await batcher.predict(TEXTS)
            assert len(answers) == len(TEXTS)
            await asyncio.to_thread(batcher.shadow._answered.join)
            return batcher.shadow.report()

    report = asyncio.run(serve())
    assert report["inputs"] == len(TEXTS)
    assert report["tasks"]["intent"]["compared"] == len(TEXTS)
    assert report["tasks"]["slots"]["different"] == 0


def test_the_installed_server_follows_its_channel_while_clients_ask(
    make_module: Callable[..., TaskModule], tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    production = make_store(tmp_path / "store", tiny_backbone)
    staging = replace(production, channel="staging")
    sets = [{"intent": make_module(seed=n), "slots": make_module("tagging")} for n in range(4)]
    expected: dict[int, list[dict[str, Any]]] = {}

    def merged(number: int) -> ReleaseManifest:
        manifest = support.put_release(sets[number - 1], [tiny_backbone.spec], production.store)
        with Release.load(manifest, production.store, engine="onnx", threads=1) as alone:
            expected[number] = alone.predict(TEXTS)
        return manifest

    def publish(manifest: ReleaseManifest, number: int, store: ServedStore = production) -> None:
        store.move(manifest, number=number, version=f"1.{number}")

    publish(merged(1), 1)
    publish(merged(4), 4, staging)
    words = (production.source, "--interval", "1s", "--shadow", "staging")
    with running(*words) as server, ThreadPoolExecutor(3) as threads:
        done = threading.Event()

        def ask() -> Counter[int]:
            heard: Counter[int] = Counter()
            while not done.is_set():
                response = server.client.post("/v1/predict", json={"inputs": TEXTS})
                assert response.status_code == 200, response.text
                found = response.json()
                number = found["release"]["release"]
                for answer, alone in zip(found["answers"], expected[number], strict=True):
                    assert {task["version"] for task in answer["tasks"].values()} == {f"1.{number}"}
                    assert alike(
                        {
                            name: {k: v for k, v in task.items() if k not in ("version", "module")}
                            for name, task in answer["tasks"].items()
                        },
                        alone,
                    )
                heard[number] += 1
            return heard

        clients = [threads.submit(ask) for _ in range(3)]
        try:
            publish(merged(2), 2)
            server.wait_for("answers from now on")
            bad = merged(3)
            blob = production.store.fetch(bad.tasks["intent"].digest)
            support.flip(blob, 4321)
            publish(bad, 3)
            server.wait_for("is refused")
            says = server.client.get("/v1/release").json()
            assert (says["release"], says["revision"], says["refused"]["release"]) == (2, 2, 3)
            assert "is corrupt" in says["refused"]["reason"]
            support.flip(blob, 4321)  # It is mended, and taken by itself.
            server.wait_for("answers from now on")
            says = server.client.get("/v1/release").json()
            assert (says["release"], says["revision"], says["refused"]) == (3, 3, None)
            assert says["shadow"]["release"]["release"] == 4
        finally:
            done.set()
        heard = sum((client.result() for client in clients), Counter())
        assert heard.keys() <= {1, 2, 3}
        assert heard
