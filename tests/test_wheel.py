"""The wheel works where the checkout is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.database.migrations import SCHEMA
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]


def pip(*args: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *args]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-compile", "--target", folder, wheel)
    return folder


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """A call that runs Python in an empty folder, with the installed wheel and its dependencies.

    ``-S`` leaves out the ``.pth`` files, and with them the checkout of an editable installation.
    """
    places = [
        installed,
        *map(Path, dict.fromkeys(sysconfig.get_path(p) for p in ("purelib", "platlib"))),
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CENTRA_")},
        "PYTHONPATH": os.pathsep.join(map(str, places)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CENTRA_ACTOR": "nlu/ada",
    }

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-S", *args],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_the_wheel_holds_all_that_runs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for package in ("centra", "registry", "cli", "migrations")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".mako", ".typed", ".html", ".css", ".js", ".svg")
    }
    corpus = {
        str(Path("cli") / path.relative_to(ROOT / "examples"))
        for path in (ROOT / "examples" / "assistant").rglob("*")
        if path.is_file()
    }
    for name in ("migrations/script.py.mako", "migrations/env.py", "centra/py.typed"):
        assert name in expected
    assert len([name for name in corpus if name.endswith(".jsonl")]) == 6
    inside = {name for name in names if not re.match(r"centra-[^/]*\.(dist-info|data)/", name)}
    assert inside == expected | corpus | {"_centra_command.py"}


def test_the_wheel_is_what_runs(run: Run, installed: Path) -> None:
    code = "import centra, cli, migrations, registry\n"
    code += "for module in (centra, cli, migrations, registry): print(module.__file__)"
    files = run("-c", code).stdout.split()
    assert [Path(file).parent.parent for file in files] == [installed] * 4


def test_an_installed_centra_makes_checks_and_lists_a_registry(run: Run, tmp_path: Path) -> None:
    run("-m", "cli", "init")
    assert (tmp_path / "centra.toml").is_file()
    assert run("-m", "cli", "db", "check").stderr == "database and code agree\n"
    assert run("-m", "cli", "db", "current").stdout == f"{SCHEMA}\n"
    assert run("-m", "cli", "task", "list", "--json").stdout == "[]\n"
    assert run("-m", "cli", "--version").stdout.startswith("centra, version ")


def test_an_installed_centra_has_its_demo_and_the_corpus(run: Run, installed: Path) -> None:
    assert "Usage: centra demo" in run(str(installed / "bin" / "centra"), "demo", "--help").stdout
    place = run("-c", "from cli.demo import _corpus; print(_corpus())").stdout.strip()
    assert Path(place) == installed / "cli" / "assistant"
