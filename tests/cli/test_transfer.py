"""Export in one registry and import in another, by their commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from centra.system.files import file_digest
from tests.cli.helpers import answers, centra, read, refused, state
from tests.cli.test_laziness import imported_by_commands
from tests.support import make_key

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ("wake me at seven", "play some jazz in new york, please")


@pytest.fixture
def elsewhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty registry in a folder of its own; nobody in particular works there.

    The current folder stays the full registry's.
    """
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        centra("init")
    return folder


def test_a_release_moves_to_another_registry(
    home: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "release.tar"
    done = read("export", file, "--release", "latest")
    assert done == {
        "file": str(file),
        "digest": file_digest(file),
        "size": file.stat().st_size,
        "tasks": {"intent": "1.0", "same": "1.0", "slots": "1.0"},
        "release": 1,
    }
    digest = read("release", "show", "1")["digest"]
    before = answers("--release", "1", *TEXTS)

    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("CENTRA_ACTOR")
    found = read("import", file)
    assert found == {
        "digest": done["digest"],
        "changed": True,
        "backbones": [{"backbone": "tiny@1", "changed": True}],
        "tasks": [
            {
                "task": task,
                "version": "1.0",
                "change": "register",
                "forced": False,
                "current": "1.0",
                "state": "active",
            }
            for task in ("intent", "same", "slots")
        ],
        "release": {"release": 1, "digest": digest, "changed": True, "signatures": 0},
    }
    assert read("release", "verify", "1")["digest"] == digest
    assert answers("--release", "1", *TEXTS) == before
    assert read("channel", "list") == []
    assert {row["task"]: row["team"] for row in read("task", "list")} == {
        "intent": "nlu",
        "same": "quality",
        "slots": "dialog",
    }

    there = state(elsewhere)
    again = read("import", file)
    assert not again["changed"]
    assert state(elsewhere) == there


def test_what_people_read(home: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = centra("export", "tasks.tar", "--task", "intent@1.0", "--task", "slots")
    assert done.stdout == "tasks.tar\n"
    assert f"2 task(s), {(home / 'tasks.tar').stat().st_size:,} bytes" in done.stderr
    centra("export", "release.tar", "--release", "1")

    monkeypatch.chdir(elsewhere)
    found = centra("import", home / "tasks.tar", "--team", "platform", "--force")
    assert found.stdout.splitlines() == [
        "registered tiny@1",
        "registered intent@1.0",
        "registered slots@1.0",
    ]
    assert "imported\nforced: recorded in the audit log\n" in found.stderr
    found = centra("import", home / "release.tar", "--force")
    assert found.stdout.splitlines() == [
        "known      tiny@1",
        "known      intent@1.0",
        "registered same@1.0",
        "known      slots@1.0",
        "published  release 1",
    ]
    again = centra("import", home / "release.tar")
    assert again.stdout.splitlines()[-1] == "known      release 1"
    assert "nothing to do: all of it is here already" in again.stderr


def test_mistakes_have_their_exit_codes(
    home: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(home)
    refused("export", "x.tar", code=2, says="either --task")
    refused("export", "x.tar", "--task", "intent", "--release", "1", code=2, says="either --task")
    refused("export", "x.tar", "--task", "nope", code=3, says="no task 'nope'")
    refused("export", "x.tar", "--release", "7", code=3, says="no release '7'")
    refused("export", "centra.toml/x.tar", "--release", "1", code=4, says="cannot write")
    assert state(home) == before
    centra("export", tmp_path / "x.tar", "--release", "1")

    monkeypatch.chdir(elsewhere)
    before = state(elsewhere)
    refused("import", "missing.tar", code=3, says="no such file")
    refused("import", tmp_path / "x.tar", code=4, says="belongs to team")
    refused("import", tmp_path / "x.tar", "--team", "No!", code=2, says="team name")
    refused("import", tmp_path, code=6, says="Is a directory")
    refused("import", "centra.toml", code=6, says="cut off")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:-20_000])
    refused("import", tmp_path / "cut.tar", code=6, says="cut off")
    assert state(elsewhere) == before


def test_a_retired_task_conflicts(
    home: Path, elsewhere: Path, modules: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    centra("export", "first.tar", "--task", "intent")
    centra("task", "update", "intent", modules["intent update"])
    centra("export", "second.tar", "--task", "intent")

    monkeypatch.chdir(elsewhere)
    centra("import", home / "first.tar")
    centra("task", "retire", "intent")
    refused("import", home / "second.tar", code=5, says="task intent is retired")
    centra("task", "restore", "intent")
    (found,) = read("import", home / "second.tar")["tasks"]
    assert (found["version"], found["change"]) == ("1.1", "update")


def test_moving_tasks_imports_no_torch_and_signing_neither(
    home: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(tmp_path / "key")
    found = imported_by_commands(
        ("release", "sign", "1", "--key", str(key)),
        ("export", "release.tar", "--release", "1"),
        ("export", "intent.tar", "--task", "intent"),
        ("import", "release.tar"),
    )
    monkeypatch.chdir(elsewhere)
    found += imported_by_commands(("import", str(home / "intent.tar")))
    heavy = {"torch", "transformers"}
    assert [(code, imported & heavy) for _, code, imported in found] == [(0, set())] * 5
