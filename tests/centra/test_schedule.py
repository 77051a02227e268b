"""Threads that take the most urgent job first, and a batch's way through them."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

from centra.runtime.pool import Pool
from centra.runtime.schedule import Job, Outcome, Profile, compute, compute_alone

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT = 60.0


class Log:
    """What ran, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def steps(self, *taps: int) -> Iterator[tuple[int, str]]:
        for tap in taps:
            self.lines.append(f"tap {tap}")
            yield tap, f"states {tap}"

    def job(self, name: str, tap: int, length: float = 1.0) -> Job[str]:
        def run(states: str) -> str:
            self.lines.append(name)
            return f"{name} of {states}"

        return Job(name=name, tap=tap, length=length, run=run)


def failing(name: str, tap: int) -> Job[str]:
    def run(states: str) -> str:
        raise ValueError(f"{name} broke")

    return Job(name=name, tap=tap, length=1.0, run=run)


def values(outcomes: Iterator[Outcome[Any]]) -> dict[str, Any]:
    """By job, in the order in which they came."""
    return {outcome.job.name: outcome.value for outcome in outcomes}


def paused(pool: Pool) -> threading.Event:
    """Occupies all threads until the event is set."""
    go, busy = threading.Event(), threading.Barrier(pool.workers + 1)

    def wait() -> None:
        busy.wait(WAIT)
        go.wait(WAIT)

    for _ in range(pool.workers):
        pool.submit(wait, 1e9)
    busy.wait(WAIT)
    return go


def test_the_most_urgent_job_runs_first_and_equals_in_their_order() -> None:
    pool, ran, done = Pool(1), [], threading.Event()
    go = paused(pool)
    for name, urgency in [("b", 1), ("d", 0), ("a", 2), ("c", 1)]:
        pool.submit(lambda name=name: ran.append(name), urgency)
    pool.submit(done.set, -1)
    go.set()

    assert done.wait(WAIT)
    assert ran == ["a", "b", "c", "d"]


def test_as_many_jobs_run_at_once_as_there_are_threads() -> None:
    paused(Pool(3)).set()  # Its barrier breaks unless three jobs are inside at the same time.


def test_threads_end_when_what_was_queued_is_done_and_others_start_for_later_jobs() -> None:
    pool, threads = Pool(2), list[threading.Thread]()
    go = paused(pool)
    done: SimpleQueue[str] = SimpleQueue()

    def note(name: str) -> None:
        threads.append(threading.current_thread())
        done.put(name)

    pool.submit(lambda: note("before"), 0)
    pool.end_threads()
    pool.submit(lambda: note("after"), 0)
    go.set()
    assert sorted(done.get(timeout=WAIT) for _ in range(2)) == ["after", "before"]
    pool.end_threads()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert pool.run(lambda: "again") == "again"


def test_results_come_with_their_names() -> None:
    log = Log()
    jobs = [log.job("a", 1), log.job("b", 3), log.job("c", 1)]

    found = values(compute(Pool(2), log.steps(1, 3), jobs))

    assert found == {"a": "a of states 1", "b": "b of states 3", "c": "c of states 1"}


