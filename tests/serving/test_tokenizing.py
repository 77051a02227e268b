"""Tokenising in threads: whose turn it is, and what is not worth it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from centra.runtime.queries import Query
from centra.serving.errors import TooLargeError
from centra.serving.tokenizing import Tokenization, TokenizerThreads
from tests.serving.fakes import FakeRelease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.errors import CentraError
    from centra.runtime.queries import EncodedQuery


class GatedRelease(FakeRelease):
    """Encodes nothing while its gate is closed."""

    encoded: int = 0

    def encode(
        self, queries: Sequence[Query], *, first: int = 1
    ) -> list[EncodedQuery | CentraError]:
        assert self.go.wait(30)
        self.encoded += 1
        if queries[0].input.text == "crash":  # type: ignore[attr-defined]
            raise RuntimeError("the tokenizer crashed")
        return super().encode(queries, first=first)


class Done:
    """What threads have told of, in order."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.results: dict[str, list[Any]] = {}
        self._told = threading.Semaphore(0)

    def work(self, name: str, release: FakeRelease, *texts: str, wanted: bool = True) -> Any:
        def done(results: list[Any]) -> None:
            self.order.append(name)
            self.results[name] = results
            self._told.release()

        queries = [Query(input=text) for text in texts]
        return Tokenization(release, queries, done=done, unwanted=lambda: not wanted)  # type: ignore[arg-type]

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self._told.acquire(timeout=30)


def test_a_large_request_takes_turns_with_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    # Any input is a turn.
    monkeypatch.setattr("centra.serving.tokenizing._TURN_SECONDS", 0.0)
    release, done = GatedRelease(), Done()
    release.go.clear()
    threads = TokenizerThreads(1, most_characters=100)
    threads.submit(done.work("large", release, *(f"text {i}" for i in range(100))))
    threads.submit(done.work("small", release, "small"))
    threads.submit(done.work("other", release, "other"))
    release.go.set()
    threads.close()

    assert done.order == ["small", "other", "large"]
    texts = [one.input.text for one in done.results["large"]]
    assert texts == [f"text {i}" for i in range(100)]


def test_threads_share_a_large_request() -> None:
    release, done = GatedRelease(), Done()
    threads = TokenizerThreads(4, most_characters=100)
    for name in "abc":
        threads.submit(done.work(name, release, *(f"{name} {i}" for i in range(200))))
    done.wait(3)
    threads.close()

    for name in "abc":
        texts = [one.input.text for one in done.results[name]]
        assert texts == [f"{name} {i}" for i in range(200)]


def test_nobody_waits_for_long_inputs_of_others() -> None:
    class SlowAtLongRelease(FakeRelease):
        def encode(
            self, queries: Sequence[Query], *, first: int = 1
        ) -> list[EncodedQuery | CentraError]:
            if len(queries[0].input.text) > 20_000:  # type: ignore[attr-defined]
                assert self.go.wait(30)
            return super().encode(queries, first=first)

    release, done = SlowAtLongRelease(), Done()
    release.go.clear()
    threads = TokenizerThreads(1, most_characters=100_000)
    threads.submit(done.work("long", release, *["x" * 50_000] * 5, "short"))
    threads.submit(done.work("small", release, "small"))
    done.wait(1)
    assert done.order == ["small"]
    release.go.set()
    threads.close()

    assert done.order == ["small", "long"]
    assert [len(one.input.text) for one in done.results["long"]] == [50_000] * 5 + [5]


def test_each_input_has_its_own_error() -> None:
    release, done = GatedRelease(), Done()
    threads = TokenizerThreads(1, most_characters=10)
    threads.submit(done.work("mixed", release, "good", "crash", "bad", "x" * 11, ""))
    threads.close()

    good, crash, bad, long, empty = done.results["mixed"]
    assert good.input.text == "good"
    assert (str(crash), str(bad)) == ("the tokenizer crashed", "a bad text")
    assert isinstance(long, TooLargeError)
    assert (long.field, long.limit) == ("inputs[3]", 10)
    assert str(empty) == "input 5: the text is empty"


def test_nothing_is_done_for_whoever_has_gone() -> None:
    release, done = GatedRelease(), Done()
    threads = TokenizerThreads(1, most_characters=100)
    threads.submit(done.work("gone", release, *"abc", wanted=False))
    threads.close()

    assert done.order == ["gone"]
    assert release.encoded == 0
