"""Several channels in one server: each answers from its own release, and none is in another's way."""

from __future__ import annotations

import asyncio
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from centra.errors import InvalidNameError, NotFoundError, UsageError
from centra.runtime.queries import Query
from centra.runtime.release import Release
from centra.serving import Batcher, Limits
from centra.serving.errors import ClosedError, OverloadedError
from centra.serving.http.app import create_app
from centra.serving.tokens import Tokens, add_token
from tests import support
from tests.serving.channels import Channel
from tests.serving.fakes import FakeRelease
from tests.serving.held import fake_release
from tests.serving.servers import alike, make_store, running
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore
    from tests.serving.servers import Server

TEXTS = ["wake me at seven", "play some jazz in new york, please", "is there snow", "go to rome"]


@pytest.fixture
def channels(backbone_store: LocalStore, tiny_backbone: support.Backbone) -> dict[str, Channel]:
    """en and zh, in one store."""
    return {
        name: Channel(backbone_store, tiny_backbone.spec, name=f"{name}-live")
        for name in ("en", "zh")
    }


def sources(channels: dict[str, Channel]) -> dict[str, str]:
    return {name: channel.source for name, channel in channels.items()}


def offline(channel: Channel, manifest: Any) -> list[dict[str, Any]]:
    with Release.load(manifest, channel.store, engine="onnx", threads=1) as alone:
        return alone.predict(TEXTS)


def test_each_answers_from_its_own_release_while_one_is_promoted(
    channels: dict[str, Channel], make_module: Callable[..., TaskModule]
) -> None:
    shared = {"slots": make_module("tagging", tap=2)}
    en = [
        support.put_release(
            {**shared, "intent": make_module(seed=seed)},
            [channels["en"].backbone],
            channels["en"].store,
        )
        for seed in range(3)
    ]
    channels["en"].move(en[0])
    zh = channels["zh"].publish({**shared, "mood": make_module(seed=9)})
    expected = {one.digest: offline(channels["en"], one) for one in (*en, zh)}

    async def serve() -> None:
        batcher = Batcher(sources(channels), engine="onnx", threads=1, interval=3600)
        async with batcher, asyncio.TaskGroup() as group:
            done, heard = False, dict.fromkeys(expected, 0)
            changed = asyncio.Condition()

            async def ask(channel: str, place: int) -> None:
                while not done:
                    place = (place + 1) % len(TEXTS)
                    query = Query(input=TEXTS[place])
                    request = await batcher.submit([query], channel=channel)
                    (answer,) = await request.collect()
                    digest = request.served.digest
                    assert (digest == zh.digest) == (channel == "zh")
                    assert alike(answer.answers, expected[digest][place])
                    async with changed:
                        heard[digest] += 1
                        changed.notify_all()

            async def until_heard(*digests: str) -> None:
                async with changed:
                    heard.update(dict.fromkeys(heard, 0))
                    ready = lambda: all(heard[digest] > 3 for digest in digests)  # noqa: E731
                    await asyncio.wait_for(changed.wait_for(ready), 60)

            for client in range(6):
                group.create_task(ask(("en", "zh")[client % 2], client))
            await until_heard(en[0].digest, zh.digest)
            for manifest in en[1:]:
                channels["en"].move(manifest)
                await asyncio.to_thread(batcher.channels["en"].follower.check_now)
                await until_heard(manifest.digest, zh.digest)
            assert (batcher.channels["en"].swapped, batcher.channels["zh"].swapped) == (2, 0)
            done = True

    asyncio.run(serve())