def test_with_one_thread_answers_leave_before_the_trunk_goes_on() -> None:
    log = Log()
    jobs = [log.job("a", 1), log.job("b", 2), log.job("c", 1)]

    found = [*values(compute(Pool(1), log.steps(1, 2), jobs))]

    assert found == ["a", "c", "b"]
    assert log.lines == ["tap 1", "a", "c", "tap 2", "b"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_pool_maps_in_order_also_from_its_own_threads(workers: int) -> None:
    pool = Pool(workers)

    def inner(number: int) -> list[int]:
        return pool.map(lambda other: 10 * number + other, range(4))

    expected = [[10 * i + j for j in range(4)] for i in range(5)]
    assert pool.map(inner, range(5)) == expected
    done: SimpleQueue[list[list[int]]] = SimpleQueue()
    for _ in range(workers):
        pool.submit(lambda: done.put(pool.map(inner, range(5))), 0)
    assert [done.get(timeout=WAIT) for _ in range(workers)] == [expected] * workers


def test_idle_threads_take_their_share_of_a_map() -> None:
    meet = threading.Barrier(3)

    assert Pool(3).map(lambda _: meet.wait(WAIT) >= 0, range(3)) == [True] * 3


def test_a_map_waits_for_no_thread_that_has_something_else_to_do() -> None:
    pool, busy, over = Pool(2), threading.Event(), threading.Event()

    def other() -> None:
        busy.set()
        over.wait(WAIT)

    pool.submit(other, 0)
    assert busy.wait(WAIT)
    assert pool.free_threads == 1  # the caller stands in for one thread, and the other is busy
    assert pool.map(lambda number: number + 1, [1, 2, 3]) == [2, 3, 4]
    assert not over.is_set()
    over.set()


def test_a_map_does_all_and_then_raises_the_first_error() -> None:
    seen = []

    def fail(number: int) -> None:
        seen.append(number)
        raise ValueError(str(number))

    with pytest.raises(ValueError, match=r"^0$"):
        Pool(2).map(fail, range(4))
    assert sorted(seen) == [0, 1, 2, 3]


def test_the_shortest_job_comes_first_and_then_the_longest() -> None:
    log = Log()
    jobs = [
        log.job(name, tap, length=length)
        for tap in (1, 2)
        for name, length in [(f"{tap} middle", 2), (f"{tap} short", 1), (f"{tap} long", 3)]
    ]

    found = [*values(compute(Pool(1), log.steps(1, 2), jobs))]

    assert found == ["1 short", "1 long", "1 middle", "2 long", "2 middle", "2 short"]


def test_with_several_threads_the_trunk_goes_on_beside_the_branches() -> None:
    deeper = threading.Event()

    def steps() -> Iterator[tuple[int, None]]:
        yield 1, None
        deeper.set()
        yield 2, None

    first = Job(name="first", tap=1, length=1.0, run=lambda _: deeper.wait(WAIT))
    second = Job(name="second", tap=2, length=1.0, run=lambda _: True)

    assert values(compute(Pool(2), steps(), [first, second])) == {"first": True, "second": True}


def test_a_result_comes_while_the_trunk_is_still_on_its_way() -> None:
    seen = threading.Event()

    def steps() -> Iterator[tuple[int, None]]:
        yield 1, None
        assert seen.wait(WAIT)
        yield 2, None

    jobs = [Job(name=str(tap), tap=tap, length=1.0, run=lambda _: "done") for tap in (1, 2)]
    running = compute(Pool(2), steps(), jobs)

    assert next(running).job.name == "1"
    seen.set()
    assert next(running).value == "done"


def test_the_trunk_is_asked_for_no_more_than_the_deepest_tap() -> None:
    log = Log()

    assert len([*compute(Pool(2), log.steps(1, 2, 3), [log.job("a", 1), log.job("b", 2)])]) == 2
    assert "tap 3" not in log.lines


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_job_keeps_no_other_from_its_answer(workers: int) -> None:
    log = Log()
    jobs = [failing("x", 1), log.job("a", 1), log.job("b", 2)]

    found = {o.job.name: o for o in compute(Pool(workers), log.steps(1, 2), jobs)}

    assert [found[name].value for name in "ab"] == ["a of states 1", "b of states 2"]
    assert str(found["x"].error) == "x broke"
    assert getattr(found["x"].error, "__notes__", []) == ["task x"]
    assert found["a"].error is None


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_trunk_fails_what_is_above_it(workers: int) -> None:
    def steps() -> Iterator[tuple[int, Any]]:
        yield 1, "one"
        raise RuntimeError("layer 2 broke")

    jobs = [Log().job("a", 2), Log().job("b", 1), Log().job("c", 3)]

    found = {o.job.name: o for o in compute(Pool(workers), steps(), jobs)}

    assert found["b"].value == "b of one"
    assert [str(found[name].error) for name in "ac"] == ["layer 2 broke"] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_it_is_known_when_a_tap_was_there_and_when_a_job_had_ended(workers: int) -> None:
    log, begun = Log(), time.perf_counter()
    jobs = [log.job("a", 1), log.job("b", 2), failing("x", 2)]

    found = {o.job.name: o for o in compute(Pool(workers), log.steps(1, 2), jobs)}

    assert all(begun <= o.reached <= o.done <= time.perf_counter() for o in found.values())
    assert found["a"].reached <= found["b"].reached == found["x"].reached


def test_what_nobody_waits_for_is_not_begun() -> None:
    log, pool, go, ended = Log(), Pool(1), threading.Event(), threading.Event()
    slow = Job(name="slow", tap=1, length=2.0, run=lambda _: str(go.wait(WAIT)))
    running = compute(pool, log.steps(1, 2), [log.job("a", 1), slow, log.job("b", 2)])

    assert next(running).value == "a of states 1"
    running.close()
    go.set()
    pool.submit(ended.set, float("-inf"))

    assert ended.wait(WAIT)
    assert log.lines == ["tap 1", "a"]


def test_jobs_alone_run_one_after_the_other_each_at_its_tap_and_each_is_timed() -> None:
    log, profile = Log(), Profile()
    jobs = [log.job("late", 4), log.job("early", 2), log.job("too", 2)]
    for _ in range(2):
        found = values(compute_alone(Pool(1), log.steps(2, 4), jobs, profile))
        assert found == {
            "early": "early of states 2",
            "too": "too of states 2",
            "late": "late of states 4",
        }
    assert log.lines == ["tap 2", "early", "too", "tap 4", "late"] * 2
    assert profile.tasks.keys() == found.keys()
    assert min(profile.shared, *profile.tasks.values()) > 0


def test_a_job_alone_that_fails_ends_the_batch() -> None:
    with pytest.raises(ValueError, match="b broke"):
        list(compute_alone(Pool(1), Log().steps(1), [failing("b", 1)], Profile()))
