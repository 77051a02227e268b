"""The installed command among files that have the names of its own packages and libraries."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT
from tests.test_wheel import pip

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = ("cli", "registry", "centra", "migrations")
LIBRARIES = ("alembic", "click", "torch", "numpy", "sqlalchemy", "pydantic", "transformers", "yaml")
STANDARD = ("json", "queue", "random", "socket", "typing")
FOREIGN = 'raise SystemExit("a foreign module was imported: " + __file__)\n'
ODD = "odd %2F#? ä'\"$(x);[a]{b}*\\"


def fill(folder: Path, *names: str) -> Path:
    """A folder with modules of these names that end whoever imports them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.py").write_text(FOREIGN)
    return folder


def with_packages(folder: Path) -> Path:
    """The same as packages, with a module that ours have, too."""
    for name in PACKAGES:
        fill(folder / name, "__init__", "errors", "env")
    return folder


def program(path: str, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run what the console script runs, in a folder, with a PYTHONPATH."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CENTRA_")}
    code = "import sys; from _centra_command import run; sys.argv[0] = 'centra'; sys.exit(run())"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *args],
        check=False,
        cwd=folder,
        env={**environment, "PYTHONPATH": path, "CENTRA_ACTOR": "nlu/ada"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("kind", "place"), [("modules", "both"), ("packages", "path"), ("packages", "here")]
)
def test_what_lies_around_is_not_imported_in_place_of_ours(
    tmp_path: Path, kind: str, place: str
) -> None:
    around = tmp_path / "repository"
    if kind == "packages":
        with_packages(around)
    else:
        fill(around, *PACKAGES, *LIBRARIES, *STANDARD)
    here = around if place != "path" else tmp_path
    # An empty entry, as 'PYTHONPATH=$PYTHONPATH:…' leaves it, is the working folder.
    path = "" if place == "here" else f"{os.pathsep}{around}"
    made = program(path, here, "init")
    assert made.returncode == 0, made.stdout + made.stderr
    assert (here / "centra.toml").is_file()
    found = program(path, here, "db", "check")
    assert (found.returncode, found.stderr) == (0, "database and code agree\n")


def test_the_module_form_passes_over_the_working_folder(tmp_path: Path) -> None:
    """Python itself has then found ``cli``, and no more than that."""
    here = fill(tmp_path, "registry", "centra", "migrations", *LIBRARIES)
    done = subprocess.run(
        [sys.executable, "-m", "cli", "init"],
        check=False,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_start_up_file_that_has_imported_another_registry_changes_nothing(
    tmp_path: Path,
) -> None:
    around = tmp_path / "repository"
    around.mkdir()
    (around / "registry.py").write_text("theirs = True\n")
    (around / "sitecustomize.py").write_text("import registry\nassert registry.theirs\n")
    done = program(str(around), tmp_path, "init")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_pythonpath_alone_has_is_found(tmp_path: Path) -> None:
    """As where all libraries are given in this way."""
    around = tmp_path / "repository"
    around.mkdir()
    (around / "only_there.py").write_text("value = 7\n")
    code = "import _centra_command, only_there; print(only_there.value)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(around)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "7\n"


def test_workers_of_training_import_ours_too(tmp_path: Path) -> None:
    around = fill(tmp_path / "repository", *PACKAGES, *STANDARD)
    code = (
        "import _centra_command, sys\n"
        "from centra.training.engines import LocalEngine\n"
        "if __name__ == '__main__':\n"
        "    print(dict(LocalEngine(2).map(repr, [1, 2])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        check=False,
        cwd=around,
        env={**os.environ, "PYTHONPATH": f"{os.pathsep}{around}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == {0: "1", 1: "2"}  # as they are done


@pytest.fixture(scope="module")
def oddly_installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with odd characters in its name, with the wheel installed in it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (file,) = folder.glob("*.whl")
    target = folder / ODD
    pip("install", "--no-deps", "--no-compile", "--target", target, file)
    return target


def test_it_works_from_a_folder_with_odd_characters(oddly_installed: Path, tmp_path: Path) -> None:
    """Its own migrations, too; and before a foreign ``cli`` on the same path."""
    around = fill(tmp_path / "repository", *PACKAGES)
    path = os.pathsep.join([str(around), str(oddly_installed)])
    code = (
        "import sys; from _centra_command import run; import registry; print(registry.__file__);"
        "sys.argv[0] = 'centra'; sys.exit(run())"
    )
    for command in (("init",), ("db", "check")):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *command],
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(str(oddly_installed))
    assert done.stderr == "database and code agree\n"
