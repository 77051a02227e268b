"""The README as a newcomer follows it: every command, in its order, in an empty folder.

A command that is added to it fails here until it is run here.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.helpers import centra, read
from tests.serving.servers import running
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.task_module import TaskModule

README = (ROOT / "README.md").read_text(encoding="utf-8")
ELSEWHERE = {
    "make demo": "test_examples.py runs the demo",
    "make test": "what is running now",
    'curl -s localhost:8080/v1/predict -d {"inputs": ["wake me at seven"]}': "beside the server",
}
"""Commands that are run in another place."""
SMALLER = {"--tap": "1", "--depth": "1"}
"""What suits an encoder of three layers."""
QUICKER = {"fit": ["--jobs", "1"], "bench": ["--batch", "1", "--length", "8", "--rounds", "3"]}


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[list[str]]:
    """Every command of every block, as words; comments are left out."""
    for block in blocks("sh"):
        for line in block.splitlines():
            if words := shlex.split(line, comments=True):
                yield words


COMMANDS = list(commands())
OURS = [words[1:] for words in COMMANDS if words[0] == "centra"]


def test_every_command_is_of_a_sort_that_is_run_here() -> None:
    others = [words for words in COMMANDS if words[0] not in ("centra", "export", "pip")]
    assert {" ".join(words) for words in others} <= ELSEWHERE.keys()
    assert len(OURS) > 15


PIP = [words for words in COMMANDS if words[0] == "pip"]


def test_torch_comes_first_in_the_version_that_is_tested() -> None:
    first, *others = PIP
    assert first[-1] in (ROOT / "constraints.txt").read_text().splitlines()
    assert len(others) == 2


@pytest.mark.parametrize("words", PIP[1:], ids=" ".join)
def test_pip_understands_its_lines(words: list[str], tmp_path: Path) -> None:
    """All but fetching what we depend on: the place is found, built, and has these extras."""
    for name in ("_centra_command.py", "centra", "cli", "registry", "migrations", "examples"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", *words),
            *("--dry-run", "--no-deps", "--no-build-isolation", "--ignore-installed"),
            *("--disable-pip-version-check", "--no-index"),
        ],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Would install centra-" in done.stdout
    assert "does not provide the extra" not in done.stderr


def make_checkpoint(encoder: Path, folder: Path) -> None:
    """Write what somebody fine-tuned elsewhere: the last layer of an encoder, and a head."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3)
    with torch.no_grad():
        for parameter in model.bert.encoder.layer[2].parameters():
            parameter.add_(0.1)
    model.config.id2label = {0: "glad", 1: "sad", 2: "calm"}
    model.config.label2id = {"glad": 0, "sad": 1, "calm": 2}
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)


def write_requests(data: Path, file: Path) -> None:
    """Write labelled rows as a team has them: one file, and columns of other names."""
    rows = [json.loads(line) for part in data.iterdir() for line in part.read_text().splitlines()]
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["id", "utterance", "intent"])
        writer.writerows([number, row["text"], row["label"]] for number, row in enumerate(rows))


@pytest.fixture
def followed(
    make_encoder: Callable[[str], Path],
    make_module: Callable[..., TaskModule],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """An empty folder but for the files that the README takes for granted."""
    folder = tmp_path / "work"
    folder.mkdir()
    write_requests(tiny_data("single"), folder / "requests.csv")
    make_module(seed=1).write(folder / "better.safetensors")
    labels = ("alarm", "music", "weather", "news")
    make_module(labels=labels, seed=2).write(folder / "more-labels.safetensors")
    shutil.copytree(make_encoder("bert"), folder / "sentence-transformers" / "all-MiniLM-L6-v2")
    make_checkpoint(make_encoder("bert"), folder / "my-hf-checkpoint")
    (folder / "calls.csv").write_text("id,text\n1,wake me at seven\n")
    (recipe,) = blocks("toml")
    (folder / "intent.toml").write_text(
        f"{recipe}[search]\nlayers = [2, 2]\nlearning_rates = [3e-4]\n"
        "[distill]\nlayers = [1]\n[training]\nepochs = 1\n"
    )
    for name in ("CENTRA_DATABASE_URL", "CENTRA_STORE", "CENTRA_ACTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    return folder


def test_a_newcomer_who_follows_it_gets_there(
    followed: Path, small_floor: None, monkeypatch: pytest.MonkeyPatch, postgres_database: str
) -> None:
    given = {"CENTRA_DATABASE_URL": postgres_database}
    for words in COMMANDS:
        match words:
            case ["export", setting]:
                name, _, value = setting.partition("=")
                if name in given:  # From here on it is another registry.
                    assert read("channel", "show", "production")["release"] == 4
                    assert answered_from_python() == ["intent"]
                monkeypatch.setenv(name, given.get(name, value))
            case ["centra", "serve", *args]:
                with running(*args) as server:
                    answer = server.client.post(
                        "/v1/predict", json={"inputs": ["wake me at seven"]}
                    )
                    assert answer.json()["answers"][0]["tasks"]["intent"]["version"]
            case ["centra", *args]:
                centra(*scaled(args))
    monkeypatch.undo()
    assert len(list(followed.glob("*.safetensors"))) == 3


def scaled(args: list[str]) -> list[str]:
    """A command with its numbers of layers as they suit the tiny encoder."""
    before = ["", *args]
    found = [SMALLER.get(option, arg) for option, arg in zip(before, args, strict=False)]
    return found + QUICKER.get(args[0], [])


def answered_from_python() -> list[str]:
    """The tasks that the README's Python answers for."""
    (code,) = blocks("python")
    lines = code.replace("release.predict", "answers = release.predict")
    names: dict[str, Any] = {}
    exec(lines, names)
    (answer,) = names["answers"]
    return list(answer)
