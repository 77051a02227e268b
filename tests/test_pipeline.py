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

from centra.data.inputs import fingerprint
from registry import Registry, backbones, policies, releases, tasks
from registry.database.migrations import upgrade
from registry.promotion import promote
from registry.settings import Rules
from tests import support
from tests.registry.helpers import acting
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from centra.formats.task_module import TaskModule

CI = ROOT / "examples" / "ci"
TEAMS = {"intent": "nlu", "topic": "dialog", "mood": "care"}


@dataclass(frozen=True)
class Machine:
    """A folder, and the environment that says where the registry is."""

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

    def run(self, script: str, *, team: str = "nlu", **variables: str) -> tuple[int, str, str]:
        """A CI system's step: its exit code and what it printed."""
        process = self.start("bash", "-e", "-c", script, team=team, **variables)
        out, err = process.communicate()
        return process.returncode, out, err

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
    from centra.training.recipe import Recipe
    from centra.training.train import train_module

    folder = tmp_path_factory.mktemp("trained")
    made = []
    for seed in range(len(TEAMS) + 1):
        recipe = Recipe(tap=1, depth=2, epochs=12, learning_rate=3e-3, batch_size=16, seed=seed)
        module = train_module(
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


def apply_policy(registry: Registry, data: Path, **limits: float) -> None:
    """Put the example's policy in force, with a table for each task's data and other limits."""
    rules = Rules.read(CI / "policy.toml")
    production = rules.tables["channels"]["production"]
    example = production["measured"].pop("intent")
    known = {row.name for row in tasks.list(registry)}
    digest = fingerprint([(data / "test.jsonl").read_bytes()])
    production["measured"] = {task: {**example, "data": digest} for task in known}
    production["max_drop"]["*"].update(limits)
    policies.apply(acting(registry, "release/eve"), rules)


def held_out(source: Path, folder: Path) -> Path:
    """A copy of a folder of data with a ``test.jsonl`` of its own."""
    shutil.copytree(source, folder)
    lines = (folder / "dev.jsonl").read_text().splitlines(keepends=True)
    (folder / "test.jsonl").write_text("".join(reversed(lines)))
    return folder


@pytest.mark.timeout(900)  # Some forty processes, most of which load a model.
def test_three_teams_ship_at_once_a_worse_module_is_refused_and_a_bad_release_rolled_back(
    machine: Machine,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    make_module: Callable[..., TaskModule],
    trained: list[Path],
    tmp_path: Path,
) -> None:
    data = held_out(tiny_data("single"), tmp_path / "data")
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
        apply_policy(registry, data)

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


# The templates, in the layout that they describe


@pytest.fixture
def repository(
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    make_module: Callable[..., TaskModule],
    tmp_path: Path,
    warm_python: Path,
) -> Machine:
    """A team's repository in the layout of the templates, and a registry that serves a first release.

    ``pip`` writes down what it is asked for; ``centra`` is there already.
    """
    root = tmp_path / "repository"
    held_out(tiny_data("single"), root / "data")
    for name in ("ship.sh", "smoke.sh"):
        shutil.copy(CI / name, root)
    place = tmp_path / "elsewhere"
    place.mkdir()
    with_registry(place, root / "data", tiny_backbone, make_module, tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {
        "centra": f'#!/bin/sh\nexec {warm_python} -m cli "$@"\n',
        "pip": f'#!/bin/sh\nprintf "%s\\n" "$@" >>{tmp_path}/pip.txt\n',
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    path = os.pathsep.join(map(str, [tools, Path(sys.executable).parent, os.environ["PATH"]]))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CENTRA_")}
    return Machine(root, {**clean, "PATH": path, "CENTRA_CACHE": str(tmp_path / "cache")})


def with_registry(
    place: Path,
    data: Path,
    backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
    scratch: Path,
) -> None:
    """A registry as ``centra init`` makes it, with a first release in production, and the policy."""
    registry = Registry.create(place, actor="nlu/ci")
    backbones.register(registry, "minilm", str(backbone.folder))
    make_module(seed=1).write(scratch / "first.safetensors")
    tasks.register(registry, "intent", scratch / "first.safetensors")
    releases.compose(registry, publish=True)
    promote(registry, "1", "production")
    apply_policy(registry, data)
    registry.engine.dispose()


def steps_of(name: str) -> list[tuple[str, dict[str, str]]]:
    """The scripts of a template in their order, with the variables of each."""
    import yaml

    found = yaml.safe_load((CI / name).read_text())
    if name == "github-actions.yml":
        job = found["jobs"]["ship"]
        return [
            (step["run"], {**job["env"], **step.get("env", {})})
            for step in job["steps"]
            if "run" in step
        ]
    return [
        (
            "\n".join([*found["default"]["before_script"], *found[job]["script"]]),
            {**found["variables"], **found[job].get("variables", {})},
        )
        for job in found["stages"]
    ]


TEMPLATES = pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])


@TEMPLATES
def test_a_template_ships_what_it_trains(name: str, repository: Machine, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    known = {
        "CENTRA_DATABASE_URL": f"sqlite:///{place}/.centra/registry.db",
        "CENTRA_STORE": str(place / ".centra" / "store"),
        "CENTRA_ACTOR": "nlu/ci",
        "CENTRA_PACKAGE": "centra[train] @ git+https://git.example.com/ml/centra@v0.1.0",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    for script, variables in steps_of(name):
        assert "centra[" not in script, "the index has another centra"
        small = script.replace("--tap 4 --depth 2", "--tap 1 --depth 2 --learning-rate 3e-3")
        code, out, err = repository.run(small, **{**variables, **known})
        assert code == 0, f"{small}\n{out}\n{err}"
    asked = (tmp_path / "pip.txt").read_text()
    assert known["CENTRA_PACKAGE"] in asked
    assert "| PASS |" in (repository.folder / "gates.md").read_text().upper()
    serving = Machine(repository.folder, {**repository.environment, **known}).serving()
    assert serving == {"intent": "1.1"}


@TEMPLATES
@pytest.mark.parametrize("package", [None, ""])
def test_a_template_installs_nothing_unless_it_is_told_from_where(
    name: str, package: str | None, repository: Machine, tmp_path: Path
) -> None:
    (install, _), *_ = steps_of(name)
    given = {} if package is None else {"CENTRA_PACKAGE": package}
    code, _, err = repository.run(install, **given)
    assert code != 0
    assert "set the variable CENTRA_PACKAGE" in err
    assert not (tmp_path / "pip.txt").exists()


# ship.sh by itself


def shipped(
    repository: Machine, tmp_path: Path, data: str = "data", **variables: str
) -> tuple[int, str]:
    """Ship a second module from a repository whose ``centra.toml`` ``init`` has begun."""
    script = f"./ship.sh intent {tmp_path}/first.safetensors {data}"
    code, _, err = repository.run(script, **variables)
    return code, err


@pytest.fixture
def begun(repository: Machine, tmp_path: Path) -> Machine:
    """The repository where ``init`` was run."""
    for made in (tmp_path / "elsewhere").iterdir():
        shutil.move(made, repository.folder / made.name)
    return repository


def test_it_finds_the_store_that_init_wrote_down_and_rolls_back_what_fails(
    begun: Machine, make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    make_module(seed=3).write(tmp_path / "first.safetensors")
    smoke = tmp_path / "smoke"
    smoke.write_text(
        f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\n[ "$(wc -l <{tmp_path}/asked)" = 1 ]\n'
    )
    smoke.chmod(0o755)
    registry = Registry.open(folder=begun.folder)
    apply_policy(registry, begun.folder / "data", accuracy=1)
    registry.engine.dispose()
    code, err = shipped(begun, tmp_path, SMOKE=str(smoke))
    assert code == 1, err
    assert "rolling back" in err
    number, served = (tmp_path / "asked").read_text().split()
    assert (number, served) == ("2", f"{begun.folder}/.centra/store#production")
    assert begun.serving() == {"intent": "1.0"}


@pytest.mark.parametrize(
    ("data", "says"),
    [("data/dev.jsonl", "told training when to stop"), ("nowhere", "there is no nowhere")],
)
def test_it_measures_on_no_rows_that_training_has_seen(
    begun: Machine, tmp_path: Path, data: str, says: str
) -> None:
    code, err = shipped(begun, tmp_path, data)
    assert code == 2
    assert says in err
    assert begun.read("channel", "show", "production")["revision"] == 1


def test_another_error_is_not_taken_for_a_task_that_is_not_there(
    begun: Machine, tmp_path: Path
) -> None:
    real = shutil.which("centra", path=begun.environment["PATH"])
    tools = tmp_path / "broken"
    tools.mkdir()
    (tools / "centra").write_text(
        f'#!/bin/sh\ncase "$1 $2" in "task show") echo "no database" >&2; exit 1;; '
        f'"task "*) touch {tmp_path}/changed;; esac\nexec {real} "$@"\n'
    )
    (tools / "centra").chmod(0o755)
    path = os.pathsep.join([str(tools), begun.environment["PATH"]])
    code, err = shipped(begun, tmp_path, PATH=path)
    assert code == 1
    assert "no database" in err
    assert not (tmp_path / "changed").exists()


def test_a_promotion_that_fails_after_production_has_moved_is_rolled_back(
    begun: Machine, make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    make_module(seed=3).write(tmp_path / "first.safetensors")
    registry = Registry.open(folder=begun.folder)
    apply_policy(registry, begun.folder / "data", accuracy=1)
    registry.engine.dispose()
    real = shutil.which("centra", path=begun.environment["PATH"])
    tools = tmp_path / "broken"
    tools.mkdir()
    (tools / "centra").write_text(
        f'#!/bin/sh\n{real} "$@" || exit $?\n'
        'case "$*" in "promote 2 --to production"*) exit 1;; esac\n'
    )
    (tools / "centra").chmod(0o755)
    path = os.pathsep.join([str(tools), begun.environment["PATH"]])
    code, err = shipped(begun, tmp_path, PATH=path)
    assert code == 1, err
    assert "production fails with release 2; rolling back" in err
    steps = [row["kind"] for row in begun.read("channel", "history", "production")]
    assert steps == ["rollback", "promote", "promote"]
    assert begun.serving() == {"intent": "1.0"}
