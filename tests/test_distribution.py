"""Wheel and sdist: the same bytes from the same sources, sound metadata, and a man page for each command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from tests.cli.helpers import commands
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""The licence's text as its publisher has it."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """What one build has made."""

    wheel: Path
    sdist: Path

    def pages(self) -> dict[str, bytes]:
        """The man pages by their names."""
        archive = zipfile.ZipFile(self.wheel)
        return {
            name.rpartition("/")[2].removesuffix(".1"): archive.read(name)
            for name in archive.namelist()
            if "/data/share/man/man1/" in name
        }

    def metadata(self) -> dict[str, str]:
        archive = zipfile.ZipFile(self.wheel)
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return dict(message_from_bytes(archive.read(name)))


def build(source: Path, target: Path, **environment: str) -> Built:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target)]
    subprocess.run(command, cwd=source, env={**os.environ, **environment}, check=True)
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Built(wheel=wheel, sdist=sdist)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A build of this checkout."""
    return build(ROOT, tmp_path_factory.mktemp("dist"), SOURCE_DATE_EPOCH="1700000000")


def test_the_sdist_holds_all_that_it_takes_and_builds_the_same_bytes(
    built: Built, tmp_path: Path
) -> None:
    """In another folder, at other times and with other rights, too."""
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for path in source.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (1e9, 1e9))
    again = build(
        source,
        tmp_path / "dist",
        SOURCE_DATE_EPOCH="1700000000",
        PYTHONHASHSEED="7",
        TZ="Asia/Tokyo",
        COLUMNS="60",
    )
    assert again.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.sdist.read_bytes() == built.sdist.read_bytes()


def test_the_sdist_holds_what_is_committed(built: Built) -> None:
    """All but what only a checkout, and the forge that holds it, have a use for."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    with tarfile.open(built.sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    committed = {*listed.stdout.split("\0")} - {""}
    left_out = {name for name in committed if name.startswith((".ci/", ".github/"))}
    assert committed - left_out - held == set()


@pytest.mark.parametrize("command", [("twine", "check", "--strict"), ("check_wheel_contents",)])
def test_checkers_of_packages_have_nothing_against_them(
    built: Built, command: tuple[str, ...]
) -> None:
    files = [built.wheel, built.sdist] if command[0] == "twine" else [built.wheel]
    done = subprocess.run(
        [sys.executable, "-m", *command, *map(str, files)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_says_its_licence_and_holds_it(built: Built) -> None:
    assert built.metadata()["License-Expression"] == "Apache-2.0"
    archive = zipfile.ZipFile(built.wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/licenses/LICENSE"))
    assert sha256(archive.read(name)).hexdigest() == APACHE_2


def test_every_package_of_the_wheel_is_typed(built: Built) -> None:
    names = zipfile.ZipFile(built.wheel).namelist()
    packages = {name.partition("/")[0] for name in names if name.endswith("/__init__.py")}
    assert {f"{package}/py.typed" for package in packages} <= {*names}
    assert packages == {"centra", "cli", "migrations", "registry"}


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_each_command_has_a_man_page_that_shows_all_of_its_help(built: Built) -> None:
    pages = built.pages()
    expected = {context.command_path.replace(" ", "-"): context for context in commands()}
    assert pages.keys() == expected.keys()
    names = sorted(pages)
    done = subprocess.run(
        ["groff", "-k", "-man", "-T", "utf8", "-P", "-cbou", "-rHY=0", "-ww"],
        input=b"".join(pages[name] for name in names),
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    shown = {*done.stdout.decode().split()}
    said = {word for name in names for word in str(expected[name].command.help).split()}
    assert {word for word in said - {"\b"} if word not in shown} == set()
