"""What changed between two contracts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from centra.formats.contract import Contract

LABELS = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6).map(tuple)
CONTRACTS = st.builds(
    Contract,
    kind=st.sampled_from(["classification", "multilabel"]),
    input=st.sampled_from(["single", "pair"]),
    labels=LABELS,
)


def labelled(*labels: str) -> Contract:
    return Contract(kind="classification", input="single", labels=labels)


@given(CONTRACTS)
def test_a_contract_does_not_differ_from_itself(contract: Contract) -> None:
    assert not contract.difference(contract)
    assert contract.difference(contract).lines() == []


@given(CONTRACTS, CONTRACTS)
def test_every_difference_between_two_contracts_is_told(old: Contract, new: Contract) -> None:
    difference = old.difference(new)
    assert bool(difference) == (old != new)
    assert bool(difference.lines()) == (old != new)


@given(CONTRACTS, CONTRACTS)
def test_a_difference_accounts_for_every_label_that_came_or_went(
    old: Contract, new: Contract
) -> None:
    difference = old.difference(new)
    gone = {*difference.removed, *(before for before, _ in difference.renamed)}
    came = {*difference.added, *(after for _, after in difference.renamed)}
    assert gone == set(old.labels) - set(new.labels)
    assert came == set(new.labels) - set(old.labels)


def test_an_added_label_is_named() -> None:
    difference = labelled("alarm", "music").difference(labelled("alarm", "music", "weather"))
    assert difference.added == ("weather",)
    assert difference.lines() == ["labels added: weather"]


def test_a_label_added_in_front_is_not_a_renaming() -> None:
    difference = labelled("alarm", "music").difference(labelled("weather", "alarm", "music"))
    assert difference.lines() == ["labels added: weather"]


def test_removed_labels_are_named_in_their_order() -> None:
    difference = labelled("alarm", "music", "weather").difference(labelled("music"))
    assert difference.removed == ("alarm", "weather")
    assert difference.lines() == ["labels removed: alarm, weather"]


def test_a_label_in_the_place_of_another_is_a_renaming() -> None:
    difference = labelled("alarm", "music", "x").difference(labelled("alarm", "song", "x"))
    assert difference.renamed == (("music", "song"),)
    assert not difference.added
    assert not difference.removed
    assert difference.lines() == ["labels renamed: music → song"]


def test_labels_in_another_order_are_told_as_such() -> None:
    difference = labelled("alarm", "music", "x").difference(labelled("music", "alarm", "x"))
    assert difference.reordered
    assert difference.lines() == ["labels: the same, in another order"]


def test_labels_replaced_and_moved_at_once_are_added_and_removed() -> None:
    difference = labelled("alarm", "music", "x").difference(labelled("music", "alarm", "y"))
    assert (difference.added, difference.removed, difference.renamed) == (("y",), ("x",), ())


def test_kind_and_input_are_told_before_and_after() -> None:
    difference = labelled("a", "b").difference(
        Contract(kind="multilabel", input="pair", labels=("a", "b"))
    )
    assert difference.lines() == ["kind: classification → multilabel", "input: single → pair"]
