"""The queue: what fits, whose turn it is, and what is forgotten."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import pytest

from centra.serving.errors import OverloadedError, TooLargeError
from centra.serving.lane import Ticket
from centra.serving.queue import InputQueue
from centra.serving.shape import BatchShape

Queue = InputQueue[tuple[str, int]]


def sent(
    queue: Queue,
    name: str,
    count: int = 1,
    tokens: int = 20,
    group: object = "one",
    deadline: float | None = None,
    lane: str = "",
) -> Ticket[tuple[str, int]]:
    """A request that has entered and been tokenised."""
    ticket: Ticket[tuple[str, int]] = Ticket(group, count, deadline, lane)
    queue.enter(ticket)
    queue.fill(ticket, [((name, i), tokens) for i in range(count)])
    return ticket


def taken(queue: Queue, most_tokens: int = 100) -> list[str]:
    return [name for name, _ in queue.take(lambda _: BatchShape(tokens=most_tokens))]


def held(queue: Queue) -> tuple[int, int]:
    return queue.inputs, queue.tokens


def test_all_that_waits_and_fits_is_taken_in_order() -> None:
    queue = Queue(inputs=100, tokens=10_000)
    for name in "abcdef":
        sent(queue, name)

    assert taken(queue) == [*"abcde"]
    assert held(queue) == (1, 20)
    assert taken(queue) == ["f"]
    assert held(queue) == (0, 0)


def test_one_input_larger_than_a_batch_is_taken_alone() -> None:
    queue = Queue(inputs=100, tokens=10_000)
    sent(queue, "large", tokens=500)
    sent(queue, "small")

    assert taken(queue) == ["large"]
    assert taken(queue) == ["small"]


def test_short_inputs_do_not_make_endless_batches() -> None:
    queue = Queue(inputs=1000, tokens=10_000)
    sent(queue, "short", count=50, tokens=1)

    assert len(taken(queue, 160)) == 10


def test_a_large_request_gives_way_to_small_ones_and_is_not_forgotten() -> None:
    queue = Queue(inputs=1000, tokens=100_000)
    sent(queue, "large", count=20)
    for name in ("small", "other"):
        sent(queue, name)

    first = taken(queue, 100)
    assert {"small", "other"} <= {*first}
    assert first.count("large") == 3

    # It gets on, however many small ones come.
    done = 3
    for batch in range(30):
        for name in "abcd":
            sent(queue, f"{name}{batch}")
        done += taken(queue, 100).count("large")
    assert done == 20


def test_where_inputs_are_padded_those_of_like_length_go_together() -> None:
    queue = Queue(inputs=100, tokens=10_000)
    ticket: Ticket[tuple[str, int]] = Ticket("one", 4)
    queue.enter(ticket)
    queue.fill(
        ticket, [(("long", 0), 90), (("short", 1), 10), (("long", 2), 70), (("short", 3), 9)]
    )
    for tokens in (12, 96, 8):
        sent(queue, f"{tokens}", tokens=tokens)
    shape = BatchShape(tokens=400, padded=True)

    assert queue.take(lambda _: shape) == [("long", 0), ("long", 2), ("96", 0)]
    assert queue.take(lambda _: shape) == [("short", 1), ("short", 3), ("12", 0), ("8", 0)]
    assert held(queue) == (0, 0)


def test_groups_are_never_mixed_and_keep_their_order() -> None:
    queue = Queue(inputs=100, tokens=10_000)
    for name, group in (("a", "old"), ("b", "new"), ("c", "old"), ("d", "new")):
        sent(queue, name, group=group)

    assert taken(queue) == ["a", "c"]
    assert taken(queue) == ["b", "d"]


def test_a_request_fits_as_a_whole_or_is_refused_as_a_whole() -> None:
    queue = Queue(inputs=10, tokens=100)
    sent(queue, "a", count=4, tokens=10)

    with pytest.raises(OverloadedError, match="4 inputs of 40 tokens wait already"):
        queue.enter(Ticket("one", 7))
    with pytest.raises(OverloadedError) as refused:
        sent(queue, "b", count=2, tokens=31)
    assert held(queue) == (4, 40)
    assert refused.value.retry_after == 1.0

    queue.computed(50, 1000, 50.0)
    with pytest.raises(OverloadedError) as refused:
        sent(queue, "b", count=2, tokens=31)
    assert refused.value.retry_after == 2.0
    sent(queue, "b", count=2, tokens=30)
    with pytest.raises(OverloadedError):
        queue.enter(Ticket("one", 1))


def test_nothing_more_is_taken_while_what_waits_takes_too_long() -> None:
    queue = Queue(inputs=1000, tokens=100_000, seconds=2)
    sent(queue, "large", count=200, tokens=10)
    taken(queue, 160)
    queue.computed(1, 10, 1.0)
    sent(queue, "while only a small batch was seen", tokens=10)

    queue.computed(50, 500, 1.0)
    with pytest.raises(OverloadedError) as refused:
        queue.enter(Ticket("one", 1))
    assert refused.value.retry_after == queue.seconds == held(queue)[1] / 500

    while queue.seconds > 2:
        taken(queue, 160)
    sent(queue, "later")


def test_what_never_fits_is_too_large() -> None:
    queue = Queue(inputs=10, tokens=100)

    with pytest.raises(TooLargeError) as many:
        queue.enter(Ticket("one", 11))
    with pytest.raises(TooLargeError) as long:
        sent(queue, "a", count=5, tokens=21)

    assert (many.value.field, many.value.limit) == ("inputs", 10)
    assert (long.value.field, long.value.limit) == ("inputs", 100)
    assert held(queue) == (0, 0)


def test_what_is_being_tokenised_counts() -> None:
    queue = Queue(inputs=10, tokens=100)
    ticket: Ticket[tuple[str, int]] = Ticket("one", 10)
    queue.enter(ticket)

    with pytest.raises(OverloadedError):
        queue.enter(Ticket("one", 1))
    queue.fill(ticket, [(("good", 3), 7)])

    assert held(queue) == (1, 7)


def test_who_leaves_and_who_is_late_is_not_computed() -> None:
    queue = Queue(inputs=100, tokens=1000)
    gone = sent(queue, "gone", count=3)
    arriving: Ticket[tuple[str, int]] = Ticket("one", 5)
    queue.enter(arriving)
    sent(queue, "late", count=2, deadline=time.monotonic() - 1)
    sent(queue, "here")

    queue.leave(gone)
    queue.leave(arriving)
    queue.leave(arriving)
    queue.fill(arriving, [(("arriving", 0), 20)])

    assert taken(queue) == ["here"]
    assert held(queue) == (0, 0)
    assert queue.age == 0.0


def test_a_closed_queue_gives_what_it_has_and_then_nothing() -> None:
    queue = Queue(inputs=100, tokens=1000)
    sent(queue, "a")
    queue.close()

    assert taken(queue) == ["a"]
    assert taken(queue) == []


def test_nothing_is_lost_or_doubled_between_threads() -> None:
    queue = Queue(inputs=100_000, tokens=10_000_000)
    found: Counter[tuple[str, int]] = Counter()
    gone: Counter[str] = Counter()

    def send(number: int) -> None:
        rng = random.Random(number)
        for i in range(200):
            ticket = sent(queue, f"{number}-{i}", rng.randint(1, 6), group=rng.choice("ab"))
            if rng.random() < 0.1:
                queue.leave(ticket)
                gone[f"{number}-{i}"] += 1

    def take() -> None:
        while batch := queue.take(lambda _: BatchShape(tokens=400)):
            found.update(batch)

    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    taker = threading.Thread(target=take)
    for thread in (*senders, taker):
        thread.start()
    for thread in senders:
        thread.join()
    queue.close()
    taker.join()

    assert held(queue) == (0, 0)
    assert set(found.values()) == {1}
    assert {name for name, _ in found} | {*gone} == {
        f"{number}-{i}" for number in range(4) for i in range(200)
    }


def test_lanes_take_turns_a_batch_each() -> None:
    queue = Queue(inputs=100, tokens=10_000, lanes=("en", "zh", "fr"))
    for place in range(12):
        sent(queue, f"en{place}", lane="en", group="en")
    sent(queue, "zh", lane="zh", group="zh")
    sent(queue, "fr", lane="fr", group="fr")

    batches = [taken(queue) for _ in range(4)]
    assert [batch[0] for batch in batches] == ["en0", "zh", "fr", "en5"]
    assert held(queue) == (2, 40)


def test_a_full_lane_keeps_no_other_out() -> None:
    queue = Queue(inputs=10, tokens=200, lanes=("busy", "quiet"))
    sent(queue, "a", 10, lane="busy")
    with pytest.raises(OverloadedError):
        sent(queue, "b", lane="busy")

    sent(queue, "c", 5, lane="quiet")
    with pytest.raises(OverloadedError):
        sent(queue, "d", lane="quiet")
    assert [queue.waiting(lane).inputs for lane in ("busy", "quiet")] == [10, 5]
    assert queue.waiting("quiet").tokens == 100


def test_one_request_of_a_lane_fits_however_large_its_share_is() -> None:
    queue = Queue(inputs=10, tokens=200, lanes=("busy", "quiet"))
    sent(queue, "a", 10, lane="busy")
    sent(queue, "b", 10, lane="quiet")
    with pytest.raises(OverloadedError):
        sent(queue, "c", lane="quiet")
    with pytest.raises(TooLargeError):
        sent(queue, "d", 11, lane="quiet")


def test_a_lane_alone_has_the_whole_queue() -> None:
    queue = Queue(inputs=10, tokens=200, lanes=("one", "other"))
    sent(queue, "a", 10, lane="one")
    assert taken(queue, 200) == ["a"] * 10
    assert queue.age == 0.0
