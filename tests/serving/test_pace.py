"""When more inputs are worth waiting for."""

from __future__ import annotations

from centra.serving.pace import Pace


def watched(batches: int, *, size: int, back: int, seconds: float = 0.1) -> tuple[Pace, float]:
    """After so many batches, after each of which some inputs came at once; and the moment of the last."""
    pace, now = Pace(), 0.0
    for _ in range(batches):
        now += seconds
        pace.batch_done(size, seconds, now)
        pace.arrived(back, now + 0.001)
    now += seconds
    pace.batch_done(size, seconds, now)
    return pace, now


def test_nobody_waits_before_anything_is_known() -> None:
    assert Pace().pause(1, 100.0) == 0


def test_nobody_waits_in_a_quiet_time() -> None:
    pace, now = watched(20, size=8, back=8)

    assert pace.pause(1, now + 1) == 0


def test_clients_who_come_back_at_once_are_waited_for_until_they_are_there() -> None:
    pace, now = watched(20, size=8, back=8)

    assert 0 < pace.pause(3, now + 0.001) <= 0.01
    pace.arrived(5, now + 0.002)
    assert pace.pause(8, now + 0.002) > 0
    pace.arrived(3, now + 0.003)
    assert pace.pause(11, now + 0.003) == 0


def test_clients_who_come_any_time_are_not_waited_for() -> None:
    pace, now = watched(20, size=8, back=0)

    assert pace.pause(1, now + 0.001) == 0


def test_one_that_may_come_is_not_worth_many_that_wait() -> None:
    pace, now = watched(20, size=1, back=1)

    assert pace.pause(1, now) > 0
    assert pace.pause(50, now) == 0


def test_it_learns_when_clients_change() -> None:
    pace, now = watched(20, size=8, back=8)
    for _ in range(20):
        now += 0.1
        pace.batch_done(8, 0.1, now)

    assert pace.pause(1, now) == 0


def test_where_a_batch_costs_nothing_but_its_inputs_nobody_waits() -> None:
    def pause(fixed: float) -> float:
        pace, now = Pace(), 0.0
        for i in range(40):
            size = 2 + i % 13
            seconds = fixed + 0.02 * size
            now += seconds
            pace.batch_done(size, seconds, now)
            pace.arrived(size, now + 0.001)
        pace.batch_done(8, fixed + 0.16, now + 1)
        return pace.pause(20, now + 1)

    assert pause(0.1) > 0
    assert pause(0.0) == 0
