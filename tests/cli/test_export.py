"""``centra release export`` and ``centra task export``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from centra.exports import FORMATS
from centra.formats.decision import Decision
from centra.formats.head import HeadSpec
from tests.cli.helpers import centra

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule

SPANS = HeadSpec(words="spaces", tags=("O", "E-a", "S-a", "B-a", "I-a"))
ONNX = ("--format", "onnx", "--output", "out")


def test_a_release_is_written_whole_and_the_document_says_what(home: Path) -> None:
    printed = json.loads(centra("release", "export", "1", *ONNX, "--json").stdout)

    found = {str(p.relative_to(home / "out")) for p in (home / "out").rglob("*") if p.is_file()}
    assert found == printed["files"].keys() >= {"model.onnx", "manifest.json", "tokenizer.json"}
    assert printed["tasks"] == {"intent": "1.0", "same": "1.0", "slots": "1.0"}
    assert printed["parity"].keys() == printed["tasks"].keys()
    assert printed["release"] == 1
    assert [p.name for p in home.glob(".out*")] == []


def test_a_task_is_a_version_that_is_named_or_the_current_one(
    home: Path, modules: dict[str, Path]
) -> None:
    centra("task", "update", "intent", modules["intent update"])

    named = json.loads(centra("task", "export", "intent@1.0", *ONNX, "--json").stdout)
    current = centra("task", "export", "intent", "--format", "onnx", "--output", "now", "--json")

    assert named["tasks"] == {"intent": "1.0"}
    assert named["release"] is None
    assert json.loads(current.stdout)["tasks"] == {"intent": "1.1"}


def test_a_pulled_folder_is_exported_without_a_registry(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    centra("release", "pull", "1", "--output", "pulled")
    monkeypatch.chdir(home / "pulled")
    (home / "centra.toml").unlink()

    centra("release", "export", "./", "--format", "onnx", "--output", "../out")

    assert (home / "out" / "model.onnx").is_file()


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_what_exists_is_left_alone(home: Path, there: str) -> None:
    output = home / "out"
    match there:
        case "file":
            output.write_text("mine")
        case "folder":
            output.mkdir()
        case _:
            output.symlink_to("nowhere")

    refused = centra("release", "export", "1", *ONNX, code=5)

    assert "exists already" in refused.stderr
    assert there != "file" or output.read_text() == "mine"


def test_what_cannot_be_is_refused_with_words(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = centra("release", "export", "1", "--format", "gguf", "--output", "out", code=2)
    assert "onnx" in unknown.stderr
    missing = centra("task", "export", "nothing", *ONNX, code=3)
    assert "nothing" in missing.stderr
    with monkeypatch.context() as patch:
        patch.setattr("centra.exports.writing.importlib.util.find_spec", lambda _: None)
        lacking = centra("release", "export", "1", *ONNX, code=2)
        assert "pip install 'onnxruntime" in lacking.stderr
    assert not (home / "out").exists()


def test_a_failing_check_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("centra.exports.checking._TOLERANCE", 0.0)
    monkeypatch.setattr("numpy.allclose", lambda *_, **__: False)

    failed = centra("release", "export", "1", *ONNX, code=6)

    assert "differ by up to" in failed.stderr
    assert [path.name for path in home.iterdir() if "out" in path.name] == []


def test_every_format_is_named_in_the_help() -> None:
    shown = centra("release", "export", "--help").stdout
    assert all(name in shown for name in FORMATS)


def test_tasks_that_were_exported_for_transformers_are_taken_back_and_answer_alike(
    home: Path, make_module: Callable[..., TaskModule], modules: dict[str, Path]
) -> None:
    """Of every kind, and with decisions that no checkpoint has words for; these are in the manifest."""
    of_their_own: dict[str, dict[str, Any]] = {
        "sure": {"decision": Decision(rejection=0.4, template="query: {text}", max_length=6)},
        "any": {"decision": Decision(activation="sigmoid")},
        "topics": {"kind": "multilabel", "decision": Decision(threshold=(0.2, 0.5, 0.45))},
        "share": {"kind": "regression", "decision": Decision(activation="sigmoid"), "depth": 2},
        "spans": {"kind": "tagging", "labels": ("O", "B-a", "I-a"), "head": SPANS},
    }
    for name, options in of_their_own.items():
        make_module(**{"tap": 1} | options).write(home / f"{name}.safetensors")
        centra("task", "register", name, f"{name}.safetensors", "--team", "nlu")
    centra("task", "register", "stars", modules["stars"], "--team", "nlu")
    names = ["intent", "slots", "same", "stars", *of_their_own]
    for name in names:
        centra("task", "export", name, "--format", "hf", "--output", name)
        taken = centra("task", "register", f"{name}-again", name, "--team", "nlu")
        assert "taken for" not in taken.stderr
    centra("compose", "--release")

    for text in ("wake me at seven in new york, please", "is there snow"):
        for name in names:
            pair = ("--text-pair", "yes it is") if name == "same" else ()
            both = ("--task", name, "--task", f"{name}-again")
            found = json.loads(centra("predict", text, *pair, *both, "--json").stdout)
            assert found[f"{name}-again"] == found[name], name
