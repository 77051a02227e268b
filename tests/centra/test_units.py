"""Parts that loaded releases share."""

from __future__ import annotations

import dataclasses
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from centra.runtime.units import UnitCache, UnitKey

KEY = UnitKey(digest="a" * 64, precision="fp32", engine="onnxruntime 1", settings=("layer", 1))


class Unit:
    """Something that was expensive to make."""


def test_a_unit_in_use_is_not_made_again() -> None:
    cache = UnitCache()
    unit = cache.get(KEY, Unit)

    assert cache.get(KEY, lambda: pytest.fail("made twice")) is unit


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "b" * 64},
        {"precision": "int8"},
        {"engine": "onnxruntime 2"},
        {"settings": ("layer", 2)},
    ],
)
def test_units_of_other_keys_are_others(change: dict[str, object]) -> None:
    cache = UnitCache()
    unit = cache.get(KEY, Unit)

    assert cache.get(dataclasses.replace(KEY, **change), Unit) is not unit


def test_a_unit_lives_as_long_as_it_is_used() -> None:
    cache, made = UnitCache(), []

    def make() -> Unit:
        made.append(1)
        return Unit()

    unit = cache.get(KEY, make)
    del unit
    gc.collect()
    cache.get(KEY, make)

    assert len(made) == 2


def test_a_unit_that_is_asked_for_twice_at_once_is_made_once() -> None:
    cache, begun, go, found = UnitCache(), threading.Event(), threading.Event(), []

    def make() -> Unit:
        begun.set()
        assert go.wait(60)
        return Unit()

    def ask(make: type | object) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.append(cache.get(KEY, make)))
        thread.start()
        return thread

    first = ask(make)
    assert begun.wait(60)
    second = ask(Unit)
    go.set()
    first.join(60)
    second.join(60)

    assert len(found) == 2
    assert found[0] is found[1]


def test_a_unit_that_cannot_be_made_may_be_tried_again() -> None:
    cache = UnitCache()

    with pytest.raises(ZeroDivisionError):
        cache.get(KEY, lambda: 1 / 0)

    assert isinstance(cache.get(KEY, Unit), Unit)


def test_of_those_who_wait_for_one_that_fails_one_makes_it() -> None:
    cache, begun, go = UnitCache(), threading.Event(), threading.Event()
    made: list[Unit] = []

    def fail() -> Unit:
        begun.set()
        assert go.wait(60)
        raise ZeroDivisionError

    def make() -> Unit:
        made.append(Unit())
        return made[-1]

    with ThreadPoolExecutor(5) as threads:
        failing = threads.submit(cache.get, KEY, fail)
        assert begun.wait(60)
        waiting = [threads.submit(cache.get, KEY, make) for _ in range(4)]
        go.set()
        with pytest.raises(ZeroDivisionError):
            failing.result(60)
        found = {id(one.result(60)) for one in waiting}

    assert found == {id(made[0])}
    assert len(made) == 1


def test_a_blob_is_read_even_where_its_unit_is_in_use() -> None:
    cache, read = UnitCache(), []
    reader: Any = SimpleNamespace(fetch=read.append)

    def make() -> Unit:
        reader.fetch(KEY.digest)
        return Unit()

    unit = cache.of_blob(KEY, make, reader)
    assert cache.of_blob(KEY, make, reader) is unit
    assert read == [KEY.digest] * 2
    assert cache.of_blob(KEY, make, reader, checked={KEY.digest}) is unit
    assert read == [KEY.digest] * 2
