from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from centra.formats.contract import Contract
from centra.formats.precision import Precision
from registry.rules.lineage import (
    Composed,
    Move,
    MoveKind,
    StaleTask,
    ancestry,
    common_ancestor,
    rollback_stack,
    stale_tasks,
    withdrawn_releases,
)
from registry.rules.released_version import ReleasedVersion
from tests.support import version_number


def moves(*steps: int | str) -> list[Move]:
    """Promotions of numbered releases; ``"-3"`` is a rollback to release 3."""
    return [
        Move(kind=MoveKind.ROLLBACK, release=int(step[1:]))
        if isinstance(step, str)
        else Move(kind=MoveKind.PROMOTE, release=step)
        for step in steps
    ]


def test_rolling_back_twice_goes_back_two_steps() -> None:
    assert rollback_stack(moves(1, 2, 3)) == [1, 2, 3]
    assert rollback_stack(moves(1, 2, 3, "-2")) == [1, 2]
    assert rollback_stack(moves(1, 2, 3, "-2", "-1")) == [1]
    assert rollback_stack(moves(1, 2, 3, "-1")) == [1]


def test_a_promotion_after_a_rollback_stands_on_what_was_gone_back_to() -> None:
    assert rollback_stack(moves(1, 2, "-1", 3)) == [1, 3]


def test_a_release_that_was_served_twice_is_gone_back_to_where_it_was_served_last() -> None:
    assert rollback_stack(moves(1, 2, 1, 3, "-1")) == [1, 2, 1]


def test_a_rollback_to_what_an_earlier_rollback_left_is_a_step_of_its_own() -> None:
    assert rollback_stack(moves(1, 2, "-1", "-2")) == [1, 2]
    assert withdrawn_releases(moves(1, 2, "-1", "-2")) == set()


def test_what_was_rolled_back_is_withdrawn_until_it_is_served_again() -> None:
    assert withdrawn_releases(moves(1, 2, 3)) == set()
    assert withdrawn_releases(moves(1, 2, 3, "-1")) == {2, 3}
    assert withdrawn_releases(moves(1, 2, 3, "-1", 3)) == {2}


@given(st.lists(st.integers(1, 5), min_size=1), st.lists(st.integers(1, 5)))
def test_what_is_served_is_on_top_and_never_withdrawn(promoted: list[int], back: list[int]) -> None:
    history = moves(*promoted, *(f"-{number}" for number in back))
    assert rollback_stack(history)[-1] == history[-1].release
    assert not {*rollback_stack(history)} & withdrawn_releases(history)


def test_a_chain_goes_back_through_the_last_compositions() -> None:
    compositions = composed((6, 4, 5), (4, 3, 2), (3, 1, 1))
    assert numbers(6, compositions) == [6, 4, 3, 1]
    assert numbers(9, compositions) == [9]


def test_a_release_that_came_back_stands_on_what_it_was_composed_onto_last() -> None:
    # 1, then 2 on it; 1 is made again of 2; and 3 of that.
    compositions = composed((2, 1, 1), (1, 2, 2), (3, 1, 3))
    assert numbers(3, compositions) == [3, 1, 2, 1]
    assert numbers(1, compositions) == [1, 2, 1]


def test_a_chain_can_be_asked_for_as_it_was() -> None:
    compositions = composed((5, 1, 1), (5, 4, 9))
    assert numbers(5, compositions) == [5, 4]
    assert numbers(5, compositions, 8) == [5, 1]
    assert numbers(5, compositions, 0) == [5]


def test_chains_meet_at_the_nearest_release_made_of_the_same() -> None:
    compositions = composed((2, 1, 1), (3, 1, 2), (4, 2, 3))
    assert common_ancestor(ancestry(3, compositions), ancestry(4, compositions)) == 1
    assert common_ancestor(ancestry(4, compositions), ancestry(2, compositions)) == 1
    assert common_ancestor(ancestry(1, compositions), ancestry(4, compositions)) == 0
    assert common_ancestor(ancestry(9, compositions), ancestry(4, compositions)) is None


def test_a_release_that_was_made_again_of_what_is_served_meets_it_there() -> None:
    # 2 was made of 1 and is served; going back to 1 was composed onto it.
    compositions = composed((2, 1, 1), (1, 2, 2))
    mine, theirs = ancestry(1, compositions), ancestry(2, compositions, 1)
    assert common_ancestor(mine, theirs) == 1
    # Before that, 1 was what 2 stands on.
    assert common_ancestor(ancestry(1, compositions, 1), theirs) == 0


