"""The batcher: whose answers go where, what fails alone, and what changes under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import DataError
from centra.runtime.queries import Query
from centra.serving import Batcher
from centra.serving.errors import ClosedError, DeadlineError
from tests.serving.fakes import FakeRelease

if TYPE_CHECKING:
    from collections.abc import Sequence


def queries(*texts: str, tasks: Sequence[str] | None = None) -> list[Query]:
    return [Query(input=text, tasks=None if tasks is None else tuple(tasks)) for text in texts]


def batcher(release: FakeRelease, **options: Any) -> Batcher:
    return Batcher(release, **options)  # type: ignore[arg-type]


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
