"""Release folders: complete in themselves, readable by others, refused with one bit flipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from centra.data.inputs import Input
from centra.errors import (
    BlobNotFoundError,
    CentraError,
    CorruptBlobError,
    FormatError,
    StoreNotWritableError,
    UnsupportedFormatError,
)
from centra.families import family_named
from centra.formats.documents import canonical_json, sha256
from centra.formats.manifest import ReleaseManifest
from centra.modeling.trunk import Trunk
from centra.releases.find import find_release
from centra.releases.folder import ReleaseFolder, is_begun
from centra.releases.folder_writing import listing, write_folder
from centra.runtime import load_release
from centra.store import LocalStore
from centra.system.files import file_digest
from centra.tokenization.text_encoder import TextEncoder
from tests import support
from tests.families import TINY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from centra.formats.task_module import TaskModule


@pytest.fixture(scope="module")
def modules(make_module: Callable[..., TaskModule]) -> dict[str, TaskModule]:
    return {
        "intent": make_module("classification", tap=1, depth=1, seed=1),
        "slots": make_module("tagging", tap=2, depth=0, seed=2),
    }


@pytest.fixture
def compose(
    backbone_store: LocalStore, modules: dict[str, TaskModule], tiny_backbone: support.Backbone
) -> Callable[..., ReleaseManifest]:
    """A manifest of the usual tasks with changes; None leaves a task out."""

    def compose(**changed: TaskModule | None) -> ReleaseManifest:
        chosen = {name: m for name, m in (modules | changed).items() if m is not None}
        return support.put_release(chosen, [tiny_backbone.spec], backbone_store)

    return compose


@pytest.fixture
def folder(
    compose: Callable[..., ReleaseManifest], backbone_store: LocalStore, tmp_path: Path
) -> Path:
    write_folder(compose(), backbone_store, tmp_path / "release")
    return tmp_path / "release"


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def resummed(folder: Path) -> None:
    """Write SHA256SUMS anew, as someone would who forges a release."""
    names = sorted(files_of(folder) - {"SHA256SUMS"})
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


# What a folder holds


def test_folder_holds_what_the_manifest_names_and_no_more(folder: Path) -> None:
    manifest = ReleaseFolder.open(folder).manifest

    assert files_of(folder) == {
        *manifest.files(),
        "release.json",
        "SHA256SUMS",
        "config.json",
        "model.safetensors.index.json",
    }
    assert sum("layer-" in name for name in manifest.files()) == 2
    assert (folder / "release.json").read_bytes() == manifest.to_bytes()


def test_sha256sum_agrees(folder: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=False
    )
    assert done.returncode == 0
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == files_of(folder) - {"SHA256SUMS"}


def test_folder_s_bytes_do_not_depend_on_where_it_is_written(
    folder: Path, compose: Callable[..., ReleaseManifest], backbone_store: LocalStore
) -> None:
    write_folder(compose(), backbone_store, folder.parent / "again")

    assert files_of(folder) == files_of(folder.parent / "again")
    for name in files_of(folder):
        assert (folder / name).read_bytes() == (folder.parent / "again" / name).read_bytes()


def test_folder_is_complete_in_itself(
    folder: Path, backbone_store: LocalStore, tmp_path: Path
) -> None:
    expected = load_release(folder).predict(["play some jazz"])
    shutil.rmtree(backbone_store.root)
    folder.rename(tmp_path / "elsewhere")

    assert load_release(tmp_path / "elsewhere").predict(["play some jazz"]) == expected


def test_folder_can_be_written_from_a_folder(folder: Path, tmp_path: Path) -> None:
    opened = ReleaseFolder.open(folder)

    write_folder(opened.manifest, opened, tmp_path / "copy")

    assert load_release(tmp_path / "copy").digest == opened.manifest.digest


def test_relative_folder_opens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert load_release("release").tasks == ["intent", "slots"]
    monkeypatch.chdir(folder)
    assert load_release(".").tasks == ["intent", "slots"]


@pytest.mark.parametrize(
    "family", [*support.FAMILIES, "albert", "deberta-v3", "mpnet", "nomic-bert"]
)
def test_transformers_loads_the_trunk(
    family: str,
    imported: Callable[[str], support.Backbone],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backbone = imported(family)
    store = LocalStore(tmp_path / "store")
    support.copy_backbone(backbone, store)
    module = support.make_module("classification", backbone.spec, backbone.store, tap=2, depth=1)
    manifest = support.put_release({"intent": module}, [backbone.spec], store)
    write_folder(manifest, store, tmp_path / "release")
    pooler = (
        {} if family_named(backbone.spec.family).pooler is None else {"add_pooling_layer": False}
    )

    model, loading = transformers.AutoModel.from_pretrained(
        tmp_path / "release", output_loading_info=True, **pooler
    )

    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    encoder = TextEncoder.of(backbone.spec, store)
    _, batch = encoder.batch([Input("go to rome"), Input("play some jazz, please")])
    inputs = {name: torch.from_numpy(array) for name, array in vars(batch).items()}
    known = dict(inputs)
    if not backbone.spec.token_types:
        del known["token_type_ids"]
    with torch.inference_mode():
        theirs = model.eval()(**known, output_hidden_states=True).hidden_states
        ours = Trunk(backbone.spec, store, depth=2)(**inputs, taps=[0, 1, 2])
    assert len(theirs) == 3
    real, near = inputs["attention_mask"].bool(), 0 if TINY[family].exact else 1e-5
    assert all((ours[tap] - theirs[tap])[real].abs().max() <= near for tap in ours)


def test_a_trunk_without_the_norm_behind_the_last_layer_is_no_model_of_transformers(
    imported: Callable[[str], support.Backbone], store: LocalStore
) -> None:
    """Which would make that norm up."""
    spec = support.copy_backbone(imported("modernbert"), store)

    def files(tap: int) -> set[str]:
        module = support.make_module("classification", spec, store, tap=tap, depth=0)
        return {*listing(support.put_release({"task": module}, [spec], store), store)}

    whole = {"config.json", "model.safetensors.index.json"}
    assert whole <= files(spec.num_layers)
    assert not whole & files(spec.num_layers - 1)


def test_two_backbones_lie_side_by_side(
    imported: Callable[[str], support.Backbone], store: LocalStore, tmp_path: Path
) -> None:
    bert, electra = imported("bert"), imported("electra")
    modules = {
        "old": support.make_module("classification", bert.spec, bert.store),
        "new": support.make_module("tagging", electra.spec, electra.store),
    }
    for backbone in (bert, electra):
        support.copy_backbone(backbone, store)
    manifest = support.put_release(modules, [bert.spec, electra.spec], store)

    write_folder(manifest, store, tmp_path / "release")

    loaded = load_release(tmp_path / "release")
    assert loaded.predict(["go"])[0].keys() == {"old", "new"}
    assert not {"config.json", "model.safetensors.index.json"} & files_of(tmp_path / "release")
    assert len([*(tmp_path / "release" / "backbone").iterdir()]) == 2


# Writing


def test_writing_again_writes_no_blob(
    folder: Path, compose: Callable[..., ReleaseManifest], backbone_store: LocalStore
) -> None:
    blobs = {name: (folder / name).stat() for name in compose().files()}

    written = write_folder(compose(), backbone_store, folder)

    assert written < 10_000
    for name, before in blobs.items():
        after = (folder / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_writing_a_later_release_rewrites_only_what_changed(
    folder: Path,
    compose: Callable[..., ReleaseManifest],
    backbone_store: LocalStore,
    make_module: Callable[..., TaskModule],
) -> None:
    before = {name: (folder / name).stat().st_ino for name in compose().files()}
    (folder / "notes.txt").write_text("mine")
    later = compose(slots=make_module("tagging", tap=1, depth=0, seed=5), intent=None)

    write_folder(later, backbone_store, folder)

    after = {name: (folder / name).stat().st_ino for name in later.files()}
    assert {name for name in after if after[name] != before[name]} == {"tasks/slots.safetensors"}
    assert before.keys() - after.keys() == {
        "tasks/intent.safetensors",
        next(name for name in before if "layer-02" in name),
    }
    expected = {*later.files(), "release.json", "SHA256SUMS", "notes.txt"}
    assert files_of(folder) == expected | {"config.json", "model.safetensors.index.json"}
    assert load_release(folder).tasks == ["slots"]


def test_damaged_file_is_mended_by_writing_again(
    folder: Path, compose: Callable[..., ReleaseManifest], backbone_store: LocalStore
) -> None:
    support.flip(folder / "tasks" / "slots.safetensors", 999)
    (folder / "tasks" / "intent.safetensors").unlink()

    write_folder(compose(), backbone_store, folder)

    assert load_release(folder).tasks == ["intent", "slots"]


def test_writing_reports_each_file(
    compose: Callable[..., ReleaseManifest], backbone_store: LocalStore, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []

    write_folder(compose(), backbone_store, tmp_path / "x", lambda *call: seen.append(call))

    assert seen == [("write files", i, len(seen)) for i in range(1, len(seen) + 1)]
    assert len(seen) >= len(compose().files())


@pytest.mark.parametrize("name", ["precious.txt", "release.json", "sub/precious.txt"])
def test_folder_that_is_no_release_is_refused_and_left_alone(
    name: str,
    compose: Callable[..., ReleaseManifest],
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    target = tmp_path / "mine" / name
    target.parent.mkdir(parents=True)
    target.write_text("precious")

    with pytest.raises(FormatError, match="is not a release folder"):
        write_folder(compose(), backbone_store, tmp_path / "mine")

    assert files_of(tmp_path / "mine") == {name}
    assert target.read_text() == "precious"


def test_foreign_folder_with_checksums_of_its_own_is_refused_and_left_alone(
    compose: Callable[..., ReleaseManifest], backbone_store: LocalStore, tmp_path: Path
) -> None:
    """Downloads often lie beside a SHA256SUMS; its files are not ours to remove."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.iso").write_text("precious")
    resummed(tmp_path / "mine")

    with pytest.raises(FormatError):
        write_folder(compose(), backbone_store, tmp_path / "mine")

    assert files_of(tmp_path / "mine") == {"precious.iso", "SHA256SUMS"}


