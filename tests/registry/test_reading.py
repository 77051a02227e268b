from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select, update

from centra.errors import BlobNotFoundError, CorruptBlobError, NotFoundError, UsageError
from centra.store import LocalStore
from registry import backbones, channels, graphs, releases, tasks
from registry.database.listing import MetricBound
from registry.database.models import Channel, Release, Task, TaskVersion
from registry.releases import compose
from tests import support
from tests.registry.helpers import BOB, acting, blob_path, forge, refused, root_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from registry import Registry
    from tests.registry.helpers import Registries

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
MORE = ("alarm", "music", "weather", "news")
SCORES = {"low": 0.25, "mid": 0.5, "mid-2": 0.5, "top": 0.75}


@pytest.fixture(scope="module")
def settled(
    registries: Registries,
    module: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Registry]:
    """A registry for reading: tasks named after their f1, made a day apart, and two without one.

    ``top`` is on the backbone ``other``, ``mid-2`` has an earlier version with another f1, and
    ``plain`` belongs to another team.
    """
    with registries.lend(tmp_path_factory.mktemp("settled")) as registry:
        for name, score in SCORES.items():
            where = "other" if name == "top" else "tiny"
            first = 0.99 if name == "mid-2" else score
            tasks.register(registry, name, module(on=where, metrics={"f1": first}))
            if first != score:
                tasks.update(registry, name, module(metrics={"f1": score}))
        tasks.register(registry, "none", module("tagging"))
        tasks.register(acting(registry, BOB), "plain", module("regression"))
        for day, name in enumerate((*SCORES, "none", "plain")):
            made(registry, name, START + timedelta(days=day))
        yield registry