def test_a_release_that_is_served_again_is_not_what_it_was_when_it_was_built_upon() -> None:
    # 2 was made of 1, then again of 3, which was made of 2; 4 was made of 3 before 2 came back.
    compositions = composed((2, 1, 1), (3, 2, 2), (2, 3, 3), (4, 3, 4))
    mine, theirs = ancestry(4, compositions), ancestry(2, compositions)
    assert mine[common_ancestor(mine, theirs) or 0].release == 3


def numbers(
    release: int, compositions: dict[int, list[Composed]], until: int | None = None
) -> list[int]:
    """The releases of a chain."""
    return [made.release for made in ancestry(release, compositions, until)]


def composed(*edges: tuple[int, int, int]) -> dict[int, list[Composed]]:
    """Compositions as ``(release, base, order)``."""
    found: dict[int, list[Composed]] = {}
    for release, base, order in sorted(edges, key=lambda edge: -edge[2]):
        found.setdefault(release, []).append(Composed(base=base, order=order))
    return found


# Stale tasks: candidate, serving, common.

CONTRACT = Contract(kind="classification", input="single", labels=("a", "b"))


def version(number: str, precision: Precision = Precision.FP32) -> ReleasedVersion:
    """A version of a task as a release holds it."""
    return ReleasedVersion(
        number=version_number(number), digest=number, contract=CONTRACT, precision=precision
    )


def tasks(**numbers: str) -> dict[str, ReleasedVersion]:
    """What a release holds, by the versions' numbers."""
    return {task: version(number) for task, number in numbers.items()}


def test_nothing_has_moved_where_the_candidate_stands_on_what_is_served() -> None:
    served = tasks(intent="1.0", slots="1.0")
    assert stale_tasks(tasks(intent="1.1", slots="1.0"), served, served) == []


def test_a_task_that_others_changed_since_has_moved() -> None:
    base = tasks(intent="1.0", slots="1.0")
    serving = tasks(intent="1.0", slots="1.1")
    assert stale_tasks(tasks(intent="1.1", slots="1.0"), serving, base) == [
        StaleTask(task="slots", serving=version("1.1"), candidate=version("1.0"))
    ]


def test_a_task_that_others_added_or_removed_since_has_moved() -> None:
    candidate = tasks(intent="1.1", slots="1.0")
    found = stale_tasks(
        candidate, tasks(intent="1.0", mood="1.0"), tasks(intent="1.0", slots="1.0")
    )
    assert found == [
        StaleTask(task="mood", serving=version("1.0"), candidate=None),
        StaleTask(task="slots", serving=None, candidate=version("1.0")),
    ]


def test_the_same_change_made_by_both_has_not_moved() -> None:
    assert stale_tasks(tasks(intent="1.1"), tasks(intent="1.1"), tasks(intent="1.0")) == []


def test_without_a_common_ancestor_all_that_is_served_has_come_since() -> None:
    serving = tasks(intent="1.0", slots="1.0")
    assert stale_tasks(tasks(intent="1.1", slots="1.0"), serving, None) == [
        StaleTask(task="intent", serving=version("1.0"), candidate=version("1.1"))
    ]
    assert stale_tasks(serving | tasks(mood="1.0"), serving, None) == []


def test_a_change_that_was_rolled_back_does_not_come_back_by_the_way() -> None:
    serving = tasks(intent="1.0", slots="1.0")
    bad = tasks(intent="1.1", slots="1.0")
    candidate = tasks(intent="1.1", slots="1.1")
    assert stale_tasks(candidate, serving, serving, [bad]) == [
        StaleTask(task="intent", serving=version("1.0"), candidate=version("1.1"), withdrawn=True)
    ]
    mended = tasks(intent="1.2", slots="1.1")
    assert stale_tasks(mended, serving, serving, [bad]) == []


def test_another_precision_of_the_same_version_has_moved() -> None:
    base = tasks(intent="1.0")
    serving = {"intent": version("1.0", Precision.INT8)}
    assert stale_tasks(base, serving, base) == [
        StaleTask(task="intent", serving=serving["intent"], candidate=base["intent"])
    ]
    assert str(*stale_tasks(base, serving, base)) == "intent is 1.0 int8 there, 1.0 here"
