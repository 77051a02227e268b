from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import (
    CentraError,
    ConflictError,
    CorruptBlobError,
    FormatError,
    IncompatibleError,
    InvalidNameError,
    NotFoundError,
    StoreNotWritableError,
    UsageError,
)
from centra.formats.decision import Decision
from centra.formats.task_module import TaskModule, TaskSpec
from centra.store import LocalStore
from centra.system.files import file_digest
from registry import audit, tasks
from registry.database.listing import MetricBound
from registry.errors import (
    ContractChangedError,
    NotOwnerError,
    TaskExistsError,
    TaskNotFoundError,
)
from registry.tasks import Checkpoint, TaskOutcome
from tests import support
from tests.registry.helpers import (
    ADA,
    BOB,
    acting,
    actions,
    anonymous,
    blob_path,
    files,
    nothing_changes,
    refused,
    root_of,
    url_of,
)
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.identities import Digest
    from registry import Registry
    from tests.registry.helpers import Registries

BAD_NAMES = ["", ".", "..", "../intent", "a/b", "/etc/passwd", "a..b", "Intent", "a b", "x" * 64]
MORE = ("alarm", "music", "weather", "news")


@pytest.fixture(scope="module")
def settled(
    registries: Registries,
    module: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Registry]:
    """A registry for requests that are refused, and so leave it to the next test as it is.

    ``intent`` has 1.0, 1.1 and its current 2.0; ``old`` is retired; both belong to nlu.
    """
    with registries.lend(tmp_path_factory.mktemp("settled")) as registry:
        tasks.register(registry, "intent", module())
        tasks.update(registry, "intent", module(seed=1))
        tasks.redefine(registry, "intent", module(labels=MORE))
        tasks.register(registry, "old", module(seed=2))
        tasks.retire(registry, "old")
        yield registry


def versions(registry: Registry, name: str) -> list[str]:
    return [str(version.version) for version in tasks.show(registry, name).versions]


def current(registry: Registry, name: str) -> str:
    return str(tasks.show(registry, name).current)


def crafted(like: Path, path: Path, change: Callable[[TaskModule], TaskModule]) -> Path:
    """A module file like another, changed, whose checksum is right again."""
    change(TaskModule.read(like)).write(path)
    return path


# Registering.


def test_a_new_task_has_version_1_0_and_what_its_module_says(
    registry: Registry, module: Callable[..., Path]
) -> None:
    file = module("tagging", tap=2, depth=1, metrics={"f1": 0.75})
    outcome = tasks.register(registry, "slots", file)
    assert outcome == TaskOutcome(task="slots", version=version_number("1.0"), changed=True)
    detail = tasks.show(registry, "slots")
    assert (detail.team, detail.state, detail.current) == ("nlu", "active", version_number("1.0"))
    (version,) = detail.versions
    assert version.digest == file_digest(file)
    assert version.size == file.stat().st_size
    assert (version.kind, version.input, version.backbone) == ("tagging", "single", "tiny@1")
    assert version.labels == ["O", "B-city", "I-city"]
    assert (version.tap_layer, version.depth, version.metrics) == (2, 1, {"f1": 0.75})
    assert version.created_by == ADA
    assert version.created_at.tzinfo is UTC
    assert abs((datetime.now(UTC) - version.created_at).total_seconds()) < 60


