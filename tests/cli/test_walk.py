"""The daily work of teams, command by command, with the JSON that each prints."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from centra.formats.manifest import ReleaseManifest
from centra.formats.task_module import TaskModule, read_spec
from centra.system.files import file_digest
from registry.database.migrations import SCHEMA
from tests import support
from tests.cli.helpers import answers, centra, read, read_repeated, refused, state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOB = ("--actor", "dialog/bob")
CY = ("--actor", "quality/cy")
TEXTS = ("wake me at seven", "play some jazz in new york, please")
LAYERS = {"shared": 2, "task": 4, "total": 6, "single_task": 9, "overhead": 0.6667}


@pytest.fixture(params=["sqlite and folder", "postgresql and s3"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], str]:
    """A call that makes an empty registry in the current folder, and returns its store's address.

    The first is named by ``centra.toml``, the second by the environment.
    """

    def in_this_folder() -> str:
        assert centra("init").stdout == ""
        return ".centra/store"

    def by_environment() -> str:
        assert centra("db", "upgrade").stdout == ""
        return s3_url

    if request.param == "sqlite and folder":
        return in_this_folder

    from botocore.loaders import create_loader

    s3_url: str = request.getfixturevalue("s3_url")
    monkeypatch.setenv("CENTRA_STORE", s3_url)
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")  # Times are printed in UTC all the same.
    # Each command is a process of its own in real life, and reads boto3's tables for itself.
    monkeypatch.setattr("botocore.session.create_loader", cache(create_loader))
    monkeypatch.setenv("CENTRA_DATABASE_URL", request.getfixturevalue("postgres_database"))
    return by_environment


@pytest.fixture
def digest_of(
    tiny_backbone: support.Backbone, modules: dict[str, Path]
) -> Callable[[dict[str, str]], str]:
    """The digest that a release of these module files has on any machine."""

    def digest_of(tasks: dict[str, str]) -> str:
        entries = {
            task: (file_digest(modules[what]), read_spec(modules[what]))
            for task, what in tasks.items()
        }
        spec = tiny_backbone.spec
        return ReleaseManifest.build(entries, {spec.digest: spec}).digest

    return digest_of


def change(task: str, what: str, before: str | None, after: str | None) -> dict[str, Any]:
    return {"task": task, "change": what, "from": before, "to": after}


def unchanged(task: str, module: Path, *, layers: int) -> dict[str, Any]:
    return {
        "task": task,
        "version": "1.0",
        "digest": file_digest(module),
        "layers": layers,
        "identical": True,
        "differs": [],
    }


def outcome(
    task: str, version: str, *, changed: bool, forced: bool = False, state: str = "active"
) -> dict[str, Any]:
    return {
        "task": task,
        "version": version,
        "changed": changed,
        "forced": forced,
        "state": state,
        "mended": None,
        "decision": [],
    }


def is_utc(text: str) -> bool:
    return datetime.fromisoformat(text).utcoffset() is not None and text.endswith("+00:00")


# The whole walk


def test_tasks_of_three_teams_live_from_their_registration_to_their_retirement(
    place: Callable[[], str],
    modules: dict[str, Path],
    encoder: Path,
    digest_of: Callable[[dict[str, str]], str],
) -> None:
    store = place()
    assert read("task", "list") == read("release", "list") == read("channel", "list") == []
    assert read("backbone", "list") == read("audit") == []

    first, again = read_repeated("backbone", "register", "tiny", encoder)
    assert (first["name"], first["version"], first["changed"]) == ("tiny", 1, True)
    assert again == {**first, "changed": False}

    for actor, task in (((), "intent"), (BOB, "slots"), (CY, "same")):
        first, again = read_repeated(*actor, "task", "register", task, modules[task])
        assert first == outcome(task, "1.0", changed=True)
        assert again == outcome(task, "1.0", changed=False)
    owners = {row["task"]: row["team"] for row in read("task", "list")}
    assert owners == {"intent": "nlu", "same": "quality", "slots": "dialog"}

    # A plan changes nothing; the first release holds all three.
    release_1 = digest_of({"intent": "intent", "same": "same", "slots": "slots"})
    added = [change(task, "added", None, "1.0") for task in ("intent", "same", "slots")]
    numbers = {"intent": "1.0", "same": "1.0", "slots": "1.0"}
    plan, again = read_repeated("compose")
    assert plan == again
    assert plan == {
        "release": None,
        "digest": release_1,
        "published": False,
        "base": None,
        "changes": added,
        "layers": LAYERS,
        "tasks": numbers,
        "precisions": dict.fromkeys(numbers, "fp32"),
        "int8": [],
    }
    assert read("release", "list") == []
    published, again = read_repeated("compose", "--release")
    assert published == {**plan, "release": 1, "published": True}
    assert again == {**plan, "release": 1, "base": 1, "changes": []}

    assert read("release", "verify", "1")["parity"] == {"intent": 0, "same": 0, "slots": 0}
    assert read("release", "verify", f"{store}#latest")["digest"] == release_1
    moved, again = read_repeated("channel", "move", "production", "latest")
    assert (moved["changed"], again) == (True, {**moved, "changed": False})
    assert (moved["release"], moved["digest"], moved["revision"]) == (1, release_1, 1)

    # Team nlu updates intent; the others' modules and answers stay as they are.
    first, again = read_repeated("task", "update", "intent", modules["intent update"])
    assert first == outcome("intent", "1.1", changed=True)
    assert again == outcome("intent", "1.1", changed=False)
    release_2 = digest_of({"intent": "intent update", "same": "same", "slots": "slots"})
    published, _ = read_repeated("compose", "--release")
    assert published == {
        "release": 2,
        "digest": release_2,
        "published": True,
        "base": 1,
        "changes": [change("intent", "updated", "1.0", "1.1")],
        "layers": LAYERS,
        "tasks": {**numbers, "intent": "1.1"},
        "precisions": dict.fromkeys(numbers, "fp32"),
        "int8": [],
    }
    difference = read("release", "diff", "production", "latest")
    assert difference["changes"] == published["changes"]
    assert difference["unchanged"] == [
        unchanged("same", modules["same"], layers=1),
        unchanged("slots", modules["slots"], layers=2),
    ]
    before, after = (answers("--release", number, *TEXTS) for number in ("1", "2"))
    assert [a["slots"] for a in before] == [a["slots"] for a in after]
    assert [a["intent"] for a in before] != [a["intent"] for a in after]

    # It redefines intent, and team dialog retires slots.
    first, again = read_repeated("task", "redefine", "intent", modules["intent redefinition"])
    assert first == outcome("intent", "2.0", changed=True)
    assert again == outcome("intent", "2.0", changed=False)
    first, again = read_repeated(*BOB, "task", "retire", "slots")
    assert first == outcome("slots", "1.0", changed=True, state="retired")
    assert again == outcome("slots", "1.0", changed=False, state="retired")
    published, _ = read_repeated("compose", "--release")
    assert published == {
        "release": 3,
        "digest": digest_of({"intent": "intent redefinition", "same": "same"}),
        "published": True,
        "base": 2,
        "changes": [
            change("intent", "redefined", "1.1", "2.0"),
            change("slots", "removed", "1.0", None),
        ],
        "layers": {"shared": 1, "task": 3, "total": 4, "single_task": 6, "overhead": 0.6667},
        "tasks": {"intent": "2.0", "same": "1.0"},
        "precisions": {"intent": "fp32", "same": "fp32"},
        "int8": [],
    }
    assert answers("--release", "latest", TEXTS[0])[0].keys() == {"intent"}
    # Without a name, what production serves.
    assert answers(TEXTS[0]) == answers("--release", "production", TEXTS[0])
    assert answers("--release", "production", TEXTS[0])[0].keys() == {"intent", "slots"}

    # Both think better of it: the same modules are the same release.
    first, again = read_repeated(*BOB, "task", "restore", "slots")
    assert first == outcome("slots", "1.0", changed=True)
    assert again == outcome("slots", "1.0", changed=False)
    first, again = read_repeated("task", "pin", "intent@1.1")
    assert first == outcome("intent", "1.1", changed=True)
    assert again == outcome("intent", "1.1", changed=False)
    composed, _ = read_repeated("compose", "--release")
    assert (composed["release"], composed["digest"]) == (2, release_2)
    assert (composed["published"], composed["base"]) == (False, 3)
    assert composed["changes"] == [
        change("intent", "redefined", "2.0", "1.1"),
        change("slots", "added", None, "1.0"),
    ]
    assert [row["release"] for row in read("release", "list")] == [3, 2, 1]
    channels = {
        row["channel"]: (row["release"], row["revision"]) for row in read("channel", "list")
    }
    assert channels == {"latest": (2, 4), "production": (1, 1)}

    # One team's change alone, on what production serves.
    alone = read("compose", "--base", "production", "--set", "intent@1.1")
    assert (alone["release"], alone["base"]) == (2, 1)
    assert alone["changes"] == [change("intent", "updated", "1.0", "1.1")]

    history = [(row["action"], row["created_by"]) for row in read("task", "history", "intent")]
    assert history == [
        (f"task:{verb}", "nlu/ada") for verb in ("register", "update", "redefine", "pin")
    ]
    assert all(is_utc(event["created_at"]) for event in read("audit"))
    folder_digest = read("release", "pull", f"{store}#production", "--output", "pulled")["digest"]
    assert folder_digest == release_1
    assert answers("--release", "./pulled", *TEXTS) == before


# Setting up


def test_init_makes_a_registry_here_and_repeats_harmlessly(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    result = centra("init")
    assert result.stdout == ""
    assert result.stderr == (
        f"registry ready: database {folder}/.centra/registry.db, store {folder}/.centra/store\n"
    )
    assert (folder / "centra.toml").read_text() == (
        'database = ".centra/registry.db"\nstore = ".centra/store"\n'
    )
    before = state(folder)
    assert centra("init").stderr == result.stderr
    assert state(folder) == before


def test_init_makes_the_registry_of_settings_that_came_without_it(tmp_path: Path) -> None:
    """A repository keeps centra.toml, and ignores .centra."""
    centra("init")
    shutil.rmtree(tmp_path / "work" / ".centra")
    centra("init")
    assert read("task", "list") == []


def test_init_records_the_addresses_it_is_given(tmp_path: Path) -> None:
    database, store = f"sqlite:///{tmp_path / 'r.db'}", str(tmp_path / "store")
    centra("--database", database, "--store", store, "init")
    assert (tmp_path / "r.db").is_file()
    assert (tmp_path / "work" / "centra.toml").read_text() == (
        f"database = {json.dumps(database)}\nstore = {json.dumps(store)}\n"
    )
    assert read("task", "list") == []


def test_a_registry_is_found_from_a_folder_below_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(home / "deep" / "down")
    assert len(read("task", "list")) == 3
    assert read("compose")["release"] == 1
    assert list((home / "deep").rglob("*")) == [home / "deep" / "down"]


def test_db_commands_report_the_migration(home: Path) -> None:
    before = state(home)
    assert centra("db", "current").stdout == f"{SCHEMA}\n"
    check, upgrade = centra("db", "check"), centra("db", "upgrade")
    assert (check.stdout, check.stderr) == ("", "database and code agree\n")
    assert (upgrade.stdout, upgrade.stderr) == ("", f"database is at migration {SCHEMA}\n")
    assert state(home) == before


# Backbones


def test_backbones_are_listed_and_shown(home: Path, tiny_backbone: support.Backbone) -> None:
    spec = tiny_backbone.spec
    (row,) = read("backbone", "list")
    assert is_utc(row.pop("created_at"))
    source = row.pop("source")
    assert row == {
        "backbone": "tiny@1",
        "name": "tiny",
        "version": 1,
        "digest": spec.digest,
        "family": "bert",
        "num_layers": support.LAYERS,
        "hidden_size": support.HIDDEN,
        "max_length": support.MAX_LENGTH,
        "state": "active",
        "created_by": "nlu/ada",
    }
    for reference in ("tiny", "tiny@1"):
        shown = read("backbone", "show", reference)
        assert shown == {
            **row,
            "source": source,
            "created_at": shown["created_at"],
            "embeddings": spec.embeddings,
            "layers": list(spec.layers),
        }
    listed = centra("backbone", "list").stdout.splitlines()
    assert listed[0].split() == (
        ["BACKBONE", "STATE", "FAMILY", "LAYERS", "HIDDEN", "MAX", "LENGTH", "DIGEST", "SOURCE"]
    )
    assert listed[1].split()[:4] == ["tiny@1", "active", "bert", "3"]
    text = centra("backbone", "show", "tiny").stdout
    assert text.startswith("tiny@1  bert, 3 layers of 32, up to 64 tokens\n")
    for number, digest in enumerate(spec.layers, 1):
        assert f"layer {number}     {digest}\n" in text


# Tasks


def test_task_show_prints_every_version(home: Path, modules: dict[str, Path]) -> None:
    centra("task", "update", "intent", modules["intent update"])
    shown = read("task", "show", "intent")
    assert [is_utc(version.pop("created_at")) for version in shown["versions"]] == [True, True]
    common = {
        "backbone": "tiny@1",
        "kind": "classification",
        "input": "single",
        "labels": ["alarm", "music", "weather"],
        "tap_layer": 1,
        "depth": 1,
        "created_by": "nlu/ada",
    }
    assert shown == {
        "task": "intent",
        "name": "intent",
        "team": "nlu",
        "state": "active",
        "current": "1.1",
        "versions": [
            {
                "version": number,
                "digest": file_digest(modules[what]),
                "size": modules[what].stat().st_size,
                "metrics": metrics,
                **common,
            }
            for number, what, metrics in (
                ("1.0", "intent", {"accuracy": 0.9}),
                ("1.1", "intent update", {"accuracy": 0.95, "macro_f1": 0.5}),
            )
        ],
        "card": None,
    }
    only = read("task", "show", "intent@1.0")
    assert [version["version"] for version in only["versions"]] == ["1.0"]
    assert only["current"] == "1.1"
    text = centra("task", "show", "intent").stdout
    assert text.startswith("intent@1.1  active, owned by nlu\n")
    assert "  labels   3: alarm, music, weather\n" in text
    assert "  metrics  accuracy 0.9500, macro_f1 0.5000\n" in text
    assert f"sha256:{file_digest(modules['intent'])}" in text


def test_a_task_without_labels_or_metrics_is_shown_with_empty_ones(
    home: Path, modules: dict[str, Path]
) -> None:
    centra("task", "register", "stars", modules["stars"])
    (version,) = read("task", "show", "stars")["versions"]
    assert (version["labels"], version["metrics"], version["kind"]) == ([], {}, "regression")
    assert "  labels   0: -\n" in centra("task", "show", "stars").stdout


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ((), ["intent", "same", "slots"]),
        (("--team", "dialog"), ["slots"]),
        (("--kind", "tagging"), ["slots"]),
        (("--kind", "multilabel"), []),
        (("--state", "retired"), ["same"]),
        (("--state", "active"), ["intent", "slots"]),
        (("--backbone", "tiny"), ["intent", "same", "slots"]),
        (("--backbone", "tiny@1", "--team", "nlu"), ["intent"]),
        (("--backbone", "tiny@2"), []),
        (("--metric", "accuracy>=0.9"), ["intent"]),
        (("--metric", "accuracy>=0.91"), []),
        (("--metric", "accuracy>=0.1", "--metric", "f1>=0"), []),
    ],
)
def test_task_list_keeps_what_the_filters_ask_for(
    home: Path, filters: tuple[str, ...], names: list[str]
) -> None:
    centra(*CY, "task", "retire", "same")
    rows = read("task", "list", *filters)
    assert [row["task"] for row in rows] == names
    lines = centra("task", "list", *filters).stdout.splitlines()
    assert lines[0].split() == [
        "TASK",
        "TEAM",
        "STATE",
        "KIND",
        "BACKBONE",
        "TAP",
        "DEPTH",
        "MADE",
        "METRICS",
    ]
    assert [line.split("@")[0] for line in lines[1:]] == names


def test_task_list_prints_current_versions_as_json(home: Path) -> None:
    row = read("task", "list")[1]
    assert is_utc(row.pop("created_at"))
    assert row == {
        "task": "same",
        "team": "quality",
        "state": "active",
        "version": "1.0",
        "kind": "classification",
        "input": "pair",
        "backbone": "tiny@1",
        "tap_layer": 1,
        "depth": 2,
        "metrics": {},
    }


def test_task_diff_says_how_two_versions_differ(home: Path, modules: dict[str, Path]) -> None:
    centra("task", "update", "intent", modules["intent update"])
    centra("task", "redefine", "intent", modules["intent redefinition"])
    found = read("task", "diff", "intent@1.0", "intent")
    own = {"task", "from", "to", "contract", "decision", "tensors_changed", "tensors_same"}
    assert found.keys() == own | {"comparison"}
    assert found["comparison"] is None  # Which --data alone gives.
    assert (found["from"]["version"], found["to"]["version"]) == ("1.0", "2.0")
    assert found["contract"] == {
        "kind": None,
        "input": None,
        "added": [],
        "removed": [],
        "renamed": [["weather", "snow"]],
        "reordered": False,
    }
    assert "head.out.weight" in found["tensors_changed"]
    assert found["tensors_same"] == 3  # The probe's inputs.
    same = read("task", "diff", "intent@1.1", "intent@1.1")
    assert (same["tensors_changed"], same["contract"]["renamed"]) == ([], [])
    lines = centra("task", "diff", "intent@1.0", "intent@2.0").stdout.splitlines()
    assert "tap      1" in lines
    assert "labels renamed: weather → snow" in lines
    assert f"tensors  {len(found['tensors_changed'])} differ, 3 are the same" in lines
    assert lines[-1] == "  probe: logits"


def test_force_acts_for_another_team_and_the_log_shows_it(home: Path) -> None:
    assert read(*BOB, "task", "retire", "intent", "--force") == (
        outcome("intent", "1.0", changed=True, forced=True, state="retired")
    )
    event = read("task", "history", "intent")[-1]
    assert is_utc(event.pop("created_at"))
    assert len(event.pop("digest")) == 64
    assert event == {
        "id": 7,
        "created_by": "dialog/bob",
        "action": "task:retire",
        "subject": "intent",
        "forced": True,
        "details": {"version": "1.0"},
    }
    assert "dialog/bob (forced)  task:retire" in centra("task", "history", "intent").stdout


def test_audit_shows_all_or_one_task_or_one_team(home: Path) -> None:
    actions = [(event["action"], event["subject"]) for event in read("audit")]
    assert actions == [
        ("backbone:register", "tiny"),
        ("task:register", "intent"),
        ("task:register", "slots"),
        ("task:register", "same"),
        ("release:publish", "1"),
        ("channel:move", "latest"),
    ]
    assert [event["subject"] for event in read("audit", "--task", "same")] == ["same"]
    for actor in ("dialog", "dialog/bob"):
        assert [event["subject"] for event in read("audit", "--actor", actor)] == ["slots"]
    assert read("audit", "--actor", "dial") == read("audit", "--actor", "dialog/eve") == []
    header, *lines = centra("audit").stdout.splitlines()
    assert header.split() == ["TIME", "ACTOR", "ACTION", "SUBJECT", "DETAILS"]
    assert len(lines) == len(actions)


def test_a_change_prints_the_version_alone_on_standard_output(
    home: Path, modules: dict[str, Path]
) -> None:
    result = centra("task", "update", "intent", modules["intent update"])
    assert (result.stdout, result.stderr) == ("intent@1.1\n", "updated\n")
    result = centra("task", "update", "intent", modules["intent update"])
    assert (result.stdout, result.stderr) == ("intent@1.1\n", "nothing to do: already so\n")


def test_what_a_checkpoint_does_not_say_is_declared_or_remarked_on(
    home: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = centra("task", "register", "guessed", checkpoint)
    assert result.stdout == "guessed@1.0\n"
    for text in ("--kind multilabel", "--input pair", "LABEL_0", "registered"):
        assert text in result.stderr
    (tmp_path / "labels.txt").write_text("calm\nglad\nsad\n")
    options = ("--kind", "multilabel", "--labels", tmp_path / "labels.txt", "--input", "pair")
    result = centra("task", "redefine", "guessed", checkpoint, *options)
    assert (result.stdout, result.stderr) == (
        "guessed@2.0\n",
        "shard layers (3/3)\nredefined\n",
    )
    version = read("task", "show", "guessed")["versions"][-1]
    assert (version["kind"], version["labels"]) == ("multilabel", ["calm", "glad", "sad"])
    again = centra("task", "update", "guessed", checkpoint, *options)
    assert again.stderr.endswith("\nnothing to do: already so\n")


def test_a_fine_tuned_checkpoint_is_registered_as_a_module(home: Path, checkpoint: Path) -> None:
    options = ("--backbone", "tiny", "--tap", "1", "--input", "pair")
    first, again = read_repeated("task", "register", "tuned", checkpoint, *options)
    assert first == outcome("tuned", "1.0", changed=True)
    assert again == outcome("tuned", "1.0", changed=False)
    (version,) = read("task", "show", "tuned")["versions"]
    assert (version["tap_layer"], version["depth"], version["input"]) == (1, 2, "pair")
    assert read("task", "register", "found", checkpoint)["version"] == "1.0"
    (version,) = read("task", "show", "found")["versions"]
    assert (version["tap_layer"], version["depth"], version["input"]) == (2, 1, "single")
    assert read("compose")["changes"] == [
        change("found", "added", None, "1.0"),
        change("tuned", "added", None, "1.0"),
    ]


def test_a_trained_module_goes_into_the_next_release(
    home: Path, tiny_data: Callable[[str], Path]
) -> None:
    recipe = ("--backbone", "tiny", "--tap", "1", "--depth", "1", "--epochs", "1")
    command = ("train", "--task", "moods", "--data", tiny_data("multilabel"), *recipe)
    trained = read(*command, "--output", "sub/moods.safetensors")
    assert trained.keys() == {"output", "metrics"}
    assert trained["output"] == "sub/moods.safetensors"
    assert [path.name for path in (home / "sub").iterdir()] == ["moods.safetensors"]
    centra("task", "register", "moods", "sub/moods.safetensors")
    assert read("task", "show", "moods")["versions"][0]["metrics"] == trained["metrics"]
    assert read("compose", "--release")["changes"] == [change("moods", "added", None, "1.0")]
    (answer,) = answers(TEXTS[0], "--task", "moods")
    assert answer.keys() == {"moods"}


# Releases


def test_a_plan_says_in_words_what_would_change(home: Path, modules: dict[str, Path]) -> None:
    centra("task", "update", "intent", modules["intent update"])
    centra(*BOB, "task", "retire", "slots")
    result = centra("compose")
    assert result.stdout == (
        "2 tasks against release 1:\n"
        "  updated    intent 1.0 → 1.1\n"
        "  removed    slots 1.0\n"
        "1 shared + 3 own = 4 layers, 66.7% of 6 with a full model per task\n"
        "a plan; publish it with: centra compose --release\n"
    )
    assert "check modules (2/2)\n" in result.stderr
    published = centra("compose", "--release").stdout.splitlines()[-1]
    assert published == f"published release 2  sha256:{read('release', 'show', '2')['digest']}"
    assert centra("compose").stdout.splitlines()[1::2] == [
        "  no change",
        "release 2 holds exactly this already; no new release was made",
    ]


def test_compose_writes_the_plan_as_a_folder(home: Path, modules: dict[str, Path]) -> None:
    centra("task", "update", "intent", modules["intent update"])
    plan = read("compose", "--output", "plan")
    assert (plan["release"], plan["published"]) == (None, False)
    manifest = (home / "plan" / "release.json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == plan["digest"]
    module = home / "plan" / "tasks" / "intent.safetensors"
    assert module.read_bytes() == modules["intent update"].read_bytes()
    assert read("compose", "--release")["digest"] == plan["digest"]
    assert answers("--release", "./plan", *TEXTS) == answers("--release", "2", *TEXTS)
    sums = (home / "plan" / "SHA256SUMS").read_text().splitlines()
    for line in sums:
        digest, _, path = line.partition("  ")
        assert file_digest(home / "plan" / path) == digest


def test_without_a_release_named_production_answers_or_else_latest_and_it_is_said(
    home: Path, modules: dict[str, Path]
) -> None:
    centra("task", "update", "intent", modules["intent update"])
    centra("compose", "--release")
    said = "no release is named; taking release"
    words = ("predict", TEXTS[0], "--json")
    result = centra(*words)
    assert f"{said} 2, which latest serves\n" in result.stderr
    centra("promote", "1", "--to", "production")
    again = centra(*words)
    assert f"{said} 1, which production serves\n" in again.stderr
    assert again.stdout == centra(*words, "--release", "1").stdout != result.stdout
    store = centra(*words, "--release", "./.centra/store")
    assert f"{said} 1, which production serves\n" in store.stderr
    assert store.stdout == again.stdout
    assert said not in centra(*words, "--release", "latest").stderr


def test_a_version_that_is_not_what_was_wanted_is_named(
    home: Path, modules: dict[str, Path]
) -> None:
    centra("export", "old.tar", "--task", "intent@1.0")
    centra("task", "update", "intent", modules["intent update"])
    before = state(home)
    says = ("version 1.0 already", "1.1 is the current version", "centra task pin intent@1.0")
    for verb in ("register", "update", "redefine"):
        refused("task", verb, "intent", modules["intent"], code=5, says=says)
    said = centra("import", "old.tar").stderr
    assert "intent is 1.1 here; go back: centra task pin intent@1.0\n" in said
    assert state(home) == before
    centra("task", "retire", "intent")
    assert "intent is retired here; bring it back: centra task restore intent\n" in (
        centra("import", "old.tar").stderr
    )
    said = centra("task", "pin", "intent@1.0").stderr
    assert said == (
        "pinned\nthe task is retired; back into the live set: centra task restore intent\n"
    )


def test_a_release_is_pulled_by_any_of_its_names(home: Path) -> None:
    digest = read("release", "show", "1")["digest"]
    folders = set()
    for number, name in enumerate(("1", "latest", digest[:8], digest, ".centra/store#latest")):
        pulled = read("release", "pull", name, "--output", f"out{number}")
        assert (pulled["output"], pulled["digest"]) == (f"out{number}", digest)
        files = sorted((home / f"out{number}").rglob("*"))
        assert pulled["size"] == sum(file.stat().st_size for file in files if file.is_file())
        folders.add((home / f"out{number}" / "SHA256SUMS").read_bytes())
    assert len(folders) == 1
    result = centra("release", "pull", "1", "--output", "out0")
    assert result.stdout == "out0\n"


def test_pulling_the_next_release_moves_only_the_blobs_that_changed(
    home: Path, modules: dict[str, Path]
) -> None:
    centra("release", "pull", "1", "--output", "served")
    shards = [p for p in (home / "served").rglob("*.safetensors") if p.name != "intent.safetensors"]
    before = {path: path.stat().st_mtime_ns for path in shards}
    centra("task", "update", "intent", modules["intent update"])
    centra("compose", "--release")
    pulled = read("release", "pull", "2", "--output", "served")
    assert {path: path.stat().st_mtime_ns for path in shards} == before
    module = home / "served" / "tasks" / "intent.safetensors"
    assert module.read_bytes() == modules["intent update"].read_bytes()
    assert pulled["size"] < modules["intent update"].stat().st_size + 20_000
    assert read("release", "verify", "./served")["digest"] == pulled["digest"]


def test_a_release_is_listed_shown_and_drawn(home: Path) -> None:
    (row,) = read("release", "list")
    shown = read("release", "show", "latest")
    assert is_utc(row.pop("created_at"))
    assert is_utc(shown.pop("created_at"))
    assert row == {
        "release": 1,
        "digest": shown["digest"],
        "task_count": 3,
        "channels": ["latest"],
        "created_by": "nlu/ada",
    }
    assert shown == {
        "release": 1,
        "digest": row["digest"],
        "base": None,
        "channels": ["latest"],
        "tasks": {"intent": "1.0", "same": "1.0", "slots": "1.0"},
        "precisions": {"intent": "fp32", "same": "fp32", "slots": "fp32"},
        "layers": LAYERS,
        "signatures": [],
        "created_by": "nlu/ada",
    }
    header, line = centra("release", "list").stdout.splitlines()
    assert header.split() == ["RELEASE", "DIGEST", "TASKS", "CHANNELS", "MADE", "BY"]
    assert line.split()[:4] == ["1", row["digest"][:12], "3", "latest"]
    picture = centra("release", "show", "1").stdout
    assert picture.startswith(f"release 1  sha256:{row['digest']}\n")
    for part in ("━●─[▒]─▶ intent@1.0", "━●─[▒]─[▒]─▶ same@1.0", "━●─[▒]─▶ slots@1.0"):
        assert part in picture
    assert "6 layers, 66.7% of 9" in picture


def test_release_diff_prints_the_proof_for_what_did_not_change(
    home: Path, modules: dict[str, Path]
) -> None:
    centra("task", "update", "intent", modules["intent update"])
    centra("compose", "--release")
    difference = read("release", "diff", "1", "2")
    (module,) = difference.pop("modules")
    assert (module["task"], module["tensors_same"]) == ("intent", 3)  # The probe's inputs.
    assert difference == {
        "from": 1,
        "to": 2,
        "changes": [change("intent", "updated", "1.0", "1.1")],
        "unchanged": [
            unchanged("same", modules["same"], layers=1),
            unchanged("slots", modules["slots"], layers=2),
        ],
        "layers": {"from": LAYERS, "to": LAYERS},
    }
    backwards = read("release", "diff", "2", "1")
    assert backwards["changes"] == [change("intent", "updated", "1.1", "1.0")]
    nothing = read("release", "diff", "2", "2")
    assert (nothing["changes"], len(nothing["unchanged"])) == ([], 3)
    text = centra("release", "diff", "1", "2").stdout
    assert "  updated    intent 1.0 → 1.1\n" in text
    digest = file_digest(modules["slots"])
    proof = f"sha256:{digest}, with the embeddings and 2 layers below it"
    assert f"  identical  slots 1.0  {proof}\n" in text


def test_release_verify_counts_files_and_runs_every_probe(home: Path) -> None:
    digest = read("release", "show", "1")["digest"]
    centra("release", "pull", "1", "--output", "out")
    for reference in ("1", "latest", "./out", ".centra/store#latest"):
        found = read("release", "verify", reference)
        assert found.keys() == {"digest", "files", "size", "parity", "int8", "signed_by"}
        assert found["digest"] == digest
        assert found["files"] == 9  # backbone.json, embeddings, 2 layers, 2 of tokenizer, 3 tasks
        assert found["parity"] == {"intent": 0, "same": 0, "slots": 0}
    text = centra("release", "verify", "1").stdout
    assert text.startswith(f"9 files, {found['size']:,} bytes: every digest is right\n")


def test_a_channel_is_made_moved_listed_and_shown(home: Path, modules: dict[str, Path]) -> None:
    centra("task", "update", "intent", modules["intent update"])
    centra("compose", "--release")
    digest = read("release", "show", "2")["digest"]
    assert centra("channel", "move", "staging", "1").stdout == "staging → release 1\n"
    moved, again = read_repeated("channel", "move", "staging", "2")
    assert again == {**moved, "changed": False}
    assert is_utc(moved.pop("updated_at"))
    assert moved == {
        "channel": "staging",
        "release": 2,
        "digest": digest,
        "revision": 2,
        "updated_by": "nlu/ada",
        "changed": True,
    }
    assert [row["channel"] for row in read("channel", "list")] == ["latest", "staging"]
    shown = centra("channel", "show", "staging").stdout.splitlines()
    assert shown[0] == f"staging → release 2  sha256:{digest}"
    assert shown[1].startswith("revision 2, ")
    assert read("release", "show", "2")["channels"] == ["latest", "staging"]
    pointer = json.loads((home / ".centra/store/channels/staging.json").read_text())
    assert (pointer["manifest"], pointer["revision"], pointer["release"]) == (digest, 2, 2)


# Answers


def test_each_kind_of_task_answers_in_its_own_form(home: Path, modules: dict[str, Path]) -> None:
    for task in ("topics", "no topics", "stars", "no spans"):
        centra("task", "register", task.replace(" ", "-"), modules[task])
    centra("compose", "--release")
    text = TEXTS[1]
    (found,) = answers(text)
    assert list(found) == ["intent", "no-spans", "no-topics", "slots", "stars", "topics"]
    assert found["intent"].keys() == {"label", "score"}
    assert found["intent"]["label"] in ("alarm", "music", "weather")
    assert 1 / 3 <= found["intent"]["score"] <= 1
    assert found["topics"].keys() == {"labels"}
    scores = [label["score"] for label in found["topics"]["labels"]]
    assert scores == sorted(scores, reverse=True)
    assert all(label.keys() == {"label", "score"} for label in found["topics"]["labels"])
    assert found["stars"].keys() == {"value"}
    assert isinstance(found["stars"]["value"], float)
    assert found["no-topics"] == {"labels": []}
    assert found["no-spans"] == {"spans": []}
    (slots,) = answers(TEXTS[0], "--task", "slots")
    (span,) = slots["slots"]["spans"]
    assert 1 / 3 <= span.pop("score") <= 1
    assert span == {
        "label": "city",
        "text": "wake me at seven",
        "start": 0,
        "end": 16,
        "words": [0, 4],
    }


def test_a_pair_is_answered_by_the_tasks_on_pairs(home: Path) -> None:
    (found,) = answers("wake me at seven", "--text-pair", "yes it is")
    assert found.keys() == {"same"}
    assert found["same"]["label"] in ("agrees", "denies")


def test_predict_answers_only_the_tasks_that_are_named(home: Path) -> None:
    everything = answers(*TEXTS)
    assert answers(*TEXTS, "--task", "intent") == [{"intent": a["intent"]} for a in everything]
    assert answers(*TEXTS, "--task", "slots", "--task", "intent") == everything


def test_a_file_and_standard_input_give_one_answer_a_line(home: Path, tmp_path: Path) -> None:
    lines = [
        TEXTS[0],
        json.dumps({"id": "x-7", "text": TEXTS[1]}),
        json.dumps({"text": "wake me", "text_pair": "yes it is"}),
        json.dumps({"tokens": ["fly", "to", "new", "york"]}),
    ]
    content = "\n".join(lines)
    (tmp_path / "in.jsonl").write_text(content, encoding="utf-8")
    found = answers("--input", "-", stdin=content)
    assert found == answers("--input", tmp_path / "in.jsonl")
    first, second, fourth = answers(*TEXTS, "fly to new york")
    third = answers("wake me", "--text-pair", "yes it is")
    spans = [s | {"start": s["words"][0], "end": s["words"][1]} for s in fourth["slots"]["spans"]]
    fourth["slots"] = {"spans": spans}
    assert found == [first, {"id": "x-7", **second}, *third, fourth]
    assert answers(TEXTS[1], "--input", "-", stdin=TEXTS[0]) == answers(TEXTS[1], TEXTS[0])


def test_offsets_count_the_spaces_before_a_line(home: Path) -> None:
    (plain,) = answers("--input", "-", "--task", "slots", stdin="fly to new york \r\n")
    (moved,) = answers("--input", "-", "--task", "slots", stdin="  \tfly to new york \r\n")
    assert plain["slots"]["spans"]
    for span in plain["slots"]["spans"]:
        span |= {"start": span["start"] + 3, "end": span["end"] + 3}
    assert moved == plain


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_understood(home: Path, tmp_path: Path, encoding: str) -> None:
    content = json.dumps({"text": TEXTS[0]}) + "\r\n" + TEXTS[1]
    (tmp_path / "in.jsonl").write_bytes(content.encode(encoding))
    assert answers("--input", tmp_path / "in.jsonl") == answers(TEXTS[0], TEXTS[1])


def test_an_empty_file_has_no_answers(home: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"")
    assert answers("--input", tmp_path / "in.jsonl") == []


def test_an_input_that_is_truncated_says_so(home: Path) -> None:
    result = centra("predict", "hi", "rain " * 100, "--task", "intent", "--json")
    short, long = (json.loads(line)["intent"] for line in result.stdout.splitlines())
    assert "truncated" not in short
    assert long["truncated"] == {"tokens": 102, "kept": 64}
    assert "input 2 (64 of 102 tokens were read)" in result.stderr


def test_every_name_of_a_release_gives_the_same_answers(home: Path) -> None:
    centra("channel", "move", "production", "1")
    centra("release", "pull", "1", "--output", "out")
    digest = read("release", "show", "1")["digest"]
    expected = answers(*TEXTS)
    names = ("1", "production", digest[:8], "./out", str(home / "out"), ".centra/store#production")
    for name in (*names, f".centra/store#{digest}"):
        assert answers(*TEXTS, "--release", name) == expected


def test_answers_in_another_precision_are_near(home: Path) -> None:
    exact = answers(TEXTS[0], "--task", "intent")
    (near,) = answers(TEXTS[0], "--task", "intent", "--device", "cpu", "--dtype", "bf16")

    assert near["intent"]["score"] == pytest.approx(exact[0]["intent"]["score"], abs=0.03)
    assert near != exact[0]


def test_answers_are_shown_as_a_table_to_people(home: Path) -> None:
    result = centra("predict", TEXTS[0], "a\ttext on\nseveral lines " + "x" * 60)
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["INPUT", "TASK", "ANSWER", "SCORE"]
    assert len(lines) == 4
    assert lines[0].startswith(f"{TEXTS[0]} ")
    assert lines[1].split()[0] == "slots"
    assert lines[2].startswith("a text on several lines xxx")
    assert "…  intent" in lines[2]


def test_the_best_labels_stand_beside_an_answer_where_they_are_asked_for(home: Path) -> None:
    words = ("predict", TEXTS[0], "--top-k", "2")
    (answer,) = (json.loads(line) for line in centra(*words, "--json").stdout.splitlines())
    best = answer["intent"]["top"]
    assert len(best) == 2
    assert best[0] == {name: answer["intent"][name] for name in ("label", "score")}
    assert "top" not in answer["slots"]

    lines = [line.split() for line in centra(*words).stdout.splitlines()]
    assert [line[:3] for line in lines[2:4]] == [
        [f"{place}.", label["label"], f"{label['score']:.3f}"]
        for place, label in enumerate(best, 1)
    ]


def test_a_module_read_back_is_the_one_that_was_registered(
    home: Path, modules: dict[str, Path]
) -> None:
    digest = read("task", "show", "slots")["versions"][0]["digest"]
    blob = home / ".centra" / "store" / "blobs" / "sha256" / digest[:2] / digest
    assert blob.read_bytes() == modules["slots"].read_bytes()
    assert TaskModule.read(blob).spec == read_spec(modules["slots"])
