from __future__ import annotations

import dataclasses
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from centra.data.inputs import fingerprint
from centra.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from centra.formats.manifest import ChannelPointer
from centra.releases.compose import ComposeError
from centra.store import LocalStore
from registry import audit, channels, evaluations, releases, signatures, tasks
from registry.database.models import Evaluation
from registry.promotion import GateError, Promotion, StaleReleaseError, promote
from registry.releases import compose
from registry.releases.publishing import add_release
from registry.rules.gates import Remedy, evaluate_gates
from tests import support
from tests.registry.helpers import (
    acting,
    blob_path,
    nothing_changes,
    refused,
    reopened,
    root_of,
    ruled,
)
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry import Registry
    from registry.rules.gates import Gate

MORE = ("alarm", "music", "weather", "news")


@pytest.fixture
def published(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """``intent``, ``slots`` and ``mood`` in release 1, which production serves."""

    def publish() -> None:
        for seed, name in enumerate(("intent", "slots", "mood")):
            tasks.register(registry, name, module(seed=seed))
        compose(registry, publish=True)
        promote(registry, "1", "production")

    return bring("promotion", publish)


@pytest.fixture
def ship(published: Registry, module: Callable[..., Path]) -> Callable[..., int]:
    """A call that updates one task and composes it onto a base; gives the release's number."""

    def ship(task: str, seed: int, base: str = "production") -> int:
        version = tasks.update(published, task, module(seed=seed)).version
        composed = compose(published, base=base, replace=[f"{task}@{version}"], publish=True)
        assert composed.release is not None
        return composed.release

    return ship


def served(registry: Registry, channel: str = "production") -> dict[str, str]:
    """What a channel serves: a version per task; its pointer must agree."""
    row = channels.show(registry, channel)
    pointer = ChannelPointer.from_bytes(registry.store.read_pointer(channel) or b"", channel)
    assert (pointer.release, pointer.revision) == (row.release, row.revision)
    tasks = releases.show(registry, str(row.release)).tasks
    assert {task: str(version) for task, version in pointer.versions.items()} == tasks
    return tasks


def failed(caught: pytest.ExceptionInfo[GateError]) -> list[Gate]:
    return [gate for gate in caught.value.promotion.gates if not gate.passed]


# Shipping one change alone


def test_a_change_ships_alone_whatever_else_is_pending(
    published: Registry, module: Callable[..., Path], ship: Callable[..., int]
) -> None:
    tasks.update(published, "slots", module(seed=10))
    tasks.retire(published, "mood")
    number = ship("intent", 11)
    assert promote(published, str(number), "production") == Promotion(
        channel="production",
        release=number,
        rebased_from=None,
        before=1,
        revision=2,
        promoted=True,
        unchanged=False,
        gates=[],
    )
    assert served(published) == {"intent": "1.1", "slots": "1.0", "mood": "1.0"}
    event = audit.events(published)[-1]
    assert (event.action, event.subject) == ("channel:promote", "production")
    assert event.details == {"from": 1, "to": number, "revision": 2}


def test_a_removal_ships_alone(published: Registry, module: Callable[..., Path]) -> None:
    tasks.update(published, "slots", module(seed=10))
    composed = compose(published, base="production", remove=["mood"], publish=True)
    assert [(c.task, c.change) for c in composed.changes] == [("mood", "removed")]
    promote(published, str(composed.release), "production")
    assert served(published) == {"intent": "1.0", "slots": "1.0"}


def test_a_task_that_is_not_there_cannot_be_left_out(published: Registry) -> None:
    with refused(published, NotFoundError, "'nope'"):
        compose(published, base="production", remove=["nope"])


def test_promoting_again_does_nothing(published: Registry) -> None:
    with nothing_changes(published):
        result = promote(published, "1", "production")
    assert (result.promoted, result.unchanged, result.revision) == (False, True, 1)


def test_what_is_served_already_is_asked_for_no_gate(published: Registry) -> None:
    strict = ruled(published, promoters=["nobody"], max_layers=1)
    for options in ({}, {"dry_run": True}, {"rebase": True}):
        with nothing_changes(published):
            result = promote(strict, "1", "production", **options)
        assert (result.release, result.unchanged, result.gates) == (1, True, [])


def test_promoting_again_mends_a_pointer_that_a_crash_left_behind(published: Registry) -> None:
    published.store.write_pointer("production", b"stale")
    promote(published, "1", "production")
    served(published)


def test_a_live_composition_is_promoted_over_what_was_shipped_alone(
    published: Registry, ship: Callable[..., int]
) -> None:
    promote(published, str(ship("intent", 11)), "production")
    ship("slots", 12, base="1")
    live = compose(published, publish=True)
    promote(published, str(live.release), "production")
    assert served(published) == {"intent": "1.1", "slots": "1.1", "mood": "1.0"}


def test_a_dry_run_leaves_even_a_stale_pointer_alone(published: Registry) -> None:
    published.store.write_pointer("production", b"stale")
    with nothing_changes(published):
        promote(published, "1", "production", dry_run=True)


@pytest.mark.parametrize(
    ("channel", "error"),
    [("latest", UsageError), ("7", UsageError), ("../evil", UsageError)],
)
def test_a_channel_that_cannot_be_moved_is_refused(
    published: Registry, channel: str, error: type[Exception]
) -> None:
    with refused(published, error):  # type: ignore[arg-type]
        promote(published, "1", channel)


def test_a_release_that_is_not_there_is_refused(published: Registry) -> None:
    with refused(published, NotFoundError, "'9'"):
        promote(published, "9", "production")


# Somebody else was faster


def test_a_release_that_would_undo_what_others_shipped_is_refused_and_says_what(
    published: Registry, ship: Callable[..., int]
) -> None:
    mine, theirs = ship("intent", 11), ship("slots", 12)
    promote(published, str(theirs), "production")
    with refused(
        published,
        StaleReleaseError,
        "slots is 1.1 there, 1.0 here",
        code="stale-release",
        channel="production",
        release=mine,
        serving=theirs,
        tasks=["slots"],
    ):
        promote(published, str(mine), "production")
    assert served(published)["slots"] == "1.1"


def test_a_change_is_rebased_onto_what_is_served(
    published: Registry, ship: Callable[..., int]
) -> None:
    mine, theirs = ship("intent", 11), ship("slots", 12)
    promote(published, str(theirs), "production")
    result = promote(published, str(mine), "production", rebase=True)
    assert (result.rebased_from, result.promoted, result.before) == (mine, True, theirs)
    assert releases.show(published, str(result.release)).base == theirs
    assert served(published) == {"intent": "1.1", "slots": "1.1", "mood": "1.0"}


def test_a_rebase_publishes_what_it_promotes_and_leaves_latest_alone(
    published: Registry, ship: Callable[..., int]
) -> None:
    mine, theirs = ship("intent", 11), ship("slots", 12)
    promote(published, str(theirs), "production")
    plan = promote(published, str(mine), "production", rebase=True, dry_run=True)
    assert (plan.release, plan.rebased_from, plan.before) == (None, mine, theirs)
    events = len(audit.events(published))
    done = promote(published, str(mine), "production", rebase=True)
    assert done == dataclasses.replace(plan, release=theirs + 1, promoted=True, revision=3)
    assert [f"{e.action} {e.subject}" for e in audit.events(published)[events:]] == [
        f"release:publish {theirs + 1}",
        "channel:promote production",
    ]
    assert channels.show(published, "latest").release == 1
    # Again, it is what is served already.
    with nothing_changes(published):
        again = promote(published, str(mine), "production", rebase=True)
    assert (again.release, again.unchanged) == (theirs + 1, True)


def test_a_rebase_that_is_refused_publishes_nothing(
    published: Registry, ship: Callable[..., int], tmp_path: Path
) -> None:
    mine, theirs = ship("intent", 11), ship("slots", 12)
    promote(published, str(theirs), "production")
    key = str(support.public(support.make_key(tmp_path / "release.pem")))
    settings: tuple[dict[str, Any], ...] = (
        {"max_layers": 1},
        {"from": "staging"},
        {"signed_by": [key]},
        {"promoters": ["release"]},
        {
            "measured": {"intent": {"data": "0" * 64}},
            "min_metrics": {"intent": {"accuracy": 0.0}},
        },
    )
    for rules in settings:
        strict = ruled(published, **rules)
        for dry_run in (False, True):
            with nothing_changes(published), pytest.raises(GateError) as caught:
                promote(strict, str(mine), "production", rebase=True, dry_run=dry_run)
            says = f"the change of release {mine}, taken onto release {theirs}, may not go to"
            assert says in str(caught.value)
            change = {"base": theirs, "replace": ["intent@1.1"], "remove": []}
            assert caught.value.data["unpublished"] == change
    # Published as a release of its own, it can be tested, and then it passes.
    promote(published, str(mine), "staging")
    own = compose(published, base=str(theirs), replace=["intent@1.1"], publish=True)
    promote(published, str(own.release), "staging")
    strict = ruled(published, **{"from": "staging"})
    assert promote(strict, str(mine), "production", rebase=True).release == own.release


def test_what_was_measured_of_a_version_counts_for_what_a_rebase_makes(
    published: Registry, ship: Callable[..., int], tiny_data: Callable[[str], Path]
) -> None:
    mine, theirs = ship("intent", 11), ship("slots", 12)
    promote(published, str(theirs), "production")
    least = {"intent": {"accuracy": 0.0}, "slots": {"accuracy": 0.0}}
    digest = fingerprint([(tiny_data("single") / "dev.jsonl").read_bytes()])
    on = {task: {"data": digest} for task in least}
    strict = ruled(published, measured=on, min_metrics=least)
    with pytest.raises(GateError) as caught:
        promote(strict, str(mine), "production", rebase=True)
    # Each is measured in a release that there is, and that holds this version.
    assert [(gate.found, gate.remedies) for gate in failed(caught)] == [
        (
            f"1.1 is not measured on sha256:{digest[:12]}…",
            (Remedy(code="measure", data={"release": number, "task": task}),),
        )
        for number, task in ((mine, "intent"), (theirs, "slots"))
    ]
    for number, task in ((mine, "intent"), (theirs, "slots")):
        evaluations.evaluate(published, str(number), task, tiny_data("single"))
    assert promote(strict, str(mine), "production", rebase=True).promoted


def test_a_channel_that_moves_while_a_change_is_rebased_leaves_no_release_behind(
    published: Registry, ship: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs, others = (ship(task, 11) for task in ("intent", "slots", "mood"))
    promote(published, str(theirs), "production")
    check, intruded = evaluate_gates, []

    def intruding(*args: Any, **options: Any) -> Any:
        if not intruded:
            intruded.append(True)
            promote(published, str(others), "production", rebase=True)
        return check(*args, **options)

    monkeypatch.setattr("registry.promotion.gates.evaluate_gates", intruding)
    done = promote(ruled(published, max_layers=99), str(mine), "production", rebase=True)
    assert served(published) == {"intent": "1.1", "slots": "1.1", "mood": "1.1"}
    # One for the intruder and one for the promotion, though that composed two.
    assert (done.release, len(releases.list(published))) == (others + 2, others + 2)


def test_a_removal_and_an_addition_are_rebased_too(
    published: Registry, module: Callable[..., Path], ship: Callable[..., int]
) -> None:
    tasks.register(published, "new", module(seed=20))
    mine = compose(published, base="production", replace=["new@1.0"], remove=["mood"], publish=True)
    promote(published, str(ship("slots", 12)), "production")
    promote(published, str(mine.release), "production", rebase=True)
    assert served(published) == {"intent": "1.0", "slots": "1.1", "new": "1.0"}


def test_a_task_that_both_changed_is_not_rebased(
    published: Registry, ship: Callable[..., int]
) -> None:
    mine, theirs = ship("intent", 11), ship("intent", 12)
    promote(published, str(theirs), "production")
    with refused(published, ConflictError, "both change intent (served: 1.2)"):
        promote(published, str(mine), "production", rebase=True)


def test_going_back_is_for_rollback(published: Registry, ship: Callable[..., int]) -> None:
    promote(published, str(ship("intent", 11)), "production")
    with refused(published, StaleReleaseError, "intent is 1.1 there", code="stale-release"):
        promote(published, "1", "production")


def imported(registry: Registry) -> int:
    """The live set as a release that an import writes: nobody here knows what it was made of."""
    composed = compose(registry)
    registry.store.put(composed.manifest.to_bytes())
    with registry.write() as uow:
        return add_release(uow, composed.manifest, composed.ids).number


def test_a_release_that_stands_on_nothing_that_is_served_is_refused_unless_forced(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(published, "intent", module(seed=10))
    foreign = str(imported(published))
    says = "intent is 1.0 there, 1.1 here"
    with refused(published, StaleReleaseError, says, code="unrelated-release"):
        promote(published, foreign, "production")
    with refused(published, ConflictError, "has no base", code="no-base", serving=1):
        promote(published, foreign, "production", rebase=True)
    assert promote(published, foreign, "canary").promoted
    assert promote(published, foreign, "production", force=True).promoted
    event = audit.events(published)[-1]
    assert (event.action, event.forced) == ("channel:promote", True)


def test_on_a_channel_open_to_overwriting_a_release_may_stand_on_nothing(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(published, "intent", module(seed=10))
    foreign = str(imported(published))
    assert promote(ruled(published, overwrite=True), foreign, "production").promoted
    assert not audit.events(published)[-1].forced


def test_composed_anew_onto_what_is_served_a_foreign_release_is_promoted(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(published, "intent", module(seed=10))
    foreign = imported(published)
    anew = compose(published, base="production", replace=["intent@1.1"], publish=True)
    assert (anew.release, anew.published) == (foreign, False)
    assert promote(published, str(foreign), "production").promoted


def test_a_foreign_release_that_undoes_nothing_is_promoted(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(published, "new", module(seed=20))
    foreign = str(imported(published))
    assert promote(published, foreign, "production").promoted
    assert not audit.events(published)[-1].forced


def test_force_serves_a_stale_release_as_it_is_and_the_gates_still_hold(
    published: Registry, ship: Callable[..., int]
) -> None:
    mine, theirs = ship("intent", 11), ship("slots", 12)
    promote(published, str(theirs), "production")
    ruled(published, max_layers=1)
    with nothing_changes(published), pytest.raises(GateError):
        promote(published, str(mine), "production", force=True)
    ruled(published, max_layers=99)
    done = promote(published, str(mine), "production", force=True)
    assert (done.release, done.rebased_from) == (mine, None)
    assert audit.events(published)[-1].forced


def test_a_promotion_gives_way_as_often_as_others_are_faster_and_reads_only_what_is_new(
    published: Registry,
    ship: Callable[..., int],
    module: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, times = ship("intent", 11), 21
    for seed in range(times):
        tasks.update(published, "slots", module(seed=100 + seed))
    monkeypatch.setattr("registry.promotion.promoting.time.sleep", lambda _: None)
    read: list[list[str]] = [[]]
    begun = []

    class Recording(LocalStore):
        def fetch(self, digest: str) -> Path:
            read[-1].append(digest)
            return super().fetch(digest)

    def intruding(*args: Any, **options: Any) -> Any:
        turn = len(begun)
        begun.append(True)
        if turn < times:
            theirs = compose(
                published, base="production", replace=[f"slots@1.{turn + 1}"], publish=True
            )
            monkeypatch.setattr("registry.promotion.gates.evaluate_gates", evaluate_gates)
            promote(published, str(theirs.release), "production")
            monkeypatch.setattr("registry.promotion.gates.evaluate_gates", intruding)
        read.append([])
        return evaluate_gates(*args, **options)

    monkeypatch.setattr("registry.promotion.gates.evaluate_gates", intruding)
    own = dataclasses.replace(ruled(published, max_layers=99), store=Recording(root_of(published)))
    done = promote(own, str(mine), "production", rebase=True)
    assert (done.promoted, len(begun)) == (True, times + 1)
    assert served(published) == {"intent": "1.1", "slots": f"1.{times}", "mood": "1.0"}
    # All of it once. Then the module that is new to it, and the manifest that it stores.
    assert {len(set(blobs)) for blobs in read[2:-1]} == {2}


def test_a_channel_may_be_open_to_overwriting(
    published: Registry, ship: Callable[..., int]
) -> None:
    mine, theirs = ship("intent", 11), ship("slots", 12)
    open_to_all = ruled(published, overwrite=True)
    promote(open_to_all, str(theirs), "production")
    promote(open_to_all, str(mine), "production")
    assert served(published) == {"intent": "1.1", "slots": "1.0", "mood": "1.0"}


def test_a_change_that_was_rolled_back_does_not_come_back_with_the_next_one(
    published: Registry, ship: Callable[..., int]
) -> None:
    bad = ship("intent", 11)
    promote(published, str(bad), "production")
    good = ship("slots", 12)  # Composed onto the bad one, before anybody knew.
    channels.rollback(published, "production")
    with refused(published, StaleReleaseError, "intent 1.1 was rolled back"):
        promote(published, str(good), "production")
    result = promote(published, str(good), "production", rebase=True)
    assert served(published) == {"intent": "1.0", "slots": "1.1", "mood": "1.0"}
    assert result.rebased_from == good
    # Who wants it back says so.
    rebased = compose(published, base="production", replace=["intent@1.1"], publish=True)
    promote(published, str(rebased.release), "production")
    assert served(published)["intent"] == "1.1"


def test_a_channel_that_moves_between_the_look_and_the_swap_is_looked_at_again(
    published: Registry, ship: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = ship("intent", 11), ship("slots", 12)
    write, intruded = type(published).write, []

    def intruding(self: Registry) -> Any:
        if not intruded:
            intruded.append(True)
            promote(self, str(theirs), "production")
        return write(self)

    monkeypatch.setattr(type(published), "write", intruding)
    with pytest.raises(StaleReleaseError):
        promote(published, str(mine), "production")
    assert served(published) == {"intent": "1.0", "slots": "1.1", "mood": "1.0"}


def test_teams_that_ship_at_the_same_moment_all_end_up_in_production(
    published: Registry, ship: Callable[..., int]
) -> None:
    numbers = [ship(task, 10 + i) for i, task in enumerate(("intent", "slots", "mood"))]

    def run(number: int) -> Promotion:
        with reopened(published) as own:
            return promote(own, str(number), "production", rebase=True)

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(run, numbers))
    assert all(result.promoted for result in results)
    assert served(published) == {"intent": "1.1", "slots": "1.1", "mood": "1.1"}
    assert [row.revision for row in channels.history(published, "production")] == [4, 3, 2, 1]


# Gates


def test_every_gate_that_fails_is_shown_and_nothing_moves(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.redefine(published, "intent", module(labels=MORE, metrics={"accuracy": 0.5}))
    tasks.update(published, "slots", module(seed=9, metrics={"accuracy": 0.7}))
    compose(published, publish=True)
    strict = ruled(
        published,
        **{"from": "staging", "promoters": ["release"], "max_layers": 1, "max_size": "1 KB"},
        min_metrics={"intent": {"accuracy": 0.9}},
        parity=True,
    )
    with nothing_changes(published), pytest.raises(GateError) as caught:
        promote(strict, "latest", "production")
    assert [(gate.gate, gate.task) for gate in failed(caught)] == [
        ("promoter", None),
        ("from", None),
        ("redefined", "intent"),
        ("min accuracy", "intent"),
        ("layers", None),
        ("size", None),
    ]
    assert [g.gate for g in caught.value.promotion.gates if g.passed] == ["parity"]
    assert "6 of 7 gates failed" in str(caught.value)


def test_a_dry_run_shows_the_same_and_changes_nothing(
    published: Registry, ship: Callable[..., int]
) -> None:
    number = str(ship("intent", 11))
    ruled(published, max_layers=1)
    with nothing_changes(published), pytest.raises(GateError):
        promote(published, number, "production", dry_run=True)
    ruled(published, max_layers=9)
    with nothing_changes(published):
        plan = promote(published, number, "production", dry_run=True)
    assert not plan.promoted
    done = promote(published, number, "production")
    assert (done.gates, done.promoted) == (plan.gates, True)


def test_a_release_passes_through_the_earlier_channel(
    published: Registry, ship: Callable[..., int]
) -> None:
    number = str(ship("intent", 11))
    ruled_registry = ruled(published, **{"from": "staging"})
    with pytest.raises(GateError):
        promote(ruled_registry, number, "production")
    promote(ruled_registry, number, "staging")
    assert promote(ruled_registry, number, "production").promoted


def test_redefined_tasks_are_accepted_by_saying_so(
    published: Registry, module: Callable[..., Path]
) -> None:
    tasks.redefine(published, "intent", module(labels=MORE))
    compose(published, publish=True)
    registry = ruled(published, max_layers=99)
    with pytest.raises(GateError):
        promote(registry, "latest", "production")
    assert promote(registry, "latest", "production", accept_redefined=True).promoted


def test_a_drop_is_measured_on_both_releases_on_the_same_data(
    published: Registry, ship: Callable[..., int], tiny_data: Callable[[str], Path]
) -> None:
    number, data = str(ship("intent", 11)), tiny_data("single")
    on = {"intent": {"data": fingerprint([(data / "dev.jsonl").read_bytes()])}}
    registry = ruled(published, measured=on, max_drop={"intent": {"accuracy": 0.0}})
    with pytest.raises(GateError) as caught:
        promote(registry, number, "production")
    (gate,) = failed(caught)
    for version in ("1.0", "1.1"):
        assert f"{version} is not measured on sha256:" in gate.found
    assert gate.remedies == tuple(
        Remedy(code="measure", data={"release": release, "task": "intent"})
        for release in (1, int(number))
    )
    rows = [evaluations.evaluate(registry, r, "intent", data)[0] for r in ("production", number)]
    old, new = (row.metrics["accuracy"] for row in rows)
    if new >= old:
        assert promote(registry, number, "production").promoted
    else:
        with pytest.raises(GateError):
            promote(registry, number, "production")


def test_a_drop_that_is_not_known_to_be_significant_is_measured_once_more(
    published: Registry, ship: Callable[..., int], tiny_data: Callable[[str], Path]
) -> None:
    number, data = str(ship("intent", 11)), tiny_data("single")
    for release in ("production", number):
        evaluations.evaluate(published, release, "intent", data)
    with published.read() as uow:
        new = uow.version("intent", version_number("1.1")).id
    # As an earlier Centra kept it, and worse than what is served.
    worse = update(Evaluation).where(Evaluation.version_id == new)
    with published.engine.begin() as connection:
        connection.execute(worse.values(metrics={"accuracy": -1}, summary=None, outcomes=None))
    registry = ruled(
        published,
        max_drop={"intent": {"accuracy": 0.0}},
        drop_fails_when="large-and-significant",
    )
    with pytest.raises(GateError) as caught:
        promote(registry, number, "production")
    (gate,) = failed(caught)
    assert "what came of each row is not kept of 1.1, measured by an earlier Centra" in gate.found
    where = {"release": int(number), "task": "intent"}
    assert gate.remedies == (Remedy(code="measure", data=where),)
    assert evaluations.evaluate(registry, number, "intent", data)[1]
    # Of so few rows any drop may be chance.
    assert promote(registry, number, "production").promoted


def test_a_release_whose_parity_fails_on_this_machine_does_not_pass_the_parity_gate(
    published: Registry, ship: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = str(ship("intent", 11))

    def failing(*_: object) -> None:
        raise ComposeError("intent", "parity failed")

    monkeypatch.setattr("centra.releases.parity.check_parity", failing)
    with pytest.raises(GateError) as caught:
        promote(ruled(published, parity=True), number, "production")
    assert [gate.found for gate in failed(caught)] == ["task intent: parity failed"]


def test_an_unsigned_release_does_not_pass_the_signature_gate(
    published: Registry, ship: Callable[..., int], tmp_path: Path
) -> None:
    number = str(ship("intent", 11))
    keys = [support.make_key(tmp_path / f"{name}.pem") for name in ("release", "other")]
    registry = ruled(published, signed_by=[str(support.public(keys[0]))])
    for sign_with in (None, keys[1]):
        if sign_with is not None:
            signatures.sign(registry, number, sign_with)
        with pytest.raises(GateError) as caught:
            promote(registry, number, "production")
        assert [gate.gate for gate in failed(caught)] == ["signature"]
    signatures.sign(registry, number, keys[0])
    assert promote(registry, number, "production").promoted


def test_a_channel_with_a_policy_moves_by_promotion_alone(published: Registry) -> None:
    registry = ruled(published, max_layers=99)
    with refused(
        registry, NotAllowedError, code="channel-has-rules", channel="production", release="1"
    ):
        channels.move(registry, "production", "1")
    assert channels.move(registry, "staging", "1")[1]


# Rollback


def test_promotions_and_rollbacks_are_logged(
    published: Registry, ship: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    number = ship("intent", 11)
    caplog.set_level(logging.INFO, logger="registry")
    promote(published, str(number), "production")
    channels.rollback(published, "production")
    first, second = (releases.show(published, str(n)).digest for n in (number, 1))
    told = [record.getMessage().rpartition(" in ")[0] for record in caplog.records]
    assert told == [
        f"promoted release {number} (sha256:{first}) to production",
        f"rolled production back from release {number} to release 1 (sha256:{second})",
    ]


def test_rolling_back_goes_to_the_release_before_and_is_history_itself(
    published: Registry, ship: Callable[..., int]
) -> None:
    second = ship("intent", 11)
    promote(published, str(second), "production")
    done = channels.rollback(published, "production")
    assert (done.channel.release, done.channel.revision) == (1, 3)
    assert (done.before, done.moved, done.published) == (second, True, False)
    assert served(published)["intent"] == "1.0"
    steps = [
        (row.kind, row.release, row.before) for row in channels.history(published, "production")
    ]
    assert steps == [("rollback", 1, second), ("promote", second, 1), ("promote", 1, None)]
    assert audit.events(published)[-1].action == "channel:rollback"


def test_rolling_back_works_however_broken_the_newest_release_is(
    published: Registry, ship: Callable[..., int]
) -> None:
    number = ship("intent", 11)
    promote(published, str(number), "production")
    broken = releases.show(published, str(number))
    support.flip(blob_path(published, broken.manifest.tasks["intent"].digest), 99)
    blob_path(published, broken.digest).unlink()
    assert channels.rollback(published, "production").channel.release == 1


def test_rolling_back_to_a_release_that_is_damaged_itself_is_refused(
    published: Registry, ship: Callable[..., int]
) -> None:
    promote(published, str(ship("intent", 11)), "production")
    digest = releases.show(published, "1").manifest.tasks["intent"].digest
    support.flip(blob_path(published, digest), 99)
    with refused(published, (ConflictError, Exception), "is corrupt"):  # type: ignore[arg-type]
        channels.rollback(published, "production")


def test_a_rollback_goes_to_any_release_that_was_served(
    published: Registry, ship: Callable[..., int]
) -> None:
    for seed in (11, 12):
        promote(published, str(ship("intent", seed)), "production")
    assert channels.rollback(published, "production", to="1").channel.release == 1
    assert channels.rollback(published, "production", to="1").moved is False
    other = ship("slots", 13)
    with refused(published, NotFoundError, f"never served release {other}"):
        channels.rollback(published, "production", to=str(other))


def test_a_pipeline_takes_back_its_own_release_alone(
    published: Registry, ship: Callable[..., int]
) -> None:
    mine, theirs = ship("intent", 11), ship("slots", 12)
    promote(published, str(mine), "production")
    promote(published, str(theirs), "production", rebase=True)
    with refused(published, ConflictError, f"not {mine}; nothing was done"):
        channels.rollback(published, "production", serving=str(mine))
    newest = channels.show(published, "production").release
    done = channels.rollback(published, "production", serving=str(newest))
    assert done.channel.release == mine


def test_there_must_be_something_to_go_back_to(published: Registry) -> None:
    with refused(published, NotFoundError, "served nothing before release 1"):
        channels.rollback(published, "production")
    with refused(published, NotFoundError, "no channel 'nope'"):
        channels.rollback(published, "nope")


def test_only_promoters_roll_back(published: Registry, ship: Callable[..., int]) -> None:
    promote(published, str(ship("intent", 11)), "production")
    registry = ruled(published, promoters=["care"], releasers=["release"])
    for force in (False, True):
        with refused(registry, NotAllowedError, "promoters are care, release"):
            channels.rollback(registry, "production", force=force)
    assert channels.rollback(acting(registry, "release/eve"), "production").moved
