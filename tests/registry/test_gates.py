"""What a channel demands of a release, gate by gate."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from centra.evaluation.outcomes import pack_outcomes
from centra.formats.contract import Contract
from centra.formats.manifest import LayerAccount
from centra.kinds import kind_named
from registry.rules.gates import (
    Candidate,
    Gate,
    GatedTask,
    Measurement,
    Remedy,
    evaluate_gates,
)
from registry.rules.lifecycle import Actor
from registry.rules.policy import Administration, ChannelPolicy

ADA = Actor.parse("nlu/ada")
LAYERS = LayerAccount(shared=4, task=6, total=10, single_task=18, overhead=0.5556)
LEAST = {"intent": {"accuracy": 0.9}}
DATA = f"sha256:{'1' * 64}"
OTHER = f"sha256:{'2' * 64}"
WHERE = {"task": "intent", "release": 7}
KEY = {
    "name": "release.pub.pem",
    "pem": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
}


def version(number: str = "1.0", *measured: Measurement, **fields: Any) -> GatedTask:
    return GatedTask(
        **{
            "number": number,
            "digest": number.replace(".", "") * 32,
            "contract": Contract(kind="classification", input="single", labels=("a", "b")),
            "reported": {"accuracy": 0.9},
            "measured": measured,
            "release": 7,
            **fields,
        }
    )


def measure(accuracy: float, data: str = DATA, examples: int = 600) -> Measurement:
    digest = data.removeprefix("sha256:")
    return Measurement(metrics={"accuracy": accuracy}, data=digest, examples=examples)


def gates(
    settings: dict[str, Any],
    after: dict[str, GatedTask] | None = None,
    before: dict[str, GatedTask] | None = None,
    *,
    accept_redefined: bool = False,
    actor: Actor = ADA,
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
    return evaluate_gates(policy, candidate, before or {}, actor, accept_redefined=accept_redefined)


def only(found: list[Gate]) -> Gate:
    (gate,) = found
    return gate


def test_a_channel_that_demands_nothing_has_no_gates() -> None:
    assert gates({}, {"intent": version()}) == []


def test_promoters_are_teams_or_people() -> None:
    for promoters, passed in ((["nlu"], True), (["nlu/ada"], True), (["nlu/bob", "ada"], False)):
        assert only(gates({"promoters": promoters})).passed is passed
    assert not only(gates({"promoters": []})).passed


@pytest.mark.parametrize("person", ["release", "nlu", "nlu/ada"])
def test_an_actor_of_no_team_is_nobody_whatever_the_account_is_called(person: str) -> None:
    actor = Actor(person=person)
    entries = [person]
    assert not only(gates({"promoters": entries}, actor=actor)).passed
    rules = ChannelPolicy(promoters=["care"], releasers=entries)
    assert not rules.may_move(actor)
    assert not rules.may_change_every_task(actor)
    assert not Administration(admins=entries).may_apply(actor)


def test_releasers_are_promoters_too() -> None:
    policy = {"promoters": ["care"], "releasers": ["nlu"]}
    gate = only(gates(policy))
    assert (gate.passed, gate.wanted) == (True, "care, nlu")
    assert gates({"releasers": ["care"]}) == []


def test_the_earlier_channel_must_have_served_it() -> None:
    policy = {"from": "staging"}
    assert only(gates(policy, channels=frozenset({"staging", "canary"}))).passed
    gate = only(gates(policy, channels=frozenset({"canary"})))
    assert (gate.passed, gate.wanted, gate.found) == (False, "served by staging", "canary")


def test_a_redefined_task_needs_to_be_accepted() -> None:
    new = version(
        "2.0", contract=Contract(kind="classification", input="single", labels=("a", "b", "c"))
    )
    tasks = {"intent": new}, {"intent": version()}
    assert not only(gates({}, *tasks)).passed
    assert only(gates({}, *tasks, accept_redefined=True)).passed


def test_where_anything_may_be_replaced_another_teams_contract_is_no_matter() -> None:
    new = version(
        "2.0", contract=Contract(kind="classification", input="single", labels=("a", "b", "c"))
    )
    tasks = {"intent": new, "slots": version()}, {"intent": version(), "slots": version()}
    assert gates({"overwrite": True}, *tasks) == []
    assert [gate.gate for gate in gates({"overwrite": False}, *tasks)] == ["redefined"]


def test_a_least_metric_is_reported_or_measured_as_demanded() -> None:
    policy = {"min_metrics": {"intent": {"accuracy": 0.9}}}
    assert only(gates(policy, {"intent": version()})).passed
    # What was measured counts before what was reported.
    assert not only(gates(policy, {"intent": version("1.0", measure(0.8))})).passed
    assert only(gates(policy, {"intent": version(reported={})})).found == "not reported"


@pytest.mark.parametrize(
    ("measured", "passed", "found"),
    [
        ((), False, "not measured on sha256:111111111111…"),
        ((measure(0.99, OTHER),), False, "not measured on sha256:111111111111…"),
        ((measure(0.99, examples=499),), False, "measured on 499 examples of sha256:11"),
        ((measure(0.89),), False, "0.8900"),
        ((measure(0.99, OTHER), measure(0.9, examples=500)), True, "0.9000"),
    ],
)
def test_metrics_count_on_the_named_data_alone(
    measured: tuple[Measurement, ...], passed: bool, found: str
) -> None:
    on = {"intent": {"data": DATA, "examples": 500}}
    gate = only(
        gates({"min_metrics": LEAST, "measured": on}, {"intent": version("1.0", *measured)})
    )
    assert gate.passed is passed
    assert found in gate.found


def test_the_data_that_is_named_first_counts_first() -> None:
    both = version("1.0", measure(0.8, OTHER), measure(0.95))
    for data, passed in (([DATA, OTHER], True), ([OTHER, DATA], False)):
        on = {"intent": {"data": data}}
        gate = only(gates({"min_metrics": LEAST, "measured": on}, {"intent": both}))
        assert gate.passed is passed


def test_a_rule_for_a_task_without_named_data_fails_and_says_so() -> None:
    on = {"slots": {"data": DATA}}
    new, old = version("1.1", measure(0.99)), version("1.0", measure(0.9))
    found = gates(
        {"min_metrics": LEAST, "max_drop": {"*": {"accuracy": 0.5}}, "measured": on},
        {"intent": new},
        {"intent": old},
    )
    assert [gate.passed for gate in found] == [False, False]
    for gate in found:
        assert "names no data to measure it on: measured.intent.data" in gate.found
        assert gate.remedies == (Remedy(code="name-data", data=WHERE),)


def test_the_newest_measurement_counts() -> None:
    policy = {"min_metrics": {"intent": {"accuracy": 0.9}}}
    tasks = {"intent": version("1.0", measure(0.8, OTHER), measure(0.95))}
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
    drop = {"max_drop": {"intent": {"accuracy": 0.01}}}
    on = {"measured": {"intent": {"data": DATA, "examples": 500}}}
    old = version("1.0", measure(0.9))
    better = version("1.1", measure(0.5, OTHER), measure(0.95))
    for policy in (drop, drop | on):
        assert only(gates(policy, {"intent": better}, {"intent": old})).passed
    other = version("1.1", measure(0.99, OTHER))
    gate = only(gates(drop | on, {"intent": other}, {"intent": old}))
    assert not gate.passed
    assert gate.found == "1.1 is not measured on sha256:111111111111…"
    assert gate.remedies == (Remedy(code="measure", data=WHERE),)
    small = version("1.0", measure(0.9, examples=400))
    gate = only(gates(drop | on, {"intent": better}, {"intent": small}))
    assert gate.found == "1.0 is measured on 400 examples of sha256:111111111111…, not 500"
    # Each on data of its own, though both are named.
    two = drop | {"measured": {"intent": {"data": [DATA, OTHER]}}}
    gate = only(gates(two, {"intent": other}, {"intent": old}))
    assert gate.found == "not measured on the same data"


def answers(right: int, rows: int = 600) -> bytes:
    """Of so many rows the first ones are answered rightly."""
    wanted = np.zeros(rows, dtype=np.int64)
    packed = pack_outcomes(np.stack([np.arange(rows) >= right, wanted], axis=1).astype(np.int64))
    assert packed is not None
    return packed


def answering(right: int, rows: int = 600) -> Measurement:
    found = measure(right / rows, examples=rows)
    return replace(found, outcomes=answers(right, rows))


@pytest.mark.parametrize(
    ("when", "right", "passed", "wanted", "found"),
    [
        ("large", 594, True, "at most 0.01", "0.0100 (1.0000 → 0.9900)"),
        ("large", 593, False, "at most 0.01", "0.0117 (1.0000 → 0.9883)"),
        # 7 rows lost and none won: p is 2 / 2 ** 7.
        (
            "large-and-significant",
            593,
            False,
            "at most 0.01, or not significant",
            "0.0117 (1.0000 → 0.9883), significant: McNemar's p 0.016, 7 rows lost and 0 won",
        ),
        (
            "large-or-significant",
            595,
            True,
            "at most 0.01, and not significant",
            "0.0083 (1.0000 → 0.9917), not significant: McNemar's p 0.062, 5 rows lost and 0 won",
        ),
        (
            "large-or-significant",
            594,
            False,
            "at most 0.01, and not significant",
            "0.0100 (1.0000 → 0.9900), significant: McNemar's p 0.031, 6 rows lost and 0 won",
        ),
        (
            "large-or-significant",
            593,
            False,
            "at most 0.01, and not significant",
            "0.0117 (1.0000 → 0.9883)",
        ),
    ],
)
def test_a_drop_may_have_to_be_significant_or_must_not_be(
    when: str, right: int, passed: bool, wanted: str, found: str
) -> None:
    policy = {"max_drop": {"intent": {"accuracy": 0.01}}, "drop_fails_when": when}
    old, new = version("1.0", answering(600)), version("1.1", answering(right))
    gate = only(gates(policy, {"intent": new}, {"intent": old}))
    assert (gate.passed, gate.wanted, gate.found) == (passed, wanted, found)


def test_a_large_drop_that_noise_may_be_passes_where_it_must_be_significant() -> None:
    policy = {
        "max_drop": {"*": {"accuracy": 0.01, "macro_f1": 0.01}},
        "drop_fails_when": "large-and-significant",
    }
    labels, wanted = ("a", "b"), np.arange(100) % 2
    sides = []
    for number, wrong in (("1.0", range(4)), ("1.1", range(3, 9))):
        outcomes = np.stack([wanted, wanted], axis=1)
        outcomes[[*wrong], 0] = 1 - outcomes[[*wrong], 0]
        metrics = kind_named("classification").metrics_of(labels, outcomes)
        found = Measurement(
            metrics=metrics, data=DATA[7:], examples=100, outcomes=pack_outcomes(outcomes)
        )
        sides.append({"intent": version(number, found)})
    before, after = sides
    accuracy, f1 = gates(policy, after, before)
    assert (accuracy.passed, f1.passed) == (True, True)
    assert accuracy.found.endswith("not significant: McNemar's p 0.73, 5 rows lost and 3 won")
    assert re.search(r", not significant: 95% interval -0\.\d{4} to \+0\.\d{4}$", f1.found)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (version("1.0", measure(0.95)), version("1.1", answering(480)), "is not kept of 1.0, "),
        (
            version("1.0", measure(0.95)),
            version("1.1", measure(0.8)),
            "is not kept of 1.0 and 1.1, ",
        ),
        (version("1.0"), version("1.1", reported={"accuracy": 0.8}), "both only report the metric"),
    ],
)
def test_without_outcomes_on_record_nothing_says_that_a_drop_is_noise(
    old: GatedTask, new: GatedTask, says: str
) -> None:
    tasks = {"intent": new}, {"intent": old}
    policy = {
        "max_drop": {"intent": {"accuracy": 0.01}},
        "drop_fails_when": "large-and-significant",
    }
    gate = only(gates(policy, *tasks))
    assert not gate.passed
    assert "whether that is significant is not known: " in gate.found
    assert says in gate.found
    assert gate.remedies == (Remedy(code="measure", data=WHERE),)
    # What the limit alone decides needs none.
    policy["max_drop"] = {"intent": {"accuracy": 0.5}}
    assert only(gates(policy, *tasks)).passed
    policy["drop_fails_when"] = "large-or-significant"
    assert not only(gates(policy, *tasks)).passed
    assert only(gates(policy, {"intent": replace(old, digest="e" * 64)}, tasks[1])).passed


def test_a_star_speaks_of_a_metric_that_only_what_is_served_has() -> None:
    policy = {"max_drop": {"*": {"accuracy": 0.01}}}
    silent = version("1.1", reported={})
    gate = only(gates(policy, {"intent": silent}, {"intent": version(), "gone": version()}))
    assert (gate.passed, gate.found) == (False, "not reported by both")
    assert gate.remedies == (Remedy(code="measure", data=WHERE),)
    # Measuring what is measured would not tell a metric either.
    without = (replace(measure(0.9), metrics={}),)
    new, old = (replace(side, measured=without) for side in (silent, version()))
    assert only(gates(policy, {"intent": new}, {"intent": old})).remedies == ()


def test_tasks_that_are_new_unchanged_or_redefined_have_no_drop() -> None:
    policy = {"max_drop": {"*": {"accuracy": 0}}}
    redefined = version(
        "2.0",
        contract=Contract(kind="regression", input="single", labels=()),
        reported={"accuracy": 0.1},
    )
    after = {"new": version(reported={"accuracy": 0}), "same": version(), "other": redefined}
    found = gates(policy, after, {"same": version(), "other": version()}, accept_redefined=True)
    assert [gate.gate for gate in found] == ["redefined"]


def test_layers_overhead_and_size_have_a_limit() -> None:
    policy = {"max_layers": 10, "max_overhead": 0.5, "max_size": "1 KB"}
    found = {gate.gate: gate.passed for gate in gates(policy, size=1001)}
    assert found == {"layers": True, "overhead": False, "size": False}


def test_parity_and_signature_say_why_they_fail() -> None:
    keys = [{**KEY, "name": name} for name in ("a.pem", "b.pem")]
    policy = {"parity": True, "signed_by": keys}
    assert [gate.passed for gate in gates(policy)] == [True, True]
    found = gates(policy, parity="task intent: parity failed", unsigned="not signed at all")
    assert [gate.found for gate in found] == ["task intent: parity failed", "not signed at all"]
    assert re.fullmatch(
        r"signed by a\.pem \(sha256:\w{12}\) or b\.pem \(sha256:\w{12}\)", found[1].wanted
    )
