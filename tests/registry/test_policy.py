from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from centra.errors import UsageError
from centra.release import LayerAccount
from registry.lifecycle import Actor
from registry.policy import Candidate, ChannelPolicy, Gate, Measure, Policy, Version, evaluate
from tests.support import ROOT

ADA = Actor.parse("nlu/ada")
LAYERS = LayerAccount(shared=4, task=6, total=10, single_task=18, overhead=0.5556)
FULL = """
[compose]
allow_two_backbones = true

[channels.staging]
overwrite = true

[channels.production]
from = "staging"
promoters = ["release", "nlu/ada"]
parity = true
measured = true
max_layers = 40
max_overhead = 0.4
max_size = "1.5 GB"
signed_by = ["keys/release.pub.pem"]

[channels.production.min_metrics.intent]
accuracy = 0.9

[channels.production.max_drop."*"]
accuracy = 0.01
macro_f1 = 1
"""


def parse(text: str) -> Policy:
    return Policy.parse(tomllib.loads(text), Path("/home/registry"))


def version(number: str = "1.0", *measured: Measure, **fields: Any) -> Version:
    return Version(
        **{
            "number": number,
            "digest": number.replace(".", "") * 32,
            "contract": ("classification", "single", ("a", "b")),
            "reported": {"accuracy": 0.9},
            "measured": measured,
            "release": 7,
            **fields,
        }
    )


def measure(accuracy: float, data: str = "d1") -> Measure:
    return Measure(metrics={"accuracy": accuracy}, data=data)


def gates(
    settings: dict[str, Any],
    after: dict[str, Version] | None = None,
    before: dict[str, Version] | None = None,
    *,
    accept_redefined: bool = False,
    **fields: Any,
) -> list[Gate]:
    candidate = Candidate(
        **{
            "tasks": after or {},
            "layers": LAYERS,
            "size": None,
            "channels": frozenset(),
            **fields,
        }
    )
    policy = ChannelPolicy.model_validate(settings)
    return evaluate(policy, candidate, before or {}, ADA, accept_redefined=accept_redefined)


def only(found: list[Gate]) -> Gate:
    (gate,) = found
    return gate


# Reading


def test_a_whole_policy_is_read() -> None:
    policy = parse(FULL)
    assert policy.compose.allow_two_backbones
    assert policy.channels["staging"].overwrite
    production = policy.channels["production"]
    assert (production.from_channel, production.max_size) == ("staging", 1_500_000_000)
    assert production.signed_by == ["/home/registry/keys/release.pub.pem"]
    assert production.max_drop == {"*": {"accuracy": 0.01, "macro_f1": 1.0}}


def test_the_policy_in_the_documentation_is_one() -> None:
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    policy = parse(block)
    shown = policy.channels["production"].model_dump()
    assert all(value not in (None, False, {}) for key, value in shown.items() if key != "overwrite")


def test_without_rules_nothing_is_demanded() -> None:
    policy = parse("")
    assert not policy.compose.allow_two_backbones
    assert policy.channels == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[channels.production]\nmax_layer = 4", "channels.production.max_layer"),
        ("[channels.production]\nmax_layers = 0", "channels.production.max_layers"),
        ("[channels.production]\nmax_layers = '4'", "channels.production.max_layers"),
        ("[channels.production]\nmax_size = '4 apples'", "such as 500 MB"),
        ("[channels.production]\nmax_overhead = nan", "channels.production.max_overhead"),
        ("[channels.production]\nparity = 'yes'", "channels.production.parity"),
        ("[channels.production]\npromoters = 'nlu'", "channels.production.promoters"),
        ("[channels.production]\nfrom = 'production'", "names the channel itself"),
        ("[channels.production.min_metrics]\naccuracy = 0.9", "min_metrics.accuracy"),
        ("[channels.production.max_drop.intent]\naccuracy = 'a'", "max_drop.intent.accuracy"),
        ("[channels.'../evil']\nparity = true", "not a valid channel name"),
        ("[compose]\nallow = true", "compose.allow"),
    ],
)
def test_a_malformed_policy_is_refused_and_the_setting_named(text: str, names: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert names in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("10", 10), ("500 MB", 500_000_000), ("2gb", 2_000_000_000), ("1.5K", 1500)],
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert ChannelPolicy(max_size=text).max_size == size  # type: ignore[arg-type]


# Gates


def test_a_channel_that_demands_nothing_has_no_gates() -> None:
    assert gates({}, {"intent": version()}) == []


def test_promoters_are_teams_or_people() -> None:
    for promoters, passed in ((["nlu"], True), (["nlu/ada"], True), (["nlu/bob", "ada"], False)):
        assert only(gates({"promoters": promoters})).passed is passed
    assert not only(gates({"promoters": []})).passed


def test_the_earlier_channel_must_have_served_it() -> None:
    policy = {"from": "staging"}
    assert only(gates(policy, channels=frozenset({"staging", "canary"}))).passed
    gate = only(gates(policy, channels=frozenset({"canary"})))
    assert (gate.passed, gate.wanted, gate.found) == (False, "served by staging", "canary")


