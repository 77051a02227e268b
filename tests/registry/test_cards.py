from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import InvalidNameError, StoreError
from centra.store import open_store
from centra.system.files import file_digest
from registry import cards, channels, evaluations, tasks
from registry.cards import Teacher
from registry.errors import TaskNotFoundError
from registry.releases import compose
from tests import support
from tests.memory_store import MemoryStore
from tests.registry.helpers import ADA, BOB, acting, blob_path, nothing_changes
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import BlobStore
    from registry import Registry

TRAINING = {
    "data": "a" * 64,
    "examples": 120,
    "recipe": {"tap": 1, "depth": 1, "metric": None, "seed": 3},
    "versions": {"torch": "2.9.0"},
}


def test_a_card_says_what_a_version_does_and_how_it_was_made(
    registry: Registry, module: Callable[..., Path]
) -> None:
    teacher = module(depth=2)
    student = module(training=TRAINING, teacher=file_digest(teacher), metrics={"accuracy": 0.9})
    tasks.register(registry, "big", teacher)
    tasks.register(acting(registry, BOB), "big-too", teacher)
    tasks.register(registry, "intent", student)
    with nothing_changes(registry):
        card = cards.show(registry, "intent@1.0")
    assert (card.name, card.team, card.state, card.current) == (
        "intent",
        "nlu",
        "active",
        version_number("1.0"),
    )
    assert card.version == tasks.show(registry, "intent").versions[0]
    assert (card.version.created_by, card.version.digest) == (ADA, file_digest(student))
    assert card.training == TRAINING
    assert card.teacher == Teacher(digest=file_digest(teacher), versions=["big@1.0", "big-too@1.0"])
    assert (card.evaluations, card.releases, card.channels) == ([], [], [])
    assert (card.threshold, card.remark) == (None, None)


def test_a_teacher_that_is_not_registered_goes_by_its_digest(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module(teacher="b" * 64))
    assert cards.show(registry, "intent").teacher == Teacher(digest="b" * 64, versions=[])


def test_a_card_names_the_releases_and_channels_that_hold_exactly_this_version(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.register(registry, "twin", module())  # The same bytes are another task's version.
    compose(registry, publish=True)
    tasks.retire(registry, "twin")
    compose(registry, publish=True)
    tasks.update(registry, "intent", module(seed=1))
    compose(registry, publish=True)
    for name, number in (("staging", "2"), ("production", "1"), ("another", "2")):
        channels.move(registry, name, number)
    found = {
        reference: (card.releases, card.channels)
        for reference in ("intent@1.0", "intent@1.1", "twin@1.0")
        for card in [cards.show(registry, reference)]
    }
    assert found == {
        "intent@1.0": ([1, 2], ["another", "production", "staging"]),
        "intent@1.1": ([3], ["latest"]),
        "twin@1.0": ([1], ["production"]),
    }


def test_a_card_has_what_was_measured_the_newest_first(
    registry: Registry, module: Callable[..., Path], tiny_data: Callable[[str], Path]
) -> None:
    tasks.register(registry, "intent", module())
    compose(registry, publish=True)
    data = tiny_data("single")
    first, _ = evaluations.evaluate(registry, "1", "intent", data)
    second, _ = evaluations.evaluate(acting(registry, BOB), "1", "intent", data / "train.jsonl")
    tasks.update(registry, "intent", module(seed=1))
    assert cards.show(registry, "intent@1.0").evaluations == [second, first]
    assert cards.show(registry, "intent@1.1").evaluations == []


def test_the_card_of_a_task_is_that_of_its_current_version(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    assert cards.show(registry, "intent").reference == "intent@1.1"
    tasks.pin(registry, "intent@1.0")
    tasks.retire(registry, "intent")
    card = cards.show(registry, "intent")
    assert (card.reference, card.current, card.state) == (
        "intent@1.0",
        version_number("1.0"),
        "retired",
    )


@pytest.mark.parametrize(
    ("kind", "threshold"),
    [("classification", None), ("multilabel", 0.5), ("regression", None), ("tagging", None)],
)
def test_only_a_multilabel_task_has_a_threshold(
    registry: Registry, module: Callable[..., Path], kind: str, threshold: float | None
) -> None:
    tasks.register(registry, "task", module(kind))
    card = cards.show(registry, "task")
    assert (card.threshold, card.training, card.teacher) == (threshold, {}, None)


@pytest.mark.parametrize("damage", ["missing", "corrupt", "unreachable"])
def test_a_card_without_its_module_says_why_and_keeps_the_rest(
    registry: Registry, module: Callable[..., Path], damage: str, tmp_path: Path
) -> None:
    tasks.register(registry, "intent", module(training=TRAINING, teacher="b" * 64))
    compose(registry, publish=True)
    whole = cards.show(registry, "intent")
    path = blob_path(registry, whole.version.digest)
    match damage:
        case "missing":
            path.unlink()
        case "corrupt":
            support.flip(path, 12345)
        case _:
            registry = dataclasses.replace(registry, store=Unreachable(tmp_path))
    card = cards.show(registry, "intent")
    assert card.remark is not None
    assert ("no such network" if damage == "unreachable" else whole.version.digest) in card.remark
    assert card == dataclasses.replace(whole, training={}, teacher=None, remark=card.remark)


class Unreachable(MemoryStore):
    """A store behind a network that is down."""

    def fetch(self, digest: str) -> Path:
        raise StoreError("no such network")


@pytest.fixture(params=["memory", "s3"])
def other_store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """A store that is no local folder."""
    if request.param == "memory":
        return MemoryStore(tmp_path / "memory")
    return open_store(request.getfixturevalue("s3_url"))


def test_a_card_comes_from_any_store(
    registry: Registry, module: Callable[..., Path], other_store: BlobStore
) -> None:
    tasks.register(registry, "intent", module(training=TRAINING))
    other_store.put(module(training=TRAINING))
    card = cards.show(dataclasses.replace(registry, store=other_store), "intent")
    assert (card.training, card.remark) == (TRAINING, None)


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("nope", TaskNotFoundError),
        ("intent@1.7", TaskNotFoundError),
        ("intent@new", InvalidNameError),
        ("intent@", InvalidNameError),
        ("../intent", InvalidNameError),
    ],
)
def test_a_version_that_is_not_there_has_no_card(
    registry: Registry, module: Callable[..., Path], reference: str, error: Any
) -> None:
    tasks.register(registry, "intent", module())
    with pytest.raises(error):
        cards.show(registry, reference)
