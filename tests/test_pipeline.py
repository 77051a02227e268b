"""The example pipeline as teams run it: in processes of their own, on PostgreSQL and a real S3 server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from registry import Registry, backbones, releases, tasks
from registry.db import upgrade
from registry.promotion import promote
from tests import support
from tests.registry.helpers import acting
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from centra.task_module import TaskModule

CI = ROOT / "examples" / "ci"
TEAMS = {"intent": "nlu", "topic": "dialog", "mood": "care"}


@dataclass(frozen=True)
class Machine:
    """A folder with the example's files, and the environment that says where the registry is."""

    folder: Path
    environment: dict[str, str]

    def start(
        self, *words: str | Path, team: str = "ops", **variables: str
    ) -> subprocess.Popen[str]:
        """A command that runs from now on, as somebody of a team."""
        return subprocess.Popen(
            [str(word) for word in words],
            cwd=self.folder,
            env={**self.environment, "CENTRA_ACTOR": f"{team}/ci", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        """The registry, opened in this process."""
        where = (self.environment[f"CENTRA_{name}"] for name in ("DATABASE_URL", "STORE"))
        database, store = where
        registry = Registry.open(database=database, store=store, actor="ops/ci")
        yield registry
        registry.engine.dispose()

    def read(self, *words: str) -> Any:
        """The JSON that a command prints; it must succeed."""
        process = self.start("centra", *words, "--json")
        out, err = process.communicate()
        assert process.returncode == 0, err
        return json.loads(out)

    def ship(self, task: str, module: Path, data: Path, **variables: str) -> subprocess.Popen[str]:
        """The pipeline of a task's team, started."""
        reports = self.folder / f"reports-{task}-{module.stem}"
        reports.mkdir()
        return self.start(
            *("bash", CI / "ship.sh", task, module, data),
            team=TEAMS[task],
            REPORTS=str(reports),
            **variables,
        )

    def serving(self) -> dict[str, str]:
        """The version of each task in production."""
        tasks: dict[str, str] = self.read("release", "show", "production")["tasks"]
        return tasks


@pytest.fixture
def machine(tmp_path: Path, postgres_database: str, s3_url: str, warm_python: Path) -> Machine:
    """A machine of a CI system, whose ``centra`` does not import torch forty times."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(CI / "centra.toml", folder)
    command = tmp_path / "bin" / "centra"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {warm_python} -m cli "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join(
        map(str, [command.parent, Path(sys.executable).parent, os.environ["PATH"]])
    )
    where = {"CENTRA_DATABASE_URL": postgres_database, "CENTRA_STORE": s3_url, "PATH": path}
    return Machine(folder, {**os.environ, **where})


@pytest.fixture(scope="module")
def trained(
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    """Modules that have learnt the same task, the best last."""
    from centra.training.finetune import finetune
    from centra.training.recipe import Recipe

    folder = tmp_path_factory.mktemp("trained")
    made = []
    for seed in range(len(TEAMS) + 1):
        recipe = Recipe(tap=1, depth=2, epochs=12, learning_rate=3e-3, batch_size=16, seed=seed)
        module = finetune(
            tiny_backbone.spec,
            tiny_backbone.store,
            tiny_data("single"),
            recipe,
            work=folder / "work",
        )
        path = folder / f"trained-{seed}.safetensors"
        module.write(path)
        made.append((module.spec.metrics["accuracy"], path))
    assert min(made)[0] > 0.8
    return [path for _, path in sorted(made)]


@pytest.mark.timeout(900)  # Some forty processes, most of which load a model.
def test_three_teams_ship_at_once_a_worse_module_is_refused_and_a_bad_release_rolled_back(
    machine: Machine,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    make_module: Callable[..., TaskModule],
    trained: list[Path],
    tmp_path: Path,
) -> None:
    data = tiny_data("single")
    # The best comes last: it passes the gates after any of the others.
    *first, best = trained
    better = dict(zip(TEAMS, first, strict=True))
    with machine.registry() as registry:
        upgrade(registry.engine)
        backbones.register(registry, "tiny", str(tiny_backbone.folder))
        for seed, (task, team) in enumerate(TEAMS.items()):
            module = tmp_path / f"first-{task}.safetensors"
            make_module(seed=seed).write(module)
            tasks.register(acting(registry, f"{team}/ci"), task, module)
        releases.compose(registry, publish=True)
        promote(registry, "1", "production")

    # Three teams at the same moment.
    smoke = {"intent": {"SMOKE": str(CI / "smoke.sh")}}
    running = {
        task: machine.ship(task, module, data, **smoke.get(task, {}))
        for task, module in better.items()
    }
    for task, process in running.items():
        _, err = process.communicate()
        assert process.returncode == 0, f"{task}:\n{err}"
    assert machine.serving() == dict.fromkeys(TEAMS, "1.1")
    after_all = machine.read("channel", "show", "production")["release"]

    # A worse module does not get past the gates.
    worse = tmp_path / "worse.safetensors"
    make_module(seed=9).write(worse)
    process = machine.ship("mood", worse, data)
    out, err = process.communicate()
    assert process.returncode == 6, err
    assert re.search(r"\| drop accuracy \| mood \| at most 0.05 \| 0\.\d+ .* \| FAIL \|", out)
    report = ET.parse(machine.folder / "reports-mood-worse" / "gates.xml").getroot()
    assert [case.get("name") for case in report if case.find("failure") is not None] == [
        "drop accuracy mood"
    ]
    assert machine.read("channel", "show", "production")["release"] == after_all

    # A release that passes every gate but fails in production is rolled back.
    failing = tmp_path / "smoke.sh"
    failing.write_text('#!/bin/sh\ncase "$1" in *"#production") exit 1;; esac\n')
    failing.chmod(0o755)
    process = machine.ship("intent", best, data, SMOKE=str(failing))
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert "rolling back" in err
    assert machine.read("channel", "show", "production")["release"] == after_all

    # Whatever production has served on the way loads, and equals its modules.
    history = machine.read("channel", "history", "production")
    assert [row["kind"] for row in history] == ["rollback", *["promote"] * 5]
    for number in sorted({row["release"] for row in history}):
        parity = machine.read("release", "verify", str(number))["parity"]
        assert parity.keys() == TEAMS.keys()
    assert machine.read("audit", "verify")["events"] > 20


@pytest.mark.parametrize("name", ["ship.sh", "smoke.sh"])
def test_the_scripts_are_sound(name: str) -> None:
    subprocess.run(["bash", "-n", CI / name], check=True)
    assert os.access(CI / name, os.X_OK)


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_the_templates_run_commands_that_there_are(name: str) -> None:
    import click
    import yaml

    import cli

    text = (CI / name).read_text()
    assert "./ship.sh" in text
    assert yaml.safe_load(text)
    found = re.findall(r"(?<![\w/.-])centra ((?:[a-z-]+ )*[a-z-]+)", re.sub(r"#.*", "", text))
    commands = [words for words in found if words.split()[0] in cli._COMMANDS]
    assert commands
    for words in commands:
        group: click.Command = cli.main
        for word in words.split():
            if isinstance(group, click.Group):
                next_group = group.get_command(click.Context(group), word)
                assert next_group is not None, words
                group = next_group
