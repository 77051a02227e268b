"""The policy in the database: its versions, who applies them, and where it holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from centra.errors import InvalidNameError, NotAllowedError, NotFoundError, UsageError
from registry import audit, channels, policies, signatures, tasks
from registry.promotion import GateError, promote
from registry.releases import compose
from registry.rules.policy_changes import Setting
from registry.settings import CONFIG, Rules
from tests import support
from tests.registry.helpers import (
    acting,
    anonymous,
    nothing_changes,
    refused,
    reopened,
    ruled,
    rules_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry import Registry

RELEASE = "release/eve"


@pytest.fixture
def published(registry: Registry, module: Callable[..., Path]) -> Registry:
    """Production serves release 1; release 2 has an update of ``intent``."""
    tasks.register(registry, "intent", module())
    compose(registry, publish=True)
    promote(registry, "1", "production")
    tasks.update(registry, "intent", module(seed=1))
    compose(registry, publish=True)
    return registry


def proposing(registry: Registry, **rules: Any) -> Registry:
    """The registry in a folder whose ``centra.toml`` has rules for production."""
    return dataclasses.replace(registry, rules=rules_of(channels={"production": rules}))


# Versions


def test_a_policy_is_kept_in_versions_and_each_says_what_it_changed(registry: Registry) -> None:
    first = rules_of(
        compose={"allow_two_backbones": True},
        channels={"production": {"max_layers": 40, "promoters": ["nlu"]}, "staging": {}},
    )
    second = rules_of(channels={"production": {"max_layers": 50, "promoters": ["nlu"]}})
    done = [policies.apply(registry, rules) for rules in (first, second)]
    assert [(one.version, one.changed) for one in done] == [(1, True), (2, True)]
    changes = [
        Setting(setting="channels.production.max_layers", before=40, after=50),
        Setting(setting="channels.staging", before={}, after=None),
        Setting(setting="compose.allow_two_backbones", before=True, after=None),
    ]
    assert done[1].changes == changes
    newest, oldest = policies.history(registry)
    assert (newest.version, newest.changes, newest.applied_by) == (2, changes, "nlu/ada")
    assert [change.setting for change in oldest.changes] == [
        "channels.production",
        "channels.production.max_layers",
        "channels.production.promoters",
        "channels.staging",
        "compose.allow_two_backbones",
    ]
    assert policies.show(registry) == newest
    assert policies.show(registry, 1) == oldest
    assert oldest.rules == first.tables
    event = audit.events(registry)[-1]
    assert (event.action, event.subject, event.forced) == ("policy:apply", "policy", False)
    assert event.details["version"] == 2
    assert event.details["digest"] == newest.digest
    assert {"setting": "channels.production.max_layers", "from": 40, "to": 50} in (
        event.details["changes"]
    )


def test_rules_that_are_in_force_make_no_version(registry: Registry) -> None:
    ruled(registry, max_size="2 GB", promoters=["nlu"])
    for again in ({"max_size": 2_000_000_000, "promoters": ["nlu"], "overwrite": False},):
        with nothing_changes(registry):
            found = policies.apply(registry, rules_of(channels={"production": again}))
        assert (found.version, found.changed, found.changes) == (1, False, [])


def test_a_dry_run_says_what_would_change_and_changes_nothing(registry: Registry) -> None:
    ruled(registry, max_layers=1)
    proposed = rules_of(channels={"production": {"max_layers": 2}})
    with nothing_changes(registry):
        plan = policies.apply(registry, proposed, dry_run=True)
    assert (plan.version, plan.changed) == (1, False)
    assert plan.changes == policies.apply(registry, proposed).changes


def test_what_was_applied_reads_back_and_can_be_applied_again(
    registry: Registry, tmp_path: Path
) -> None:
    key = support.public(support.make_key(tmp_path / "release.pem"))
    ruled(registry, **{"from": "staging"}, signed_by=[str(key)], max_drop={"*": {"f1": 1}})
    with nothing_changes(registry):
        again = policies.apply(registry, rules_of(**policies.show(registry).rules))
    assert not again.changed


def test_a_version_cannot_be_changed_or_removed(registry: Registry) -> None:
    ruled(registry, max_layers=1)
    for statement in (
        "UPDATE policies SET digest = digest",
        "DELETE FROM policies",
        "INSERT INTO policies SELECT * FROM policies",
    ):
        with (
            pytest.raises(DBAPIError),
            nothing_changes(registry),
            registry.engine.begin() as connection,
        ):
            connection.execute(text(statement))


def test_there_is_a_version_to_show_or_it_is_said(registry: Registry) -> None:
    assert policies.history(registry) == []
    with refused(registry, NotFoundError, "no policy was ever applied"):
        policies.show(registry)
    ruled(registry, max_layers=1)
    with refused(registry, NotFoundError, "no version 2; its newest is 1"):
        policies.show(registry, 2)


def test_two_who_apply_at_once_make_two_versions(registry: Registry) -> None:
    """Whoever comes second is told what changes against the first."""
    with reopened(registry) as other:
        ruled(other, max_layers=1)
    found = policies.apply(registry, rules_of(channels={"production": {"max_layers": 2}}))
    assert found.version == 2
    assert found.changes == [Setting(setting="channels.production.max_layers", before=1, after=2)]


# What is refused


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({}, "has no rules"),
        ({"channels": {"production": {"measured": True}}}, "a table measured.TASK with data ="),
        ({"channels": {"production": {"max_layer": 3}}}, "did you mean max_layers?"),
        ({"channels": {"latest": {"max_layers": 3}}}, "channels.latest: the channel 'latest'"),
        ({"channels": {"7": {}}}, "would read as a release number"),
        ({"channels": {"production": 7}}, "channels.production"),
        ({"channels": {"production": {"signed_by": "key"}}}, "channels.production.signed_by"),
        ({"channels": {"production": {"signed_by": [7]}}}, "channels.production.signed_by[0]"),
        (
            {"channels": {"production": {"signed_by": [{"name": "k", "pem": "no key"}]}}},
            "k: cannot be read as a public key",
        ),
    ],
)
def test_malformed_rules_are_refused(registry: Registry, tables: Any, says: str) -> None:
    ruled(registry, max_layers=1)
    for dry_run in (False, True):
        with refused(registry, UsageError, says, *([CONFIG] if "k:" not in says else [])):
            policies.apply(registry, rules_of(**tables), dry_run=dry_run)


def test_a_channel_with_no_name_is_refused(registry: Registry) -> None:
    with refused(registry, InvalidNameError, "channel name"):
        policies.apply(registry, rules_of(channels={"../evil": {}}))


def test_all_rules_are_lifted_by_saying_so(registry: Registry) -> None:
    ruled(registry, max_layers=1)
    assert policies.apply(registry, rules_of(channels={})).version == 2
    assert policies.show(registry).rules == {}


def test_tasks_that_rules_name_and_nobody_registered_are_told(published: Registry) -> None:
    rules = {
        "min_metrics": {"intnet": {"accuracy": 0.9}, "*": {"accuracy": 0.1}},
        "measured": {"intent": {"data": "0" * 64}, "slots": {"data": "0" * 64}},
    }
    found = policies.apply(published, rules_of(channels={"production": rules}))
    assert found.unknown == ["intnet", "slots"]


# Who may apply


def test_once_admins_are_named_they_alone_apply(registry: Registry) -> None:
    everybody = rules_of(channels={"production": {"max_layers": 1}})
    assert policies.apply(anonymous(registry), everybody).changed
    admins = ["release", "nlu/bob"]
    policies.apply(registry, rules_of(policy={"admins": admins}))
    for actor in (registry, anonymous(registry), acting(registry, "nlu/eve")):
        with refused(actor, NotAllowedError, "admins are release, nlu/bob", code="not-an-admin"):
            policies.apply(actor, everybody)
        assert policies.apply(actor, everybody, dry_run=True).changes
    assert policies.apply(acting(registry, "nlu/bob"), everybody).changed
    assert not audit.events(registry)[-1].forced
    # Whoever lifts the admins makes it everybody's again.
    assert policies.apply(registry, rules_of(policy={"admins": []})).changed
    with refused(registry, NotAllowedError, "its admins are nobody"):
        policies.apply(registry, everybody)
    forced = policies.apply(registry, everybody, force=True)
    assert (forced.changed, forced.forced) == (True, True)
    assert audit.events(registry)[-1].forced


def test_applying_what_is_in_force_is_nobodys_privilege(registry: Registry) -> None:
    rules = rules_of(policy={"admins": ["release"]})
    policies.apply(registry, rules)
    with nothing_changes(registry):
        assert not policies.apply(registry, rules).changed
        assert not policies.apply(registry, rules, force=True).forced


# Where it holds


def test_it_holds_whatever_the_folder_says(published: Registry) -> None:
    ruled(published, max_layers=1)
    for here in (published, proposing(published), proposing(published, max_layers=99)):
        with refused(here, GateError, "1 of 1 gates failed"):
            promote(here, "2", "production")
        with refused(here, NotAllowedError, "the policy has rules"):
            channels.move(here, "production", "2")


def test_rules_that_were_never_applied_are_not_silently_without_effect(
    published: Registry,
) -> None:
    here = proposing(published, max_layers=99)
    says = (CONFIG, "rules for the channel production", "never applied")
    for use in (
        lambda: promote(here, "2", "production"),
        lambda: promote(here, "2", "production", dry_run=True),
        lambda: channels.move(here, "production", "2"),
        lambda: channels.rollback(here, "production", to="1"),
    ):
        with refused(here, NotAllowedError, *says, code="policy-not-applied"):
            use()
    assert promote(here, "2", "staging").promoted
    assert here.rules is not None
    policies.apply(here, here.rules)
    assert promote(here, "2", "production").gates


def test_two_backbones_are_allowed_by_the_policy_alone(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    tasks.register(registry, "slots", module(on="other"))
    allowed = rules_of(compose={"allow_two_backbones": True})
    with refused(registry, Exception, "allow two backbones"):  # type: ignore[arg-type]
        compose(dataclasses.replace(registry, rules=allowed), publish=True)
    policies.apply(registry, allowed)
    assert compose(registry, publish=True).published


def test_a_key_is_taken_in_so_that_its_gate_works_without_the_file(
    published: Registry, tmp_path: Path
) -> None:
    (tmp_path / "keys").mkdir()
    private = support.make_key(tmp_path / "keys" / "release.pem")
    public = support.public(private)
    rules = Rules(
        file=tmp_path / CONFIG,
        tables={"channels": {"production": {"signed_by": [f"keys/{public.name}"]}}},
    )
    policies.apply(published, rules)
    public.unlink()
    name = f"{public.name} (sha256:"
    (key,) = policies.history(published)[0].changes[-1].after
    assert key.startswith(name)
    with refused(published, GateError, f"wanted signed by {name}", "it is not signed"):
        promote(published, "2", "production")
    signatures.sign(published, "2", private)
    assert promote(published, "2", "production").promoted


@pytest.mark.parametrize("content", [None, "no key", "private"])
def test_a_key_that_cannot_be_used_is_refused_when_it_is_applied(
    registry: Registry, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "release.pem"
    if content == "private":
        support.make_key(file)
    elif content is not None:
        file.write_text(content)
    rules = rules_of(channels={"production": {"signed_by": [str(file)]}})
    with refused(registry, (NotFoundError, UsageError), str(file)):
        policies.apply(registry, rules)


def test_a_promotion_is_written_under_the_policy_that_decided_it(
    published: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruled(published, max_layers=99)
    write, intruded = type(published).write, []

    def intruding(self: Registry) -> Any:
        if not intruded:
            intruded.append(True)
            ruled(self, max_layers=1)
        return write(self)

    monkeypatch.setattr(type(published), "write", intruding)
    with pytest.raises(GateError, match="wanted at most 1"):
        promote(published, "2", "production")
    assert channels.show(published, "production").release == 1
