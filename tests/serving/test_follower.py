"""Following a channel: what is taken over, what is refused, and what goes on meanwhile."""

from __future__ import annotations

import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    NotFoundError,
)
from centra.releases.find import find_release
from centra.releases.folder_writing import write_folder
from centra.releases.signing import SignatureError, sign
from centra.runtime.release import Release
from centra.serving.follower import Follower
from centra.serving.preparing import LoadOptions
from centra.store import LocalStore, open_store
from tests import support
from tests.serving.channels import Channel
from tests.torture.s3_proxy import proxied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule
    from centra.serving.served import ServedRelease
    from tests.services import S3Server

Modules = dict[str, "TaskModule"]
ONE_THREAD = LoadOptions(engine="onnx", threads=1)
TEXT = "wake me at seven"
HOUR = 3600.0


@pytest.fixture(scope="module")
def modules(make_module: Callable[..., TaskModule]) -> Modules:
    return {"intent": make_module(seed=1), "slots": make_module("tagging", tap=2, seed=2)}


@pytest.fixture(scope="module")
def changed(make_module: Callable[..., TaskModule], modules: Modules) -> Modules:
    """The same with another module of one task."""
    return {**modules, "intent": make_module(seed=3)}


@pytest.fixture
def channel(backbone_store: LocalStore, tiny_backbone: support.Backbone) -> Channel:
    return Channel(backbone_store, tiny_backbone.spec)


@contextmanager
def following(
    source: str | Path, options: LoadOptions = ONE_THREAD, *, interval: float = HOUR
) -> Iterator[tuple[Follower, list[ServedRelease]]]:
    """A follower that has loaded, and what it has handed over since."""
    ready: list[ServedRelease] = []
    follower = Follower(source, options=options, on_ready=ready.append, interval=interval)
    ready.append(follower.load())
    try:
        yield follower, ready
    finally:
        follower.close()
        for served in ready:
            served.release.close()


def test_a_folder_and_a_digest_stay(channel: Channel, modules: Modules, tmp_path: Path) -> None:
    manifest = channel.publish(modules)
    write_folder(manifest, channel.store, tmp_path / "release")
    for source in (tmp_path / "release", f"{channel.store.url}#{manifest.digest}"):
        with following(source) as (follower, ready):
            assert not follower.follows
            follower.start()
            follower.check_now()
            (served,) = ready
            assert (served.digest, served.number, served.channel) == (manifest.digest, None, None)
            assert (served.revision, served.versions) == (None, {})
            assert served.module("intent") == manifest.tasks["intent"].digest[:12]


def test_what_the_channel_names_next_takes_over_and_keeps_what_has_not_changed(
    channel: Channel, modules: Modules, changed: Modules
) -> None:
    first = channel.publish(modules)
    with following(channel.source) as (follower, ready):
        second = channel.publish(changed, minor=1)
        follower.check_now()
        before, after = ready
        assert (before.digest, before.number, before.revision) == (first.digest, 1, 1)
        assert (after.digest, after.number, after.revision) == (second.digest, 2, 2)
        assert after.versions == {"intent": "1.1", "slots": "1.1"}
        assert follower.served is after
        old, new = before.release._parts, after.release._parts
        assert new.tasks["slots"] is old.tasks["slots"]
        assert new.tasks["intent"] is not old.tasks["intent"]
        (trunk,) = old.trunks.values()
        (same,) = new.trunks.values()
        assert all(a is b for a, b in zip(trunk.engine._layers, same.engine._layers, strict=True))
        assert same.engine._embeddings is trunk.engine._embeddings
        with Release.load(second, channel.store, engine="onnx", threads=1) as alone:
            assert after.release.predict(TEXT) == alone.predict(TEXT)


def test_tasks_come_and_go(
    channel: Channel, modules: Modules, make_module: Callable[..., TaskModule]
) -> None:
    channel.publish(modules)
    with following(channel.source) as (follower, ready):
        channel.publish({"intent": modules["intent"], "stars": make_module("regression", tap=0)})
        follower.check_now()
        assert ready[-1].tasks == ["intent", "stars"]
        assert ready[-1].release.predict(TEXT).keys() == {"intent", "stars"}


