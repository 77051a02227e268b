"""Parts that loaded releases share."""

from __future__ import annotations

import dataclasses
import gc
import threading

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
