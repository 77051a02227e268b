from __future__ import annotations

import dataclasses
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from centra.errors import (
    BlobNotFoundError,
    CentraError,
    ConflictError,
    CorruptBlobError,
    FormatError,
    InvalidNameError,
    NotFoundError,
    StoreError,
    StoreNotWritableError,
    UsageError,
)
from centra.formats.manifest import ChannelPointer
from centra.formats.task_module import HeadSpec, TaskModule
from centra.releases.compose import ComposeError
from centra.releases.folder import ReleaseFolder
from centra.releases.parity import check_parity
from centra.store import LocalStore
from centra.system.files import file_digest
from registry import audit, channels, releases, tasks
from registry.errors import TaskNotFoundError
from registry.releases import Change, compose, composing, publishing
from tests import support
from tests.registry.helpers import (
    actions,
    blob_path,
    files,
    nothing_changes,
    refused,
    reopened,
    root_of,
    rows,
)
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from registry import Registry
    from tests.registry.helpers import Registries

MORE = ("alarm", "music", "weather", "news")
TEXTS = ["wake me at seven", "play some jazz"]


@pytest.fixture
def pair(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """A registry with ``intent`` (tap 1, depth 1) and ``slots`` (tap 2, depth 1)."""
    return bring("pair", lambda: with_pair(registry, module))


@pytest.fixture
def published(pair: Registry, bring: Callable[..., Registry]) -> Registry:
    """The same, published as release 1."""
    return bring("published pair", lambda: compose(pair, publish=True))


@pytest.fixture(scope="module")
def settled(
    registries: Registries,
    module: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Registry]:
    """The same, for requests that change nothing, and so leave it to the next test as it is."""
    with registries.lend(tmp_path_factory.mktemp("settled")) as registry:
        compose(with_pair(registry, module), publish=True)
        yield registry


def with_pair(registry: Registry, module: Callable[..., Path]) -> Registry:
    tasks.register(registry, "intent", module())
    tasks.register(registry, "slots", module("tagging", tap=2))
    return registry


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The tasks whose parity was checked, by call."""
    calls: list[set[str]] = []

    def counting(
        manifest: Any, reader: Any, names: Collection[str], *rest: Any, **engine: Any
    ) -> Any:
        if not engine:
            calls.append(set(names))
        return check_parity(manifest, reader, names, *rest, **engine)

    monkeypatch.setattr("centra.releases.parity.check_parity", counting)
    return calls


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register as was done before modules were run when they came in."""
    monkeypatch.setattr(
        "centra.releases.parity.check_module_parity", lambda modules, *_: dict.fromkeys(modules)
    )


def lying(module: Path, path: Path) -> Path:
    """A module whose probe records other logits than it gives; its checksum is right."""
    honest = TaskModule.read(module)
    logits = honest.tensors["probe.logits"] + 0.01
    dataclasses.replace(honest, tensors={**honest.tensors, "probe.logits": logits}).write(path)
    return path


def latest(registry: Registry) -> tuple[int, int]:
    """The release of ``latest`` and its revision; the store's pointer must say the same."""
    row = channels.show(registry, "latest")
    data = registry.store.read_pointer("latest")
    assert data is not None
    pointer = ChannelPointer.from_bytes(data, "latest")
    assert (pointer.release, pointer.revision, pointer.manifest) == (
        row.release,
        row.revision,
        row.digest,
    )
    return row.release, row.revision


def same_logits(registry: Registry, one: str, other: str, task: str) -> bool:
    first, second = (
        releases.load(registry, reference, tasks=[task]).logits(TEXTS)[task]
        for reference in (one, other)
    )
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# Planning and publishing.


def test_a_plan_tells_what_a_release_would_hold_and_changes_nothing(pair: Registry) -> None:
    with nothing_changes(pair):
        plan = compose(pair)
    assert (plan.release, plan.published, plan.base) == (None, False, None)
    assert plan.tasks == {"intent": "1.0", "slots": "1.0"}
    assert plan.changes == [
        Change(task="intent", change="added", before=None, after="1.0"),
        Change(task="slots", change="added", before=None, after="1.0"),
    ]
    assert plan.parity == {}, "proven when they were registered"
    assert plan.digest == plan.manifest.digest


def test_publishing_makes_the_planned_release_and_latest_follows(pair: Registry) -> None:
    plan = compose(pair)
    done = compose(pair, publish=True)
    assert (done.release, done.published, done.digest) == (1, True, plan.digest)
    assert done.manifest == plan.manifest
    assert latest(pair) == (1, 1)
    assert pair.store.fetch(done.digest).read_bytes() == done.manifest.to_bytes()
    assert actions(pair)[-2:] == ["release:publish 1", "channel:move latest"]
    detail = releases.show(pair, "latest")
    assert (detail.number, detail.digest, detail.base) == (1, done.digest, None)
    assert detail.tasks == done.tasks
    assert detail.channels == ["latest"]
    assert detail.layers == done.layers


def test_publishing_the_same_set_again_makes_nothing(settled: Registry) -> None:
    with nothing_changes(settled):
        again = compose(settled, publish=True)
    assert (again.release, again.published, again.changes) == (1, False, [])


def test_a_plan_of_what_is_published_names_its_release(settled: Registry) -> None:
    plan = compose(settled)
    assert (plan.release, plan.published, plan.base) == (1, False, 1)


def test_each_kind_of_change_is_told_with_the_versions_before_and_after(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(published, "emotion", module("multilabel"))
    tasks.register(published, "score", module("regression"))
    compose(published, publish=True)
    tasks.update(published, "intent", module(seed=1))
    tasks.redefine(published, "emotion", module("multilabel", labels=MORE))
    tasks.retire(published, "slots")
    tasks.register(published, "topic", module())
    done = compose(published, publish=True)
    assert done.changes == [
        Change(task="emotion", change="redefined", before="1.0", after="2.0"),
        Change(task="intent", change="updated", before="1.0", after="1.1"),
        Change(task="slots", change="removed", before="1.0", after=None),
        Change(task="topic", change="added", before=None, after="1.0"),
    ]
    assert (done.release, done.base) == (3, 2)
    assert releases.show(published, "3").base == 2


def test_retiring_a_task_leaves_the_earlier_release_as_it_was(published: Registry) -> None:
    before = releases.show(published, "1")
    tasks.retire(published, "slots")
    done = compose(published, publish=True)
    assert done.tasks == {"intent": "1.0"}
    assert releases.load(published, "latest").tasks == ["intent"]
    after = releases.show(published, "1")
    assert after.channels == []
    assert dataclasses.replace(after, channels=["latest"]) == before
    assert releases.load(published, "1").tasks == ["intent", "slots"]


def test_restoring_a_task_gives_the_earlier_release_again(published: Registry) -> None:
    tasks.retire(published, "slots")
    compose(published, publish=True)
    tasks.restore(published, "slots")
    done = compose(published, publish=True)
    assert (done.release, done.published) == (1, False)
    assert latest(published) == (1, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"base": "1", "replace": ["intent@1.1"]},
        {"base": "1", "remove": ["slots"]},
        {"base": "1"},
        {"replace": ["intent@1.0"]},
        {"remove": ["slots"]},
    ],
    ids=str,
)
def test_latest_stays_where_something_else_than_the_live_set_is_published(
    published: Registry, module: Callable[..., Path], options: dict[str, Any]
) -> None:
    tasks.update(published, "intent", module(seed=5))
    before = latest(published)
    done = compose(published, publish=True, **options)
    assert (done.live, releases.show(published, str(done.release)).digest) == (False, done.digest)
    assert latest(published) == before


