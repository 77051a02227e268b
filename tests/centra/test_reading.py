"""Files that others made: what is no regular file is refused at once, wherever one is expected."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from centra.checkpoints.backbone import import_backbone
from centra.checkpoints.conversion import convert
from centra.checkpoints.saved_model import read_config, read_headers
from centra.data.content import read_content
from centra.data.inputs import read_examples
from centra.data.labels import read_labels
from centra.errors import CentraError, DataError, FormatError, StoreError
from centra.formats.task_module import check_module, read_spec
from centra.formats.tensors import map_tensors, read_raw
from centra.releases.folder import ReleaseFolder
from centra.releases.folder_writing import check_target, write_folder
from centra.releases.signing import verify_release
from centra.store import LocalStore
from centra.system.reading import check_links, open_regular, read_regular
from centra.system.snapshot import copy_model
from centra.training.plan import Plan
from centra.training.select import read_scores
from registry.settings import Settings
from registry.transfer.archive import unpack
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule


@pytest.fixture(scope="module")
def released(
    make_module: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ReleaseManifest, Path]:
    """A release and its folder, not to be changed."""
    root = tmp_path_factory.mktemp("released")
    store = LocalStore(root / "store")
    support.copy_backbone(tiny_backbone, store)
    manifest = support.put_release({"intent": make_module()}, [tiny_backbone.spec], store)
    write_folder(manifest, store, root / "folder")
    return manifest, root / "folder"


@pytest.fixture
def folder(released: tuple[ReleaseManifest, Path], tmp_path: Path) -> Path:
    """A release's folder, of the test's own."""
    return Path(shutil.copytree(released[1], tmp_path / "release"))


def make(what: str, path: Path) -> Path:
    """Put something that is no file at a path."""
    path.unlink(missing_ok=True)
    match what:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(path))  # An absolute path may be too long for one.
        case "folder":
            path.mkdir()
    return path


odd = pytest.mark.parametrize("what", ["pipe", "device", "socket", "folder"])

READERS: dict[str, Callable[[Path], object]] = {
    "module": check_module,
    "header": read_spec,
    "tensors": read_raw,
    "mapped": map_tensors,
    "examples": read_examples,
    "labels": read_labels,
    "recipe": Plan.read,
    "scores": read_scores,
    "export": lambda path: unpack(path, LocalStore(path.parent / "unpacked")),
}


@odd
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_where_one_is_named(
    reader: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = make(what, tmp_path / "x")

    with pytest.raises(CentraError, match=what if what != "folder" else "(?i)folder|directory"):
        READERS[reader](path)


@odd
def test_a_key_that_is_no_file_is_refused(
    what: str,
    released: tuple[ReleaseManifest, Path],
    store: LocalStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(CentraError, match=what if what != "folder" else "directory"):
        verify_release(released[0], store, [make(what, tmp_path / "key.pem")])


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_settings_that_are_no_file_are_refused_and_not_passed_over(
    what: str, tmp_path: Path
) -> None:
    (tmp_path / "centra.toml").write_text('database = "a.db"\nstore = "s"\n')
    below = tmp_path / "below"
    below.mkdir()
    make(what, below / "centra.toml")

    with pytest.raises(CentraError, match=f"is a {what}"):
        Settings.load(folder=below)


@pytest.mark.parametrize("what", ["pipe", "device", "socket"])
@pytest.mark.parametrize(
    "name", ["SHA256SUMS", "release.json", "config.json", "tasks/intent.safetensors", "model.sig"]
)
def test_what_is_no_file_in_a_release_folder_is_refused(
    name: str, what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    make(what, folder / name)

    with pytest.raises(FormatError, match=f"{name}: is a {what}"):
        ReleaseFolder.open(folder)


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_a_blob_or_pointer_that_is_no_file_is_no_store_to_read(
    what: str, store: LocalStore
) -> None:
    digest = store.put(b"blob")
    store.write_pointer("production", b"{}")
    make(what, store.path(digest))
    make(what, store.root / "channels" / "production.json")
    make(what, store.root / "store.json")

    with pytest.raises(StoreError, match=f"is a {what}"):
        store.fetch(digest)
    with pytest.raises(StoreError, match=f"is a {what}"):
        store.read_pointer("production")
    with pytest.raises(StoreError, match=f"is a {what}"):
        store.read_document()


@pytest.mark.parametrize("what", ["pipe", "device", "socket"])
@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "adapter_config.json"],
)
def test_what_is_no_file_in_a_checkpoint_is_refused(
    name: str, what: str, encoder: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(encoder)
    make(what, encoder / name)

    with pytest.raises(FormatError, match=f"{name}: is a {what}"):
        import_backbone(str(encoder), store)
    with pytest.raises(FormatError, match=f"{name}: is a {what}"):
        convert(encoder, {}, store)


def test_a_file_that_is_longer_than_can_be_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(11))

    assert len(read_regular(tmp_path / "x", 11)) == 11
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_regular(tmp_path / "x", 10)


def test_a_name_that_no_file_can_have_is_an_error_like_others(tmp_path: Path) -> None:
    for name in ("a\0b", "a\ud800"):
        with pytest.raises(OSError, match=r"no file can have this name|No such file"):
            open_regular(tmp_path / name)
    with pytest.raises(CentraError, match="no file can have this name"):
        read_labels(tmp_path / "a\0b")


# Links


def test_a_link_that_leads_out_of_a_release_folder_is_refused(folder: Path) -> None:
    outside = folder.parent / "outside"
    (folder / "tasks").rename(outside)
    (folder / "tasks").symlink_to(outside)

    for opened in (ReleaseFolder.open, check_target):
        with pytest.raises(FormatError, match=r"release/tasks: is a link to .*outside"):
            opened(folder)


@pytest.mark.parametrize("name", ["release.json", "tasks/intent.safetensors", "model.sig"])
def test_a_linked_file_outside_of_a_release_folder_is_refused(name: str, folder: Path) -> None:
    outside = folder.parent / "outside"
    (folder / name).rename(outside) if name != "model.sig" else outside.touch()
    (folder / name).symlink_to(outside)

    with pytest.raises(FormatError, match=f"{name}: is a link to .*outside"):
        ReleaseFolder.open(folder)


def test_links_inside_a_release_folder_and_to_it_are_good(folder: Path) -> None:
    module = folder / "tasks" / "intent.safetensors"
    module.rename(folder / "tasks" / "other.safetensors")
    module.symlink_to("other.safetensors")
    (folder.parent / "current").symlink_to(folder.name)

    ReleaseFolder.open(folder.parent / "current").verify()


def test_nothing_outside_is_removed_where_a_listed_folder_is_a_link(
    folder: Path, released: tuple[ReleaseManifest, Path], tiny_backbone: support.Backbone
) -> None:
    manifest, reader = released[0], ReleaseFolder.open(released[1])
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "old.safetensors").write_bytes(b"mine")
    (folder / "more").symlink_to(outside)
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  more/old.safetensors\n")

    with pytest.raises(FormatError, match="more: is a link"):
        write_folder(manifest, reader, folder)
    assert (outside / "old.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt"])
def test_a_checkpoint_takes_no_file_from_elsewhere(
    name: str, encoder: Path, checkpoint: Path, store: LocalStore, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    for folder in (encoder, checkpoint):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(secret)

    with pytest.raises(FormatError, match=f"{name}: is a link to .*secret, outside"):
        import_backbone(str(encoder), store)
    with pytest.raises(FormatError, match=f"{name}: is a link to .*secret, outside"):
        convert(checkpoint, {}, store)
    assert not store.root.exists()


def test_a_snapshot_of_a_hub_cache_links_to_its_own_blobs(encoder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--team--tiny"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    shutil.copytree(encoder, repository / "blobs")
    for path in encoder.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")

    with copy_model(str(snapshot)) as copy:
        assert read_config(copy)["model_type"] == "bert"
        assert read_headers(copy).keys() == read_headers(str(encoder)).keys()

    (snapshot / "vocab.txt").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch()
    with pytest.raises(FormatError, match="elsewhere, outside"), copy_model(str(snapshot)):
        pass


def test_links_to_folders_beside_the_files_of_a_checkpoint_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "runs").symlink_to("/tmp")
    (tmp_path / "model" / "self").symlink_to(".")

    check_links(tmp_path / "model")
    check_links(tmp_path / "model" / "self")


def test_data_that_are_no_file_are_refused_before_their_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a pipe"):
        read_content(make("pipe", tmp_path / "train.jsonl"))


@pytest.mark.parametrize(
    "path",
    [
        "tasks/a\0b",
        "../x",
        "/etc/passwd",
        "tasks/../../x",
        "a\rb",
        "a b",
        "./release.json",
        "a//b",
        "x" * 300,
        "tasks/é",
        ".hidden",
    ],
)
def test_a_path_that_no_release_has_is_malformed(path: str, folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a", newline="") as sums:
        sums.write(f"{'0' * 64}  {path}\n")

    with pytest.raises(FormatError, match="SHA256SUMS: malformed line"):
        ReleaseFolder.open(folder)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{'0' * 63}  x", "malformed line"),
        (f"{'A' * 64}  x", "malformed line"),
        (f"{'0' * 64}  release.json", "lists release.json twice"),
        ("", "malformed line"),
    ],
)
def test_a_list_of_digests_says_each_once(line: str, says: str, folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{line}\n")

    with pytest.raises(FormatError, match=says):
        ReleaseFolder.open(folder)
