"""The release train on the command line: promotion, gates, rollback, evaluation, migration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests import support
from tests.cli.helpers import centra, demand, read, read_repeated, refused, state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLICY = """
[channels.production]
from = "staging"
max_layers = 40

[channels.production.min_metrics.intent]
accuracy = 0.93
"""


def ship(modules: dict[str, Path]) -> str:
    """Update intent and compose that onto production; gives the release."""
    centra("task", "update", "intent", modules["intent update"])
    composed = read("compose", "--base", "production", "--set", "intent@1.1", "--release")
    return str(composed["release"])


@pytest.fixture
def production(home: Path) -> Path:
    """Production serves release 1."""
    centra("promote", "1", "--to", "production")
    return home


def test_a_release_goes_through_staging_to_production_and_back(
    production: Path, modules: dict[str, Path]
) -> None:
    demand(production, POLICY)
    number = ship(modules)
    first, again = read_repeated("promote", number, "--to", "staging")
    assert (first["changed"], again["changed"]) == (True, False)
    first, again = read_repeated("promote", number, "--to", "production")
    assert first == {
        "channel": "production",
        "release": 2,
        "rebased_from": None,
        "from": 1,
        "revision": 2,
        "changed": True,
        "unchanged": False,
        "forced": {},
        "gates": [
            {
                "gate": "from",
                "task": None,
                "passed": True,
                "wanted": "served by staging",
                "found": "staging",
            },
            {
                "gate": "min accuracy",
                "task": "intent",
                "passed": True,
                "wanted": "at least 0.93",
                "found": "0.9500",
            },
            {
                "gate": "layers",
                "task": None,
                "passed": True,
                "wanted": "at most 40",
                "found": "6",
            },
        ],
    }
    back, _ = read_repeated_rollback()
    assert (back["release"], back["from"], back["changed"]) == (1, 2, True)
    steps = [(row["kind"], row["release"]) for row in read("channel", "history", "production")]
    assert steps == [("rollback", 1), ("promote", 2), ("promote", 1)]
    lines = centra("channel", "history", "production").stdout.splitlines()
    assert lines[0].split() == ["REVISION", "KIND", "RELEASE", "BEFORE", "TIME", "BY"]
    assert lines[1].split()[:4] == ["3", "rollback", "1", "2"]


def read_repeated_rollback() -> tuple[dict[str, object], dict[str, object]]:
    return read_repeated("rollback", "production", "--to", "1")


def test_every_gate_is_shown_and_a_failed_one_ends_with_6(
    production: Path, modules: dict[str, Path], tmp_path: Path
) -> None:
    demand(production, POLICY.replace("0.93", "0.99"))
    number = ship(modules)
    before = state(production)
    for options in ((), ("--dry-run",)):
        result = centra("promote", number, "--to", "production", *options, code=6)
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[0] == ["GATE", "TASK", "WANTED", "FOUND", "RESULT"]
        assert [line[-1] for line in lines[1:]] == ["FAIL", "FAIL", "pass"]
        assert "2 of 3 gates failed" in result.stderr
    printed = json.loads(centra("promote", number, "--to", "production", "--json", code=6).stdout)
    assert [gate["passed"] for gate in printed["gates"]] == [False, False, True]
    file = tmp_path / "gates.xml"
    text = centra(
        *("promote", number, "--to", "production", "--markdown", "--junit", file), code=6
    ).stdout
    assert text.startswith("### Release 2 → production: refused\n")
    assert "| min accuracy | intent | at least 0.99 | 0.9500 | FAIL |" in text
    suite = ET.parse(file).getroot()
    assert (suite.tag, suite.get("tests"), suite.get("failures")) == ("testsuite", "3", "2")
    failures = {case.get("name"): case.find("failure") is not None for case in suite}
    assert failures == {"from": True, "min accuracy intent": True, "layers": False}
    assert state(production) == before


def test_a_dry_run_says_so_and_changes_nothing(production: Path, modules: dict[str, Path]) -> None:
    number = ship(modules)
    before = state(production)
    result = centra("promote", number, "--to", "production", "--dry-run")
    assert (result.stdout, result.stderr) == (
        "",
        "no gate of production applies; nothing was changed\n",
    )
    assert state(production) == before
    demand(production, "[channels.production]\nmax_layers = 40\n")
    result = centra("promote", number, "--to", "production", "--dry-run")
    assert result.stderr == "every gate passes; nothing was changed\n"


def test_a_promotion_that_changes_nothing_says_so_in_every_form(
    production: Path, tmp_path: Path
) -> None:
    demand(production, POLICY)
    before, file = state(production), tmp_path / "gates.xml"
    words = ("promote", "1", "--to", "production")
    said = "nothing to do: production serves release 1 already\n"
    result = centra(*words)
    assert (result.stdout, result.stderr) == ("production → release 1\n", said)
    result = centra(*words, "--dry-run")
    assert (result.stdout, result.stderr) == ("", said)
    found = read(*words)
    assert (found["unchanged"], found["changed"], found["gates"]) == (True, False, [])
    assert centra(*words, "--markdown", "--junit", file).stdout == (
        "### Release 1 → production: nothing changes\n\nproduction serves release 1.\n\n"
        "It is what the channel serves already, so no gate was asked.\n"
    )
    suite = ET.parse(file).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("1", "0", "1")
    (case,) = suite
    assert case.find("skipped") is not None
    assert state(production) == before


def test_a_channel_without_gates_passes_none(home: Path) -> None:
    text = centra("promote", "1", "--to", "production", "--markdown").stdout
    assert text.splitlines()[::4] == [
        "### Release 1 → production: no gate applies",
        "No gate of the channel applies.",
    ]


def test_a_rebase_that_is_refused_leaves_nothing_behind(
    production: Path, modules: dict[str, Path], tmp_path: Path
) -> None:
    mine, file = ship(modules), tmp_path / "gates.xml"
    other = read("compose", "--base", "production", "--remove", "same", "--release")["release"]
    centra("--actor", "quality/cy", "promote", other, "--to", "production")
    demand(production, "[channels.production]\nmax_layers = 1\n")
    before = state(production)
    words = ("promote", mine, "--to", "production", "--rebase")
    for options in ((), ("--dry-run",)):
        result = centra(*words, "--markdown", "--junit", file, *options, code=6)
        head = f"### The change of release {mine}, taken onto release {other} → production: refused"
        assert result.stdout.splitlines()[0] == head
        assert f"centra compose --base {other} --set intent@1.1 --release" in result.stderr
    found = json.loads(centra(*words, "--json", code=6).stdout)
    assert (found["release"], found["rebased_from"]) == (None, int(mine))
    assert state(production) == before
    assert read("channel", "show", "latest")["release"] == 1


def test_a_stale_release_ends_with_5_and_is_rebased_on_request(
    production: Path, modules: dict[str, Path]
) -> None:
    mine = ship(modules)
    other = read("compose", "--base", "production", "--remove", "same", "--release")["release"]
    centra("--actor", "quality/cy", "promote", other, "--to", "production")
    says = ("same is not served there, 1.0 here", "--rebase")
    refused("promote", mine, "--to", "production", code=5, says=says)
    result = centra("promote", mine, "--to", "production", "--rebase")
    assert result.stdout == "production → release 4\n"
    assert f"the change of release {mine} is release 4 now" in result.stderr
    assert read("release", "show", "production")["tasks"] == {"intent": "1.1", "slots": "1.0"}


def test_what_is_forced_shows_in_the_log(production: Path, modules: dict[str, Path]) -> None:
    mine = ship(modules)
    other = read("compose", "--base", "production", "--remove", "same", "--release")["release"]
    centra("promote", other, "--to", "production", "--force")
    refused("promote", mine, "--to", "production", code=5, says="--force, which the audit log will")
    centra("promote", mine, "--to", "production", "--force")
    assert "nlu/ada (forced)" in centra("audit").stdout.splitlines()[-1]


def test_a_change_at_a_revision_is_made_once(production: Path, modules: dict[str, Path]) -> None:
    number = ship(modules)
    words = ("promote", number, "--to", "production", "--expect-revision", "1")
    first, again = read_repeated(*words)
    assert (first["changed"], again["changed"], again["unchanged"]) == (True, False, True)
    first, again = read_repeated("rollback", "production", "--expect-revision", "2")
    assert (first["changed"], again["changed"]) == (True, False)
    assert (first["release"], again["release"], again["from"]) == (1, 1, 2)
    says = ("production is at revision 3 and serves release 1", "expected revision 1")
    refused("rollback", "production", "--expect-revision", "1", code=5, says=says)
    refused(*words, code=5, says=says)
    first, again = read_repeated("channel", "move", "canary", "1", "--expect-revision", "0")
    assert (first["changed"], again) == (True, {**first, "changed": False})
    refused("rollback", "production", "--expect-revision", "-1", code=2, says="-1")


def test_a_rollback_whose_pointer_is_behind_publishes_it_and_stops(
    production: Path, modules: dict[str, Path]
) -> None:
    centra("promote", ship(modules), "--to", "production")
    pointer = production / ".centra" / "store" / "channels" / "production.json"
    right = pointer.read_bytes()
    pointer.write_bytes(b"stale")
    before = read("channel", "history", "production")
    result = centra("rollback", "production")
    assert result.stdout == "production → release 2\n"
    assert (
        "nothing was rolled back: production had moved to release 2 (revision 2)" in result.stderr
    )
    assert (pointer.read_bytes(), read("channel", "history", "production")) == (right, before)
    pointer.unlink()
    found = read("rollback", "production")
    assert (found["published"], found["changed"], found["release"]) == (True, False, 2)
    assert read("rollback", "production")["release"] == 1


def test_a_pointer_that_fails_after_the_move_ends_with_1_and_says_what_has_moved(
    production: Path, modules: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from centra.errors import StoreNotWritableError
    from centra.store import LocalStore

    centra("promote", ship(modules), "--to", "production")
    with monkeypatch.context() as patch:
        real = LocalStore.write_pointer

        def write_pointer(store: LocalStore, channel: str, data: bytes) -> None:
            if data != store.read_pointer(channel):
                raise StoreNotWritableError("no space is left")
            real(store, channel, data)

        patch.setattr(LocalStore, "write_pointer", write_pointer)
        says = (
            "production serves release 1 in the database (revision 3)",
            "but its pointer could not be published: no space is left",
            "Followers still see revision 2.\nRepeat the command with --expect-revision 2",
            "or: centra channel sync production",
        )
        refused("rollback", "production", code=1, says=says)
    assert read("rollback", "production", "--expect-revision", "2")["release"] == 1


def test_a_release_is_measured_and_the_gate_takes_it(
    production: Path, tiny_data: Callable[[str], Path], modules: dict[str, Path]
) -> None:
    number = ship(modules)
    data = tiny_data("single")
    # Of another release, and of what is to be measured: both print the same fingerprint.
    words = ("release", "evaluate", "1", "--task", "intent", "--data", data)
    fingerprint = read(*words)["data"]
    assert f"data sha256:{fingerprint}\n" in centra(*words).stdout
    table = "channels.production.measured.intent"
    demand(
        production,
        "[channels.production]\nmin_metrics.intent.accuracy = 0.0\n"
        f"[{table}]\ndata = 'sha256:{fingerprint}'\nexamples = 5\n",
    )
    message = centra("promote", number, "--to", "production", code=6).stdout
    assert f"1.1 is not measured on sha256:{fingerprint[:12]}…" in message
    assert f"centra release evaluate {number} --task intent --data FILE" in message
    words = ("release", "evaluate", number, "--task", "intent", "--data", data)
    first, again = read_repeated(*words)
    assert (first["changed"], again["changed"]) == (True, False)
    assert first["metrics"].keys() == {"accuracy", "macro_f1", "matthews"}
    assert first["engine"].startswith("onnxruntime ")
    printed = centra(*words).stdout
    assert printed.startswith(f"intent@1.1 in release {number}: accuracy ")
    assert printed.endswith(f"\nwith {first['engine']}\n")
    assert f", with {first['engine']}," in " ".join(
        centra("task", "show", "intent@1.1").stdout.split()
    )
    centra("promote", number, "--to", "production")


def test_another_teams_task_takes_that_team_or_force(
    production: Path, modules: dict[str, Path]
) -> None:
    other = read("compose", "--base", "production", "--remove", "same", "--release")["release"]
    before = state(production)
    says = ("tasks of other teams on production, and you are nlu/ada", "same, of team quality")
    for words in (
        ("promote", other, "--to", "production"),
        ("promote", other, "--to", "production", "--dry-run"),
        ("channel", "move", "production", other),
    ):
        refused(*words, code=4, says=(*says, "repeat with --force"))
    assert state(production) == before
    result = centra("promote", other, "--to", "production", "--force")
    assert "--force is what changes same of team quality\n" in result.stderr
    refused("rollback", "production", code=4, says=(*says, "repeat with --force"))
    centra("rollback", "production", "--force")
    centra("channel", "move", "production", other, "--force")
    events = [event for event in read("audit") if event["subject"] == "production"]
    assert [event["forced"] for event in events] == [False, True, True, True]
    assert {event["details"].get("forced_over", {}).get("same") for event in events[1:]} == {
        "quality"
    }


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("promote 1", 2, "Missing option '--to'"),
        ("promote 1 --to latest", 2, "It moves by: centra compose --release"),
        ("promote 1 --to staging --json --markdown", 2, "exclude each other"),
        ("promote 9 --to staging", 3, "there is no release '9'"),
        ("rollback nope", 3, "there is no channel 'nope'"),
        ("rollback production", 3, "served nothing before release 1"),
        ("rollback production --to 9", 3, "there is no release '9'"),
        ("channel history nope", 3, "there is no channel 'nope'"),
        ("release evaluate 1 --task nope --data .", 3, "holds no task 'nope'"),
        ("release evaluate 1 --task intent --data nope", 1, "no such file"),
        ("release evaluate 1 --task intent --data pair.jsonl", 1, "pair.jsonl:1: the task takes a"),
        ("release evaluate 1 --task intent --data other.jsonl", 1, "no label 'x'; it has '"),
        ("compose --remove nope", 3, "there is no task 'nope' to leave out"),
        ("backbone status nope", 3, "there is no backbone 'nope'"),
        ("backbone retire tiny", 2, "say which version: tiny@VERSION"),
        ("backbone retire tiny@1", 5, "task intent@1.0"),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    production: Path, words: str, code: int, says: str
) -> None:
    (production / "pair.jsonl").write_text('{"text": "a", "text_pair": "b", "label": "x"}')
    (production / "other.jsonl").write_text('{"text": "a", "label": "x"}')
    before = state(production)
    refused(*words.split(), code=code, says=says)
    assert state(production) == before


# Another backbone, team by team


def test_tasks_move_to_another_backbone_one_by_one(
    home: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from centra.checkpoints.backbone import import_backbone
    from centra.formats.backbone import BackboneSpec
    from centra.store import LocalStore

    encoder = support.make_encoder("bert", tmp_path_factory.mktemp("next"), seed=5)
    store = LocalStore(tmp_path / "next")
    spec: BackboneSpec = import_backbone(str(encoder), store)
    moved: dict[str, Path] = {}
    for task, kind, options in (
        ("intent", "classification", {}),
        ("slots", "tagging", {"tap": 2}),
        ("same", "classification", {"form": "pair", "labels": ("agrees", "denies")}),
    ):
        moved[task] = tmp_path / f"{task}.safetensors"
        support.make_module(kind, spec, store, **options).write(moved[task])  # type: ignore[arg-type]
    assert read("backbone", "register", "tiny", encoder)["version"] == 2
    centra("promote", "1", "--to", "production")

    centra("task", "update", "intent", moved["intent"])
    refused("compose", "--release", code=6, says=("task intent: ", "allow two backbones"))
    demand(home, "[compose]\nallow_two_backbones = true\n")
    both = read("compose", "--release")
    assert both["layers"] == {
        "shared": 3, "task": 4, "total": 7, "single_task": 9, "overhead": 0.7778
    }  # fmt: skip
    assert read("release", "verify", "latest")["parity"] == {"intent": 0, "same": 0, "slots": 0}
    new, old = read("backbone", "status", "tiny")
    assert (new["backbone"], new["tasks"]) == ("tiny@2", {"intent": "1.1"})
    assert (old["backbone"], old["tasks"]) == ("tiny@1", {"same": "1.0", "slots": "1.0"})
    assert old["channels"] == {"latest": 2, "production": 1}
    says = ("task same@1.0", "task slots@1.0", "channel production (release 1)")
    refused("backbone", "retire", "tiny@1", code=5, says=says)

    centra("--actor", "dialog/bob", "task", "update", "slots", moved["slots"])
    centra("--actor", "quality/cy", "task", "update", "same", moved["same"])
    centra("compose", "--release")
    refused("backbone", "retire", "tiny@1", code=5, says="channel production (release 1)")
    centra("promote", "latest", "--to", "production", "--force")
    first, again = read_repeated("backbone", "retire", "tiny@1")
    assert (first["changed"], again) == (True, {**first, "changed": False})
    assert first["state"] == "retired"

    # What is on it stays readable, but does not come back to life.
    says = ("backbone tiny@1 is retired", "centra backbone restore tiny@1")
    refused("task", "pin", "intent@1.0", code=5, says=says)
    assert read("release", "verify", "1")["parity"].keys() == {"intent", "same", "slots"}
    centra("rollback", "production", "--force")
    centra("backbone", "restore", "tiny@1")
    centra("task", "pin", "intent@1.0")
    text = centra("backbone", "status").stdout.splitlines()
    assert text[0].split() == ["BACKBONE", "STATE", "ACTIVE", "TASKS", "CHANNELS", "RELEASES"]


def test_a_module_on_a_retired_backbone_is_refused(
    home: Path, modules: dict[str, Path], encoder: Path
) -> None:
    from tests.cli.helpers import edit

    edit(home, "UPDATE backbones SET state = 'retired'")
    before = state(home)
    refused("task", "register", "stars", modules["stars"], code=5, says="tiny@1 is retired")
    refused("task", "update", "intent", modules["intent update"], code=5, says="is retired")
    refused("backbone", "register", "tiny", encoder, code=5, says="centra backbone restore tiny@1")
    assert state(home) == before