def test_a_redefined_task_needs_to_be_accepted() -> None:
    new = version("2.0", contract=("classification", "single", ("a", "b", "c")))
    tasks = {"intent": new}, {"intent": version()}
    assert not only(gates({}, *tasks)).passed
    assert only(gates({}, *tasks, accept_redefined=True)).passed


def test_where_anything_may_be_replaced_another_teams_contract_is_no_matter() -> None:
    new = version("2.0", contract=("classification", "single", ("a", "b", "c")))
    tasks = {"intent": new, "slots": version()}, {"intent": version(), "slots": version()}
    assert gates({"overwrite": True}, *tasks) == []
    assert [gate.gate for gate in gates({"overwrite": False}, *tasks)] == ["redefined"]


def test_a_least_metric_is_reported_or_measured_as_demanded() -> None:
    policy = {"min_metrics": {"intent": {"accuracy": 0.9}}}
    assert only(gates(policy, {"intent": version()})).passed
    # What was measured counts before what was reported.
    assert not only(gates(policy, {"intent": version("1.0", measure(0.8))})).passed
    assert only(gates(policy, {"intent": version(reported={})})).found == "not reported"
    demanding = {**policy, "measured": True}
    gate = only(gates(demanding, {"intent": version()}))
    assert not gate.passed
    assert "centra release evaluate 7 --task intent" in gate.found
    assert only(gates(demanding, {"intent": version("1.0", measure(0.9))})).passed


def test_the_newest_measurement_counts() -> None:
    policy = {"min_metrics": {"intent": {"accuracy": 0.9}}}
    tasks = {"intent": version("1.0", measure(0.8, "d2"), measure(0.95))}
    assert not only(gates(policy, tasks)).passed


def test_a_star_speaks_of_every_task_that_has_the_metric() -> None:
    policy = {"min_metrics": {"*": {"accuracy": 0.85}}}
    tasks = {"intent": version(), "slots": version(reported={"entity_f1": 0.1})}
    assert [gate.task for gate in gates(policy, tasks)] == ["intent"]


def test_a_named_task_that_is_not_in_the_release_is_not_demanded() -> None:
    assert gates({"min_metrics": {"mood": {"accuracy": 0.9}}}, {"intent": version()}) == []


@pytest.mark.parametrize(("accuracy", "passed"), [(0.90, True), (0.89, True), (0.88, False)])
def test_a_drop_is_held_against_what_is_served(accuracy: float, passed: bool) -> None:
    policy = {"max_drop": {"*": {"accuracy": 0.01}}}
    new = version("1.1", reported={"accuracy": accuracy})
    assert only(gates(policy, {"intent": new}, {"intent": version()})).passed is passed


def test_a_drop_is_measured_on_the_same_data_where_it_can_be() -> None:
    policy = {"max_drop": {"intent": {"accuracy": 0.01}}, "measured": True}
    old = version("1.0", measure(0.9, "d1"))
    better = version("1.1", measure(0.5, "d2"), measure(0.95, "d1"))
    assert only(gates(policy, {"intent": better}, {"intent": old})).passed
    other = version("1.1", measure(0.99, "d2"))
    gate = only(gates(policy, {"intent": other}, {"intent": old}))
    assert (gate.passed, gate.found) == (False, "not measured on the same data")


def test_a_star_speaks_of_a_metric_that_only_what_is_served_has() -> None:
    policy = {"max_drop": {"*": {"accuracy": 0.01}}}
    silent = version("1.1", reported={})
    gate = only(gates(policy, {"intent": silent}, {"intent": version(), "gone": version()}))
    assert (gate.passed, gate.found) == (False, "not reported by both")


def test_tasks_that_are_new_unchanged_or_redefined_have_no_drop() -> None:
    policy = {"max_drop": {"*": {"accuracy": 0}}}
    redefined = version("2.0", contract=("regression", "single", ()), reported={"accuracy": 0.1})
    after = {"new": version(reported={"accuracy": 0}), "same": version(), "other": redefined}
    found = gates(policy, after, {"same": version(), "other": version()}, accept_redefined=True)
    assert [gate.gate for gate in found] == ["redefined"]


def test_layers_overhead_and_size_have_a_limit() -> None:
    policy = {"max_layers": 10, "max_overhead": 0.5, "max_size": "1 KB"}
    found = {gate.gate: gate.passed for gate in gates(policy, size=1001)}
    assert found == {"layers": True, "overhead": False, "size": False}


def test_parity_and_signature_say_why_they_fail() -> None:
    policy = {"parity": True, "signed_by": ["keys/a.pem", "b.pem"]}
    assert [gate.passed for gate in gates(policy)] == [True, True]
    found = gates(policy, parity="task intent: parity failed", unsigned="not signed at all")
    assert [gate.found for gate in found] == ["task intent: parity failed", "not signed at all"]
    assert found[1].wanted == "signed by a.pem or b.pem"