def test_naming_what_is_live_anyway_is_the_live_set(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(published, "intent", module(seed=5))
    done = compose(published, publish=True, replace=["intent@1.1"])
    assert (done.live, latest(published)[0]) == (True, done.release)


def test_one_replacement_or_removal_may_be_named_alone(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(published, "intent", module(seed=1))
    plan = compose(published, base="1", replace="intent@1.1", remove="slots")
    assert plan.tasks == {"intent": "1.1"}


def test_an_unknown_precision_is_refused(pair: Registry) -> None:
    with refused(pair, UsageError, "'int4'", "fp32, int8", code="unknown-precision"):
        compose(pair, precision="int4")


def test_composing_and_publishing_are_logged(
    pair: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="registry.releases")
    done = compose(pair, publish=True)
    told = [(record.name, record.getMessage()) for record in caplog.records]
    assert [name for name, _ in told] == [
        "registry.releases.composing",
        "registry.releases.publishing",
    ]
    assert told[0][1].startswith(f"composed 2 tasks (sha256:{done.digest}) in ")
    assert told[1][1].startswith(f"published release 1 (sha256:{done.digest}) in ")


def test_a_task_is_named_once(pair: Registry) -> None:
    with refused(pair, UsageError, "task intent is to be two versions"):
        compose(pair, replace=["intent@1.0", "intent@1.0"])
    with refused(pair, UsageError, "task intent is to be put in and left out"):
        compose(pair, replace=["intent@1.0"], remove=["intent"])


def test_a_folder_that_cannot_be_written_leaves_no_release(pair: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused(pair, StoreNotWritableError, "cannot write"):
        compose(pair, publish=True, folder=tmp_path / "file" / "out")
    assert compose(pair, publish=True, folder=tmp_path / "out").published
    assert ReleaseFolder.open(tmp_path / "out").manifest == releases.show(pair, "1").manifest


def test_pinning_back_gives_the_old_release_again_and_latest_follows(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(published, "intent", module(seed=1))
    assert compose(published, publish=True).release == 2
    tasks.pin(published, "intent@1.0")
    before = len(actions(published))
    done = compose(published, publish=True)
    assert (done.release, done.published) == (1, False)
    assert done.changes == [Change(task="intent", change="updated", before="1.1", after="1.0")]
    assert latest(published) == (1, 3)
    assert actions(published)[before:] == ["channel:move latest"]
    assert [row.number for row in releases.list(published)] == [2, 1]


# Starting from a release.


def test_one_teams_change_is_shipped_alone(
    published: Registry, module: Callable[..., Path]
) -> None:
    channels.move(published, "production", "1")
    tasks.update(published, "intent", module(seed=1))
    tasks.update(published, "slots", module("tagging", tap=2, seed=1))
    tasks.register(published, "topic", module())
    compose(published, publish=True)
    done = compose(published, base="production", replace=["intent@1.1"], publish=True)
    assert done.tasks == {"intent": "1.1", "slots": "1.0"}
    assert (done.release, done.base) == (3, 1)
    assert done.changes == [Change(task="intent", change="updated", before="1.0", after="1.1")]


def test_a_replacement_may_add_a_task_or_bring_back_a_retired_one(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(published, "topic", module())
    tasks.retire(published, "topic")
    done = compose(published, base="1", replace=["topic@1.0"])
    assert done.tasks == {"intent": "1.0", "slots": "1.0", "topic": "1.0"}


def test_without_a_base_replacements_go_into_the_live_set(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(published, "intent", module(seed=1))
    tasks.retire(published, "slots")
    assert compose(published, replace=["intent@1.0"]).tasks == {"intent": "1.0"}


@pytest.mark.parametrize("name", ["number", "channel", "digest", "start of digest"])
def test_a_base_goes_by_number_channel_or_digest(settled: Registry, name: str) -> None:
    digest = releases.show(settled, "1").digest
    reference = {"number": "1", "channel": "latest", "digest": digest}.get(name, digest[:8])
    plan = compose(settled, base=reference)
    assert (plan.release, plan.base, plan.changes) == (1, 1, [])


@pytest.mark.parametrize(
    ("options", "error", "mention"),
    [
        ({"replace": ["intent"]}, UsageError, "intent@MAJOR.MINOR"),
        ({"replace": ["intent@2.0"]}, TaskNotFoundError, "it has 1.0"),
        ({"replace": ["nothing@1.0"]}, TaskNotFoundError, "nothing"),
        ({"replace": ["../intent@1.0"]}, InvalidNameError, "../intent"),
        ({"base": "2"}, NotFoundError, "'2'"),
        ({"base": "production"}, NotFoundError, "production"),
        ({"base": "abcdef0"}, NotFoundError, "at least 8"),
        ({"base": "%%%%%%%%"}, NotFoundError, "%%%%%%%%"),
        ({"base": "99999999999999999999"}, NotFoundError, "9999"),
        ({"base": ""}, NotFoundError, "''"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_request_that_names_nothing_is_refused(
    settled: Registry, options: dict[str, Any], error: type[CentraError], mention: str
) -> None:
    with refused(settled, error, mention):
        compose(settled, publish=True, **options)


def test_an_empty_live_set_is_refused(registry: Registry, module: Callable[..., Path]) -> None:
    with refused(registry, UsageError, "no active task"):
        compose(registry, publish=True)
    tasks.register(registry, "intent", module())
    tasks.retire(registry, "intent")
    with refused(registry, UsageError, "no active task"):
        compose(registry, publish=True)


# Layers.


def test_the_layers_of_a_release_are_counted_as_in_the_paper(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module(tap=1, depth=1))
    tasks.register(registry, "slots", module("tagging", tap=2, depth=0))
    layers = compose(registry).layers
    assert (layers.shared, layers.task, layers.total) == (2, 1, 3)
    assert (layers.single_task, layers.overhead) == (2 * support.LAYERS, 0.5)


def test_a_release_holds_frozen_layers_only_up_to_the_deepest_tap(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module(tap=1, depth=1))
    tasks.register(registry, "slots", module("tagging", tap=3, depth=1))
    assert compose(registry).layers.shared == 3
    tasks.retire(registry, "slots")
    plan = compose(registry)
    assert (plan.layers.shared, plan.layers.total, plan.layers.single_task) == (1, 2, 3)
    assert [len(trunk.layers) for trunk in plan.manifest.trunks] == [1]


# Heads with a CRF.


def test_task_may_take_a_crf_with_an_update(
    published: Registry, module: Callable[..., Path]
) -> None:
    crf = module("tagging", tap=2, seed=3, head=HeadSpec(crf=True))
    assert tasks.update(published, "slots", crf).version == version_number("1.1")
    done = compose(published, publish=True)
    assert [(change.task, change.change) for change in done.changes] == [("slots", "updated")]
    assert releases.verify(published, "latest").parity.keys() == {"intent", "slots"}
    (answer,) = releases.load(published, "latest").predict(["fly to new york"], ["slots"])
    assert answer["slots"].keys() == {"spans"}


# Two backbones.


def test_two_backbones_need_to_be_allowed_and_are_counted_honestly(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(pair, "topic", module(on="other", tap=2))
    with refused(pair, ComposeError, "task topic", "allow two backbones"):
        compose(pair, publish=True)
    done = compose(pair, publish=True, allow_two_backbones=True)
    assert len(done.manifest.trunks) == 2
    assert (done.layers.shared, done.layers.task, done.layers.single_task) == (4, 3, 9)
    answers = releases.load(pair, "latest").predict(TEXTS)
    assert [sorted(answer) for answer in answers] == [["intent", "slots", "topic"]] * 2


# The proof.


def test_a_difference_shows_what_changed_and_that_all_else_has_the_same_bytes(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(published, "intent", module(seed=1))
    compose(published, publish=True)
    difference = releases.diff(published, "1", "latest")
    assert (difference.before, difference.after) == (1, 2)
    assert difference.changes == [
        Change(task="intent", change="updated", before="1.0", after="1.1")
    ]
    (unchanged,) = difference.unchanged
    assert (unchanged.task, unchanged.version) == ("slots", "1.0")
    assert unchanged.digest == file_digest(module("tagging", tap=2))
    assert difference.layers_before == difference.layers_after
    assert same_logits(published, "1", "2", "slots")
    assert not same_logits(published, "1", "2", "intent")


def test_a_difference_goes_backwards_and_to_itself(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(published, "topic", module(tap=3))
    tasks.redefine(published, "intent", module(labels=MORE))
    compose(published, publish=True)
    back = releases.diff(published, "2", "1")
    assert [(c.task, c.change, c.before, c.after) for c in back.changes] == [
        ("intent", "redefined", "2.0", "1.0"),
        ("topic", "removed", "1.0", None),
    ]
    assert (back.layers_before.shared, back.layers_after.shared) == (3, 2)
    same = releases.diff(published, "2", "2")
    assert same.changes == []
    assert [entry.task for entry in same.unchanged] == ["intent", "slots", "topic"]


def test_a_difference_to_a_damaged_manifest_is_refused(published: Registry) -> None:
    support.flip(blob_path(published, releases.show(published, "1").digest), 300)
    with refused(published, CorruptBlobError):
        releases.diff(published, "1", "1")


# What cannot become a release.


@contextmanager
def missing(path: Path) -> Iterator[None]:
    data = path.read_bytes()
    path.unlink()
    yield
    path.write_bytes(data)


@contextmanager
def flipped(path: Path) -> Iterator[None]:
    bit = 8 * (path.stat().st_size // 2)
    support.flip(path, bit)
    yield
    support.flip(path, bit)


def parts_of(registry: Registry) -> dict[str, tuple[str, str]]:
    """For each sort of blob of the planned release, one digest and the task that is named."""
    manifest = compose(registry).manifest
    (trunk,) = manifest.trunks
    return {
        "module": (manifest.tasks["slots"].digest, "slots"),
        "backbone": (trunk.spec, "intent"),
        "embeddings": (trunk.embeddings, "slots"),
        "first layer": (trunk.layers[0], "slots"),
        "last layer": (trunk.layers[-1], "slots"),
        "tokenizer": (trunk.tokenizer["tokenizer.json"], "slots"),
    }


@pytest.mark.parametrize("damage", [missing, flipped])
def test_a_blob_that_is_missing_or_corrupt_is_named_with_its_task(
    pair: Registry, damage: Callable[[Path], Any]
) -> None:
    for digest, task in parts_of(pair).values():
        with (
            damage(blob_path(pair, digest)),
            refused(pair, ComposeError, f"task {task}:", digest),
        ):
            compose(pair, publish=True)
    assert compose(pair, publish=True).published


def test_a_store_that_cannot_be_read_is_no_fault_of_a_task(pair: Registry) -> None:
    class Unreachable(LocalStore):
        def has(self, digest: str) -> bool:
            raise StoreError("unreachable")

    away = dataclasses.replace(pair, store=Unreachable(root_of(pair)))
    with refused(pair, StoreError, "unreachable"):
        compose(away, publish=True)


def test_a_module_whose_probe_is_not_its_own_is_refused(
    pair: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    """Before anything is stored, so that it stops its own team and nobody else."""
    file = lying(module(), tmp_path / "lying.safetensors")
    for change, name in ((tasks.register, "topic"), (tasks.update, "intent")):
        with refused(pair, ComposeError, f"task {name}: parity failed", "up to 0.01"):
            change(pair, name, file)
    assert compose(pair, publish=True).published


def test_one_that_came_in_unproven_is_refused_and_the_others_can_go_without_it(
    pair: Registry, module: Callable[..., Path], tmp_path: Path, unproven: None
) -> None:
    tasks.register(pair, "topic", lying(module(), tmp_path / "lying.safetensors"))
    for publish in (False, True):
        with refused(
            pair,
            ComposeError,
            "task topic: parity failed",
            "0.01",
            "The other tasks can be released without it",
            code="separable",
            task="topic",
        ):
            compose(pair, publish=publish)
    assert compose(pair, remove=["topic"], publish=True).published


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_crash_before_the_row_leaves_no_release_and_a_rerun_makes_it(
    pair: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(pair)
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "record_composition", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compose(pair, publish=True)
    assert rows(pair) == before
    done = compose(pair, publish=True)
    assert (done.release, done.published) == (1, True)
    assert latest(pair) == (1, 1)


def test_a_crash_before_the_pointer_is_mended_by_a_rerun(
    pair: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "publish_move", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compose(pair, publish=True)
    assert pair.store.read_pointer("latest") is None
    again = compose(pair, publish=True)
    assert (again.release, again.published) == (1, False)
    assert latest(pair) == (1, 1)


# Others change the live set meanwhile.


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object], int], list[int]]:
    """Let something happen between merging and publishing, so many times; how often it did."""

    def arrange(happens: Callable[[], object], times: int) -> list[int]:
        real, done = composing.merge, list[int]()

        def merge(*args: Any, **options: Any) -> Any:
            merged = real(*args, **options)
            if len(done) < times:
                done.append(len(done))
                happens()
            return merged

        monkeypatch.setattr(composing, "merge", merge)
        return done

    return arrange


def test_a_slow_compose_does_not_publish_an_older_set_over_a_newer_one(
    published: Registry, module: Callable[..., Path], meanwhile: Callable[..., list[int]]
) -> None:
    tasks.update(published, "intent", module(seed=1))

    def others() -> None:
        with reopened(published) as own:
            tasks.update(own, "slots", module("tagging", tap=2, seed=2))
            compose(own, publish=True)

    meanwhile(others, 1)
    done = compose(published, publish=True)
    assert (done.tasks, done.published) == ({"intent": "1.1", "slots": "1.1"}, False)
    assert latest(published) == (done.release, 2)
    assert [row.release for row in channels.history(published, "latest")] == [2, 1]


def test_a_slow_compose_keeps_a_precision_that_was_decided_meanwhile(
    published: Registry, module: Callable[..., Path], meanwhile: Callable[..., list[int]]
) -> None:
    tasks.update(published, "intent", module(seed=1))

    def others() -> None:
        with reopened(published) as own:
            compose(own, replace=["intent@1.1"], decided_precisions={"slots": "int8"}, publish=True)

    meanwhile(others, 1)
    done = compose(published, publish=True)
    assert done.manifest.precisions == {"intent": "fp32", "slots": "int8"}
    assert latest(published) == (2, 2)


def test_a_live_set_that_never_stands_still_is_given_up_on(
    published: Registry, module: Callable[..., Path], meanwhile: Callable[..., list[int]]
) -> None:
    tasks.update(published, "intent", module(seed=1))
    there_and_back = ["intent@1.1", "intent@1.0"]
    done = meanwhile(lambda: tasks.pin(published, there_and_back[len(done) % 2]), 99)
    with pytest.raises(ConflictError, match="has changed 8 times while it was composed"):
        compose(published, publish=True)
    assert len(done) == 8
    assert latest(published) == (1, 1)


def test_a_set_that_is_published_again_meanwhile_is_no_conflict(
    published: Registry, module: Callable[..., Path], meanwhile: Callable[..., list[int]]
) -> None:
    tasks.update(published, "intent", module(seed=1))

    def others() -> None:
        with reopened(published) as own:
            compose(own, publish=True)

    counted = meanwhile(others, 1)
    assert compose(published, publish=True).release == 2
    assert len(counted) == 1
    assert latest(published) == (2, 2)


# Work follows the change.


def test_parity_is_checked_once_for_a_version_that_a_release_holds(
    unproven: None, registry: Registry, module: Callable[..., Path], checked: list[set[str]]
) -> None:
    pair = with_pair(registry, module)
    compose(pair)
    compose(pair, publish=True)
    compose(pair, publish=True)
    tasks.update(pair, "intent", module(seed=1))
    compose(pair, publish=True)
    tasks.register(pair, "topic", module(tap=3))
    done = compose(pair, publish=True)
    tasks.pin(pair, "intent@1.0")
    compose(pair, publish=True)
    assert checked == [
        {"intent", "slots"},
        {"intent", "slots"},
        set(),
        {"intent"},
        {"topic"},
        set(),
    ]
    assert done.parity == {"topic": 0.0}


def test_parity_is_proven_when_a_version_comes_in_and_not_again(
    pair: Registry, module: Callable[..., Path], checked: list[set[str]]
) -> None:
    tasks.update(pair, "intent", module(seed=1))
    tasks.redefine(pair, "slots", module("tagging", tap=2, labels=("O", "B-x", "I-x")))
    compose(pair, publish=True)
    assert checked == [set()]
    told = {(event.action, event.subject): event.details for event in audit.events(pair)}
    for change in ("task:register intent", "task:update intent", "task:redefine slots"):
        action, name = change.split()
        assert 0 <= told[action, name]["parity"] < 1e-4


def test_publishing_a_change_stores_one_manifest_and_a_witness_and_nothing_else(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(published, "intent", module(seed=1))
    before = files(published)
    done = compose(published, publish=True)
    after = files(published)
    new = {name for name in after if name not in before}
    count, digest = published.store.witnesses()[-1]
    assert {name.rpartition("/")[2] for name in new} == {done.digest, f"{count}-{digest}.txt"}
    assert [name for name in before if after[name] != before[name]] == ["channels/latest.json"]


def test_progress_is_told_step_by_step(
    unproven: None, registry: Registry, module: Callable[..., Path]
) -> None:
    told: list[tuple[str, int, int]] = []
    compose(with_pair(registry, module), progress=lambda *step: told.append(step))
    assert told == [
        ("check modules", 1, 2),
        ("check modules", 2, 2),
        ("check parity", 1, 2),
        ("check parity", 2, 2),
    ]


# Reproducible.


def test_the_same_modules_give_the_same_release_whatever_happened_before(
    make_registry: Callable[[], Registry], module: Callable[..., Path]
) -> None:
    plain, eventful = make_registry(), make_registry()
    tasks.register(plain, "intent", module(seed=1))
    tasks.register(plain, "slots", module("tagging", tap=2))
    tasks.register(eventful, "zero", module())
    tasks.register(eventful, "slots", module("tagging", tap=2, labels=("O", "B-x")), team="nlu")
    tasks.register(eventful, "intent", module())
    compose(eventful, publish=True)
    tasks.redefine(eventful, "slots", module("tagging", tap=2))
    tasks.update(eventful, "intent", module(seed=1))
    tasks.retire(eventful, "zero")
    one, other = compose(plain, publish=True), compose(eventful, publish=True)
    assert one.digest == other.digest
    assert one.manifest.to_bytes() == other.manifest.to_bytes()
    assert (one.release, other.release) == (1, 2)
    assert (one.tasks["slots"], other.tasks["slots"]) == ("1.0", "2.0")


def test_a_release_holds_no_time_no_person_and_no_version(settled: Registry) -> None:
    text = releases.show(settled, "1").manifest.to_bytes().decode()
    for word in ("ada", "nlu", "1.1", '"version"', "created"):
        assert word not in text


# Listing and showing.


def test_an_empty_registry_lists_no_release(registry: Registry) -> None:
    assert releases.list(registry) == []


def test_releases_are_listed_newest_first_with_their_channels(
    published: Registry, module: Callable[..., Path]
) -> None:
    channels.move(published, "staging", "1")
    channels.move(published, "production", "1")
    tasks.register(published, "topic", module())
    compose(published, publish=True)
    newest, first = releases.list(published)
    assert (newest.number, newest.tasks, newest.channels) == (2, 3, ["latest"])
    assert (first.number, first.tasks, first.channels) == (1, 2, ["production", "staging"])
    assert (first.created_by, first.digest) == ("nlu/ada", releases.show(published, "1").digest)
    assert newest.created_at > first.created_at


@pytest.mark.parametrize("reference", ["0", "2", "nothing", "abcdef01", "01234567" * 8, ""])
def test_a_release_that_is_not_there_is_refused(settled: Registry, reference: str) -> None:
    for attempt in (releases.show, releases.verify, releases.load):
        with refused(settled, NotFoundError, repr(reference)):
            attempt(settled, reference)


def test_a_release_whose_manifest_is_gone_is_refused(published: Registry) -> None:
    digest = releases.show(published, "1").digest
    blob_path(published, digest).unlink()
    with refused(published, NotFoundError, digest):
        releases.show(published, "1")


# Verifying, pulling, loading.


def test_verifying_hashes_every_file_and_runs_every_probe(settled: Registry) -> None:
    found = releases.verify(settled, "latest")
    manifest = releases.show(settled, "1").manifest
    digests = manifest.files().values()
    assert found.digest == manifest.digest
    assert found.files == len(digests)
    assert found.size == sum(blob_path(settled, digest).stat().st_size for digest in digests)
    assert found.parity == {"intent": 0.0, "slots": 0.0}


def test_verifying_finds_one_flipped_bit_and_one_missing_file_of_any_sort(
    settled: Registry,
) -> None:
    manifest = releases.show(settled, "1").manifest
    for digest in {*manifest.files().values(), manifest.digest}:
        with flipped(blob_path(settled, digest)), refused(settled, CorruptBlobError, digest):
            releases.verify(settled, "1")
        with (
            missing(blob_path(settled, digest)),
            refused(settled, NotFoundError, digest),
        ):
            releases.verify(settled, "1")


def test_a_release_with_one_flipped_bit_does_not_load(published: Registry) -> None:
    digest = releases.show(published, "1").manifest.tasks["slots"].digest
    support.flip(blob_path(published, digest), 54321)
    with refused(published, CorruptBlobError, digest):
        releases.load(published, "1")
    assert releases.load(published, "1", tasks=["intent"]).tasks == ["intent"]


def test_a_pulled_release_is_complete_without_the_registry(
    settled: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "pulled"
    digest, written = releases.pull(settled, "latest", folder)
    assert digest == releases.show(settled, "1").digest
    assert written == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    found = releases.verify(settled, str(folder))
    assert (found.digest, found.parity) == (digest, {"intent": 0.0, "slots": 0.0})
    here = releases.load(settled, str(folder)).predict(TEXTS)
    assert here == releases.load(settled, "1").predict(TEXTS)


def test_pulling_again_moves_only_what_changed(
    published: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "pulled"
    releases.pull(published, "1", folder)
    blobs = releases.show(published, "1").manifest.files()
    before = {path: (folder / path).stat().st_ino for path in blobs}
    assert releases.pull(published, "1", folder)[1] == 0
    assert {path: (folder / path).stat().st_ino for path in blobs} == before
    tasks.update(published, "intent", module(seed=1))
    compose(published, publish=True)
    _, written = releases.pull(published, "latest", folder)
    after = {path: (folder / path).stat().st_ino for path in blobs}
    assert [path for path in blobs if after[path] != before[path]] == ["tasks/intent.safetensors"]
    parts = ("tasks/intent.safetensors", "release.json", "SHA256SUMS")
    assert written == sum((folder / part).stat().st_size for part in parts)


def test_pulling_a_smaller_release_removes_what_it_does_not_have(
    published: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "pulled"
    releases.pull(published, "1", folder)
    tasks.retire(published, "slots")
    digest = compose(published, publish=True).digest
    releases.pull(published, "latest", folder)
    assert not (folder / "tasks" / "slots.safetensors").exists()
    assert not list(folder.rglob("layer-02.safetensors"))
    assert releases.verify(published, str(folder)).digest == digest


def test_a_folder_with_something_else_in_it_is_left_alone(
    settled: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with refused(settled, FormatError, "not a release folder"):
        releases.pull(settled, "1", folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_pull_that_lacks_a_blob_leaves_no_release_behind(
    published: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    blob_path(published, file_digest(module())).unlink()
    with refused(published, BlobNotFoundError):
        releases.pull(published, "1", tmp_path / "pulled")
    assert not (tmp_path / "pulled" / "release.json").exists()


def test_a_release_answers(settled: Registry) -> None:
    answers = releases.load(settled, "latest").predict(TEXTS)
    assert [sorted(answer) for answer in answers] == [["intent", "slots"]] * 2
    assert answers[0]["intent"]["label"] in {"alarm", "music", "weather"}


def test_some_tasks_of_a_release_can_be_loaded_alone(settled: Registry) -> None:
    assert releases.load(settled, "1", tasks=["slots"]).tasks == ["slots"]
    with pytest.raises(NotFoundError, match="it holds intent, slots"):
        releases.load(settled, "1", tasks=["topic"])


def test_publishing_is_logged_with_what_it_holds(settled: Registry) -> None:
    event = audit.events(settled)[-2]
    assert event.details == {
        "digest": releases.show(settled, "1").digest,
        "base": None,
        "tasks": ["intent", "slots"],
        "holds": event.details["holds"],
    }
    assert len(event.details["holds"]) == 64
