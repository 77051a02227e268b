"""A registry with three teams' tasks and one release, made once a session and copied per test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from centra.formats.task_module import HeadSpec
from tests import support
from tests.cli.helpers import centra

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder without any registry, where nlu/ada works."""
    for name in ("CENTRA_DATABASE_URL", "CENTRA_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CENTRA_ACTOR", "nlu/ada")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture(scope="session")
def modules(
    make_module: Callable[..., TaskModule], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Module files by what they are for."""
    never = HeadSpec(activation="tanh", threshold=2.0)
    made = {
        "intent": make_module(metrics={"accuracy": 0.9}),
        "intent update": make_module(metrics={"accuracy": 0.95, "macro_f1": 0.5}, seed=1),
        "intent redefinition": make_module(labels=("alarm", "music", "snow"), seed=2),
        "slots": make_module("tagging", tap=2, seed=4),
        "same": make_module(form="pair", labels=("agrees", "denies"), depth=2),
        "topics": make_module("multilabel"),
        "no topics": make_module("multilabel", head=never),
        "stars": make_module("regression", tap=0),
        "no spans": make_module("tagging", labels=("O",)),
    }
    folder = tmp_path_factory.mktemp("modules")
    files = {what: folder / f"{what.replace(' ', '-')}.safetensors" for what in made}
    for what, module in made.items():
        module.write(files[what])
    return files


@pytest.fixture(scope="session")
def encoder(make_encoder: Callable[[str], Path]) -> Path:
    """The folder of the encoder that the registry's backbone ``tiny@1`` comes from."""
    return make_encoder("bert")


@pytest.fixture(scope="session")
def checkpoint(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fine-tuned checkpoint that kept the embeddings and layers 1 and 2 frozen."""
    return support.frozen_checkpoint(encoder, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def template(
    modules: dict[str, Path], encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of the registry that each test gets a copy of."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CENTRA_ACTOR", "nlu/ada")
        for name in ("CENTRA_DATABASE_URL", "CENTRA_STORE"):
            patch.delenv(name, raising=False)
        centra("init")
        centra("backbone", "register", "tiny", encoder)
        centra("task", "register", "intent", modules["intent"])
        centra("--actor", "dialog/bob", "task", "register", "slots", modules["slots"])
        centra("--actor", "quality/cy", "task", "register", "same", modules["same"])
        centra("compose", "--release")
    return folder


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, a registry: intent, slots and same are released as release 1."""
    folder = tmp_path / "home"
    support.mirror(template, folder)
    monkeypatch.chdir(folder)
    return folder
