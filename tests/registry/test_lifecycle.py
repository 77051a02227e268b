from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centra.errors import InvalidNameError, UsageError
from centra.formats.identities import VersionNumber
from registry.errors import NotOwnerError
from registry.rules.lifecycle import Actor, check_owner, next_version
from tests.support import version_number

VERSIONS = st.sets(st.builds(VersionNumber, st.integers(1, 5), st.integers(0, 5)), min_size=1)


# Which version comes next.


def test_an_update_counts_the_minor_and_a_redefinition_the_major() -> None:
    assert next_version(
        [version_number("1.0")], version_number("1.0"), redefined=False
    ) == version_number("1.1")
    assert next_version(
        [version_number("1.0"), version_number("1.1")], version_number("1.1"), redefined=True
    ) == version_number("2.0")
    assert next_version(
        [version_number("1.0"), version_number("1.1"), version_number("2.0")],
        version_number("2.0"),
        redefined=False,
    ) == version_number("2.1")


def test_an_update_after_a_pin_goes_on_after_the_newest_minor_of_the_pinned_major() -> None:
    versions = [version_number(text) for text in ("1.0", "1.1", "1.2", "2.0", "2.1")]
    assert next_version(versions, version_number("1.0"), redefined=False) == version_number("1.3")
    assert next_version(versions, version_number("2.0"), redefined=False) == version_number("2.2")


def test_a_redefinition_after_a_pin_goes_on_after_the_newest_major() -> None:
    assert next_version(
        [version_number("1.0"), version_number("2.0"), version_number("2.1")],
        version_number("1.0"),
        redefined=True,
    ) == version_number("3.0")


@given(VERSIONS, st.data(), st.booleans())
def test_a_new_version_is_new_and_the_newest_of_its_kind(
    versions: set[VersionNumber], data: st.DataObject, redefined: bool
) -> None:
    current = data.draw(st.sampled_from(sorted(versions)))
    new = next_version(versions, current, redefined=redefined)
    assert new not in versions
    if redefined:
        assert new > max(versions)
        assert new.minor == 0
    else:
        assert new.major == current.major
        assert new > max(version for version in versions if version.major == current.major)


# Who may.


@pytest.mark.parametrize("force", [False, True])
def test_the_owning_team_needs_no_force(force: bool) -> None:
    assert check_owner("intent", "nlu", Actor.parse("nlu/ada"), force=force) is False


def test_another_team_is_refused_and_told_whom_to_ask() -> None:
    with pytest.raises(NotOwnerError, match=r"belongs to team nlu, and you are vision/bob"):
        check_owner("intent", "nlu", Actor.parse("vision/bob"), force=False)


def test_nobody_in_particular_is_told_how_to_say_who_they_are() -> None:
    with pytest.raises(NotOwnerError, match="you have not said who you are") as caught:
        check_owner("intent", "nlu", Actor(person="eve"), force=False)
    assert caught.value.data == {"task": "intent", "team": "nlu", "actor": None}


@pytest.mark.parametrize("actor", [Actor.parse("vision/bob"), Actor(person="eve")])
def test_force_allows_another_team_and_says_so(actor: Actor) -> None:
    assert check_owner("intent", "nlu", actor, force=True) is True


def test_a_team_whose_name_is_the_start_of_the_owner_is_another_team() -> None:
    with pytest.raises(NotOwnerError):
        check_owner("intent", "nlu-eu", Actor.parse("nlu/ada"), force=False)


# Who acts.


def test_an_actor_is_a_team_and_a_person() -> None:
    actor = Actor.parse("nlu/Ada Lovelace")
    assert (actor.team, actor.person) == ("nlu", "Ada Lovelace")
    assert str(actor) == "nlu/Ada Lovelace"


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), st.text(max_size=63))
def test_an_actor_that_is_accepted_reads_back_as_it_is_written(team: str, person: str) -> None:
    try:
        actor = Actor.parse(f"{team}/{person}")
    except UsageError:
        return
    assert Actor.parse(str(actor)) == actor
    assert len(str(actor)) <= 127


@pytest.mark.parametrize(
    "text", ["", "ada", "/ada", "nlu/", "nlu/ ", "nlu/ada/x", "nlu/" + "x" * 64, "nlu/a\nb"]
)
def test_a_malformed_actor_is_refused_with_the_form_expected(text: str) -> None:
    with pytest.raises(UsageError):
        Actor.parse(text)


@pytest.mark.parametrize("text", ["NLU/ada", "../ada", "n l u/ada", "..nlu/ada", "nlu../ada"])
def test_an_actor_of_a_team_that_is_no_name_is_refused(text: str) -> None:
    with pytest.raises((InvalidNameError, UsageError)):
        Actor.parse(text)
