"""A second release beside the one that is served: what is compared, and what it costs."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from centra.kinds import kind_named
from centra.releases.find import find_release
from centra.runtime.queries import Query
from centra.runtime.release import Release
from centra.serving.preparing import LoadOptions
from centra.serving.served import ServedRelease
from centra.serving.shadow import Shadow
from tests.serving.channels import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore
    from tests import support

Modules = dict[str, "TaskModule"]
ONE_THREAD = LoadOptions(engine="onnx", threads=1)
TEXTS = [
    "wake me at seven",
    "play some jazz in new york",
    "is there snow",
    "yes it is",
    "go to rome",
]


@pytest.fixture(scope="module")
def modules(make_module: Callable[..., TaskModule]) -> Modules:
    return {
        "intent": make_module(seed=1),
        "slots": make_module("tagging", tap=2, seed=2),
        "topics": make_module("multilabel", seed=3),
    }


@pytest.fixture
def production(backbone_store: LocalStore, tiny_backbone: support.Backbone) -> Channel:
    return Channel(backbone_store, tiny_backbone.spec)


@pytest.fixture
def staging(production: Channel) -> Channel:
    return replace(production, name="staging", revision=0)


@pytest.fixture
def served(production: Channel, modules: Modules) -> Iterator[ServedRelease]:
    """Release 1, which clients are answered by."""
    production.publish(modules)
    with serving(production) as release:
        yield release


@contextmanager
def serving(channel: Channel) -> Iterator[ServedRelease]:
    location = find_release(channel.source)
    with Release.load(location.manifest, location.reader, engine="onnx", threads=1) as release:
        yield ServedRelease.of(location, release)


@contextmanager
def shadowing(channel: Channel, **options: Any) -> Iterator[Shadow]:
    shadow = Shadow(channel.source, options=ONE_THREAD, **options)
    shadow.start()
    assert shadow.loaded.wait(60)
    try:
        yield shadow
    finally:
        shadow.close()


def offer(
    shadow: Shadow,
    served: ServedRelease,
    texts: Sequence[str] = TEXTS,
    tasks: tuple[str, ...] | None = None,
) -> list[dict[str, Any]]:
    """Let clients ask, and wait until everything is compared; gives what they got."""
    answers = served.release.predict(texts, tasks)
    for text, answer in zip(texts, answers, strict=True):
        shadow.offer(Query(input=text, tasks=tasks), answer, served)
    shadow._answered.join()
    return answers


def test_answers_are_compared_task_by_task(
    served: ServedRelease,
    staging: Channel,
    modules: Modules,
    make_module: Callable[..., TaskModule],
) -> None:
    other = {"intent": make_module(seed=7), "slots": modules["slots"], "new": make_module(seed=8)}
    staging.publish(other)
    with shadowing(staging) as shadow, serving(staging) as apart:
        got = offer(shadow, served)
        report = shadow.report()
        theirs = apart.release.predict(TEXTS)
        distances = [
            kind_named("classification").distance(one["intent"], two["intent"])
            for one, two in zip(got, theirs, strict=True)
        ]
        same = [distance for distance in distances if distance is not None]
        assert report["release"] == {"release": 2, "digest": apart.digest}
        assert report["against"] == {"release": 1, "digest": served.digest}
        assert (report["channel"], report["revision"]) == ("staging", 1)
        assert (report["inputs"], report["dropped"], report["failure"]) == (5, 0, None)
        assert {task: count["compared"] for task, count in report["tasks"].items()} == {
            "intent": 5,
            "slots": 5,
            "topics": 0,
            "new": 0,
        }
        assert (report["tasks"]["intent"]["same"], report["tasks"]["intent"]["different"]) == (
            len(same),
            5 - len(same),
        )
        assert report["tasks"]["slots"]["different"] == 0
        assert report["tasks"]["slots"]["score_difference"] == {"mean": 0, "largest": 0}
        assert report["tasks"]["topics"]["only_served"] == 5
        assert report["tasks"]["new"]["only_shadow"] == 5


def test_only_the_tasks_that_were_asked_for_are_compared(
    served: ServedRelease, staging: Channel, make_module: Callable[..., TaskModule]
) -> None:
    staging.publish({"intent": make_module(seed=7), "new": make_module(seed=8)})
    with shadowing(staging) as shadow:
        offer(shadow, served, tasks=("intent", "topics"))
        tasks = shadow.report()["tasks"]
        assert tasks.keys() == {"intent", "topics"}
        assert (tasks["intent"]["compared"], tasks["topics"]["only_served"]) == (5, 5)


def test_a_task_that_was_redefined_is_told_from_one_that_answers(
    served: ServedRelease, staging: Channel, make_module: Callable[..., TaskModule]
) -> None:
    staging.publish(
        {
            "intent": make_module("multilabel", seed=7),
            "slots": make_module(form="pair", seed=8),
            "topics": make_module("multilabel", labels=("x", "y"), seed=9),
        }
    )
    with shadowing(staging) as shadow:
        for tasks in (None, ("intent", "slots", "topics")):
            offer(shadow, served, tasks=tasks)
        tasks = shadow.report()["tasks"]
        assert tasks["intent"]["different"] == tasks["intent"]["compared"] == 10
        assert tasks["slots"]["only_served"] == 10
        assert tasks["topics"]["compared"] == 10


def test_a_branch_that_fails_is_counted(
    served: ServedRelease,
    staging: Channel,
    modules: Modules,
    make_module: Callable[..., TaskModule],
) -> None:
    staging.publish({**modules, "intent": make_module(seed=7)})
    with shadowing(staging) as shadow:
        assert shadow.served is not None
        task = shadow.served.release._parts.tasks["intent"]

        class Broken:
            def run(self, _: object) -> None:
                raise MemoryError

        object.__setattr__(task, "branch", Broken())
        offer(shadow, served)
        tasks = shadow.report()["tasks"]
        assert (tasks["intent"]["errors"], tasks["intent"]["compared"]) == (5, 0)
        assert tasks["slots"]["compared"] == 5


def test_counting_begins_anew_with_another_release_on_either_side(
    served: ServedRelease,
    production: Channel,
    staging: Channel,
    modules: Modules,
    make_module: Callable[..., TaskModule],
) -> None:
    staging.publish({"intent": make_module(seed=7)})
    with shadowing(staging) as shadow:
        offer(shadow, served)
        staging.publish({"intent": make_module(seed=8)})
        shadow.follower.check_now()
        offer(shadow, served, TEXTS[:2])
        assert shadow.report()["inputs"] == 2
        assert shadow.report()["release"]["release"] == 3
        production.publish({**modules, "topics": make_module("multilabel", seed=9)})
        with serving(production) as later:
            offer(shadow, later, TEXTS[:3])
            assert shadow.report()["inputs"] == 3
            assert shadow.report()["against"]["release"] == 4
            offer(shadow, served)  # It answers its last requests.
            assert shadow.report()["inputs"] == 3


def test_a_release_is_not_compared_with_itself(served: ServedRelease, production: Channel) -> None:
    with shadowing(production) as shadow:
        offer(shadow, served)
        assert (shadow.report()["inputs"], shadow.report()["against"]) == (0, None)


def test_it_waits_while_there_is_something_better_to_do_and_drops_what_is_too_much(
    served: ServedRelease,
    staging: Channel,
    make_module: Callable[..., TaskModule],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("centra.serving.shadow._WAITING", 3)
    staging.publish({"intent": make_module(seed=7)})
    busy, asked = threading.Event(), threading.Event()
    busy.set()

    def is_busy() -> bool:
        asked.set()
        return busy.is_set()

    with shadowing(staging, busy=is_busy) as shadow:
        answer = served.release.predict(TEXTS[0])
        shadow.offer(Query(input=TEXTS[0]), answer, served)
        assert asked.wait(60)  # It has taken the first from those that wait.
        for text in TEXTS:
            shadow.offer(Query(input=text), answer, served)
        assert (shadow.dropped, shadow.report()["inputs"]) == (2, 0)
        busy.clear()
        shadow._answered.join()
        assert (shadow.report()["dropped"], shadow.report()["inputs"]) == (2, 4)


def test_it_takes_its_share(
    served: ServedRelease,
    staging: Channel,
    make_module: Callable[..., TaskModule],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    staging.publish({"intent": make_module(seed=7)})
    numbers = iter([0.1, 0.3, 0.25, 0.9, 0.2])
    monkeypatch.setattr("random.random", lambda: next(numbers))
    with shadowing(staging, share=0.25) as shadow:
        offer(shadow, served)
        assert (shadow.report()["inputs"], shadow.report()["share"]) == (2, 0.25)


def test_a_shadow_that_cannot_be_loaded_keeps_nobody_from_serving_and_comes_later(
    served: ServedRelease, staging: Channel, make_module: Callable[..., TaskModule]
) -> None:
    shadow = Shadow(staging.source, options=ONE_THREAD, interval=0.01)
    failed = threading.Event()
    load = shadow.follower.load

    def noted() -> ServedRelease:
        if shadow.failure is not None:
            failed.set()
        return load()

    shadow.follower.load = noted  # type: ignore[method-assign]
    shadow.start()
    try:
        assert failed.wait(60)
        assert "no channel 'staging'" in shadow.report()["failure"]
        shadow.offer(Query(input=TEXTS[0]), {}, served)
        staging.publish({"intent": make_module(seed=7)})
        assert shadow.loaded.wait(60)
    finally:
        shadow.close()
    assert shadow.report()["failure"] is None


@pytest.mark.parametrize(
    ("kind", "one", "other", "distance"),
    [
        ("classification", {"label": "a", "score": 0.75}, {"label": "a", "score": 0.5}, 0.25),
        ("classification", {"label": "a", "score": 0.75}, {"label": "b", "score": 0.75}, None),
        ("classification", {"label": None, "score": 0.25}, {"label": "a", "score": 0.5}, None),
        ("classification", {"label": None, "score": 0.25}, {"label": None, "score": 0.25}, 0.0),
        ("multilabel", {"labels": []}, {"labels": []}, 0.0),
        (
            "multilabel",
            {"labels": [{"label": "a", "score": 0.75}, {"label": "b", "score": 0.5}]},
            {"labels": [{"label": "b", "score": 1.0}, {"label": "a", "score": 0.75}]},
            0.5,
        ),
        ("multilabel", {"labels": [{"label": "a", "score": 0.75}]}, {"labels": []}, None),
        ("regression", {"value": 4.0}, {"value": 4.125}, 0.125),
        ("regression", {"value": 4.0}, {"value": 4.5}, None),
        (
            "tagging",
            {"spans": [{"label": "city", "start": 0, "end": 4, "score": 0.75}]},
            {"spans": [{"label": "city", "start": 0, "end": 4, "score": 0.5}]},
            0.25,
        ),
        (
            "tagging",
            {"spans": [{"label": "city", "start": 0, "end": 4, "score": 0.75}]},
            {"spans": [{"label": "city", "start": 0, "end": 9, "score": 0.75}]},
            None,
        ),
    ],
)
def test_what_counts_as_the_same_answer_its_kind_says(
    kind: str, one: dict[str, Any], other: dict[str, Any], distance: float | None
) -> None:
    assert kind_named(kind).distance(one, other) == distance
    assert kind_named(kind).distance(other, one) == distance