def test_what_is_amiss_with_one_is_no_affair_of_the_others(
    channels: dict[str, Channel], make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    good = {name: one.publish({"intent": make_module(seed=1)}) for name, one in channels.items()}
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(channels["en"].store.root, elsewhere)
    served = {**sources(channels), "other": f"{elsewhere}#zh-live"}

    async def serve() -> None:
        batcher = Batcher(served, engine="onnx", threads=1, interval=3600)
        async with batcher:
            bad = channels["en"].publish({"intent": make_module(seed=2)})
            channels["en"].store.remove(bad.tasks["intent"].digest)
            shutil.rmtree(elsewhere)
            for channel in batcher.channels.values():
                await asyncio.to_thread(channel.follower.check_now)
            en, zh, other = batcher.channels.values()
            assert (en.follower.refused.digest, zh.follower.refused) == (bad.digest, None)
            assert en.follower.store_error is zh.follower.store_error is None
            assert other.follower.store_error is not None
            for name in served:
                assert await batcher.predict(TEXTS, channel=name)
            assert en.served.digest == good["en"].digest
            better = channels["zh"].publish({"intent": make_module(seed=3)})
            await asyncio.to_thread(zh.follower.check_now)
            await batcher.predict(TEXTS, channel="zh")
            assert zh.served.digest == better.digest

    asyncio.run(serve())


def test_one_that_is_missing_at_the_start_is_named(
    channels: dict[str, Channel], make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    channels["en"].publish({"intent": make_module()})
    served = {"en": channels["en"].source, "zh": f"{tmp_path / 'nowhere'}#production"}

    async def serve() -> Batcher:
        batcher = Batcher(served, engine="onnx", threads=1)
        with pytest.raises(NotFoundError, match=r"^channel zh: .*nowhere"):
            await batcher.__aenter__()
        return batcher

    batcher = asyncio.run(serve())
    with pytest.raises(ClosedError):
        _ = batcher.channels["en"].served


ENGINES: dict[str, dict[str, Any]] = {
    "onnx": {"engine": "onnx", "threads": 1},
    "torch": {"engine": "torch", "device": "cpu"},
    "batched": {"engine": "torch", "device": "cpu", "dtype": "bf16"},
}


def shared_parts(release: Release) -> list[Any]:
    """What a release could have in common with others: tokenizer, embeddings, layers, and slots."""
    parts = release._parts
    (encoder,), (trunk,) = parts.encoders.values(), parts.trunks.values()
    engine: Any = trunk.engine
    embeddings = engine._embed.__self__ if hasattr(engine, "_embed") else engine._embeddings
    found = [encoder, embeddings, *engine._layers]
    # The engine for GPUs stacks the branches of each release.
    return found if hasattr(engine, "_embed") else [*found, parts.tasks["slots"]]


def same(one: Release, other: Release) -> bool:
    pairs = zip(shared_parts(one), shared_parts(other), strict=True)
    return all(mine is others for mine, others in pairs)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_channels_have_in_common_is_in_memory_once(
    channels: dict[str, Channel], make_module: Callable[..., TaskModule], engine: str
) -> None:
    slots = {"slots": make_module("tagging", tap=2)}
    for place, channel in enumerate(channels.values()):
        channel.publish({**slots, "intent": make_module(seed=place)})

    async def serve() -> None:
        batcher = Batcher(sources(channels), interval=3600, **ENGINES[engine])
        async with batcher:
            en, zh = batcher.channels.values()
            first = {one.name: one.served.release for one in (en, zh)}
            assert same(en.served.release, zh.served.release)
            expected = await batcher.predict(TEXTS, "slots", channel="zh")
            for seed, one in ((8, en), (9, zh)):
                channels[one.name].publish({**slots, "intent": make_module(seed=seed)})
                await asyncio.to_thread(one.follower.check_now)
                await batcher.predict(TEXTS, channel=one.name)
                assert same(en.served.release, zh.served.release)
                # The one before is closed, and takes nothing from who has the same parts.
                await asyncio.gather(*one._open._closing)
                assert first[one.name].closed
                for name in ("en", "zh"):
                    found = await batcher.predict(TEXTS, "slots", channel=name)
                    assert alike(found, expected)

    asyncio.run(serve())


@pytest.mark.parametrize("engine", ENGINES)
def test_releases_that_are_loaded_at_once_share_what_they_have_in_common(
    channels: dict[str, Channel], make_module: Callable[..., TaskModule], engine: str
) -> None:
    slots = {"slots": make_module("tagging", tap=2)}
    manifests = [
        channel.publish({**slots, "intent": make_module(seed=place)})
        for place, channel in enumerate(channels.values())
    ]
    start = threading.Barrier(2)

    def load(manifest: Any) -> Release:
        start.wait(30)
        return Release.load(manifest, channels["en"].store, **ENGINES[engine])

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(load, manifests)
    assert same(one, other)
    one.close()
    assert other.predict(TEXTS)
    other.close()


def test_a_reader_of_the_manual_gets_answers(
    channels: dict[str, Channel], make_module: Callable[..., TaskModule]
) -> None:
    section = (ROOT / "docs" / "serving.md").read_text().split("\n## Several channels\n")[1]
    code = section.split("```python\n")[1].split("```")[0]
    for place, (name, channel) in enumerate(channels.items()):
        channel.publish({"intent": make_module(seed=place)})
        code = code.replace(f"s3://models/{name}#production", channel.source)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/serving.md", "exec"), names)
    with Release.load(
        support.put_release(
            {"intent": make_module(seed=1)}, [channels["zh"].backbone], channels["zh"].store
        ),
        channels["zh"].store,
    ) as alone:
        assert alike(names["chosen"], alone.predict("七点叫醒我", "intent"))
    assert names["first"] != names["chosen"]


def fakes() -> tuple[FakeRelease, FakeRelease]:
    return FakeRelease("en"), FakeRelease("zh")


def test_a_busy_channel_keeps_no_other_waiting() -> None:
    en, zh = fakes()
    order: list[str] = []
    observer: Any = SimpleNamespace(
        batch_done=lambda batch: order.append(batch.channel),
        request_done=lambda _: None,
        refused=lambda _: None,
    )

    async def serve() -> None:
        limits = Limits(queue_inputs=64, request_inputs=16, batch_tokens=16)
        async with Batcher({"en": en, "zh": zh}, limits=limits, observer=observer) as batcher:
            en.go.clear()
            waiting = [await batcher.submit([Query(input="first")], channel="en")]
            assert await asyncio.to_thread(en.begun.acquire, timeout=30)
            with pytest.raises(OverloadedError):
                for _ in range(10):
                    queries = [Query(input="a b")] * 16
                    waiting.append(await batcher.submit(queries, channel="en"))
            quiet = await batcher.submit([Query(input="quick")] * 16, channel="zh")
            en.go.set()
            for request in (quiet, *waiting):
                assert all(not answer.error for answer in await request.collect())

    asyncio.run(serve())
    # They took turns as long as both waited, although all of en's requests had come before.
    last = len(order) - order[::-1].index("zh")
    assert order[:last].count("en") <= order.count("zh") + 1
    assert order.count("en") > order.count("zh") + 1


def test_a_channel_is_chosen_by_its_name() -> None:
    en, zh = fakes()

    async def serve() -> None:
        async with Batcher({"en": en, "zh": zh}) as batcher:
            for channel, name in ((None, "en"), ("en", "en"), ("zh", "zh")):
                found = await batcher.predict("hi", "intent", channel=channel)
                assert found == {"intent": {"label": f"intent of {name}: hi"}}
            for name in ("", "fr"):
                with pytest.raises(NotFoundError, match="there are en, zh"):
                    await batcher.predict("hi", channel=name)

    asyncio.run(serve())


def test_names_that_could_not_be_chosen_are_refused() -> None:
    en, zh = fakes()
    for named in ({}, {"": en}, {"EN": en}, {"a/b": en}):
        with pytest.raises((UsageError, InvalidNameError)):
            Batcher(named)
    with pytest.raises(UsageError, match="shadow"):
        Batcher({"en": en, "zh": zh}, shadow="a#b")


@pytest.fixture(scope="module")
def server(
    make_module: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server of en, release 7 with the task intent, and zh, release 8 with the task mood."""
    en = make_store(tmp_path_factory.mktemp("channels"), tiny_backbone)
    zh = replace(en, channel="staging")
    en.publish({"intent": make_module()}, number=7)
    zh.publish({"mood": make_module(seed=3)}, number=8)
    with running("--channel", f"en={en.source}", "--channel", f"zh={zh.source}") as one:
        yield one


def number_of(server: Server, path: str, **headers: str) -> int:
    answer = server.client.post(path, json={"inputs": TEXTS}, headers=headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["release"]["release"])


def test_a_header_or_a_prefix_of_the_path_chooses(server: Server) -> None:
    assert number_of(server, "/v1/predict") == 7
    assert number_of(server, "/v1/predict", **{"Centra-Channel": "zh"}) == 8
    assert number_of(server, "/channels/zh/v1/predict") == 8
    assert number_of(server, "/channels/zh/v1/predict", **{"Centra-Channel": "zh"}) == 8
    for path in ("/v1/release", "/channels/en/v1/release"):
        assert [*server.client.get(path).json()["tasks"]] == ["intent"]
    for path in ("v1/release", "v1/release/layers", "v2/models/mood", "v1/channels", "readyz"):
        assert server.client.get(f"/channels/zh/{path}").status_code == 200, path
    assert server.client.get("/v2/models/mood").status_code == 404
    drop_in = {"inputs": TEXTS[0]}
    assert server.client.post("/channels/zh/predict/mood", json=drop_in).status_code == 200
    assert server.client.post("/predict/mood", json=drop_in).status_code == 404


def test_what_there_is_not_is_refused_and_says_what_there_is(server: Server) -> None:
    for path, headers in (
        ("/channels/fr/v1/predict", {}),
        ("/v1/predict", {"Centra-Channel": "fr"}),
        ("/v1/predict", {"Centra-Channel": ""}),
        ("/channels//v1/predict", {}),
    ):
        refused = server.client.post(path, json={"inputs": TEXTS}, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (404, "no-such-channel")
        assert "en, zh" in refused.json()["detail"]
    both = server.client.post(
        "/channels/en/v1/predict", json={"inputs": TEXTS}, headers={"Centra-Channel": "zh"}
    )
    assert (both.status_code, both.json()["code"]) == (400, "several-channels")
    oip = server.client.get("/channels/fr/v2/models/mood")
    assert (oip.status_code, [*oip.json()]) == (404, ["error"])
    assert server.client.get("/channels/en/nope").json()["code"] == "no-such-path"


def test_it_lists_its_channels(server: Server) -> None:
    en, zh = server.client.get("/v1/channels").json()["channels"]
    assert (en["name"], en["release"], en["channel"]) == ("en", 7, "production")
    assert (zh["name"], zh["release"], zh["channel"]) == ("zh", 8, "staging")
    assert en["refused"] is en["store_error"] is None
    told = [record["message"] for record in server.log]
    assert any(message.startswith("serving zh: release 8") for message in told)


def test_pages_and_schema_are_of_the_channel(server: Server) -> None:
    for page in ("", "docs", "static/main.js"):
        assert server.client.get(f"/channels/zh/{page}").status_code == 200
    found = server.client.get("/channels/zh", follow_redirects=True)
    assert (found.status_code, found.url.path) == (200, "/channels/zh/")
    below = server.client.get("/channels/zh/openapi.json").json()
    assert below["servers"] == [{"url": "/channels/zh"}]
    schema = server.client.get("/openapi.json").json()
    assert "servers" not in schema
    (header,) = schema["paths"]["/v1/predict"]["post"]["parameters"]
    assert (header["name"], header["schema"]["enum"]) == ("Centra-Channel", ["en", "zh"])


def test_series_are_of_a_channel(server: Server) -> None:
    number_of(server, "/channels/zh/v1/predict")
    text = server.client.get("/metrics").text
    assert 'centra_release_number{channel="en"} 7.0' in text
    assert 'centra_queue_inputs{channel="zh"} 0.0' in text
    assert 'channel="zh",outcome="ok",route="/v1/predict"' in text
    assert 'centra_answers_total{channel="zh",task="mood"}' in text
    assert 'centra_answers_total{channel="en",task="mood"}' not in text
    (info,) = (one for one in text.splitlines() if 'release="8"' in one)
    assert 'channel="zh"' in info
    assert 'follows="staging"' in info
    assert 'channel="fr"' not in text


def test_a_calls_line_names_its_channel(server: Server) -> None:
    headers = {"X-Request-Id": "of-zh", "Centra-Channel": "zh"}
    server.client.post("/v1/predict", json={"inputs": TEXTS}, headers=headers)
    while (record := server.wait_for("POST /v1/predict")).get("request_id") != "of-zh":
        pass
    assert record["channel"] == "zh"


def test_metadata_choose_over_grpc(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as connection:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(connection)
        asked = service_pb2.ModelInferRequest(model_name="mood")
        tensor = asked.inputs.add(name="text", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(b"hi")
        answer = stub.ModelInfer(asked, metadata=[("centra-channel", "zh")])
        assert answer.parameters["release"].int64_param == 8
        for metadata in ([], [("centra-channel", "en")], [("centra-channel", "fr")]):
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(asked, metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_token_may_be_for_some_channels(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    token = add_token(file, "chinese", channels=["zh"])
    bearer = {"Authorization": f"Bearer {token}"}
    release: Any = fake_release()

    async def ask() -> None:
        async with Batcher({"en": release, "zh": release}) as batcher:
            app = create_app(batcher, tokens=Tokens(file))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:

                async def get(path: str, *, known: bool = True) -> Any:
                    answer = await client.get(path, headers=bearer if known else {})
                    return SimpleNamespace(**{**answer.json(), "status": answer.status_code})

                assert (await get("/channels/zh/v1/release")).status == 200
                refused = await get("/channels/en/v1/release")
                assert (refused.status, refused.code) == (403, "channel-not-allowed")
                assert (await get("/v1/release")).code == "channel-not-allowed"
                listed = (await get("/v1/channels")).channels
                assert [channel["name"] for channel in listed] == ["zh"]
                unknown = await get("/channels/fr/v1/release")
                assert unknown.detail.endswith("there are zh")
                # Who bears no token learns no names.
                assert (await get("/channels/fr/v1/release", known=False)).status == 401
                probe = await get("/channels/fr/livez", known=False)
                assert probe.status == 404
                assert "zh" not in probe.detail
                assert (await get("/channels/zh/livez", known=False)).status == 200

    asyncio.run(ask())


def test_a_release_given_alone_has_no_channels() -> None:
    release: Any = fake_release()

    async def ask() -> None:
        async with Batcher(release) as batcher:
            transport = httpx.ASGITransport(create_app(batcher))
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                (one,) = (await client.get("/v1/channels")).json()["channels"]
                assert one["name"] is None
                refused = await client.get("/v1/release", headers={"Centra-Channel": "en"})
                assert "none to choose" in refused.json()["detail"]
                schema = (await client.get("/openapi.json")).json()
                assert "parameters" not in schema["paths"]["/v1/predict"]["post"]
                assert 'channel=""' in (await client.get("/metrics")).text

    asyncio.run(ask())
