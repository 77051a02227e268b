"""Whose tasks a channel may change, however one tries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from registry import audit, channels, policies, releases, tasks
from registry.owners import ForeignTasksError
from registry.promotion import promote
from registry.releases import compose
from tests import support
from tests.registry.helpers import (
    acting,
    anonymous,
    blob_path,
    nothing_changes,
    refused,
    ruled,
    rules_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry import Registry

MORE = ("alarm", "music", "weather", "news")


@pytest.fixture
def shared(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """Production serves nlu's ``intent`` and dialog's ``slots``, both 1.1, and before that 1.0."""

    def build() -> None:
        dialog = acting(registry, "dialog/bob")
        tasks.register(registry, "intent", module())
        tasks.register(dialog, "slots", module("tagging", tap=2))
        compose(registry, publish=True)
        promote(registry, "1", "production")
        tasks.update(dialog, "slots", module("tagging", tap=2, seed=1))
        compose(dialog, publish=True)
        promote(dialog, "2", "production")
        tasks.update(registry, "intent", module(seed=1))
        compose(registry, publish=True)
        promote(registry, "3", "production")

    return bring("owners", build)


def made(registry: Registry, **change: Any) -> str:
    """A release with a change of what production serves."""
    return str(compose(registry, base="production", publish=True, **change).release)


def downgraded(registry: Registry, _module: Callable[..., Path]) -> str:
    return made(registry, replace=["slots@1.0"])


def removed(registry: Registry, _module: Callable[..., Path]) -> str:
    return made(registry, remove=["slots"])


def updated(registry: Registry, module: Callable[..., Path]) -> str:
    tasks.update(registry, "slots", module("tagging", tap=2, seed=2), force=True)
    return made(registry, replace=["slots@1.2"])


def redefined(registry: Registry, module: Callable[..., Path]) -> str:
    labels = ("O", "B-day", "I-day")
    tasks.redefine(registry, "slots", module("tagging", tap=2, labels=labels), force=True)
    return made(registry, replace=["slots@2.0"])


def added(registry: Registry, module: Callable[..., Path]) -> str:
    tasks.register(registry, "news", module(labels=MORE), team="dialog", force=True)
    return made(registry, replace=["news@1.0"])


def quantized(registry: Registry, _module: Callable[..., Path]) -> str:
    return made(registry, replace=["slots@1.1"], precision="int8")


@pytest.mark.parametrize("change", [downgraded, removed, updated, redefined, added, quantized])
def test_another_teams_task_stays_as_it_is_in_production(
    shared: Registry, module: Callable[..., Path], change: Callable[..., str]
) -> None:
    number = change(shared, module)
    assert number == "4"
    options = {"accept_redefined": True}
    for dry_run in (True, False):
        with refused(
            shared,
            ForeignTasksError,
            "tasks of other teams on production, and you are nlu/ada",
            f"{'news' if change is added else 'slots'}, of team dialog",
            code="foreign-tasks",
            actor="nlu/ada",
            releasers=[],
        ):
            promote(shared, number, "production", dry_run=dry_run, **options)
    with refused(shared, ForeignTasksError, "of team dialog"):
        channels.move(shared, "production", number)
    # Nobody in particular owns nothing.
    with refused(shared, ForeignTasksError, "not said who you are", "of team dialog", actor=None):
        promote(anonymous(shared), number, "production", **options)
    assert promote(acting(shared, "dialog/eve"), number, "production", **options).promoted
    assert not audit.events(shared)[-1].forced


def test_composing_is_free(shared: Registry) -> None:
    assert made(shared, remove=["slots"]) == "4"


def test_a_team_ships_its_own_with_whatever_others_have_in_production(
    shared: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(shared, "intent", module(seed=2))
    number = made(shared, replace=["intent@1.2"])
    tasks.update(acting(shared, "dialog/bob"), "slots", module("tagging", tap=2, seed=3))
    assert promote(shared, number, "production").promoted


def test_the_live_set_of_several_teams_needs_one_who_may_ship_them_all(
    shared: Registry, module: Callable[..., Path]
) -> None:
    for team, task, file in (
        ("nlu", "intent", module(seed=2)),
        ("dialog", "slots", module("tagging", tap=2, seed=2)),
    ):
        tasks.update(acting(shared, f"{team}/x"), task, file)
    compose(shared, publish=True)
    ruled(shared, promoters=["nlu"], releasers=["release", "care/eve"])
    with refused(shared, ForeignTasksError, releasers=["release", "care/eve"]):
        promote(shared, "4", "production")
    for releaser in ("release/kim", "care/eve"):
        assert promote(acting(shared, releaser), "4", "production", dry_run=True).gates[0].passed
    assert promote(acting(shared, "care/eve"), "4", "production").promoted
    assert not audit.events(shared)[-1].forced


def test_force_does_it_and_the_log_says_over_whom(shared: Registry) -> None:
    number = made(shared, remove=["slots"])
    plan = promote(shared, number, "production", force=True, dry_run=True)
    done = promote(shared, number, "production", force=True)
    assert plan.forced == done.forced == {"slots": "dialog"}
    event = audit.events(shared)[-1]
    assert event.forced
    assert event.details == {"from": 3, "to": 4, "revision": 4, "forced_over": {"slots": "dialog"}}
    # Where force was not needed, nothing is said of it.
    with nothing_changes(shared):
        assert promote(shared, number, "production", force=True).forced == {}


def test_a_forced_move_says_so_too(shared: Registry) -> None:
    number = made(shared, replace=["slots@1.0"])
    assert channels.move(shared, "production", number, force=True)[1]
    event = audit.events(shared)[-1]
    assert (event.forced, event.details["forced_over"]) == (True, {"slots": "dialog"})


def test_a_rebase_carries_no_change_of_another_team(
    shared: Registry, module: Callable[..., Path]
) -> None:
    number = made(shared, replace=["slots@1.0"])
    tasks.update(shared, "intent", module(seed=2))
    promote(shared, made(shared, replace=["intent@1.2"]), "production")
    for dry_run in (True, False):
        with refused(shared, ForeignTasksError, "slots, of team dialog"):
            promote(shared, number, "production", rebase=True, dry_run=dry_run)
    done = promote(shared, number, "production", rebase=True, force=True)
    assert done.forced == {"slots": "dialog"}
    assert releases.show(shared, "production").tasks == {"intent": "1.2", "slots": "1.0"}


def test_a_team_rolls_back_its_own(shared: Registry) -> None:
    dialog = acting(shared, "dialog/bob")
    for actor in (dialog, anonymous(shared)):
        with refused(actor, ForeignTasksError, "intent, of team nlu", tasks={"intent": "nlu"}):
            channels.rollback(actor, "production")
    assert channels.rollback(shared, "production").channel.release == 2
    with refused(shared, ForeignTasksError, "slots, of team dialog"):
        channels.rollback(shared, "production")
    assert channels.rollback(dialog, "production").channel.release == 1


def test_a_forced_rollback_reads_nothing_of_what_is_broken(shared: Registry) -> None:
    broken = releases.show(shared, "3")
    support.flip(blob_path(shared, broken.manifest.tasks["intent"].digest), 99)
    blob_path(shared, broken.digest).unlink()
    dialog = acting(shared, "dialog/bob")
    with refused(dialog, ForeignTasksError, code="foreign-tasks"):
        channels.rollback(dialog, "production")
    assert channels.rollback(dialog, "production", force=True).channel.release == 2
    event = audit.events(shared)[-1]
    assert (event.action, event.forced) == ("channel:rollback", True)
    assert event.details["forced_over"] == {"intent": "nlu"}


def test_releasers_roll_back_for_everybody(shared: Registry) -> None:
    ruled(shared, promoters=[], releasers=["release"])
    assert channels.rollback(acting(shared, "release/eve"), "production", to="1").moved
    assert not audit.events(shared)[-1].forced


def test_a_new_channel_serves_nobody_and_one_open_to_overwriting_is_nobodys(
    shared: Registry,
) -> None:
    number = made(shared, remove=["slots"])
    assert promote(shared, number, "canary").promoted
    policies.apply(shared, rules_of(channels={"staging": {"overwrite": True}}))
    for release in ("1", number, "3"):
        assert promote(anonymous(shared), release, "staging").promoted


def test_the_owner_is_the_one_that_the_moving_transaction_sees(
    shared: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.update(shared, "intent", module(seed=2))
    number = made(shared, replace=["intent@1.2"])
    write, intruded = type(shared).write, []

    def intruding(self: Registry) -> Any:
        if not intruded:
            intruded.append(True)
            with write(self) as uow:
                uow.task("intent").team = "dialog"
        return write(self)

    monkeypatch.setattr(type(shared), "write", intruding)
    with pytest.raises(ForeignTasksError, match="intent, of team dialog"):
        promote(shared, number, "production")
    assert channels.show(shared, "production").release == 3


def test_somebody_elses_faster_change_is_stale_and_not_an_owners_matter(
    shared: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the question whose tasks change, another team ships: look again."""
    dialog = acting(shared, "dialog/bob")
    tasks.update(shared, "intent", module(seed=2))
    mine = made(shared, replace=["intent@1.2"])
    tasks.update(dialog, "slots", module("tagging", tap=2, seed=3))
    theirs = made(dialog, replace=["slots@1.2"])
    read, count = type(shared).read, []

    def intruding(self: Registry) -> Any:
        count.append(True)
        if len(count) == 2:
            promote(dialog, theirs, "production")
        return read(self)

    monkeypatch.setattr(type(shared), "read", intruding)
    assert promote(shared, mine, "production", rebase=True).promoted
    assert releases.show(shared, "production").tasks == {"intent": "1.2", "slots": "1.2"}
