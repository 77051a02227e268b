"""Rolling a release over replicas: what each is told, whoever dies, comes back or is not heard."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from centra.formats.manifest import ChannelPointer
from centra.serving.ray.rollout import Cause, Failure, Order, ReplicaState, Rollout, Step

INTERVAL = 5.0
GOOD, REFUSED, MENDABLE = "good", "refused", "mendable"


def pointer(revision: int, release: int | None = None, name: str = "production") -> ChannelPointer:
    release = revision if release is None else release
    digest = hashlib.sha256(str(release).encode()).hexdigest()
    return ChannelPointer(name=name, revision=revision, release=release, manifest=digest)


def failure(of: ChannelPointer, cause: Cause = Cause.FINAL, attempt: int = 0) -> Failure:
    return Failure(pointer=of, attempt=attempt, cause=cause, reason="it is odd", code="odd")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Replica:
    """A replica as the roll sees it: it does what it is told, one step at a time."""

    name: str
    loaded: ChannelPointer | None = None
    state: ReplicaState | None = None
    attempt: int = 0
    alive: bool = True

    @property
    def serves(self) -> ChannelPointer | None:
        return self.state.serves if self.state and self.alive else None

    def ask(self, rollout: Rollout) -> Order:
        """Ask or report, and heed what is answered."""
        if self.state is None:
            order = rollout.join(self.name, self.loaded)
        else:
            rollout.report(self.name, self.state)
            order = rollout.order(self.name)
            # What others failed at is passed on with each answer.
            if rollout.failure is not None:
                self.state = replace(self.state, failure=rollout.failure)
        self.heed(order)
        return order

    def heed(self, order: Order) -> None:
        match order.step:
            case Step.LOAD:
                self.loaded = order.pointer
            case Step.SERVE:
                assert order.pointer is not None
                assert order.pointer == self.loaded
                self.state = ReplicaState(serves=order.pointer)
            case Step.PREPARE:
                assert self.state is not None
                assert (self.state.preparing, self.state.prepared) == (None, None)
                self.attempt = order.attempt
                self.state = replace(self.state, preparing=order.pointer)
            case Step.HAND_OVER:
                assert self.state is not None
                assert order.pointer is not None
                assert order.pointer == self.state.prepared
                self.state = ReplicaState(serves=order.pointer)
            case Step.ABANDON:
                assert self.state is not None
                self.state = replace(self.state, prepared=None)

    def finish(self, cause: Cause | None = None) -> None:
        """End the preparation that it is at."""
        assert self.state is not None
        at = self.state.preparing
        assert at is not None
        if cause is None:
            self.state = replace(self.state, preparing=None, prepared=at)
        else:
            failed = failure(at, cause, self.attempt)
            self.state = replace(self.state, preparing=None, failure=failed)


class Cluster:
    """Replicas that serve revision 1, and the roll that they follow."""

    def __init__(self, count: int = 3, channels: tuple[str, ...] = ("production",)) -> None:
        self.clock = Clock()
        self.channels = channels
        self.rollout = Rollout(channels, interval=INTERVAL, clock=self.clock)
        self.rollout.name(pointer(1))
        self.replicas = [Replica(f"replica {i}") for i in range(count)]
        for each in self.replicas:
            assert each.ask(self.rollout) == Order(step=Step.LOAD, pointer=pointer(1))
        for each in self.replicas:
            assert each.ask(self.rollout).step is Step.SERVE

    def restart(self, *, reads: bool = True) -> None:
        """The coordinator dies, and begins again with the members that were noted."""
        named, members = self.rollout.named, self.rollout.members
        self.rollout = Rollout(self.channels, interval=INTERVAL, members=members, clock=self.clock)
        if reads and named is not None:
            self.rollout.name(named)

    def ask(self) -> list[Step]:
        return [each.ask(self.rollout).step for each in self.replicas if each.alive]

    def kill(self, place: int) -> None:
        self.replicas[place].alive = False

    def prepare_in_turn(self, *, but: int = 0) -> None:
        """Let all replicas prepare what is rolled, but the last few."""
        for each in self.replicas[: len(self.replicas) - but]:
            assert each.ask(self.rollout).step is Step.PREPARE
            each.finish()
            assert each.state is not None
            self.rollout.report(each.name, each.state)

    @property
    def served(self) -> list[int]:
        return [each.serves.revision for each in self.replicas if each.serves]


def test_a_release_is_prepared_by_one_after_the_other_and_handed_over_by_all() -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    assert cluster.ask() == [Step.PREPARE, Step.WAIT, Step.WAIT]
    cluster.replicas[0].finish()
    assert cluster.ask() == [Step.WAIT, Step.PREPARE, Step.WAIT]
    cluster.replicas[1].finish()
    assert cluster.ask() == [Step.WAIT, Step.WAIT, Step.PREPARE]
    assert cluster.served == [1, 1, 1]
    cluster.replicas[2].finish()
    cluster.replicas[2].ask(cluster.rollout)
    assert cluster.ask() == [Step.HAND_OVER, Step.HAND_OVER, Step.WAIT]
    assert cluster.served == [2, 2, 2]
    assert cluster.ask() == [Step.WAIT] * 3
    assert not cluster.rollout.rolling


def test_a_release_that_one_refuses_is_abandoned_by_all() -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn(but=1)
    cluster.replicas[2].ask(cluster.rollout)
    cluster.replicas[2].finish(Cause.FINAL)
    cluster.replicas[2].ask(cluster.rollout)
    refused = cluster.rollout.refused
    assert refused is not None
    assert (refused.release, refused.revision, refused.reason) == (2, 2, "it is odd")
    assert cluster.ask() == [Step.ABANDON, Step.ABANDON, Step.WAIT]
    cluster.clock.now = 1e9
    cluster.rollout.hurry()
    assert cluster.ask() == [Step.WAIT] * 3
    assert not cluster.rollout.rolling
    cluster.rollout.name(pointer(3, release=1))
    assert cluster.rollout.refused is None


def test_what_can_be_mended_is_tried_again_by_all_after_a_while_or_when_asked() -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    first = cluster.replicas[0]
    for attempt in range(2):
        assert first.ask(cluster.rollout).attempt == attempt
        first.finish(Cause.MENDABLE)
        assert cluster.ask() == [Step.WAIT] * 3
        assert cluster.rollout.refused is not None
        if attempt:
            cluster.rollout.hurry()
        else:
            cluster.clock.now += 2 * INTERVAL
    cluster.prepare_in_turn()
    assert cluster.ask() == [Step.HAND_OVER] * 3
    assert cluster.served == [2, 2, 2]
    assert cluster.rollout.refused is None


def test_a_store_that_is_away_changes_nothing_and_what_is_prepared_is_kept() -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn(but=1)
    last = cluster.replicas[2]
    last.ask(cluster.rollout)
    last.finish(Cause.STORE)
    assert cluster.ask() == [Step.WAIT] * 3
    assert cluster.rollout.store_fault is not None
    assert cluster.rollout.refused is None
    assert all(each.state.prepared for each in cluster.replicas[:2] if each.state)
    cluster.clock.now += INTERVAL
    assert last.ask(cluster.rollout).step is Step.PREPARE
    assert cluster.rollout.store_fault is not None
    last.finish()
    last.ask(cluster.rollout)
    cluster.ask()
    assert cluster.served == [2, 2, 2]
    assert cluster.rollout.store_fault is None


def test_a_pointer_that_moves_during_a_roll_ends_it() -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn(but=2)
    cluster.replicas[1].ask(cluster.rollout)
    cluster.rollout.name(pointer(3))
    # The second is still at the old one: nobody begins before it is done.
    assert cluster.ask() == [Step.ABANDON, Step.WAIT, Step.WAIT]
    cluster.replicas[1].finish()
    assert cluster.replicas[1].ask(cluster.rollout).step is Step.ABANDON
    assert cluster.ask() == [Step.PREPARE, Step.WAIT, Step.WAIT]


def test_a_pointer_that_moves_during_the_hand_over_waits_for_its_end() -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn()
    cluster.rollout.name(pointer(3))
    assert cluster.ask() == [Step.HAND_OVER] * 3
    assert cluster.served == [2, 2, 2]
    assert cluster.replicas[1].ask(cluster.rollout).step is Step.PREPARE


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_replica_that_dies_holds_up_nobody(dead: int) -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn(but=2)
    cluster.replicas[1].ask(cluster.rollout)  # The first has prepared, and the second is at it.
    cluster.kill(dead)
    cluster.rollout.gone(cluster.replicas[dead].name)
    for each in cluster.replicas:
        if each.alive and each.state and not each.state.prepared:
            if each.state.preparing is None:
                assert each.ask(cluster.rollout).step is Step.PREPARE
            each.finish()
            each.ask(cluster.rollout)
    cluster.ask()
    assert cluster.served == [2, 2]


def test_a_death_that_was_waited_for_lets_the_others_hand_over_at_once() -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn(but=1)
    cluster.kill(2)
    cluster.rollout.gone(cluster.replicas[2].name)
    assert cluster.rollout.order(cluster.replicas[0].name).step is Step.HAND_OVER


def test_a_replica_that_was_let_in_and_did_not_hear_of_it_is_let_in_again() -> None:
    cluster = Cluster(1)
    late = Replica("late", loaded=pointer(1))
    assert cluster.rollout.join(late.name, late.loaded).step is Step.SERVE
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn()
    assert late.ask(cluster.rollout).pointer == pointer(2)
    assert late.ask(cluster.rollout).step is Step.SERVE
    assert cluster.ask() == [Step.HAND_OVER]


def test_a_replica_that_begins_during_a_roll_loads_what_the_others_serve() -> None:
    cluster = Cluster(2)
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn(but=1)
    late, later = Replica("late"), Replica("later")
    # Before all are ready: it has to prepare, too. After: it begins with what is handed over.
    assert late.ask(cluster.rollout).pointer == pointer(1)
    assert late.ask(cluster.rollout).step is Step.SERVE
    cluster.replicas[1].ask(cluster.rollout)
    cluster.replicas[1].finish()
    assert cluster.replicas[1].ask(cluster.rollout).step is Step.WAIT
    assert later.ask(cluster.rollout).pointer == pointer(1)
    assert late.ask(cluster.rollout).step is Step.PREPARE
    late.finish()
    late.ask(cluster.rollout)
    assert later.ask(cluster.rollout).pointer == pointer(2)
    assert later.ask(cluster.rollout).step is Step.SERVE


def test_a_channel_that_moves_while_the_first_begins_is_followed_then() -> None:
    rollout = Rollout(["production"], interval=INTERVAL)
    first, second = Replica("first"), Replica("second")
    assert first.ask(rollout).step is Step.WAIT  # Nobody knows what the channel names.
    rollout.name(pointer(1))
    assert first.ask(rollout).pointer == pointer(1)
    rollout.name(pointer(2))
    assert second.ask(rollout).pointer == pointer(2)
    assert first.ask(rollout).step is Step.SERVE
    assert second.ask(rollout).pointer == pointer(1)
    assert second.ask(rollout).step is Step.SERVE
    assert first.ask(rollout).step is Step.PREPARE


def test_after_all_have_died_a_refused_release_is_not_begun_with() -> None:
    cluster = Cluster(1)
    cluster.rollout.name(pointer(2))
    cluster.replicas[0].ask(cluster.rollout)
    cluster.replicas[0].finish(Cause.FINAL)
    cluster.replicas[0].ask(cluster.rollout)
    cluster.rollout.gone(cluster.replicas[0].name)
    assert Replica("another").ask(cluster.rollout).pointer == pointer(1)
    cluster.rollout.name(pointer(3))
    assert Replica("another").ask(cluster.rollout).pointer == pointer(3)


def test_a_coordinator_that_begins_again_decides_when_it_has_heard_of_all() -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn()
    assert cluster.replicas[0].ask(cluster.rollout).step is Step.HAND_OVER
    cluster.restart()
    late = Replica("late")
    assert late.ask(cluster.rollout).step is Step.WAIT
    assert cluster.replicas[1].ask(cluster.rollout).step is Step.WAIT
    cluster.rollout.gone(cluster.replicas[2].name)
    assert late.ask(cluster.rollout).step is Step.WAIT
    cluster.kill(2)
    cluster.replicas[0].ask(cluster.rollout)
    assert late.ask(cluster.rollout).pointer == pointer(2)
    assert cluster.replicas[1].ask(cluster.rollout).step is Step.HAND_OVER
    assert cluster.served == [2, 2]


def test_a_refusal_outlives_both_the_coordinator_and_the_replica_that_refused() -> None:
    cluster = Cluster()
    cluster.rollout.name(pointer(2))
    cluster.replicas[0].ask(cluster.rollout)
    cluster.replicas[0].finish(Cause.FINAL)
    cluster.ask()
    cluster.kill(0)
    named = cluster.rollout.named
    assert named is not None
    cluster.restart(reads=False)
    cluster.rollout.gone(cluster.replicas[0].name)
    assert cluster.ask() == [Step.WAIT, Step.WAIT]
    cluster.rollout.name(named)
    assert cluster.rollout.order(cluster.replicas[1].name).step is Step.WAIT
    assert cluster.rollout.refused is not None


def test_a_coordinator_that_begins_again_neither_hurries_nor_lets_two_prepare() -> None:
    cluster = Cluster()
    first, second, third = cluster.replicas
    cluster.rollout.name(pointer(2))
    cluster.prepare_in_turn(but=1)
    cluster.restart()
    for _ in range(2):
        assert first.ask(cluster.rollout).step is Step.WAIT
        assert second.ask(cluster.rollout).step is Step.WAIT
    assert third.ask(cluster.rollout).step is Step.PREPARE
    assert first.ask(cluster.rollout).step is Step.WAIT
    cluster.restart()
    cluster.rollout.name(pointer(3))
    assert second.ask(cluster.rollout).step is Step.WAIT
    assert first.ask(cluster.rollout).step is Step.WAIT
    assert third.ask(cluster.rollout).step is Step.WAIT
    assert cluster.ask() == [Step.ABANDON, Step.ABANDON, Step.WAIT]
    cluster.restart()
    # The third is still at the old one, and has not said so.
    assert first.ask(cluster.rollout).step is Step.WAIT
    assert second.ask(cluster.rollout).step is Step.WAIT
    assert cluster.served == [1, 1, 1]


def test_an_order_that_was_lost_is_given_again() -> None:
    cluster = Cluster(2)
    cluster.rollout.name(pointer(2))
    first, second = cluster.replicas
    for _ in range(2):
        assert first.state is not None
        cluster.rollout.report(first.name, first.state)
        assert cluster.rollout.order(first.name).step is Step.PREPARE
        assert second.ask(cluster.rollout).step is Step.WAIT


def test_the_same_release_under_other_names_is_rolled_like_another() -> None:
    cluster = Cluster(1)
    cluster.rollout.name(pointer(2, release=1))
    cluster.prepare_in_turn()
    assert cluster.replicas[0].ask(cluster.rollout).step is Step.HAND_OVER
    assert cluster.served == [2]


def test_production_goes_before_latest_and_an_earlier_revision_is_not_rolled() -> None:
    rollout = Rollout(["production", "latest"], interval=INTERVAL)
    rollout.name(pointer(8, name="latest"))
    replica = Replica("one")
    replica.ask(rollout)
    replica.ask(rollout)
    rollout.name(pointer(7, name="latest"))
    assert replica.ask(rollout).step is Step.WAIT
    rollout.name(pointer(1))
    assert replica.ask(rollout).pointer == pointer(1)


class Rolls(RuleBasedStateMachine):
    """Replicas and a coordinator that come, die, and hear of each other late or never."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.rollout = Rollout(["production"], interval=INTERVAL, clock=self.clock)
        self.natures: dict[int, str] = {}
        self.channel = pointer(1)
        self.natures[1] = GOOD
        self.store_away = False
        self.replicas: list[Replica] = []
        self.started = 0
        self.refused: set[str] = set()
        self.rollout.name(self.channel)

    @property
    def living(self) -> list[Replica]:
        return [each for each in self.replicas if each.alive]

    @rule()
    def start(self) -> None:
        if len(self.living) < 4:
            self.started += 1
            self.replicas.append(Replica(f"replica {self.started}"))

    @rule(data=st.data(), lost=st.booleans())
    def ask(self, data: st.DataObject, lost: bool) -> None:
        if not self.living:
            return
        replica = data.draw(st.sampled_from(self.living))
        before = replica.loaded, replica.state, replica.attempt
        replica.ask(self.rollout)
        if lost:
            replica.loaded, replica.state, replica.attempt = before
        elif replica.loaded != before[0] and not self._can_load(replica):
            replica.alive = False

    def _can_load(self, replica: Replica) -> bool:
        assert replica.loaded is not None
        return not self.store_away and not self._fault(replica, replica.loaded)

    def _fault(self, replica: Replica, at: ChannelPointer) -> Cause | None:
        """Odd replicas are on a bad node: they alone refuse what is refused."""
        nature = self.natures[at.release]
        odd = int(replica.name.split()[1]) % 2 == 1
        if nature == MENDABLE:
            return Cause.MENDABLE
        return Cause.FINAL if nature == REFUSED and odd else None

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        busy = [each for each in self.living if each.state and each.state.preparing]
        if busy:
            self._finish(data.draw(st.sampled_from(busy)))

    def _finish(self, replica: Replica) -> None:
        assert replica.state is not None
        at = replica.state.preparing
        assert at is not None
        cause = Cause.STORE if self.store_away else self._fault(replica, at)
        replica.finish(cause)

    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        if self.living:
            data.draw(st.sampled_from(self.living)).alive = False

    @rule(data=st.data())
    def notice(self, data: st.DataObject) -> None:
        dead = [each for each in self.replicas if not each.alive]
        if dead:
            found = data.draw(st.sampled_from(dead))
            self.rollout.gone(found.name)
            self.replicas.remove(found)

    @rule(nature=st.sampled_from([GOOD, GOOD, REFUSED, MENDABLE]))
    def publish(self, nature: str) -> None:
        revision = self.channel.revision + 1
        self.natures[revision] = nature
        self.channel = pointer(revision)

    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        release = data.draw(st.sampled_from(sorted(self.natures)))
        self.channel = pointer(self.channel.revision + 1, release=release)

    @rule()
    def mend(self) -> None:
        self.natures = {r: GOOD if n == MENDABLE else n for r, n in self.natures.items()}

    @rule()
    def look(self) -> None:
        if not self.store_away:
            self.rollout.name(self.channel)

    @rule()
    def lose_or_find_the_store(self) -> None:
        self.store_away = not self.store_away

    @rule(seconds=st.sampled_from([1.0, INTERVAL, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def restart_the_coordinator(self) -> None:
        members = self.rollout.members
        self.rollout = Rollout(["production"], interval=INTERVAL, members=members, clock=self.clock)
        if not any(each.serves for each in self.replicas):
            self.refused.clear()  # Nobody is left who could know.

    @precondition(lambda self: self.living)
    @rule()
    def settle(self) -> None:
        """With time and a store, all living replicas come to serve the same."""
        self.store_away = False
        for each in [each for each in self.replicas if not each.alive]:
            self.rollout.gone(each.name)
            self.replicas.remove(each)
        for _ in range(12 * len(self.replicas)):
            self.look()
            self.clock.now += 1000.0
            for each in self.living:
                loaded = each.loaded
                each.ask(self.rollout)
                if each.loaded != loaded and not self._can_load(each):
                    # It ends, and is replaced by one on a good node.
                    each.alive = False
                    self.rollout.gone(each.name)
                elif each.state and each.state.preparing:
                    self._finish(each)
                self.one_prepares_at_a_time()
                self.releases_differ_in_the_hand_over_alone()
                self.a_refused_release_is_not_served()
        serving = {each.serves.revision for each in self.living if each.serves}
        assert len(serving) <= 1
        assert all(each.serves for each in self.living)
        if serving and serving != {self.channel.revision}:
            assert self.rollout.refused is not None
            assert self.rollout.refused.revision == self.channel.revision
            assert self.natures[self.channel.release] != GOOD
        if serving == {self.channel.revision}:
            assert self.rollout.refused is None

    @invariant()
    def one_prepares_at_a_time(self) -> None:
        assert sum(1 for each in self.living if each.state and each.state.preparing) <= 1

    @invariant()
    def releases_differ_in_the_hand_over_alone(self) -> None:
        serving = [each.state for each in self.living if each.state]
        newest = max((state.serves for state in serving), key=lambda p: p.revision, default=None)
        for state in serving:
            assert newest in (state.serves, state.prepared)

    @invariant()
    def a_refused_release_is_not_served(self) -> None:
        for each in self.living:
            if each.state and (failed := each.state.failure) and failed.cause is Cause.FINAL:
                self.refused.add(failed.pointer.to_bytes().decode())
        for each in self.living:
            if each.serves:
                assert each.serves.to_bytes().decode() not in self.refused


TestRolls = Rolls.TestCase
TestRolls.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
