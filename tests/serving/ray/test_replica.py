"""A replica in a roll: what it loads, takes over and refuses together with the others."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import NotFoundError
from centra.releases.find import ChannelSource, open_source
from centra.runtime.release import Release
from centra.serving.batcher import Batcher
from centra.serving.preparing import LoadOptions
from centra.serving.ray.replica import RolledReplica
from centra.serving.ray.roll import Roll, RolledChannel
from tests import support
from tests.serving.channels import Channel
from tests.serving.held import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from centra.serving.served import ServedRelease
    from centra.store import LocalStore

ray_errors = pytest.importorskip("ray.exceptions")
HOUR = 3600.0
TEXT = "wake me at seven"


class Coordinator:
    """Rolls on an event loop of its own, in the place of Ray's actor; what it noted outlasts it."""

    def __init__(self) -> None:
        self.noted: dict[str, set[str]] = {}
        self.loop = asyncio.new_event_loop()
        self.rolls: dict[str, Roll] = {}
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def call(self, method: str, followed: RolledChannel, *arguments: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(self._call(method, followed, arguments), self.loop)

    async def _call(self, method: str, followed: RolledChannel, arguments: Any) -> Any:
        try:
            return await getattr(self._roll(followed), method)(*arguments)
        except asyncio.CancelledError:
            raise ray_errors.RayActorError from None

    def _roll(self, followed: RolledChannel) -> Roll:
        source = followed.source
        if source not in self.rolls:

            async def note(members: set[str]) -> None:
                self.noted[source] = set(members)

            members = self.noted.get(source, ())
            self.rolls[source] = Roll(followed, members=members, note_members=note)
        return self.rolls[source]

    def reopen(self) -> None:
        """There is another one at once."""

    def restart(self) -> None:
        """All that it knew is lost, and whoever waited is told so."""

        self._end_all()
        self.rolls = {}

    def close(self) -> None:
        self._end_all()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def _end_all(self) -> None:
        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()


@dataclass(eq=False)
class Rolled:
    """A replica, and what it has handed over."""

    follower: RolledReplica
    ready: list[ServedRelease]

    @property
    def serves(self) -> ServedRelease:
        return self.ready[-1]


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    coordinator = Coordinator()
    yield coordinator
    coordinator.close()


@pytest.fixture(scope="module")
def modules(make_module: Callable[..., TaskModule]) -> dict[str, TaskModule]:
    return {"intent": make_module(seed=1), "slots": make_module("tagging", tap=2, seed=2)}


@pytest.fixture(scope="module")
def changed(make_module: Callable[..., TaskModule], modules: Any) -> dict[str, TaskModule]:
    return {**modules, "intent": make_module(seed=3)}


@pytest.fixture
def channel(backbone_store: LocalStore, tiny_backbone: support.Backbone) -> Channel:
    return Channel(backbone_store, tiny_backbone.spec)


def rolled(coordinator: Coordinator, source: str, name: str) -> Rolled:
    found = open_source(source)
    assert isinstance(found, ChannelSource)
    ready: list[ServedRelease] = []
    follower = RolledReplica(
        coordinator,  # type: ignore[arg-type]
        found,
        RolledChannel(source=source, names=found.names, interval=HOUR),
        replica=name,
        options=LoadOptions(engine="onnx", threads=1),
        on_ready=ready.append,
    )
    return Rolled(follower, ready)


@contextmanager
def serving(coordinator: Coordinator, source: str, *names: str) -> Iterator[list[Rolled]]:
    """Replicas that have loaded, and roll."""
    replicas = [rolled(coordinator, source, name) for name in names]
    try:
        for each in replicas:
            each.ready.append(each.follower.load())
            each.follower.start()
        yield replicas
    finally:
        for each in replicas:
            each.follower.close()
            for served in each.ready:
                served.release.close()


def damage(channel: Channel, digest: str) -> Callable[[], object]:
    path = channel.store.fetch(digest)
    support.flip(path, 4321)
    return lambda: support.flip(path, 4321)


def test_replicas_take_over_together_and_keep_what_has_not_changed(
    coordinator: Coordinator, channel: Channel, modules: Any, changed: Any
) -> None:
    channel.publish(modules)
    with serving(coordinator, channel.source, "one", "two") as (one, two):
        second = channel.publish(changed, minor=1)
        one.follower.check_now()
        for each in (one, two):
            before, after = each.ready
            assert (after.digest, after.number, after.revision) == (second.digest, 2, 2)
            assert after.versions == {"intent": "1.1", "slots": "1.1"}
            assert after.release._parts.tasks["slots"] is before.release._parts.tasks["slots"]
            assert after.release.predict(TEXT)
        channel.move(second, revision=7)
        two.follower.check_now()
        for each in (one, two):
            assert each.serves.revision == 7
            assert each.serves.release is each.ready[-2].release
            assert each.serves.since == each.ready[-2].since


def test_a_release_that_cannot_be_served_is_refused_by_all_and_taken_by_all_once_it_is_mended(
    coordinator: Coordinator, channel: Channel, modules: Any, changed: Any
) -> None:
    first = channel.publish(modules)
    with serving(coordinator, channel.source, "one", "two") as (one, two):
        bad = channel.publish(changed)
        mend = damage(channel, bad.tasks["intent"].digest)
        one.follower.check_now()
        for each in (one, two):
            eventually(lambda each=each: each.follower.refused)
            refused = each.follower.refused
            assert refused is not None
            assert (refused.release, refused.digest) == (2, bad.digest)
            assert "is corrupt" in refused.reason
            assert (each.follower.refusals, len(each.ready)) == (1, 1)
        # One that begins now serves what the others serve.
        with serving(coordinator, channel.source, "three") as (three,):
            assert three.serves.digest == first.digest
            eventually(lambda: three.follower.refused)
            coordinator.restart()
            one.follower.check_now()
            assert {each.serves.digest for each in (one, two, three)} == {first.digest}
            mend()
            two.follower.check_now()
            assert {each.serves.digest for each in (one, two, three)} == {bad.digest}
            eventually(lambda: not any(each.follower.refused for each in (one, two, three)))


def test_a_replica_that_ends_in_the_middle_of_a_roll_holds_up_nobody(
    coordinator: Coordinator,
    channel: Channel,
    modules: Any,
    changed: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel.publish(modules)
    loading, go_on = threading.Event(), threading.Event()
    load = Release.load

    def slow(*arguments: Any, **options: Any) -> Release:
        if not loading.is_set():
            loading.set()
            assert go_on.wait(60)
        return load(*arguments, **options)

    with serving(coordinator, channel.source, "one", "two") as replicas:
        monkeypatch.setattr(Release, "load", slow)
        channel.publish(changed)
        asked = coordinator.call("check_now", replicas[0].follower._followed)
        assert loading.wait(60)
        ending, other = sorted(replicas, key=lambda each: each.follower._work is None)
        ending.follower.close()
        asked.result(60)
        assert (len(ending.ready), len(other.ready)) == (1, 2)
        go_on.set()


def test_a_coordinator_that_is_restarted_learns_of_all_before_it_goes_on(
    coordinator: Coordinator, channel: Channel, modules: Any, changed: Any
) -> None:
    channel.publish(modules)
    with serving(coordinator, channel.source, "one", "two") as (one, two):
        assert coordinator.noted[channel.source] == {"one", "two"}
        second = channel.publish(changed)
        coordinator.restart()
        one.follower.check_now()
        assert {one.serves.digest, two.serves.digest} == {second.digest}
    eventually(lambda: not coordinator.noted[channel.source])


def test_a_store_that_is_away_is_said_by_all_and_what_is_served_goes_on(
    coordinator: Coordinator, channel: Channel, modules: Any, changed: Any
) -> None:
    channel.publish(modules)
    folder: Path = channel.store.root  # type: ignore[union-attr]
    with serving(coordinator, channel.source, "one", "two") as (one, two):
        away = folder.rename(folder.with_name("away"))
        one.follower.check_now()
        eventually(lambda: one.follower.store_error and two.follower.store_error)
        assert one.follower.store_error is not None
        assert "no such folder" in one.follower.store_error.reason
        assert two.serves.release.predict(TEXT)
        away.rename(folder)
        channel.publish(changed)
        one.follower.check_now()
        eventually(lambda: not one.follower.store_error and not two.follower.store_error)
        assert {one.serves.number, two.serves.number} == {2}


def test_the_first_replica_is_told_why_the_channel_cannot_be_read(
    coordinator: Coordinator, channel: Channel
) -> None:
    with pytest.raises(NotFoundError, match="no channel 'production'"):
        rolled(coordinator, channel.source, "one").follower.load()


def test_after_all_have_ended_the_channel_is_followed_anew(
    coordinator: Coordinator, channel: Channel, modules: Any, changed: Any
) -> None:
    first = channel.publish(modules)
    channel.publish(changed)
    with serving(coordinator, channel.source, "one") as (one,):
        channel.move(first, revision=1)  # An older copy of the store.
        one.follower.check_now()
        eventually(lambda: one.follower.store_error)
        assert one.serves.revision == 2
    eventually(lambda: not coordinator.noted[channel.source])
    with serving(coordinator, channel.source, "two") as (two,):
        assert (two.serves.digest, two.serves.revision) == (first.digest, 1)


@pytest.mark.asyncio
async def test_each_of_a_servers_channels_is_rolled_by_itself(
    coordinator: Coordinator, channel: Channel, modules: Any, changed: Any
) -> None:
    other = replace(channel, name="staging")
    for each in (channel, other):
        each.publish(modules)
    followers: list[RolledReplica] = []

    def make_follower(source: str, **options: Any) -> RolledReplica:
        found = open_source(source)
        assert isinstance(found, ChannelSource)
        interval = options.pop("interval")
        followed = RolledChannel(source=source, names=found.names, interval=interval)
        replica: Any = RolledReplica(coordinator, found, followed, replica="one", **options)  # type: ignore[arg-type]
        followers.append(replica)
        return replica

    sources = {"en": channel.source, "zh": other.source}
    async with Batcher(
        sources, interval=HOUR, threads=1, engine="onnx", make_follower=make_follower
    ) as batcher:
        other.publish(changed)
        for follower in followers:
            await asyncio.to_thread(follower.check_now)
        await asyncio.to_thread(eventually, lambda: batcher.channels["zh"].served.number == 2)
        assert batcher.channels["en"].served.number == 1
        assert await batcher.predict(TEXT, channel="zh") != await batcher.predict(TEXT)