@pytest.fixture
def pair(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """A registry with ``intent`` (tap 1) and ``slots`` (tap 2), published as release 1."""

    def build() -> None:
        tasks.register(registry, "intent", module())
        tasks.register(registry, "slots", module("tagging", tap=2))
        compose(registry, publish=True)

    return bring("reading", build)


def made(registry: Registry, name: str, at: datetime) -> None:
    """Set when a task's current version was made."""
    task = select(Task.id).where(Task.name == name).scalar_subquery()
    with registry.write() as uow:
        uow.session.execute(
            update(TaskVersion).where(TaskVersion.current_of == task).values(created_at=at)
        )


def names(registry: Registry, *bounds: str, **options: Any) -> list[str]:
    metrics = [MetricBound.parse(bound) for bound in bounds]
    return [row.name for row in tasks.list(registry, metrics=metrics, **options)]


@contextmanager
def counted(registry: Registry) -> Iterator[list[str]]:
    """The statements that a block sends to the database."""
    statements: list[str] = []

    def add(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(registry.engine, "before_cursor_execute", add)
    yield statements
    event.remove(registry.engine, "before_cursor_execute", add)


class Counting(LocalStore):
    """A store that remembers what was fetched from it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetched: list[str] = []

    def fetch(self, digest: str) -> Path:
        self.fetched.append(digest)
        return super().fetch(digest)


# Bounds on metrics.


@pytest.mark.parametrize(
    ("written", "bound"),
    [
        ("f1>=0.5", ("f1", ">=", 0.5)),
        (" macro f1 <= -1e3 ", ("macro f1", "<=", -1000)),
        ("a.b<2", ("a.b", "<", 2)),
        ("loss>0", ("loss", ">", 0)),
        ("f1=1", ("f1", "=", 1)),
    ],
)
def test_a_bound_is_a_name_a_comparison_and_a_number(
    written: str, bound: tuple[str, str, float]
) -> None:
    found = MetricBound.parse(written)
    assert (found.name, found.comparison, found.value) == bound


@pytest.mark.parametrize(
    "written", ["", "f1", "f1>=", ">=0.5", "f1>=high", "f1>=nan", "f1<inf", "f1==1", "f1>=1 2"]
)
def test_any_other_bound_is_refused(written: str) -> None:
    with pytest.raises(UsageError, match="expected NAME>=VALUE"):
        MetricBound.parse(written)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (("f1>=0.5",), ["mid", "mid-2", "top"]),
        (("f1>0.5",), ["top"]),
        (("f1<=0.5",), ["low", "mid", "mid-2"]),
        (("f1<0.5",), ["low"]),
        (("f1=0.5",), ["mid", "mid-2"]),
        (("f1>0.25", "f1<0.75"), ["mid", "mid-2"]),
        (("f1>0.25", "f1<0.5"), []),
        (("f2>=0",), []),
        (("f1>=-100",), ["low", "mid", "mid-2", "top"]),
    ],
)
def test_a_metric_is_kept_within_its_bounds(
    settled: Registry, bounds: tuple[str, ...], expected: list[str]
) -> None:
    assert names(settled, *bounds) == expected


@pytest.mark.parametrize(
    "metric", ["top-1.acc", "f1 (micro)", "it's", "100%", "$.f1", "é", "a\\b", "0"]
)
def test_a_metric_may_have_any_common_name(
    registry: Registry, module: Callable[..., Path], metric: str
) -> None:
    tasks.register(registry, "b", module(metrics={metric: 0.5}))
    tasks.register(registry, "c", module(metrics={metric: 0.7}))
    tasks.register(registry, "a", module(metrics={"f1": 0.9}))
    assert names(registry, f"{metric}>=0.6") == ["c"]
    assert names(registry, sort=metric) == ["c", "b", "a"]


@pytest.mark.parametrize("metric", ['a"b', "a\nb", ""])
def test_a_metric_name_that_not_every_database_can_look_up_is_refused(
    settled: Registry, metric: str
) -> None:
    with refused(settled, UsageError, repr(metric)):
        tasks.list(settled, sort=metric)
    with refused(settled, UsageError, repr(metric)):
        tasks.list(settled, metrics=[MetricBound(name=metric, comparison=">", value=0)])


# Time, order, pages.


def test_tasks_are_kept_by_when_their_current_version_was_made(settled: Registry) -> None:
    days = [START + timedelta(days=day) for day in range(6)]
    assert names(settled, since=days[4]) == ["none", "plain"]
    assert names(settled, until=days[1]) == ["low"]
    assert names(settled, since=days[1], until=days[3]) == ["mid", "mid-2"]
    assert names(settled, since=days[3], until=days[3]) == []
    elsewhere = days[4].astimezone(timezone(timedelta(hours=-9)))
    assert names(settled, since=elsewhere) == ["none", "plain"]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["low", "mid", "mid-2", "none", "plain", "top"]),
        ("team", ["low", "mid", "mid-2", "none", "top", "plain"]),
        ("created", ["plain", "none", "top", "mid-2", "mid", "low"]),
        ("f1", ["top", "mid", "mid-2", "low", "none", "plain"]),
    ],
)
def test_tasks_are_sorted_and_ties_go_by_name(
    settled: Registry, sort: str, expected: list[str]
) -> None:
    assert names(settled, sort=sort) == expected


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["top", "plain", "none", "mid-2", "mid", "low"]),
        ("team", ["plain", "low", "mid", "mid-2", "none", "top"]),
        ("created", ["low", "mid", "mid-2", "top", "none", "plain"]),
        ("f1", ["low", "mid", "mid-2", "top", "none", "plain"]),
    ],
)
def test_a_reversed_order_keeps_ties_by_name_and_what_is_missing_last(
    settled: Registry, sort: str, expected: list[str]
) -> None:
    assert names(settled, sort=sort, reverse=True) == expected


def test_names_are_sorted_letter_for_letter_on_every_database(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tricky = ["a-b", "a.b", "a0", "a_b", "aa", "ab", "b"]
    for name in reversed(tricky):
        tasks.register(registry, name, module())
    with counted(registry) as sent:
        assert names(registry) == names(registry, sort="f1") == sorted(tricky)
    if registry.engine.dialect.name == "postgresql":
        # The test's server knows no language; others would order by one unless told not to.
        assert 'COLLATE "C"' in sent[-1]


@pytest.mark.parametrize("sort", ["name", "team", "created", "f1"])
def test_pages_are_the_whole_list_in_pieces(settled: Registry, sort: str) -> None:
    for size in (1, 2, 4, 6, 100):
        pages = [names(settled, sort=sort, limit=size, offset=start) for start in range(0, 8, size)]
        assert all(len(page) <= size for page in pages)
        assert [name for page in pages for name in page] == names(settled, sort=sort)


def test_a_page_beyond_the_end_is_empty_and_nonsense_is_refused(settled: Registry) -> None:
    assert names(settled, limit=5, offset=100) == names(settled, limit=0) == []
    assert names(settled, offset=4) == ["plain", "top"]
    for options in ({"limit": -1}, {"offset": -1}):
        with refused(settled, UsageError, "must not be negative"):
            tasks.list(settled, **options)  # type: ignore[arg-type]


def test_filters_order_and_pages_go_together(settled: Registry) -> None:
    options: dict[str, Any] = {"team": "nlu", "kind": "classification", "sort": "f1"}
    assert names(settled, "f1>=0.5", **options, limit=2) == ["top", "mid"]
    assert names(settled, "f1>=0.5", **options, limit=2, offset=2) == ["mid-2"]
    assert names(settled, "f1>=0.5", **options, backbone="tiny@1") == ["mid", "mid-2"]
    assert names(settled, state="retired", sort="f1", since=START) == []
    assert names(settled, backbone="tiny@x") == names(settled, backbone="tiny@") == []


# What it costs.


def test_a_listing_takes_as_many_statements_for_many_rows_as_for_one(
    registry: Registry, module: Callable[..., Path]
) -> None:
    def statements() -> list[int]:
        counts = []
        for read in (
            lambda: tasks.list(registry, sort="f1"),
            lambda: tasks.show(registry, "intent"),
            lambda: releases.list(registry),
            lambda: channels.list(registry),
            lambda: backbones.list(registry),
        ):
            with counted(registry) as sent:
                read()
            counts.append(len(sent))
        return counts

    tasks.register(registry, "intent", module(metrics={"f1": 0.1}))
    compose(registry, publish=True)
    few = statements()
    for seed in range(1, 5):
        tasks.update(registry, "intent", module(seed=seed))
        tasks.register(registry, f"task-{seed}", module(seed=seed))
        compose(registry, publish=True)
        channels.move(registry, f"channel-{seed}", str(seed))
    assert statements() == few


# Lists of releases, channels and backbones.


def test_releases_are_kept_by_what_they_hold(pair: Registry, module: Callable[..., Path]) -> None:
    tasks.update(pair, "intent", module(seed=1))
    compose(pair, publish=True)
    tasks.retire(pair, "slots")
    compose(pair, publish=True)
    channels.move(pair, "production", "2")

    def numbers(**options: Any) -> list[int]:
        return [row.number for row in releases.list(pair, **options)]

    assert numbers() == numbers(task="intent") == [3, 2, 1]
    assert numbers(task="slots") == [2, 1]
    assert numbers(task="intent@1.0") == [1]
    assert numbers(task="intent@1.1") == [3, 2]
    assert numbers(channel="production") == [2]
    assert numbers(channel="latest", task="slots") == []
    assert [row.tasks for row in releases.list(pair)] == [1, 2, 2]
    assert (numbers(limit=2), numbers(limit=2, offset=2)) == ([3, 2], [1])
    assert numbers(task="slots", limit=1, offset=1) == [1]
    for options in ({"channel": "nope"}, {"task": "nope"}, {"task": "intent@9.0"}):
        with refused(pair, NotFoundError, "9.0" if "@" in str(options) else "nope"):
            releases.list(pair, **options)  # type: ignore[arg-type]


def test_releases_and_channels_are_kept_by_time(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(pair, "intent", module(seed=1))
    compose(pair, publish=True)
    channels.move(pair, "production", "1")
    with pair.write() as uow:
        for number in (1, 2):
            day = START + timedelta(days=number)
            release = uow.release(str(number))
            uow.session.execute(
                update(Release).where(Release.id == release.id).values(created_at=day)
            )
            uow.session.execute(
                update(Channel).where(Channel.release_id == release.id).values(moved_at=day)
            )
    second = START + timedelta(days=2)
    assert [row.number for row in releases.list(pair, since=second)] == [2]
    assert [row.number for row in releases.list(pair, until=second)] == [1]
    assert [row.name for row in channels.list(pair, since=second)] == ["latest"]
    assert [row.name for row in channels.list(pair, until=second)] == ["production"]


def test_channels_are_kept_by_the_release_and_the_tasks_that_they_serve(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(pair, "intent", module(seed=1))
    tasks.retire(pair, "slots")
    digest = compose(pair, publish=True).digest
    channels.move(pair, "production", "1")

    def found(**options: str) -> list[str]:
        return [row.name for row in channels.list(pair, **options)]

    assert found() == found(task="intent") == ["latest", "production"]
    assert found(release="2") == found(release=digest[:10]) == found(release="latest") == ["latest"]
    assert found(task="slots") == found(task="intent@1.0") == found(release="1") == ["production"]
    assert found(task="slots", release="2") == []
    for options in ({"release": "9"}, {"task": "nope"}):
        with refused(pair, NotFoundError, *options.values()):
            channels.list(pair, **options)


def test_backbones_are_kept_by_state_and_family(registry: Registry) -> None:
    def found(**options: str) -> list[str]:
        return [row.reference for row in backbones.list(registry, **options)]

    assert found() == found(state="active") == ["other@1", "tiny@1"]
    assert found(family="bert") == ["tiny@1"]
    assert found(family="electra") == found(state="retired") == []
    backbones.retire(registry, "other@1")
    assert found(state="retired") == ["other@1"]
    assert found(state="retired", family="bert") == []


# What differs between two releases.


def test_a_changed_module_is_compared_tensor_by_tensor(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(pair, "intent", module(tap=2, depth=2))
    tasks.redefine(pair, "slots", module("tagging", tap=2, labels=("O", "B-day")))
    compose(pair, publish=True)
    intent, slots = releases.diff(pair, "1", "2").modules
    assert (intent.task, intent.tap_layer, intent.depth, intent.backbone) == (
        *("intent", (1, 2), (1, 2)),
        None,
    )
    assert not intent.contract
    assert "layers.2.output.dense.weight" in intent.tensors_changed
    assert "probe.input_ids" not in intent.tensors_changed
    assert (slots.task, slots.tap_layer, slots.depth) == ("slots", None, None)
    assert slots.contract.removed == ("B-city", "I-city")
    assert {"head.out.bias", "head.out.weight", "probe.logits"} <= set(slots.tensors_changed)
    assert slots.tensors_same >= 3
    back = releases.diff(pair, "2", "1").modules[0]
    assert (back.tap_layer, back.tensors_changed) == ((2, 1), intent.tensors_changed)


def test_only_the_modules_of_changed_tasks_are_read(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(pair, "intent", module(seed=1))
    tasks.register(pair, "topic", module("multilabel"))
    compose(pair, publish=True)
    store = Counting(root_of(pair))
    releases.diff(dataclasses.replace(pair, store=store), "1", "2")
    shown = [releases.show(pair, number) for number in ("1", "2")]
    intent = [detail.manifest.tasks["intent"].digest for detail in shown]
    assert sorted(store.fetched) == sorted([*(detail.digest for detail in shown), *intent])


def test_a_task_that_did_not_change_comes_with_the_proof(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(pair, "intent", module(seed=1, tap=3))
    tasks.register(pair, "stars", module("regression", tap=0))
    compose(pair, publish=True)
    (slots,) = releases.diff(pair, "1", "2").unchanged
    assert (slots.task, slots.layers, slots.identical, slots.differs) == ("slots", 2, True, [])
    unchanged = {same.task: same.layers for same in releases.diff(pair, "2", "2").unchanged}
    assert unchanged == {"intent": 3, "slots": 2, "stars": 0}


def test_a_frozen_layer_that_is_not_the_same_breaks_the_proof_of_the_tasks_above_it(
    pair: Registry,
) -> None:
    manifest = releases.show(pair, "1").manifest
    (trunk,) = manifest.trunks
    layers = (trunk.layers[0], trunk.layers[0])
    forge(
        pair, manifest.model_copy(update={"trunks": (trunk.model_copy(update={"layers": layers}),)})
    )
    found = {same.task: same for same in releases.diff(pair, "1", "2").unchanged}
    assert (found["intent"].identical, found["intent"].differs) == (True, [])
    assert (found["slots"].identical, found["slots"].differs) == (False, ["layer 2"])


@pytest.mark.parametrize("part", ["embeddings", "tokenizer"])
def test_whatever_a_task_reads_is_part_of_the_proof(pair: Registry, part: str) -> None:
    manifest = releases.show(pair, "1").manifest
    (trunk,) = manifest.trunks
    value = {"embeddings": "0" * 64, "tokenizer": {}}[part]
    forge(pair, manifest.model_copy(update={"trunks": (trunk.model_copy(update={part: value}),)}))
    slots = releases.diff(pair, "1", "2").unchanged[1]
    assert slots.differs == [part]


def test_a_module_that_moved_to_another_backbone_says_so(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(pair, "intent", module(on="other"))
    compose(pair, publish=True, allow_two_backbones=True)
    difference = releases.diff(pair, "1", "2")
    assert difference.modules[0].backbone == ("tiny@1", "other@1")
    assert [same.identical for same in difference.unchanged] == [True]


def test_a_difference_to_a_module_that_cannot_be_read_is_refused(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(pair, "intent", module(seed=1))
    compose(pair, publish=True)
    path = blob_path(pair, releases.show(pair, "2").manifest.tasks["intent"].digest)
    support.flip(path, 12345)
    with refused(pair, CorruptBlobError, path.name):
        releases.diff(pair, "1", "2")
    path.unlink()
    with refused(pair, BlobNotFoundError, path.name):
        releases.diff(pair, "1", "2")


# Graphs.


def test_a_graph_has_every_layer_of_the_backbone_and_every_branch_at_its_tap(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(pair, "stars", module("regression", tap=0, depth=2))
    tasks.register(pair, "agree", module(form="pair", labels=("yes", "no"), depth=0))
    compose(pair, publish=True)
    detail = releases.show(pair, "2")
    graph = graphs.build(detail)
    assert (graph.release, graph.digest, graph.layers) == (2, detail.digest, detail.layers)
    (trunk,) = graph.trunks
    (entry,) = detail.manifest.trunks
    assert (trunk.backbone, trunk.digest) == ("tiny@1", entry.spec)
    assert trunk.embeddings == entry.embeddings
    assert [(layer.number, layer.digest) for layer in trunk.layers] == [
        (1, entry.layers[0]),
        (2, entry.layers[1]),
        (3, None),
    ]
    branches = [(b.task, b.version, b.tap_layer, b.depth, b.labels) for b in trunk.branches]
    assert branches == [
        ("stars", "1.0", 0, 2, 0),
        ("agree", "1.0", 1, 0, 2),
        ("intent", "1.0", 1, 1, 3),
        ("slots", "1.0", 2, 1, 3),
    ]
    assert [(b.kind, b.input) for b in trunk.branches[:2]] == [
        ("regression", "single"),
        ("classification", "pair"),
    ]


def test_a_graph_of_two_backbones_has_each_task_on_its_own(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(pair, "intent", module(on="other"))
    compose(pair, publish=True, allow_two_backbones=True)
    graph = graphs.build(releases.show(pair, "2"))
    on = {trunk.backbone: [branch.task for branch in trunk.branches] for trunk in graph.trunks}
    assert on == {"other@1": ["intent"], "tiny@1": ["slots"]}