def test_a_look_at_a_channel_that_has_not_moved_reads_its_pointer_alone(
    channel: Channel, modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.publish(modules)
    with following(channel.source) as (follower, ready):
        monkeypatch.setattr(LocalStore, "fetch", lambda *_: pytest.fail("read a blob"))
        follower.check_now()
        assert len(ready) == 1


def test_the_same_release_at_a_later_revision_is_renamed_and_not_loaded(
    channel: Channel, modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = channel.publish(modules)
    with following(channel.source) as (follower, ready):
        monkeypatch.setattr(Release, "load", lambda *_, **__: pytest.fail("loaded"))
        channel.move(manifest, revision=5)
        follower.check_now()
        before, after = ready
        assert after.release is before.release
        assert (after.number, after.revision, after.since) == (1, 5, before.since)


def test_versions_that_an_older_pointer_did_not_say_are_taken_in(
    channel: Channel, modules: Modules
) -> None:
    manifest = support.put_release(modules, [channel.backbone], channel.store)
    channel.move(manifest, minor=None)
    with following(channel.source) as (follower, ready):
        assert ready[-1].versions == {}
        channel.move(manifest, minor=4, revision=1)
        follower.check_now()
        assert ready[-1].versions == {"intent": "1.4", "slots": "1.4"}


def test_where_no_channel_is_named_production_takes_over_from_latest_and_stays(
    channel: Channel, modules: Modules, changed: Modules
) -> None:
    latest = replace(channel, name="latest", revision=8)
    latest.publish(modules)
    with following(channel.store.url) as (follower, ready):
        assert (ready[-1].channel, ready[-1].revision) == ("latest", 9)
        channel.publish(changed)
        follower.check_now()
        assert (ready[-1].channel, ready[-1].revision) == ("production", 1)
    with following(channel.store.url) as (follower, ready):
        pointer_file(channel).unlink()
        follower.check_now()
        assert ready[-1].channel == "production"
        assert follower.store_error is not None
        assert "no channel 'production'" in follower.store_error.reason


# What is refused


def missing_blob(channel: Channel, manifest: ReleaseManifest) -> Callable[[], object]:
    path = channel.store.fetch(manifest.tasks["intent"].digest)
    data = path.read_bytes()
    path.unlink()
    return partial(channel.store.put, data)


def damaged_blob(channel: Channel, manifest: ReleaseManifest) -> Callable[[], object]:
    path = channel.store.fetch(manifest.tasks["intent"].digest)
    support.flip(path, 4321)
    return partial(support.flip, path, 4321)


def missing_manifest(channel: Channel, manifest: ReleaseManifest) -> Callable[[], object]:
    channel.store.remove(manifest.digest)
    return partial(channel.store.put, manifest.to_bytes())


def damaged_manifest(channel: Channel, manifest: ReleaseManifest) -> Callable[[], object]:
    path = channel.store.fetch(manifest.digest)
    support.flip(path, 4321)
    return partial(support.flip, path, 4321)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (missing_blob, "is missing from"),
        (damaged_blob, "is corrupt"),
        (missing_manifest, "the manifest of release sha256:[0-9a-f]+ is missing"),
        (damaged_manifest, "is corrupt"),
    ],
)
def test_a_release_with_a_bad_file_is_refused_and_taken_once_it_is_mended(
    damage: Callable[[Channel, ReleaseManifest], Callable[[], object]],
    reason: str,
    channel: Channel,
    modules: Modules,
    changed: Modules,
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel.publish(modules)
    with following(channel.source) as (follower, ready):
        bad = channel.publish(changed)
        mend = damage(channel, bad)
        for _ in range(3):
            follower.check_now()
        refused = follower.refused
        assert refused is not None
        assert (refused.release, refused.digest, refused.revision) == (2, bad.digest, 2)
        assert pytest.raises(AssertionError, match=reason).matches(AssertionError(refused.reason))
        (said,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        assert "release 2 " in said
        assert "release 1 goes on" in said
        assert (len(ready), follower.served, follower.refusals) == (1, ready[0], 1)
        assert ready[0].release.predict(TEXT)
        mend()
        follower.check_now()
        assert ready[-1].digest == bad.digest
        assert follower.refused is None


def test_a_refusal_is_over_when_the_channel_names_what_is_served(
    channel: Channel, modules: Modules, changed: Modules
) -> None:
    good = channel.publish(modules)
    with following(channel.source) as (follower, ready):
        missing_blob(channel, channel.publish(changed))
        follower.check_now()
        assert follower.refused is not None
        channel.move(good)
        follower.check_now()
        assert follower.refused is None
        assert (ready[-1].number, ready[-1].revision) == (1, 3)


def without_parity(module: TaskModule) -> TaskModule:
    """The same, recording other logits of itself than it has."""
    logits = module.tensors["probe.logits"] + 0.5
    return replace(module, tensors={**module.tensors, "probe.logits": logits})


def test_a_release_without_parity_is_refused_and_not_tried_again(
    channel: Channel, modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.publish(modules)
    odd = without_parity(modules["slots"])
    with following(channel.source) as (follower, ready):
        channel.publish({**modules, "slots": odd})
        follower.check_now()
        assert follower.refused is not None
        assert "task slots: parity failed" in follower.refused.reason
        monkeypatch.setattr(Release, "load", lambda *_, **__: pytest.fail("tried again"))
        follower.check_now()
        assert len(ready) == 1


def test_a_release_without_parity_is_not_served_from_the_start(
    channel: Channel, modules: Modules
) -> None:
    odd = without_parity(modules["slots"])
    channel.publish({**modules, "slots": odd})
    follower = Follower(channel.source, options=ONE_THREAD, on_ready=pytest.fail)
    with pytest.raises(Exception, match="task slots: parity failed"):
        follower.load()


def test_tasks_in_int8_are_verified_in_float32(
    channel: Channel, modules: Modules, changed: Modules
) -> None:
    channel.publish(modules)
    with following(channel.source) as (follower, ready):
        rounded = support.put_release(changed, [channel.backbone], channel.store, int8=["intent"])
        channel.move(rounded)
        follower.check_now()
        assert ready[-1].digest == rounded.digest
        odd = without_parity(changed["intent"])
        channel.move(
            support.put_release(
                {**changed, "intent": odd}, [channel.backbone], channel.store, int8=["intent"]
            )
        )
        follower.check_now()
        assert follower.refused is not None
        assert "task intent: parity failed" in follower.refused.reason


def test_an_unsigned_release_is_refused_until_it_is_signed(
    channel: Channel, modules: Modules, changed: Modules, tmp_path: Path
) -> None:
    key = support.make_key(tmp_path / "key.pem")

    def signed(manifest: ReleaseManifest) -> None:
        channel.store.write_signature(manifest.digest, sign(manifest, channel.store, key).data)

    signed(channel.publish(modules))
    options = replace(ONE_THREAD, keys=(support.public(key),))
    with following(channel.source, options) as (follower, ready):
        unsigned = channel.publish(changed)
        follower.check_now()
        assert follower.refused is not None
        assert "no valid signature" in follower.refused.reason
        signed(unsigned)
        follower.check_now()
        assert ready[-1].digest == unsigned.digest


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (missing_blob, BlobNotFoundError),
        (damaged_blob, CorruptBlobError),
        (missing_manifest, NotFoundError),
    ],
)
def test_what_cannot_be_served_from_the_start_is_an_error(
    damage: Callable[[Channel, ReleaseManifest], object],
    error: type[Exception],
    channel: Channel,
    modules: Modules,
) -> None:
    damage(channel, channel.publish(modules))
    with pytest.raises(error):
        Follower(channel.source, options=ONE_THREAD, on_ready=pytest.fail).load()


def test_an_unsigned_release_is_not_served_from_the_start(
    channel: Channel, modules: Modules, tmp_path: Path
) -> None:
    channel.publish(modules)
    key = support.make_key(tmp_path / "key.pem")
    options = replace(ONE_THREAD, keys=(support.public(key),))
    with pytest.raises(SignatureError):
        Follower(channel.source, options=options, on_ready=pytest.fail).load()


# The pointer and the store


def pointer_file(channel: Channel) -> Path:
    assert isinstance(channel.store, LocalStore)
    return channel.store.root / "channels" / f"{channel.name}.json"


def test_a_revision_that_goes_back_is_not_followed_and_said_once(
    channel: Channel,
    modules: Modules,
    changed: Modules,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = channel.publish(modules)
    second = channel.publish(changed)
    with following(channel.source) as (follower, ready):
        for revision in (1, 2):  # A lower one, and the same with another release.
            channel.move(first, revision=revision)
            follower.check_now()
            assert follower.store_error is not None
            assert f"is at revision {revision} and names release 1, but revision 2" in (
                follower.store_error.reason
            )
        assert [ready[-1].digest, len(ready)] == [second.digest, 1]
        assert [r.levelname for r in caplog.records] == ["WARNING"]
        channel.move(first, revision=3)
        follower.check_now()
        assert ready[-1].digest == first.digest
        assert follower.store_error is None


def test_a_folder_that_is_gone_is_said_and_followed_again(
    channel: Channel, modules: Modules
) -> None:
    channel.publish(modules)
    folder = pointer_file(channel).parents[1]
    with following(channel.source) as (follower, _):
        away = folder.rename(folder.with_name("away"))
        follower.check_now()
        assert follower.store_error is not None
        assert "no such folder" in follower.store_error.reason
        away.rename(folder)
        follower.check_now()
        assert follower.store_error is None


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"format":"centra/channel","format_version":"9.0"}']
)
def test_a_damaged_pointer_is_said_and_the_old_release_goes_on(
    data: bytes, channel: Channel, modules: Modules, changed: Modules
) -> None:
    channel.publish(modules)
    with following(channel.source) as (follower, ready):
        channel.store.write_pointer(channel.name, data)
        follower.check_now()
        assert follower.store_error is not None
        assert "production" in follower.store_error.reason
        channel.publish(changed)
        follower.check_now()
        assert follower.store_error is None
        assert len(ready) == 2


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_gone_for_a_while_stops_nothing(
    s3_server: S3Server,
    s3_url: str,
    modules: Modules,
    changed: Modules,
    tiny_backbone: support.Backbone,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "centra.serving")
    with proxied(s3_server.endpoint) as proxy:
        channel = Channel(open_store(s3_url), tiny_backbone.spec)
        support.copy_backbone(tiny_backbone, channel.store)
        channel.publish(modules)
        seen = s3_url.replace(*(quoted(e) for e in (s3_server.endpoint, proxy.endpoint)))
        with following(f"{seen}#production") as (follower, ready):
            proxy.script = lambda *_: "drop"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("centra.store.s3.retries._PATIENCE", 0.1)
                follower.check_now()
                fault = follower.store_error
                assert fault is not None
                assert fault.code == "store-unreachable"
                follower.check_now()
                assert follower.store_error is not None
                assert follower.store_error.since == fault.since
                assert ready[0].release.predict(TEXT)
                # Gone in the middle: the pointer can be read, the blobs cannot.
                channel.publish(changed)
                proxy.script = lambda _, path: "drop" if "/blobs/" in path else None
                follower.check_now()
                assert (follower.store_error.since, follower.refused) == (fault.since, None)
            proxy.script = None
            follower.check_now()
            assert (follower.store_error, ready[-1].number) == (None, 2)
    loggers = ("centra.serving.follower", "centra.serving.channel")
    said = [r.getMessage() for r in caplog.records if r.name in loggers]
    assert [text.split(",")[0].split(":")[0] for text in said] == [
        "the channel cannot be followed for now",
        "the channel is followed again",
        "channel production",
    ]


