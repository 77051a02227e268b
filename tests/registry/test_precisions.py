"""Releases in int8: what is asked for, what is kept, what is checked, and what must not be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from centra.data.inputs import fingerprint
from centra.errors import ConflictError, UsageError
from centra.formats.contract import Contract
from registry import cards, evaluations, graphs, releases, tasks
from registry.promotion import GateError, StaleReleaseError, promote
from registry.releases import Change, compose
from registry.rules.precisions import plan_precisions
from registry.rules.released_version import ReleasedVersion
from registry.transfer import export_file, import_file
from tests import support
from tests.registry.helpers import blob_path, nothing_changes, refused, ruled
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.precision import Precision
    from registry import Registry


@pytest.fixture
def pair(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """``intent`` and ``slots`` in release 1, in fp32, which production serves."""

    def build() -> None:
        tasks.register(registry, "intent", module())
        tasks.register(registry, "slots", module("tagging", tap=2))
        compose(registry, publish=True)
        promote(registry, "1", "production")

    return bring("precisions", build)


@pytest.fixture
def fast(pair: Registry) -> Registry:
    """The same, and both in int8 in release 2, which ``latest`` serves."""
    compose(pair, precision="int8", publish=True)
    return pair


def precisions(registry: Registry, release: str) -> dict[str, Precision]:
    """By the manifest, which the database must agree with."""
    found = releases.show(registry, release).manifest.precisions
    with registry.read() as uow:
        held = uow.released_versions(uow.release(release))
    assert {task: version.precision for task, version in held.items()} == found
    return found


# What is wanted

CONTRACT = Contract(kind="classification", input="single", labels=("a", "b"))
OLD = {
    "kept": ReleasedVersion(
        number=version_number("1.0"), digest="a", contract=CONTRACT, precision="int8"
    ),
    "new": ReleasedVersion(
        number=version_number("1.0"), digest="a", contract=CONTRACT, precision="int8"
    ),
    "slow": ReleasedVersion(
        number=version_number("1.0"), digest="a", contract=CONTRACT, precision="fp32"
    ),
}
MODULES = {"kept": "a", "new": "b", "slow": "a", "added": "a"}


@pytest.mark.parametrize(
    ("options", "int8", "compared"),
    [
        ({}, "kept new", "new"),
        ({"requested": "int8"}, "added kept new slow", "added kept new slow"),
        ({"requested": "fp32"}, "", ""),
        ({"requested": "int8", "requested_for": ["added"]}, "added kept new", "added new"),
        ({"requested": "fp32", "requested_for": ["kept"]}, "new", "new"),
        ({"with_data": ["kept", "slow"]}, "kept new", "kept new"),
        ({"decided": {"new": "int8", "slow": "int8"}}, "kept new slow", ""),
        ({"decided": {"kept": "fp32"}}, "new", "new"),
    ],
    ids=str,
)
def test_what_a_composition_is_to_have(options: dict[str, Any], int8: str, compared: str) -> None:
    usual = {"requested": None, "requested_for": MODULES, "decided": {}, "with_data": ()}
    plan = plan_precisions(MODULES, OLD, **(usual | options))
    rounded = [task for task, precision in plan.precisions.items() if precision == "int8"]
    assert sorted(rounded) == int8.split()
    assert plan.precisions.keys() == MODULES.keys()
    assert sorted(plan.to_compare) == compared.split()


# Composing


def test_a_release_goes_to_int8_and_back(fast: Registry) -> None:
    assert precisions(fast, "1") == {"intent": "fp32", "slots": "fp32"}
    assert precisions(fast, "2") == {"intent": "int8", "slots": "int8"}
    back = compose(fast, precision="fp32", publish=True)
    assert (back.release, back.published, back.int8) == (1, False, [])
    assert back.changes == [
        Change(
            task="intent", change="updated", before="1.0", after="1.0", precision=("int8", "fp32")
        ),
        Change(
            task="slots", change="updated", before="1.0", after="1.0", precision=("int8", "fp32")
        ),
    ]


def test_a_plan_compares_and_changes_nothing(pair: Registry) -> None:
    with nothing_changes(pair):
        plan = compose(pair, precision="int8")
    assert [(one.task, one.agreement, one.refused) for one in plan.int8] == [
        ("intent", 1.0, None),
        ("slots", 1.0, None),
    ]
    assert plan.digest == compose(pair, precision="int8", publish=True).digest


def test_a_task_whose_answers_change_stays_in_fp32(
    pair: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(pair, "mood", module(fragile=True))
    done = compose(pair, precision="int8", publish=True)
    assert done.manifest.precisions == {"intent": "int8", "mood": "fp32", "slots": "int8"}
    assert [one.task for one in done.int8 if one.refused] == ["mood"]
    # Layer 1 is computed for mood once more.
    assert done.layers.shared == 2 + 1
    assert precisions(pair, "2") == done.manifest.precisions


def test_data_decides_and_the_limit_is_the_caller_s(
    pair: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    tasks.register(pair, "mood", module(fragile=True))
    compose(pair, publish=True)
    texts = ["wake me at seven", "play some jazz", "is there snow"]
    answers = releases.load(pair, "latest", tasks=["mood"]).predict(texts)
    rows = [{"text": t, "label": a["mood"]["label"]} for t, a in zip(texts, answers, strict=True)]
    data = {"mood": support.write_jsonl(tmp_path / "dev.jsonl", rows)}
    options: dict[str, Any] = {"replace": ["mood@1.0"], "precision": "int8", "data": data}
    (one,) = compose(pair, **options).int8
    assert one.dev is not None
    assert (one.dev.fp32, one.dev.examples) == (1.0, 3)
    assert one.refused == f"accuracy falls by {one.dev.loss:.2f} points, and 1 are allowed"
    assert compose(pair, **options, max_loss=100).manifest.precisions["mood"] == "int8"


def test_what_is_kept_is_not_compared_again(
    fast: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.register(fast, "mood", module(seed=5))
    monkeypatch.setattr("centra.releases.int8.compare_int8", None)
    done = compose(fast, publish=True)
    assert done.manifest.precisions == {"intent": "int8", "mood": "fp32", "slots": "int8"}
    assert done.int8 == []


def test_a_new_version_keeps_int8_only_if_its_answers_stay(
    fast: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(fast, "intent", module(seed=1))
    done = compose(fast)
    assert done.manifest.precisions["intent"] == "int8"
    assert [one.task for one in done.int8] == ["intent"]
    tasks.update(fast, "intent", module(fragile=True))
    done = compose(fast)
    assert done.manifest.precisions == {"intent": "fp32", "slots": "int8"}
    (change,) = done.changes
    assert (change.after, change.precision) == ("1.2", ("int8", "fp32"))


def test_one_team_s_change_leaves_the_precision_of_others(
    fast: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(fast, "intent", module(seed=1))
    done = compose(fast, base="production", replace=["intent@1.1"], precision="int8")
    assert done.manifest.precisions == {"intent": "int8", "slots": "fp32"}


def test_data_for_a_task_that_is_not_compared_is_refused(
    pair: Registry, tiny_data: Callable[[str], Path]
) -> None:
    with refused(pair, UsageError, "data for 'intent'", "none"):
        compose(pair, data={"intent": tiny_data("single")}, publish=True)
    with refused(pair, UsageError, "data for 'nope'", "intent, slots"):
        compose(pair, precision="int8", data={"nope": tiny_data("single")}, publish=True)


def test_without_the_engine_it_is_refused(pair: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refused(pair, UsageError, "pip install 'centra[serve]'"):
        compose(pair, precision="int8", publish=True)


# Reading


def test_differences_tell_the_precision(fast: Registry) -> None:
    found = releases.diff(fast, "1", "2")
    assert [(c.task, c.change, c.precision) for c in found.changes] == [
        ("intent", "updated", ("fp32", "int8")),
        ("slots", "updated", ("fp32", "int8")),
    ]
    assert all(m.precision == ("fp32", "int8") and not m.tensors_changed for m in found.modules)
    assert found.unchanged == []


def test_cards_and_graphs_tell_the_precision(fast: Registry) -> None:
    card = cards.show(fast, "intent@1.0")
    assert (card.releases, card.int8) == ([1, 2], [2])
    (trunk,) = graphs.build(releases.show(fast, "2")).trunks
    assert [branch.precision for branch in trunk.branches] == ["int8", "int8"]


def test_each_precision_is_measured_for_itself(
    fast: Registry, tiny_data: Callable[[str], Path]
) -> None:
    data = tiny_data("single")
    rows = [evaluations.evaluate(fast, release, "intent", data) for release in ("1", "2", "2")]
    assert [(row.precision, new) for row, new in rows] == [
        ("fp32", True),
        ("int8", True),
        ("int8", False),
    ]
    with fast.read() as uow:
        measured = evaluations.of_version(uow, uow.version("intent", version_number("1.0")))
    assert [row.precision for row in measured] == ["int8", "fp32"]


# Promoting


def test_gates_count_what_was_measured_in_the_same_precision(
    fast: Registry, tiny_data: Callable[[str], Path]
) -> None:
    data = tiny_data("single")
    on = {"intent": {"data": fingerprint([(data / "dev.jsonl").read_bytes()])}}
    ruled(fast, measured=on, max_drop={"intent": {"accuracy": 1.0}})
    evaluations.evaluate(fast, "1", "intent", data)
    with refused(fast, GateError, "drop accuracy of intent", "1.0 int8 is not measured on"):
        promote(fast, "2", "production")
    evaluations.evaluate(fast, "2", "intent", data)
    assert promote(fast, "2", "production").promoted


def test_a_change_of_precision_is_not_undone_unseen(
    fast: Registry, module: Callable[..., Path]
) -> None:
    tasks.update(fast, "slots", module("tagging", tap=2, seed=1))
    other = compose(fast, base="production", replace=["slots@1.1"], publish=True)
    faster = compose(
        fast, base="production", replace=["intent@1.0"], precision="int8", publish=True
    )
    promote(fast, str(faster.release), "production")
    with refused(fast, StaleReleaseError, "intent is 1.0 int8 there, 1.0 here"):
        promote(fast, str(other.release), "production")
    rebased = promote(fast, str(other.release), "production", rebase=True)
    assert precisions(fast, "production") == {"intent": "int8", "slots": "fp32"}
    assert releases.show(fast, str(rebased.release)).tasks == {"intent": "1.0", "slots": "1.1"}


def test_a_change_to_int8_is_rebased_as_it_was_decided(
    pair: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    faster = compose(
        pair, base="production", replace=["intent@1.0"], precision="int8", publish=True
    )
    tasks.update(pair, "slots", module("tagging", tap=2, seed=1))
    other = compose(pair, base="production", replace=["slots@1.1"], publish=True)
    promote(pair, str(other.release), "production")
    monkeypatch.setattr("centra.releases.int8.compare_int8", None)
    promote(pair, str(faster.release), "production", rebase=True)
    assert precisions(pair, "production") == {"intent": "int8", "slots": "fp32"}
    assert releases.show(pair, "production").tasks == {"intent": "1.0", "slots": "1.1"}


def test_a_change_to_int8_does_not_go_onto_another_version(
    pair: Registry, module: Callable[..., Path]
) -> None:
    faster = compose(
        pair, base="production", replace=["intent@1.0"], precision="int8", publish=True
    )
    tasks.update(pair, "intent", module(seed=1))
    other = compose(pair, base="production", replace=["intent@1.1"], publish=True)
    promote(pair, str(other.release), "production")
    with refused(pair, ConflictError, "both change intent"):
        promote(pair, str(faster.release), "production", rebase=True)


# Keeping


def test_a_lost_manifest_is_written_again_with_its_precisions(fast: Registry) -> None:
    digest = releases.show(fast, "2").digest
    blob_path(fast, digest).unlink()
    again = compose(fast, base="2", publish=True)
    assert (again.release, again.digest, again.int8) == (2, digest, [])
    assert precisions(fast, "2") == {"intent": "int8", "slots": "int8"}


def test_verifying_holds_modules_against_the_reference(fast: Registry) -> None:
    assert releases.verify(fast, "2").parity == {"intent": 0.0, "slots": 0.0}


def test_a_release_travels_with_its_precisions(
    fast: Registry, make_registry: Callable[[], Registry], tmp_path: Path
) -> None:
    export_file(fast, tmp_path / "release.tar", release="2")
    target = make_registry()
    imported = import_file(target, tmp_path / "release.tar").release
    assert imported is not None
    assert imported.digest == releases.show(fast, "2").digest
    assert precisions(target, "1") == {"intent": "int8", "slots": "int8"}
