"""``centra store``, and a database and a store of two registries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from centra.store import LocalStore
from tests.cli.helpers import centra, read, refused, state

if TYPE_CHECKING:
    pass


@pytest.fixture
def theirs(tmp_path: Path, encoder: Path, modules: dict[str, Path]) -> Path:
    """The folder of another registry."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        centra("init")
        centra("backbone", "register", "tiny", encoder)
        centra("task", "register", "stars", modules["stars"])
        centra("compose", "--release")
        centra("channel", "move", "production", "1")
    return folder


def test_a_database_of_the_environment_and_a_store_of_another_registrys_file_change_nothing(
    home: Path,
    theirs: Path,
    modules: dict[str, Path],
    encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five live blobs went by ``gc --delete`` with exit code 0."""
    LocalStore(theirs / ".centra" / "store").put(b"litter")
    before = state(home), state(theirs)
    monkeypatch.chdir(theirs)
    monkeypatch.setenv("CENTRA_DATABASE_URL", str(home / ".centra" / "registry.db"))
    for command in (
        ("gc", "--grace", "0s", "--delete"),
        ("gc", "--grace", "0s"),
        ("task", "register", "new", modules["stars"]),
        ("task", "update", "intent", modules["intent update"]),
        ("task", "retire", "intent"),
        ("backbone", "register", "other", encoder),
        ("compose", "--release"),
        ("promote", "1", "--to", "production"),
        ("channel", "move", "staging", "1"),
        ("channel", "sync"),
        ("store", "copy", "../copied"),
        ("store", "move", "../moved"),
    ):
        refused(
            *command,
            code=5,
            says=(
                f"database {home / '.centra' / 'registry.db'} (from CENTRA_DATABASE_URL), registry ",
                f"store {theirs / '.centra' / 'store'} (from {theirs / 'centra.toml'}), of registry ",
                "Nothing was done; set database and store to those of one registry",
            ),
        )
    refused("store", "adopt", code=5, says="is the store of registry")
    assert (state(home), state(theirs)) == before
    assert "slots" in centra("task", "list").stdout
    assert "not of this one" in centra("store", "show").stdout
    found = centra("doctor", code=1).stdout
    assert "problem  identity" in found
    monkeypatch.delenv("CENTRA_DATABASE_URL")
    assert "removed: 1 file" in centra("gc", "--grace", "0s", "--delete").stdout


def test_a_store_is_shown_copied_moved_and_a_copy_is_adopted(
    home: Path, modules: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = read("store", "show")
    assert (shown["address"], shown["own"]) == (str(home / ".centra" / "store"), True)
    assert f"{shown['blobs']} blobs" in centra("store", "show").stdout
    assert ", which is this one\n" in centra("store", "show").stdout
    assert (
        f"copied to {home / 'mirror'}: {shown['blobs']} blobs"
        in centra("store", "copy", "mirror").stdout
    )
    assert read("store", "copy", "mirror")["blobs"] == 0
    monkeypatch.setenv("CENTRA_STORE", "mirror")
    assert ": a copy\n" in centra("store", "show").stdout
    refused("task", "retire", "intent", code=5, says="a copy of this registry's")
    monkeypatch.delenv("CENTRA_STORE")

    moved = centra("store", "move", "moved")
    assert f"moved to {home / 'moved'}: {shown['blobs']} blobs" in moved.stdout
    assert f"set the store to {home / 'moved'} in {home / 'centra.toml'}" in moved.stderr
    assert "already moved" in centra("store", "move", "moved").stdout
    refused("task", "retire", "intent", code=5, says=f"set the store to {home / 'moved'}")
    assert f"moved to {home / 'moved'}" in centra("store", "show").stdout
    monkeypatch.setenv("CENTRA_STORE", "moved")
    assert centra("store", "move", "moved").stderr == ""
    centra("task", "register", "stars", modules["stars"])

    monkeypatch.setenv("CENTRA_STORE", "mirror")
    refused("store", "adopt", code=5, says=("lacks 1 of the", "--incomplete"))
    adopted = centra("store", "adopt", "--incomplete")
    assert "is now this registry's store" in adopted.stdout
    assert "lacks 1 blobs" in adopted.stderr
    centra("task", "register", "stars", modules["stars"])
    again = centra("store", "adopt")
    assert "is already this registry's store" in again.stdout
    assert again.stderr == ""


def test_a_place_that_is_taken_is_refused(home: Path, theirs: Path) -> None:
    before = state(home), state(theirs)
    for verb in ("copy", "move"):
        refused("store", verb, theirs / ".centra" / "store", code=5, says="the store of registry")
    refused("store", "copy", ".centra/store", code=5, says="own store")
    refused("store", "copy", "ftp://x/y", code=2, says="expected a folder or s3://")
    assert (state(home), state(theirs)) == before


def test_nothing_can_be_written_while_a_store_is_not_mounted(
    home: Path, modules: dict[str, Path]
) -> None:
    store = home / ".centra" / "store"
    store.rename(home / "away")
    before = state(home)
    refused("gc", "--delete", code=5, says=("which is empty", "mount the store"))
    refused("task", "register", "stars", modules["stars"], code=5, says="which is empty")
    refused("store", "adopt", code=5, says="lacks")
    assert state(home) == before
    assert not store.exists()
    (home / "away").rename(store)
    assert read("task", "register", "stars", modules["stars"])["changed"]