def test_file_in_the_way_is_refused(
    compose: Callable[..., ReleaseManifest], backbone_store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")

    with pytest.raises(FormatError, match="is not a release folder"):
        write_folder(compose(), backbone_store, tmp_path / "file")
    with pytest.raises(StoreNotWritableError):
        write_folder(compose(), backbone_store, tmp_path / "file" / "below")


def test_blob_that_the_store_lost_is_named(
    compose: Callable[..., ReleaseManifest], backbone_store: LocalStore, tmp_path: Path
) -> None:
    manifest = compose()
    digest = manifest.tasks["slots"].digest
    backbone_store.fetch(digest).unlink()

    with pytest.raises(BlobNotFoundError, match=digest):
        write_folder(manifest, backbone_store, tmp_path / "release")


@pytest.mark.parametrize("after", [1, 2, 5, 8])
def test_interrupted_write_is_no_release_and_is_finished_by_a_rerun(
    after: int,
    compose: Callable[..., ReleaseManifest],
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    manifest, root = compose(), tmp_path / "release"

    def stop(_what: str, done: int, _total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(manifest, backbone_store, root, stop)
    with pytest.raises(CentraError):
        load_release(root)

    write_folder(manifest, backbone_store, root)

    assert load_release(root).digest == manifest.digest


def test_interrupted_update_is_no_release_and_is_finished_by_a_rerun(
    folder: Path,
    compose: Callable[..., ReleaseManifest],
    backbone_store: LocalStore,
    make_module: Callable[..., TaskModule],
) -> None:
    """Also where the rerun writes another release than the one that was interrupted."""
    interrupted = compose(extra=make_module(seed=7), slots=None)
    final = compose(intent=make_module(tap=0, depth=1, seed=8))

    def stop(_what: str, done: int, total: int) -> None:
        if done == total - 1:  # Only the manifest is missing.
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(interrupted, backbone_store, folder, stop)
    with pytest.raises(CentraError):
        load_release(folder)

    write_folder(final, backbone_store, folder)

    assert load_release(folder).digest == final.digest
    small = {"release.json", "SHA256SUMS", "config.json", "model.safetensors.index.json"}
    assert files_of(folder) == {*final.files(), *small}


# Damage


class Killed(BaseException):
    """What stands for SIGKILL: nothing is tidied up after it."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Die at the call with this number, counted from 0, of all that change a folder in a block."""
    calls = count()

    def dying(change: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **options: Any) -> None:
            if next(calls) >= step:
                raise Killed
            change(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("mkdir", "replace", "rmdir", "unlink"):
            patch.setattr(os, name, dying(getattr(os, name)))
        yield


@pytest.mark.parametrize("over", ["nothing", "an earlier release", "a folder that was begun"])
def test_killed_at_any_step_it_is_no_release_and_a_rerun_leaves_nothing_behind(
    over: str,
    folder: Path,
    compose: Callable[..., ReleaseManifest],
    backbone_store: LocalStore,
    make_module: Callable[..., TaskModule],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)  # Not what is tested, but what takes long.
    old = load_release(folder).digest
    later = compose(extra=make_module(tap=0, seed=7), slots=None)
    for digest, number in ((old, 3), (later.digest, 2)):
        for signature in range(number):
            backbone_store.write_signature(digest, b"%d of %s" % (signature, digest.encode()))
    write_folder(compose(), backbone_store, folder)
    assert (folder / "signatures" / "3.sig").is_file()
    expected = {*listing(later, backbone_store), "model.sig", "signatures/2.sig"}
    for step in count():
        root = tmp_path / str(step)
        if over == "an earlier release":
            shutil.copytree(folder, root)
        elif over != "nothing":
            root.mkdir()
            (root / "tasks").mkdir()
            (root / ".SHA256SUMS.abcd_fg8").write_bytes(b"half")
            (root / "tasks" / ".extra.safetensors.abcd_fg8").write_bytes(b"half")
        try:
            with killed_at(step):
                write_folder(later, backbone_store, root)
        except Killed:
            pass
        else:
            break
        if is_begun(root):
            try:
                assert find_release(root).digest in (old, later.digest)
            except FormatError as error:
                assert "pull the release again" in str(error)

        write_folder(later, backbone_store, root)

        assert files_of(root) == expected
        assert all(any(path.iterdir()) for path in root.rglob("*") if path.is_dir())
        ReleaseFolder.open(root).verify()
        shutil.rmtree(root)
    assert step > 20


def test_two_processes_write_one_folder_in_turns(
    folder: Path,
    compose: Callable[..., ReleaseManifest],
    backbone_store: LocalStore,
    make_module: Callable[..., TaskModule],
) -> None:
    releases = [compose(extra=make_module(seed=seed)) for seed in range(4)]

    with ThreadPoolExecutor(len(releases)) as pool:
        list(pool.map(lambda one: write_folder(one, backbone_store, folder), releases))

    ReleaseFolder.open(folder).verify()
    assert not [name for name in files_of(folder) if Path(name).name.startswith(".")]


@pytest.mark.parametrize(
    "name", [".notes.txt.abcd_fg8", "tasks/mine.safetensors", ".SHA256SUMS.long_enough", "own/.x.y"]
)
def test_folder_with_something_else_in_it_is_refused_whatever_it_looks_like(
    name: str, compose: Callable[..., ReleaseManifest], backbone_store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "mine"
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("precious")
    (root / ".SHA256SUMS.abcd_fg8").write_bytes(b"half")

    with pytest.raises(FormatError, match="is not a release folder"):
        write_folder(compose(), backbone_store, root)

    assert files_of(root) == {name, ".SHA256SUMS.abcd_fg8"}


def test_folder_of_which_nothing_is_listed_yet_is_no_release(tmp_path: Path) -> None:
    (tmp_path / ".SHA256SUMS.abcd_fg8").write_bytes(b"half")

    with pytest.raises(FormatError, match="pull the release again"):
        load_release(tmp_path)


@pytest.fixture(scope="module")
def damaged(
    modules: dict[str, TaskModule],
    tiny_backbone: support.Backbone,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder to damage and to mend again."""
    root = tmp_path_factory.mktemp("damaged")
    store = LocalStore(root / "store")
    support.copy_backbone(tiny_backbone, store)
    twice = modules | {"intent_copy": modules["intent"]}
    manifest = support.put_release(twice, [tiny_backbone.spec], store)
    write_folder(manifest, store, root / "release")
    load_release(root / "release")
    return root / "release"


def refused_with_flipped(folder: Path, name: str, bit: int) -> None:
    support.flip(folder / name, bit)
    try:
        with pytest.raises(CentraError):
            load_release(folder)
    finally:
        support.flip(folder / name, bit)


@given(data=st.data())
def test_release_with_any_flipped_bit_does_not_load(data: st.DataObject, damaged: Path) -> None:
    name = data.draw(st.sampled_from(sorted(files_of(damaged))), label="file")
    bit = data.draw(st.integers(0, 8 * (damaged / name).stat().st_size - 1), label="bit")

    refused_with_flipped(damaged, name, bit)


@pytest.mark.parametrize(
    "name",
    [
        "release.json",
        "config.json",
        "model.safetensors.index.json",
        "tasks/intent.safetensors",
        "tasks/intent_copy.safetensors",
        "tasks/slots.safetensors",
        "backbone/*/backbone.json",
        "backbone/*/embeddings.safetensors",
        "backbone/*/layer-01.safetensors",
        "backbone/*/layer-02.safetensors",
        "tokenizer/*/tokenizer.json",
        "tokenizer/*/tokenizer_config.json",
    ],
)
def test_release_with_a_damaged_or_missing_file_does_not_load(name: str, damaged: Path) -> None:
    (path,) = damaged.glob(name)
    before = path.read_bytes()
    for content in (before[:-1], before + b"\n", b"", None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        try:
            with pytest.raises(CentraError):
                load_release(damaged)
        finally:
            path.write_bytes(before)
    load_release(damaged)


def test_every_bit_of_the_line_ends_and_spaces_of_the_checksums_counts(damaged: Path) -> None:
    data = (damaged / "SHA256SUMS").read_bytes()
    for place in (i for i, byte in enumerate(data) if byte in b" \n"):
        for bit in range(8):
            refused_with_flipped(damaged, "SHA256SUMS", 8 * place + bit)


def test_verify_names_a_damaged_file(folder: Path) -> None:
    ReleaseFolder.open(folder).verify()
    support.flip(folder / "tasks" / "slots.safetensors", 5000)

    with pytest.raises(
        CorruptBlobError, match=r"slots\.safetensors is corrupt.*pull the release again"
    ):
        ReleaseFolder.open(folder).verify()


def test_missing_manifest_is_no_release(folder: Path) -> None:
    (folder / "release.json").unlink()

    with pytest.raises(FormatError, match=r"release\.json is missing.*pull the release again"):
        load_release(folder)


def test_missing_checksums_are_refused(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()

    with pytest.raises(FormatError, match="SHA256SUMS: missing"):
        load_release(folder)


def test_checksums_that_leave_a_file_out_are_refused(folder: Path) -> None:
    sums = folder / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    for left_out in ("tasks/slots.safetensors", "release.json"):
        sums.write_text("".join(line for line in lines if left_out not in line))
        with pytest.raises(FormatError, match="SHA256SUMS"):
            load_release(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_checksums_cannot_point_outside(name: str, folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")

    with pytest.raises(FormatError, match="malformed line"):
        load_release(folder)


@pytest.mark.parametrize("line", ["", "nonsense", "0" * 64, f"{'0' * 64} one-space"])
def test_malformed_checksums_are_refused(line: str, folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(line + "\n")

    with pytest.raises(FormatError, match="malformed line"):
        load_release(folder)


def forged(folder: Path, **fields: object) -> None:
    manifest = json.loads((folder / "release.json").read_bytes()) | fields
    (folder / "release.json").write_bytes(canonical_json(manifest))
    resummed(folder)


def test_manifest_of_another_major_version_is_refused(folder: Path) -> None:
    forged(folder, format_version="2.0")

    with pytest.raises(UnsupportedFormatError, match=r"centra/release 2\.0.*centra/release 1\.x"):
        load_release(folder)


def test_manifest_that_names_another_file_is_refused(folder: Path) -> None:
    tasks = json.loads((folder / "release.json").read_bytes())["tasks"]
    tasks["intent"]["digest"] = sha256(b"another")
    forged(folder, tasks=tasks)

    with pytest.raises(FormatError, match="does not list the files"):
        load_release(folder)


def test_manifest_cannot_make_write_folder_leave_its_folder(
    compose: Callable[..., ReleaseManifest], backbone_store: LocalStore, tmp_path: Path
) -> None:
    fields = json.loads(compose().to_bytes())
    fields["tasks"] = {"../../evil": fields["tasks"]["intent"]}

    with pytest.raises(CentraError):
        manifest = ReleaseManifest.from_bytes(canonical_json(fields), "release.json")
        write_folder(manifest, backbone_store, tmp_path / "a" / "release")

    assert not [*tmp_path.rglob("evil*")]