def test_registering_stores_the_file_byte_for_byte(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    stored = registry.store.fetch(file_digest(module()))
    assert stored.read_bytes() == module().read_bytes()


def test_registering_the_same_bytes_again_changes_nothing(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    with nothing_changes(registry):
        outcome = tasks.register(registry, "intent", module())
    assert outcome == TaskOutcome(task="intent", version=version_number("1.0"), changed=False)


def test_one_module_may_be_registered_for_two_tasks(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    before = files(registry)
    assert tasks.register(registry, "topic", module()).changed
    assert files(registry) == before


def test_the_names_limits_are_usable(registry: Registry, module: Callable[..., Path]) -> None:
    for seed, name in enumerate(["a", "0", "x" * 63, "a.b_c-d"]):
        tasks.register(registry, name, module(seed=seed))
        assert tasks.show(registry, name).name == name


def test_someone_of_no_team_registers_in_the_name_of_the_team_they_give(
    registry: Registry, module: Callable[..., Path]
) -> None:
    outcome = tasks.register(anonymous(registry), "intent", module(), team="nlu")
    assert outcome == TaskOutcome(
        task="intent", version=version_number("1.0"), changed=True, forced=False
    )
    assert tasks.show(registry, "intent").team == "nlu"
    assert tasks.show(registry, "intent").versions[0].created_by == "eve"


def test_registering_for_another_team_takes_force_and_the_log_shows_it(
    registry: Registry, module: Callable[..., Path]
) -> None:
    bob = acting(registry, BOB)
    with refused(registry, NotOwnerError, "team nlu", BOB):
        tasks.register(bob, "intent", module(), team="nlu")
    outcome = tasks.register(bob, "intent", module(), team="nlu", force=True)
    assert outcome == TaskOutcome(
        task="intent", version=version_number("1.0"), changed=True, forced=True
    )
    event = audit.events(registry)[-1]
    assert (event.actor, event.forced, event.details["team"]) == (BOB, True, "nlu")


def test_force_that_was_not_needed_is_not_logged_as_forced(
    registry: Registry, module: Callable[..., Path]
) -> None:
    assert not tasks.register(registry, "intent", module(), force=True).forced
    assert not tasks.update(registry, "intent", module(seed=1), force=True).forced
    assert not tasks.retire(registry, "intent", force=True).forced
    assert not any(event.forced for event in audit.events(registry))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_task_name_that_could_leave_its_folder_or_confuse_is_refused(
    settled: Registry, module: Callable[..., Path], name: str
) -> None:
    with refused(settled, InvalidNameError, repr(name)):
        tasks.register(settled, name, module(seed=9))


@pytest.mark.parametrize("team", ["../nlu", "NLU", "a b"])
def test_a_team_that_is_no_name_is_refused(
    settled: Registry, module: Callable[..., Path], team: str
) -> None:
    with refused(settled, InvalidNameError, repr(team)):
        tasks.register(anonymous(settled), "new", module(seed=9), team=team)


def test_a_task_of_no_team_is_refused(settled: Registry, module: Callable[..., Path]) -> None:
    with refused(settled, UsageError, code="team-missing"):
        tasks.register(anonymous(settled), "new", module(seed=9))


@pytest.mark.parametrize("name", ["intent", "old"])
def test_a_name_that_is_taken_by_other_bytes_is_refused_with_what_to_do_instead(
    settled: Registry, module: Callable[..., Path], name: str
) -> None:
    with refused(settled, TaskExistsError, "team nlu", code="task-exists", task=name):
        tasks.register(settled, name, module(seed=9))


def test_an_option_for_checkpoints_is_refused_for_a_file(
    settled: Registry, module: Callable[..., Path]
) -> None:
    with refused(settled, UsageError, "checkpoint folders"):
        tasks.register(settled, "new", module(seed=9), checkpoint=Checkpoint(tap=1))


# A file that cannot be used, whatever it is wanted for.


def no_file(_: Path, path: Path) -> Path:
    return path


def truncated(like: Path, path: Path) -> Path:
    path.write_bytes(like.read_bytes()[:-8])
    return path


def flipped(like: Path, path: Path) -> Path:
    path.write_bytes(like.read_bytes())
    support.flip(path, 8 * (path.stat().st_size - 100))
    return path


def empty(_: Path, path: Path) -> Path:
    path.touch()
    return path


def pickled(_: Path, path: Path) -> Path:
    path.write_bytes(pickle.dumps({"head.out.weight": [0.0]}))
    return path


def plain_safetensors(_: Path, path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    save_file({"head.out.weight": torch.zeros(3, 32)}, path)
    return path


def with_nan(like: Path, path: Path) -> Path:
    def change(module: TaskModule) -> TaskModule:
        weight = module.tensors["head.out.weight"].clone()
        weight[0, 0] = float("nan")
        return dataclasses.replace(module, tensors={**module.tensors, "head.out.weight": weight})

    return crafted(like, path, change)


def with_labels_too_few(like: Path, path: Path) -> Path:
    return crafted(like, path, lambda module: with_spec(module, labels=("alarm", "music")))


def beyond_the_backbone(like: Path, path: Path) -> Path:
    return crafted(like, path, lambda module: with_spec(module, tap_layer=9))


def for_an_unknown_backbone(like: Path, path: Path) -> Path:
    return crafted(like, path, lambda module: with_spec(module, backbone="ab" * 32))


def with_a_misshapen_layer(like: Path, path: Path) -> Path:
    def change(module: TaskModule) -> TaskModule:
        name = next(name for name in module.tensors if name.startswith("layers.1."))
        cut = module.tensors[name][:-1].clone()
        return dataclasses.replace(module, tensors={**module.tensors, name: cut})

    return crafted(like, path, change)


def with_spec(module: TaskModule, **fields: Any) -> TaskModule:
    return dataclasses.replace(module, spec=TaskSpec(**{**module.spec.model_dump(), **fields}))


UNUSABLE = [
    (no_file, NotFoundError, "no such file"),
    (truncated, FormatError, "safetensors"),
    (flipped, FormatError, "corrupt"),
    (empty, FormatError, "safetensors"),
    (pickled, FormatError, "pickle"),
    (plain_safetensors, FormatError, "not a Centra task module"),
    (with_nan, FormatError, "head.out.weight holds 1 NaN"),
    (with_labels_too_few, FormatError, "2 labels but the head has 3 outputs"),
    (beyond_the_backbone, IncompatibleError, "taps layer 9, but tiny@1 has 3 layers"),
    (for_an_unknown_backbone, NotFoundError, "registered: other@1, tiny@1"),
    (with_a_misshapen_layer, IncompatibleError, "layers.1."),
]


@pytest.mark.parametrize(
    ("spoil", "error", "mention"), UNUSABLE, ids=[spoil.__name__ for spoil, *_ in UNUSABLE]
)
def test_a_file_that_cannot_be_used_is_refused_and_not_stored(
    settled: Registry,
    module: Callable[..., Path],
    tmp_path: Path,
    spoil: Callable[[Path, Path], Path],
    error: type[CentraError],
    mention: str,
) -> None:
    file = spoil(module(seed=9), tmp_path / "module.safetensors")
    for attempt in (
        lambda: tasks.register(settled, "new", file),
        lambda: tasks.update(settled, "intent", file),
        lambda: tasks.redefine(settled, "intent", file),
    ):
        with refused(settled, error, mention, str(file)):
            attempt()


def test_a_store_that_cannot_be_written_gets_no_version(
    settled: Registry, module: Callable[..., Path]
) -> None:
    class ReadOnly(LocalStore):
        def put(self, source: Path | bytes, digest: Digest | None = None) -> Digest:
            raise StoreNotWritableError("read-only")

    locked = dataclasses.replace(settled, store=ReadOnly(root_of(settled)))
    with refused(settled, StoreNotWritableError):
        tasks.register(locked, "new", module(seed=9))
    with refused(settled, StoreNotWritableError):
        tasks.update(locked, "intent", module(labels=MORE, seed=9))


# Updating and redefining.


def test_an_update_is_the_next_minor_and_becomes_current(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    outcome = tasks.update(registry, "intent", module(seed=1))
    assert outcome == TaskOutcome(task="intent", version=version_number("1.1"), changed=True)
    detail = tasks.show(registry, "intent")
    assert detail.current == version_number("1.1")
    assert [str(v.version) for v in detail.versions] == ["1.0", "1.1"]
    assert [v.digest for v in detail.versions] == [file_digest(module(seed=s)) for s in (0, 1)]


def test_an_update_may_move_the_tap_and_the_depth_and_the_backbone(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    assert tasks.update(registry, "intent", module(tap=3, depth=2)).version == version_number("1.1")
    assert tasks.update(registry, "intent", module(on="other")).version == version_number("1.2")
    (row,) = tasks.list(registry)
    assert (row.version, row.backbone, row.tap_layer, row.depth) == (
        version_number("1.2"),
        "other@1",
        1,
        1,
    )


def test_updating_with_the_same_bytes_again_changes_nothing(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    with nothing_changes(registry):
        outcome = tasks.update(registry, "intent", module(seed=1))
    assert outcome == TaskOutcome(task="intent", version=version_number("1.1"), changed=False)


SOURCES = (tasks.register, tasks.update, tasks.redefine)


@pytest.mark.parametrize("verb", SOURCES)
def test_the_bytes_of_an_earlier_version_are_that_version_and_are_not_made_current(
    registry: Registry, module: Callable[..., Path], verb: Callable[..., TaskOutcome]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    tasks.redefine(registry, "intent", module(labels=MORE))
    for again, version in ((module(), "1.0"), (module(seed=1), "1.1")):
        says = (f"these bytes are version {version} already", "2.0 is the current version")
        data = {"version": version, "current": "2.0", "retired": False}
        with refused(registry, ConflictError, *says, code="version-not-in-force", **data):
            verb(registry, "intent", again)
    assert not verb(registry, "intent", module(labels=MORE)).changed
    tasks.pin(registry, "intent@1.0")
    assert not verb(registry, "intent", module()).changed


@pytest.mark.parametrize("verb", SOURCES)
def test_the_bytes_of_a_retired_task_do_not_bring_it_back(
    registry: Registry, module: Callable[..., Path], verb: Callable[..., TaskOutcome]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    tasks.retire(registry, "intent")
    data = {"code": "version-not-in-force", "task": "intent", "current": "1.1", "retired": True}
    says = ("version 1.1 already", "the task is retired")
    with refused(registry, ConflictError, *says, version="1.1", **data):
        verb(registry, "intent", module(seed=1))
    says = ("retired and 1.1 is the current version",)
    with refused(registry, ConflictError, *says, version="1.0", **data):
        verb(registry, "intent", module())
    tasks.restore(registry, "intent")
    assert not verb(registry, "intent", module(seed=1)).changed


def test_the_same_bytes_for_another_team_are_not_its_task(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    says = ("belongs to team nlu, not to vision", "version 1.0")
    with refused(registry, TaskExistsError, *says):
        tasks.register(acting(registry, BOB), "intent", module())
    with refused(registry, TaskExistsError, *says):
        tasks.register(anonymous(registry), "intent", module(), team="vision")
    assert not tasks.register(anonymous(registry), "intent", module(), team="nlu").changed


def test_a_version_of_a_retired_task_is_pinned_and_said_to_be_retired(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    assert tasks.pin(registry, "intent@1.1").state == "active"
    tasks.retire(registry, "intent")
    expected = TaskOutcome(
        task="intent", version=version_number("1.0"), changed=True, state="retired"
    )
    assert tasks.pin(registry, "intent@1.0") == expected
    assert tasks.pin(registry, "intent@1.0") == dataclasses.replace(expected, changed=False)
    assert tasks.restore(registry, "intent").version == version_number("1.0")


def test_a_redefinition_is_the_next_major_and_the_log_says_what_differs(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    outcome = tasks.redefine(registry, "intent", module(labels=MORE))
    assert outcome == TaskOutcome(task="intent", version=version_number("2.0"), changed=True)
    assert current(registry, "intent") == "2.0"
    event = audit.events(registry)[-1]
    assert event.details["difference"] == ["labels added: news"]
    assert (event.details["from"], event.details["version"]) == ("1.1", "2.0")
    assert tasks.update(registry, "intent", module(labels=MORE, seed=1)).version == version_number(
        "2.1"
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"labels": MORE}, "labels added: news"),
        ({"labels": ("alarm", "weather")}, "labels removed: music"),
        ({"labels": ("alarm", "song", "weather")}, "labels renamed: music → song"),
        ({"labels": ("music", "alarm", "weather")}, "labels: the same, in another order"),
        ({"kind": "multilabel"}, "kind: classification → multilabel"),
        ({"form": "pair"}, "input: single → pair"),
    ],
)
def test_an_update_that_changes_the_contract_is_refused_and_says_how(
    registry: Registry, module: Callable[..., Path], options: dict[str, Any], line: str
) -> None:
    tasks.register(registry, "intent", module())
    with refused(registry, ContractChangedError, line, code="contract-changed", task="intent"):
        tasks.update(registry, "intent", module(**options))
    assert tasks.redefine(registry, "intent", module(**options)).version == version_number("2.0")


def test_a_redefinition_that_redefines_nothing_is_refused(
    settled: Registry, module: Callable[..., Path]
) -> None:
    with refused(settled, ConflictError, "2.0", code="contract-unchanged", task="intent"):
        tasks.redefine(settled, "intent", module(labels=MORE, seed=9))


def test_a_retired_task_gets_no_new_version(settled: Registry, module: Callable[..., Path]) -> None:
    with refused(settled, ConflictError, code="task-retired", task="old"):
        tasks.update(settled, "old", module(seed=9))
    with refused(settled, ConflictError, code="task-retired", task="old"):
        tasks.redefine(settled, "old", module(labels=MORE))


def test_after_a_pin_the_next_update_takes_the_next_free_minor_of_that_major(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    for seed in (1, 2):
        tasks.update(registry, "intent", module(seed=seed))
    tasks.redefine(registry, "intent", module(labels=MORE))
    tasks.pin(registry, "intent@1.0")
    with refused(registry, ContractChangedError, "labels added: news"):
        tasks.update(registry, "intent", module(labels=MORE, seed=1))
    assert tasks.update(registry, "intent", module(seed=3)).version == version_number("1.3")
    assert tasks.redefine(
        registry, "intent", module(labels=MORE, seed=1)
    ).version == version_number("3.0")
    assert versions(registry, "intent") == ["1.0", "1.1", "1.2", "1.3", "2.0", "3.0"]


def test_versions_are_listed_by_number_and_not_as_text(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    for seed in range(1, 12):
        tasks.update(registry, "intent", module(seed=seed))
    assert versions(registry, "intent") == [f"1.{minor}" for minor in range(12)]


# Retiring, restoring, pinning.


def test_a_retired_task_leaves_the_live_set_and_comes_back_as_it_was(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    retired = TaskOutcome(
        task="intent", version=version_number("1.0"), changed=True, state="retired"
    )
    assert tasks.retire(registry, "intent") == retired
    assert tasks.show(registry, "intent").state == "retired"
    with registry.read() as uow:
        assert uow.live() == {}
    assert tasks.restore(registry, "intent").changed
    with registry.read() as uow:
        assert [version.number for version in uow.live().values()] == [version_number("1.0")]
    assert actions(registry)[1:] == ["task:retire intent", "task:restore intent"]


def test_retiring_or_restoring_twice_changes_nothing(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    with nothing_changes(registry):
        assert not tasks.restore(registry, "intent").changed
    tasks.retire(registry, "intent")
    with nothing_changes(registry):
        assert not tasks.retire(registry, "intent").changed


def test_a_pin_goes_back_and_forth_between_versions(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    outcome = tasks.pin(registry, "intent@1.0")
    assert outcome == TaskOutcome(task="intent", version=version_number("1.0"), changed=True)
    assert current(registry, "intent") == "1.0"
    assert audit.events(registry)[-1].details == {"from": "1.1", "to": "1.0"}
    tasks.pin(registry, "intent@1.1")
    assert current(registry, "intent") == "1.1"
    with nothing_changes(registry):
        assert not tasks.pin(registry, "intent@1.1").changed


@pytest.mark.parametrize(
    ("reference", "error", "mention"),
    [
        ("intent", UsageError, "intent@MAJOR.MINOR"),
        ("intent@", InvalidNameError, "version"),
        ("intent@1", InvalidNameError, "version"),
        ("intent@1.00", InvalidNameError, "version"),
        ("intent@-1.0", InvalidNameError, "version"),
        ("intent@99999999999999999999.0", InvalidNameError, "version"),
        ("intent@999999999.999999999", TaskNotFoundError, "it has 1.0, 1.1, 2.0"),
        ("intent@1.2", TaskNotFoundError, "it has 1.0, 1.1, 2.0"),
        ("nothing@1.0", TaskNotFoundError, "nothing"),
        ("../intent@1.0", InvalidNameError, "../intent"),
    ],
)
def test_a_pin_to_no_version_is_refused(
    settled: Registry, reference: str, error: type[CentraError], mention: str
) -> None:
    with refused(settled, error, mention):
        tasks.pin(settled, reference)


# Other teams' and unknown tasks.

CHANGES: dict[str, Callable[[Registry, Callable[..., Path], bool], TaskOutcome]] = {
    "update": lambda r, m, f: tasks.update(r, "intent", m(labels=MORE, seed=1), force=f),
    "redefine": lambda r, m, f: tasks.redefine(r, "intent", m("multilabel"), force=f),
    "retire": lambda r, _, f: tasks.retire(r, "intent", force=f),
    "pin": lambda r, _, f: tasks.pin(r, "intent@1.0", force=f),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_teams_task_is_left_alone_without_force(
    settled: Registry, module: Callable[..., Path], change: str
) -> None:
    with refused(settled, NotOwnerError, "belongs to team nlu", BOB, code="not-owner"):
        CHANGES[change](acting(settled, BOB), module, False)
    with refused(settled, NotOwnerError, team="nlu", actor=None):
        CHANGES[change](anonymous(settled), module, False)


def test_restoring_another_teams_task_is_refused_without_force(settled: Registry) -> None:
    with refused(settled, NotOwnerError, "belongs to team nlu"):
        tasks.restore(acting(settled, BOB), "old")


def test_ownership_is_checked_before_anything_is_read(settled: Registry, tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    with refused(settled, NotOwnerError):
        tasks.update(acting(settled, BOB), "intent", missing)
    with refused(settled, NotOwnerError):
        tasks.register(acting(settled, BOB), "new", missing, team="nlu")


def test_force_changes_another_teams_task_and_the_log_shows_it_each_time(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module(labels=MORE))
    bob = acting(registry, BOB)
    for change in CHANGES.values():
        outcome = change(bob, module, True)
        assert (outcome.changed, outcome.forced) == (True, True)
    assert tasks.restore(bob, "intent", force=True).forced
    events = audit.events(registry, actor="vision")
    assert [event.action.partition(":")[2] for event in events] == [*CHANGES, "restore"]
    assert all(event.forced for event in events)
    assert tasks.show(registry, "intent").team == "nlu"


@pytest.mark.parametrize("name", ["nothing", "../intent"])
def test_a_task_that_is_not_there_is_refused(
    settled: Registry, module: Callable[..., Path], name: str
) -> None:
    for attempt in (
        lambda: tasks.update(settled, name, module(seed=9)),
        lambda: tasks.redefine(settled, name, module(seed=9)),
        lambda: tasks.retire(settled, name),
        lambda: tasks.restore(settled, name),
        lambda: tasks.show(settled, name),
        lambda: tasks.show(settled, f"{name}@1.0"),
        lambda: tasks.diff(settled, name, name),
        lambda: audit.events(settled, task=name),
    ):
        with nothing_changes(settled), pytest.raises((TaskNotFoundError, InvalidNameError)):
            attempt()


# Reading.


def test_one_version_can_be_shown(settled: Registry) -> None:
    detail = tasks.show(settled, "intent@1.1")
    assert detail.current == version_number("2.0")
    assert [str(version.version) for version in detail.versions] == ["1.1"]
    with pytest.raises(TaskNotFoundError, match=r"it has 1\.0, 1\.1, 2\.0"):
        tasks.show(settled, "intent@3.0")


def test_an_empty_registry_lists_no_task(registry: Registry) -> None:
    assert tasks.list(registry) == []


def test_tasks_are_listed_by_name_with_their_current_version(
    settled: Registry,
) -> None:
    assert [(row.name, row.version, row.state) for row in tasks.list(settled)] == [
        ("intent", version_number("2.0"), "active"),
        ("old", version_number("1.0"), "retired"),
    ]


def test_the_list_can_be_narrowed(registry: Registry, module: Callable[..., Path]) -> None:
    bob = acting(registry, BOB)
    tasks.register(registry, "intent", module(metrics={"accuracy": 0.9, "f1": 0.5}))
    tasks.register(registry, "slots", module("tagging", metrics={"f1": 0.8}))
    tasks.register(bob, "emotion", module("multilabel", on="other", metrics={"f1": 0.6}))
    tasks.register(bob, "score", module("regression"))
    tasks.retire(bob, "score")

    def names(**options: Any) -> list[str]:
        return [row.name for row in tasks.list(registry, **options)]

    assert names() == ["emotion", "intent", "score", "slots"]
    assert names(team="nlu") == ["intent", "slots"]
    assert names(kind="tagging") == ["slots"]
    assert names(state="active") == ["emotion", "intent", "slots"]
    assert names(state="retired") == ["score"]
    assert names(backbone="other") == ["emotion"]
    assert names(backbone="tiny@1") == ["intent", "score", "slots"]
    assert names(backbone="tiny@2") == names(backbone="tin") == []
    assert names(metrics=[MetricBound.parse("f1>=0.6")]) == ["emotion", "slots"]
    both = [MetricBound.parse(text) for text in ("f1>=0.5", "accuracy>=0.9")]
    assert names(metrics=both) == ["intent"]
    assert names(metrics=[MetricBound.parse("missing>=0")]) == []
    assert names(team="nlu", kind="classification", metrics=both) == ["intent"]
    assert names(team="nobody") == []


def test_metrics_are_those_of_the_current_version(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module(metrics={"accuracy": 0.9}))
    tasks.update(registry, "intent", module(metrics={"accuracy": 0.7}))
    bound = MetricBound.parse("accuracy>=0.8")
    assert tasks.list(registry, metrics=[bound]) == []
    tasks.pin(registry, "intent@1.0")
    assert len(tasks.list(registry, metrics=[bound])) == 1


def test_an_update_may_change_how_logits_become_answers_and_the_difference_says_so(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    sure = Decision(activation="sigmoid", rejection=0.25)
    assert str(tasks.update(registry, "intent", module(decision=sure)).version) == "1.1"

    difference = tasks.diff(registry, "intent@1.0", "intent@1.1")
    assert (bool(difference.contract), difference.tensors_changed) == (False, [])
    assert [str(change) for change in difference.decision] == [
        "activation: softmax → sigmoid",
        "rejection: none → 0.25",
    ]


def test_a_decision_that_is_not_served_is_refused(
    registry: Registry, module: Callable[..., Path]
) -> None:
    with pytest.raises(IncompatibleError, match=r"decision\.max_length is 10000"):
        tasks.register(registry, "intent", module(decision=Decision(max_length=10_000)))


def test_a_difference_names_the_tensors_and_the_contract_that_changed(
    registry: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    def change(module: TaskModule) -> TaskModule:
        moved = {name: module.tensors[name] + 1 for name in ("head.out.bias", "probe.logits")}
        return dataclasses.replace(module, tensors={**module.tensors, **moved})

    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", crafted(module(), tmp_path / "m.safetensors", change))
    tasks.redefine(registry, "intent", module(labels=MORE))
    difference = tasks.diff(registry, "intent@1.0", "intent@1.1")
    assert difference.tensors_changed == ["head.out.bias", "probe.logits"]
    assert difference.tensors_same > 10
    assert not difference.contract
    assert (difference.before.version, difference.after.version) == (
        version_number("1.0"),
        version_number("1.1"),
    )
    difference = tasks.diff(registry, "intent@1.1", "intent")
    assert difference.contract.lines() == ["labels added: news"]
    assert "head.out.weight" in difference.tensors_changed
    assert difference.after.version == version_number("2.0")


def test_a_version_does_not_differ_from_itself(settled: Registry) -> None:
    difference = tasks.diff(settled, "intent", "intent@2.0")
    assert difference.tensors_changed == []
    assert not difference.contract


def test_versions_of_two_tasks_are_not_compared(settled: Registry) -> None:
    with refused(settled, UsageError, "different tasks"):
        tasks.diff(settled, "intent@1.0", "old@1.0")


def test_a_difference_to_a_damaged_module_is_refused(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    support.flip(blob_path(registry, file_digest(module())), 12345)
    with refused(registry, CorruptBlobError):
        tasks.diff(registry, "intent@1.0", "intent@1.1")


def test_registering_the_original_again_mends_a_damaged_blob(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    support.flip(blob_path(registry, file_digest(module())), 12345)
    tasks.register(registry, "intent", module())
    registry.store.fetch(file_digest(module()))


def test_the_file_of_an_earlier_version_mends_its_blob_though_it_does_not_become_current(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    path = blob_path(registry, file_digest(module()))
    for fault, damage in ("missing", path.unlink), ("damaged", lambda: path.write_bytes(b"noise")):
        damage()
        outcome = tasks.update(registry, "intent", module())
        assert (outcome.version, outcome.changed, outcome.mended) == (
            version_number("1.0"),
            False,
            fault,
        )
        registry.store.fetch(file_digest(module()))
        assert tasks.show(registry, "intent").current == version_number("1.1")
    with pytest.raises(ConflictError):
        tasks.update(registry, "intent", module())


# What it costs.


def test_registering_updating_and_listing_need_neither_torch_nor_transformers(
    registry: Registry, module: Callable[..., Path]
) -> None:
    code = (
        "import sys\n"
        "from registry import Registry, audit, backbones, channels, releases, tasks\n"
        "url, store, first, second = sys.argv[1:]\n"
        "registry = Registry.open(database=url, store=store, actor='nlu/ada')\n"
        "tasks.register(registry, 'intent', first)\n"
        "tasks.update(registry, 'intent', second)\n"
        "tasks.show(registry, 'intent'), tasks.diff(registry, 'intent@1.0', 'intent')\n"
        "tasks.list(registry), backbones.list(registry)\n"
        "releases.list(registry), channels.list(registry)\n"
        "audit.events(registry, task='intent')\n"
        "print(*{'torch', 'transformers'} & set(sys.modules))\n"
    )
    arguments = [url_of(registry), str(root_of(registry)), str(module()), str(module(seed=1))]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []
    assert versions(registry, "intent") == ["1.0", "1.1"]
