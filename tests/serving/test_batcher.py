"""The batcher: whose answers go where, what fails alone, and what changes under way."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import DataError
from centra.runtime.queries import Query
from centra.serving import Batcher, Limits
from centra.serving.errors import (
    CancelledError,
    ClosedError,
    DeadlineError,
    OverloadedError,
    TooLargeError,
)
from centra.serving.served import ServedRelease
from centra.system.processors import processors
from tests.serving.channels import Channel
from tests.serving.fakes import FakeRelease

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore
    from tests import support


def queries(*texts: str, tasks: Sequence[str] | None = None) -> list[Query]:
    return [Query(input=text, tasks=None if tasks is None else tuple(tasks)) for text in texts]


def batcher(release: FakeRelease, **options: Any) -> Batcher:
    return Batcher(release, **options)  # type: ignore[arg-type]


def served(release: FakeRelease) -> ServedRelease:
    return ServedRelease(
        release=release,  # type: ignore[arg-type]
        number=None,
        versions={},
        channel=None,
        revision=None,
        since=datetime.now(UTC),
    )


async def held(release: FakeRelease) -> None:
    """Wait until a batch has begun."""
    await asyncio.to_thread(release.begun.acquire)


def test_predict_answers_one_and_many() -> None:
    async def main() -> None:
        async with batcher(FakeRelease()) as one:
            assert await one.predict("hello") == {
                "intent": {"label": "intent of first: hello"},
                "mood": {"label": "mood of first: hello"},
            }
            assert await one.predict(["a", "b"], "mood") == [
                {"mood": {"label": "mood of first: a"}},
                {"mood": {"label": "mood of first: b"}},
            ]

    asyncio.run(main())


def test_what_waits_is_computed_together() -> None:
    async def main() -> None:
        release = FakeRelease()
        release.go.clear()
        async with batcher(release) as one:
            first = asyncio.create_task(one.predict("first"))
            await held(release)
            others = [await one.submit(queries(f"text {i}")) for i in range(20)]
            release.go.set()
            await asyncio.gather(first, *(request.collect() for request in others))
        assert [len(batch) for batch in release.batches] == [1, 20]

    asyncio.run(main())


def test_a_bad_input_fails_alone() -> None:
    async def main() -> None:
        async with batcher(FakeRelease()) as one:
            request = await one.submit(queries("good", "bad", "", "fine"))
            answers = await request.collect()
        assert [set(answer.answers) for answer in answers] == [
            {"intent", "mood"},
            set(),
            set(),
            {"intent", "mood"},
        ]
        assert str(answers[1].error) == "a bad text"
        assert str(answers[2].error) == "input 3: the text is empty"
        with pytest.raises(DataError, match="a bad text"):
            async with batcher(FakeRelease()) as one:
                await one.predict(["good", "bad"])

    asyncio.run(main())


def test_a_branch_that_fails_fails_its_own_answers() -> None:
    async def main() -> None:
        async with batcher(FakeRelease(broken={"mood"})) as one:
            (answer,) = await (await one.submit(queries("hello"))).collect()
        assert answer.answers == {"intent": {"label": "intent of first: hello"}}
        assert {name: str(error) for name, error in answer.errors.items()} == {
            "mood": "mood failed"
        }

    asyncio.run(main())


def test_a_trunk_that_fails_fails_its_batch_alone() -> None:
    async def main() -> None:
        async with batcher(FakeRelease()) as one:
            (answer,) = await (await one.submit(queries("the trunk fails"))).collect()
            assert {str(error) for error in answer.errors.values()} == {"the trunk failed"}
            assert await one.predict("hello", "mood") == {"mood": {"label": "mood of first: hello"}}

    asyncio.run(main())


def test_an_answer_leaves_as_soon_as_its_branch_is_done() -> None:
    async def main() -> None:
        release = FakeRelease()
        release.end.clear()
        async with batcher(release) as one:
            request = await one.submit(queries("hello", "bad"))
            got = set()
            async for answer in request:
                got.add((answer.place, answer.task))
                if len(got) == 2:
                    assert got == {(1, None), (0, "intent")}
                    release.end.set()
            assert got == {(1, None), (0, "intent"), (0, "mood")}
            again = {(answer.place, answer.task) async for answer in request}
        assert again == got
        assert request.timing.trunk == 0.25
        assert request.timing.tokenise > 0

    asyncio.run(main())


def test_late_work_is_dropped_and_says_so() -> None:
    async def main() -> None:
        release = FakeRelease()
        release.go.clear()
        async with batcher(release) as one:
            first = asyncio.create_task(one.predict("first"))
            await held(release)
            late = await one.submit(queries("late"), timeout=0.01)
            (answer,) = await late.collect()
            assert isinstance(answer.error, DeadlineError)
            assert one.queue.inputs == one.queue.tokens == 0
            release.go.set()
            await first
        assert release.batches == [["first"]]

    asyncio.run(main())


def test_work_of_clients_that_have_gone_is_dropped() -> None:
    async def main() -> None:
        release = FakeRelease()
        release.go.clear()
        async with batcher(release) as one:
            first = asyncio.create_task(one.predict("first"))
            await held(release)
            request = await one.submit(queries("cancelled"))
            waiting = asyncio.create_task((await one.submit(queries("gone"))).collect())
            request.cancel()
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert one.queue.inputs == one.queue.tokens == 0
            release.go.set()
            await first
        assert release.batches == [["first"]]

    asyncio.run(main())


def test_closing_answers_what_was_taken_and_refuses_the_rest() -> None:
    async def main() -> None:
        release = FakeRelease()
        release.go.clear()
        one = batcher(release)
        with pytest.raises(ClosedError):
            await one.predict("too early")
        async with one:
            first = await one.submit(queries("first"))
            closing = asyncio.create_task(one.aclose())
            await held(release)
            with pytest.raises(ClosedError):
                await one.predict("too late")
            release.go.set()
            await closing
            assert first.finished
            (answer,) = await first.collect()
            assert not answer.error
        assert not release.closed

    asyncio.run(main())


def test_a_batcher_that_is_closed_impatiently_fails_what_is_left() -> None:
    async def main() -> None:
        release = FakeRelease()
        release.go.clear()
        async with batcher(release) as one:
            begun = await one.submit(queries("begun"))
            await held(release)
            waits = await one.submit(queries("waits"))
            closing = asyncio.create_task(one.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            (answer,) = await waits.collect()
            assert isinstance(answer.error, ClosedError)
            release.go.set()
            await asyncio.wait([closing])
            assert begun.finished
        assert release.batches == [["begun"]]

    asyncio.run(main())


def test_more_than_the_queue_holds_is_refused_by_one_rule() -> None:
    async def main() -> None:
        release = FakeRelease()
        release.go.clear()
        limits = Limits(queue_inputs=4, queue_tokens=20, request_inputs=6)
        async with batcher(release, limits=limits) as one:
            begun = await one.submit(queries("begun"))
            await held(release)
            waiting = await one.submit(queries("a", "b", "c"))
            with pytest.raises(OverloadedError):
                await one.submit(queries("d", "e"))
            alone = await one.submit(queries("d"))
            with pytest.raises(OverloadedError) as refused:
                await one.submit(queries("e"))
            assert refused.value.retry_after > 0
            alone.cancel()
            with pytest.raises(OverloadedError):
                await one.submit(queries("eighteen words " * 9))
            release.go.set()
            for request in (begun, waiting):
                assert all(not answer.error for answer in await request.collect())
            assert await one.predict("there is room again")

    asyncio.run(main())


def test_what_no_queue_would_hold_is_too_large_at_any_time() -> None:
    async def main() -> None:
        limits = Limits(queue_inputs=4, queue_tokens=20, request_inputs=6)
        async with batcher(FakeRelease(), limits=limits) as one:
            with pytest.raises(TooLargeError) as large:
                await one.submit(queries("twenty two words " * 7, "and one"))
            assert (large.value.field, large.value.limit) == ("inputs", 20)
            with pytest.raises(TooLargeError) as many:
                await one.submit(queries(*"abcdefg"))
            assert (many.value.field, many.value.limit) == ("inputs", 6)
            with pytest.raises(TooLargeError) as more:
                await one.submit(queries(*"abcde"))
            assert (more.value.field, more.value.limit) == ("inputs", 4)

    asyncio.run(main())


def test_an_input_that_is_too_long_fails_alone() -> None:
    async def main() -> None:
        async with batcher(FakeRelease(), limits=Limits(input_characters=10)) as one:
            long, short = await (await one.submit(queries("a" * 11, "a" * 10))).collect()
        assert isinstance(long.error, TooLargeError)
        assert (long.error.field, long.error.limit) == ("inputs[0]", 10)
        assert short.answers

    asyncio.run(main())


def test_a_request_is_answered_by_the_release_that_was_there_when_it_came() -> None:
    async def main() -> None:
        first, second, third = (FakeRelease(name) for name in ("first", "second", "third"))
        first.go.clear()
        async with batcher(first) as one:
            one.swap(served(first))
            begun = await one.submit(queries("begun"))
            await held(first)
            waits = await one.submit(queries("waits"))
            one.swap(served(second))
            after = await one.submit(queries("after"))
            one.swap(served(third))
            assert not second.closed
            first.go.set()
            said = [
                (await request.collect())[0].answers["mood"]["label"]
                for request in (begun, waits, after)
            ]
            assert said == ["mood of first: begun", "mood of first: waits", "mood of second: after"]
            assert one.served.release is third  # type: ignore[comparison-overlap]
        # The first one is the caller's own.
        assert [release.closed for release in (first, second, third)] == [False, True, True]

    asyncio.run(main())


def test_a_release_that_goes_on_under_other_numbers_stays_open() -> None:
    async def main() -> None:
        first, second = FakeRelease("first"), FakeRelease("second")
        async with batcher(first) as one:
            one.swap(served(second))
            one.swap(served(second))
            assert await one.predict("hello", "mood") == {
                "mood": {"label": "mood of second: hello"}
            }
            assert not second.closed
        assert second.closed

    asyncio.run(main())


def test_a_client_that_goes_while_its_inputs_are_tokenised_leaves_nothing_behind() -> None:
    async def main() -> None:
        release = FakeRelease()
        async with batcher(release) as one:
            sending = [asyncio.create_task(one.submit(queries("gone"))) for _ in range(20)]
            await asyncio.sleep(0)
            for task in sending:
                task.cancel()
            await asyncio.wait(sending)
            assert await one.predict("here", "mood")
            assert one.open_requests == one.queue.inputs == one.queue.tokens == 0

    asyncio.run(main())


def test_nothing_is_kept_of_requests_that_are_done() -> None:
    async def main() -> None:
        release = FakeRelease()
        async with batcher(release) as one:
            seen = []
            for i in range(50):
                request = await one.submit(queries("hello", "bad"), timeout=60)
                if i % 5:
                    await request.collect()
                else:
                    request.cancel()
                seen.append(weakref.ref(request))
                del request
            await one.predict("the last one")
            await asyncio.sleep(0)
            gc.collect()
            assert [ref for ref in seen if ref() is not None] == []

    asyncio.run(main())


def test_cancelling_says_so_to_whoever_still_reads() -> None:
    async def main() -> None:
        release = FakeRelease()
        release.go.clear()
        async with batcher(release) as one:
            request = await one.submit(queries("hello"))
            await held(release)
            request.cancel()
            said = [answer async for answer in request]
            release.go.set()
        assert [(answer.place, answer.task) for answer in said] == [(0, None)]
        assert isinstance(said[0].error, CancelledError)

    asyncio.run(main())


def test_an_observer_that_fails_keeps_nobody_from_an_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def batch_done(self, batch: object) -> None:
            raise RuntimeError("batch")

        def request_done(self, request: object) -> None:
            raise RuntimeError("request")

        def refused(self, error: object) -> None:
            raise RuntimeError("refused")

    async def main() -> None:
        async with batcher(FakeRelease(), observer=Broken()) as one:
            for _ in range(3):
                assert await one.predict("hello", "mood")
            with pytest.raises(DeadlineError):
                await one.predict("late", timeout=0)

    asyncio.run(main())
    assert "an observer failed" in caplog.text


def test_no_more_threads_than_processors(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "centra"):
        batcher(FakeRelease(), threads=processors() + 1)

    assert "so many are taken" in caplog.text


def test_it_follows_a_channel(
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> None:
    channel = Channel(backbone_store, tiny_backbone.spec)
    modules = {"intent": make_module(seed=1)}
    before = channel.publish(modules)

    async def main() -> None:
        async with Batcher(channel.source, engine="onnx", interval=3600) as one:
            assert one.served.digest == before.digest
            first = one.served.release
            assert first.predict("go") == await one.predict("go")
            after = channel.publish({"intent": make_module(seed=2)})
            assert one.follower is not None
            await asyncio.to_thread(one.follower.check_now)
            assert (one.served.digest, one.served.number) == (after.digest, 2)
            second = one.served.release
            assert second.predict("go") == await one.predict("go")
        assert first.closed
        assert second.closed
        async with Batcher(channel.source, engine="onnx", follow=False) as one:
            assert one.follower is None

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_it_knows_when_the_thread_that_computes_has_died() -> None:
    class Fatal(FakeRelease):
        def answer(self, *_: Any, **__: Any) -> Any:
            raise SystemExit

    async def main() -> None:
        one = batcher(Fatal())
        assert not one.alive
        async with one:
            assert one.alive
            with pytest.raises(DeadlineError):
                await one.predict("hello", timeout=0.1)
            for thread in threading.enumerate():
                if thread.name == "centra-batcher":
                    await asyncio.to_thread(thread.join)
            assert not one.alive

    asyncio.run(main())