def quoted(endpoint: str) -> str:
    return endpoint.replace(":", "%3A").replace("/", "%2F")


def test_a_store_that_is_not_there_at_the_start_is_an_error(tmp_path: Path) -> None:
    follower = Follower(f"{tmp_path}/nowhere#production", on_ready=pytest.fail)
    with pytest.raises(NotFoundError):
        follower.load()


# In the background


def test_what_is_loaded_while_another_release_answers_takes_a_quarter_of_the_threads(
    channel: Channel, modules: Modules, changed: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def executor(workers: int) -> ThreadPoolExecutor:
        used.append(workers)
        return ThreadPoolExecutor(workers)

    for module in ("centra.runtime.parts", "centra.runtime.onnx.engine"):
        monkeypatch.setattr(f"{module}.ThreadPoolExecutor", executor)
    channel.publish(modules)
    with following(channel.source, LoadOptions(engine="onnx", threads=8)) as (follower, _):
        assert {*used} == {8}
        used.clear()
        channel.publish(changed)
        follower.check_now()
        assert {*used} == {2}


def test_two_servers_on_one_channel_converge(
    channel: Channel, make_module: Callable[..., TaskModule], modules: Modules
) -> None:
    channel.publish(modules)
    arrived = [threading.Event(), threading.Event()]
    versions = [{**modules, "intent": make_module(seed=seed)} for seed in (11, 12, 13)]
    last = support.put_release(versions[-1], [channel.backbone], channel.store).digest

    def note(event: threading.Event, served: ServedRelease) -> None:
        if served.digest == last:
            event.set()

    followers = [
        Follower(channel.source, options=ONE_THREAD, on_ready=partial(note, event), interval=0.01)
        for event in arrived
    ]
    for follower in followers:
        follower.load()
        follower.start()
    for version in versions:
        channel.publish(version)
    assert all(event.wait(60) for event in arrived)
    for follower in followers:
        follower.close()
        assert follower.served.number == find_release(channel.source).release
        assert follower.served.revision == 4


def test_a_follower_that_is_closed_while_it_loads_hands_nothing_over(
    channel: Channel, modules: Modules, changed: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.publish(modules)
    loading, go_on = threading.Event(), threading.Event()
    load = Release.load
    with following(channel.source, interval=0.01) as (follower, ready):

        def slow(*arguments: object, **options: object) -> Release:
            loading.set()
            assert go_on.wait(60)
            return load(*arguments, **options)

        monkeypatch.setattr(Release, "load", slow)
        monkeypatch.setattr("centra.serving.follower.TO_END", 0)
        channel.publish(changed)
        follower.start()
        assert loading.wait(60)
        follower.close()
        go_on.set()
        follower._thread.join(60)
        assert not follower._thread.is_alive()
        assert len(ready) == 1


def test_what_is_no_longer_served_gives_its_memory_back(
    channel: Channel, modules: Modules, changed: Modules
) -> None:
    import weakref

    channel.publish(modules)
    with following(channel.source) as (follower, ready):
        channel.publish(changed)
        follower.check_now()
        gone = weakref.ref(ready[0].release._parts.tasks["intent"])
        ready.pop(0).release.close()
        gc.collect()
        assert gone() is None
        assert ready[-1].release.predict(TEXT)
