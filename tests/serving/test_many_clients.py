"""Hundreds of clients at once, each of whom checks its own answers against those given offline."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import DataError, NotFoundError
from centra.runtime import Release
from centra.runtime.queries import Query
from centra.serving import Batcher, Limits
from centra.serving.errors import CancelledError, DeadlineError
from centra.serving.request import InputAnswer
from centra.serving.served import ServedRelease
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule
    from centra.serving.compute import BatchRecord
    from centra.serving.errors import ServingError
    from centra.serving.request import Request
    from centra.store import LocalStore

# Task: kind, tap, depth, form.
TASKS = {
    "bare": ("classification", 0, 0, "single"),
    "low": ("multilabel", 1, 1, "single"),
    "value": ("regression", 2, 1, "single"),
    "tags": ("tagging", 1, 2, "single"),
    "deep": ("classification", 3, 1, "single"),
    "both": ("classification", 2, 1, "pair"),
}
SINGLE = [name for name, (*_, form) in TASKS.items() if form == "single"]
WORDS = [
    "wake",
    "me",
    "at",
    "seven",
    "play",
    "some",
    "jazz",
    "in",
    "new",
    "york",
    "please",
    "is",
    "there",
    "snow",
    "go",
    "to",
    "rome",
]
CLIENTS, REQUESTS, SWAPS = 300, 3, 5

Expected = dict[str, dict[object, dict[str, Any]]]
"""By release and input what each task says."""


@dataclass
class Watch:
    """Sees the batches, and lets another release take over from time to time."""

    batches: list[int] = field(default_factory=list)
    done: int = 0
    next: list[ServedRelease] = field(default_factory=list)
    batcher: Batcher | None = None

    def batch_done(self, batch: BatchRecord) -> None:
        self.batches.append(batch.inputs)

    def request_done(self, request: Request) -> None:
        self.done += 1
        if self.next and self.done % (CLIENTS * REQUESTS // (2 * SWAPS)) == 0:
            assert self.batcher is not None
            asyncio.get_running_loop().call_soon(self.batcher.swap, self.next.pop())

    def refused(self, error: ServingError) -> None:
        assert isinstance(error, DeadlineError)


@pytest.fixture
def manifests(
    store: LocalStore, tiny_backbone: support.Backbone, make_module: Callable[..., TaskModule]
) -> list[ReleaseManifest]:
    """Two releases of the same tasks; most modules differ."""
    support.copy_backbone(tiny_backbone, store)
    modules = {
        name: make_module(kind, tap=tap, depth=depth, form=form, seed=seed)
        for seed, (name, (kind, tap, depth, form)) in enumerate(TASKS.items())
    }
    others = {
        name: make_module(kind, tap=tap, depth=depth, form=form, seed=seed + 50)
        for seed, (name, (kind, tap, depth, form)) in enumerate(TASKS.items())
        if name != "tags"
    }
    return [
        support.put_release(chosen, [tiny_backbone.spec], store)
        for chosen in (modules, modules | others)
    ]


def test_each_of_hundreds_gets_its_own_answers_whatever_happens_to_the_others(
    manifests: list[ReleaseManifest], store: LocalStore
) -> None:
    rng = random.Random(5)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(60)]
    pairs = [(text, "yes it is") for text in texts[:20]]
    releases = [Release.load(manifests[i % 2], store, engine="onnx") for i in range(SWAPS + 1)]
    inputs: list[object] = [*texts, *pairs]
    expected: Expected = {
        release.digest: dict(zip(inputs, release.predict(inputs), strict=True))
        for release in releases[:2]
    }
    first, *later = releases
    watch = Watch(next=[served(release) for release in later])
    outcomes: Counter[str] = Counter()

    async def main() -> None:
        limits = Limits(batch_tokens=512)
        async with Batcher(first, limits=limits, observer=watch) as batcher:
            watch.batcher = batcher
            clients = (
                client(batcher, random.Random(i), inputs, expected, outcomes)
                for i in range(CLIENTS)
            )
            await asyncio.gather(*clients)
            assert batcher.open_requests == batcher.queue.inputs == batcher.queue.tokens == 0
            assert batcher.served.release is later[0]

    asyncio.run(main())

    assert not first.closed
    assert all(release.closed for release in later)
    assert outcomes.total() == CLIENTS * REQUESTS
    assert all(outcomes[name] > 10 for name in ("answered", "streamed", "late", "cancelled"))
    assert max(watch.batches) > 20


async def client(
    batcher: Batcher,
    rng: random.Random,
    inputs: list[object],
    expected: Expected,
    outcomes: Counter[str],
) -> None:
    for _ in range(REQUESTS):
        queries = [some_query(rng, inputs) for _ in range(rng.choice((1, 1, 1, 2, 9)))]
        timeout = rng.choice((None, None, 60, 0, rng.uniform(0, 0.1)))
        way = rng.choice(("collect", "collect", "stream", "stream", "cancel", "leave"))
        try:
            request = await batcher.submit(queries, timeout=timeout)
        except DeadlineError:
            assert timeout is not None
            outcomes["late"] += 1
            continue
        if way == "cancel":
            asyncio.get_running_loop().call_soon(request.cancel)
        if way == "leave":
            waiting = asyncio.create_task(request.collect())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        if way == "stream":
            answers = await streamed(request, len(queries))
        else:
            answers = await request.collect()
        for query, answer in zip(queries, answers, strict=True):
            check(query, answer, expected[request.served.digest])
        match request.failure:
            case None:
                outcomes["streamed" if way == "stream" else "answered"] += 1
            case CancelledError():
                assert way in ("cancel", "leave")
                outcomes["cancelled"] += 1
            case error:
                assert isinstance(error, DeadlineError)
                assert timeout is not None
                outcomes["late"] += 1


def some_query(rng: random.Random, inputs: list[object]) -> Query:
    found = rng.choice(inputs)
    if rng.random() < 0.1:
        return rng.choice(
            (
                Query(input=" "),
                Query(input=found, tasks=("nonsense",)),
                Query(input=found, tasks=("bare", "both")),
            )
        )
    names = SINGLE if isinstance(found, str) else ["both"]
    chosen = None if rng.random() < 0.3 else tuple(rng.sample(names, rng.randint(1, len(names))))
    return Query(input=found, tasks=chosen)


async def streamed(request: Request, count: int) -> list[InputAnswer]:
    found = [InputAnswer() for _ in range(count)]
    async for said in request:
        one = found[said.place]
        assert one.error is None
        if said.task is None:
            one.error = said.error
        else:
            assert said.error is None
            assert said.answer is not None
            assert said.task not in one.answers
            one.answers[said.task] = said.answer
    return found


def check(query: Query, answer: InputAnswer, expected: Mapping[object, dict[str, Any]]) -> None:
    """All that was asked was answered, as it is offline; or it is said why not."""
    assert answer.errors == {}
    wrong = query.input == " " or query.tasks in (("nonsense",), ("bare", "both"))
    if wrong:
        assert answer.answers == {}
        assert isinstance(answer.error, DataError | NotFoundError | DeadlineError | CancelledError)
        return
    offline = expected[query.input]
    for task, said in answer.answers.items():
        # To the last digit: on this engine no input's neighbours matter.
        assert said == offline[task]
    if answer.error is None:
        assert answer.answers.keys() == set(query.tasks or offline)
    else:
        assert isinstance(answer.error, DeadlineError | CancelledError)


def served(release: Release) -> ServedRelease:
    return ServedRelease(
        release=release,
        number=None,
        versions={},
        channel=None,
        revision=None,
        since=datetime.now(UTC),
    )
