"""What is checked, stored and recorded are the bytes of one private copy."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from centra.data.inputs import fingerprint
from centra.errors import CentraError, FormatError, UsageError
from centra.formats.task_module import TaskModule, check_module
from centra.releases.compose import ComposeError
from centra.system.files import file_digest
from centra.system.snapshot import opened
from centra.training.task_data import TaskData
from registry import backbones, evaluations, releases, signatures, tasks, transfer
from registry.tasks import Checkpoint
from tests import support
from tests.registry.helpers import Registries, blob_path, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry import Registry
    from tests.registry.helpers import Sqlite


@pytest.fixture(scope="module")
def places(
    sqlite_databases: Sqlite, template_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registries]:
    """Registries on SQLite: what is read of files has nothing to do with the database."""
    folder = tmp_path_factory.mktemp("databases")
    with closing(Registries(sqlite_databases, template_store, folder)) as places:
        yield places


@pytest.fixture
def registry(places: Registries, tmp_path: Path) -> Iterator[Registry]:
    with places.lend(tmp_path) as registry:
        yield registry


@pytest.fixture
def target(places: Registries, tmp_path: Path) -> Iterator[Registry]:
    with places.lend(tmp_path) as registry:
        yield registry


def hooked(
    patch: pytest.MonkeyPatch, target: str, change: Callable[[], object], *, first: bool = False
) -> None:
    """Let something happen once, right after a function has been called, or right before."""
    module, _, name = target.rpartition(".")
    original = getattr(__import__(module, fromlist=[name]), name)
    left = [change]

    def wrapped(*args: Any, **options: Any) -> Any:
        if first and left:
            left.pop()()
        found = original(*args, **options)
        if left:
            left.pop()()
        return found

    patch.setattr(target, wrapped)


def replace(path: Path, data: bytes) -> None:
    """Put other bytes in a file's place in one step."""
    other = path.with_name(f"{path.name}.new")
    other.write_bytes(data)
    other.replace(path)


@pytest.fixture
def pair(module: Callable[..., Path]) -> tuple[bytes, bytes]:
    """Two modules of other labels."""
    return module().read_bytes(), module(labels=("B", "A"), seed=1).read_bytes()


@pytest.fixture
def checkpoint(encoders: dict[str, support.Backbone], tmp_path: Path) -> Path:
    """A fine-tuned checkpoint on the backbone tiny."""
    return fine_tuned(encoders["tiny"].folder, tmp_path / "checkpoint")


def fine_tuned(encoder: Path, folder: Path, seed: int = 0) -> Path:
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3)
    with torch.no_grad():
        model.classifier.weight.normal_(generator=torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(encoder / name, folder)
    return folder


def recorded(registry: Registry, name: str) -> tuple[str, list[str]]:
    """The digest and the labels of a task, whose blob must be a sound module of just these."""
    (row,) = tasks.show(registry, name).versions
    found = check_module(blob_path(registry, row.digest))
    assert (found.digest, list(found.spec.labels)) == (row.digest, list(row.labels))
    return row.digest, list(row.labels)


# A module's file


@pytest.mark.parametrize("way", [replace, Path.write_bytes], ids=["replaced", "written to"])
@pytest.mark.parametrize("step", ["read_header", "read_raw", "check_finite", "file_digest"])
def test_a_file_that_changes_while_it_is_checked_is_registered_as_it_was(
    step: str,
    way: Callable[[Path, bytes], object],
    registry: Registry,
    pair: tuple[bytes, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "module.safetensors"
    file.write_bytes(pair[0])
    before = file_digest(file)
    hooked(
        monkeypatch, f"centra.formats.task_module.{step}", lambda: way(file, pair[1]), first=True
    )
    tasks.register(registry, "intent", file)
    assert file.read_bytes() == pair[1]
    assert recorded(registry, "intent") == (before, ["alarm", "music", "weather"])


def test_a_file_that_is_replaced_all_the_time_is_one_of_the_two(
    registry: Registry, pair: tuple[bytes, bytes], tmp_path: Path
) -> None:
    file, twin = tmp_path / "module.safetensors", tmp_path / "twin"
    twin.write_bytes(pair[0])
    file.write_bytes(pair[0])
    tasks.register(registry, "a", file)
    replace(file, pair[1])
    tasks.register(registry, "b", file)
    whole = [recorded(registry, name) for name in "ab"]
    found: list[Any] = []
    with replacing_always(file, pair):
        for number in range(40):
            try:
                tasks.register(registry, f"task-{number}", file)
            except FormatError as error:
                assert str(file) in str(error)
            else:
                found.append(recorded(registry, f"task-{number}"))
    assert all(each in whole for each in found)
    assert found


@contextmanager
def replacing_always(file: Path, versions: tuple[bytes, ...]) -> Iterator[None]:
    """Put one version after the other in a file's place, or into it, from another thread."""
    done = threading.Event()

    def work() -> None:
        number = 0
        while not done.is_set():
            number += 1
            data = versions[number % len(versions)]
            # Mostly whole, and now and then in the middle of being written.
            file.write_bytes(data) if number % 5 == 0 else replace(file, data)

    thread, before = threading.Thread(target=work), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(before)


def test_what_is_written_to_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    with pytest.raises(FormatError, match="file: was changed while"), opened(file):
        file.write_bytes(b"other")
    with opened(file) as whole:
        replace(file, b"third")
        assert whole.read() == b"other"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_is_no_file_is_refused_without_waiting_for_it(
    what: str, registry: Registry, tmp_path: Path
) -> None:
    path = Path("/dev/zero")
    if what == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    for take in (
        lambda: tasks.register(registry, "intent", path),
        lambda: transfer.import_file(registry, path),
    ):
        with refused(registry, FormatError, f"{path}: cannot be read (is a {what}"):
            take()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").symlink_to(path)
    says = f"{folder}/config.json: is a {what}"
    with refused(registry, FormatError, says):
        tasks.register(registry, "intent", folder)
    with refused(registry, FormatError, says):
        backbones.register(registry, "more", str(folder))


def test_errors_name_the_user_s_file_and_not_the_copy(
    registry: Registry, module: Callable[..., Path], checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "broken.safetensors"
    file.write_bytes(module().read_bytes()[:-1])
    (checkpoint / "model.safetensors").write_bytes(b"noise")
    for source in (file, checkpoint):
        with pytest.raises(FormatError) as caught:
            tasks.register(registry, "intent", source)
        assert str(caught.value).startswith(str(source))
        assert "/centra-" not in str(caught.value)


# A checkpoint's folder


@pytest.mark.parametrize(
    "step",
    [
        "centra.checkpoints.fine_tuned.read_config",
        "centra.checkpoints.fine_tuned.read_headers",
        "centra.checkpoints.conversion.load",
        "centra.checkpoints.conversion.check_same_tokenizer",
    ],
)
def test_a_folder_that_changes_while_it_is_read_is_registered_as_it_was(
    step: str,
    registry: Registry,
    encoders: dict[str, support.Backbone],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks.register(registry, "before", checkpoint)
    other = fine_tuned(encoders["tiny"].folder, tmp_path / "other", seed=1)

    def change() -> None:
        replace(checkpoint / "model.safetensors", (other / "model.safetensors").read_bytes())
        replace(checkpoint / "config.json", b"{}")
        replace(checkpoint / "tokenizer.json", b"noise")

    hooked(monkeypatch, step, change)
    tasks.register(registry, "meanwhile", checkpoint, checkpoint=Checkpoint(form="single"))
    assert recorded(registry, "meanwhile") == recorded(registry, "before")


def test_an_encoder_that_changes_while_it_is_read_is_registered_as_it_was(
    registry: Registry,
    encoders: dict[str, support.Backbone],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(encoders["tiny"].folder, folder)
    hooked(
        monkeypatch,
        "centra.checkpoints.backbone.read_headers",
        lambda: replace(folder / "model.safetensors", b""),
    )
    outcome = backbones.register(registry, "again", folder)
    assert (outcome.backbone.digest, outcome.changed) == (encoders["tiny"].spec.digest, False)


def test_a_folder_of_which_one_file_is_replaced_while_others_are_copied_is_refused(
    registry: Registry, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (checkpoint / "config.json").read_bytes()
    hooked(
        monkeypatch,
        "centra.system.snapshot.copy_file",
        lambda: replace(checkpoint / "config.json", config),
    )
    with refused(registry, FormatError, f"{checkpoint}/config.json: was changed while"):
        tasks.register(registry, "intent", checkpoint)


# Other files


def test_an_export_that_is_replaced_is_recorded_by_the_bytes_that_were_read(
    registry: Registry,
    target: Registry,
    module: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks.register(registry, "intent", module())
    file = tmp_path / "intent.tar"
    exported = transfer.export_file(registry, file, references=["intent"])
    hooked(
        monkeypatch, "registry.transfer.archive.unpack", lambda: replace(file, b"something else")
    )
    assert transfer.import_file(target, file).digest == exported.digest


def test_what_is_measured_on_is_what_the_record_names(
    registry: Registry,
    module: Callable[..., Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    data = Path(shutil.copy(tiny_data("single") / "dev.jsonl", tmp_path))
    before = data.read_bytes()
    hooked(monkeypatch, "registry.evaluations.read_for", lambda: replace(data, b"{}\n"))
    row, _ = evaluations.evaluate(registry, "1", "intent", data)
    assert row.data == fingerprint([before])


def test_what_is_learnt_is_what_the_fingerprint_names(
    encoders: dict[str, support.Backbone],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(tiny_data("single"), tmp_path / "data"))
    before = [(folder / name).read_bytes() for name in ("train.jsonl", "dev.jsonl")]
    hooked(
        monkeypatch,
        "centra.training.task_data.infer_contract",
        lambda: replace(folder / "train.jsonl", b"{}\n"),
    )
    tiny = encoders["tiny"]
    assert TaskData.load(tiny.spec, tiny.store, folder).fingerprint == fingerprint(before)


def test_a_key_that_is_replaced_while_it_signs_makes_no_signature(
    registry: Registry,
    module: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    key, other = (support.make_key(tmp_path / name) for name in ("key", "other"))
    hooked(monkeypatch, "centra.releases.signing.listing", lambda: replace(key, other.read_bytes()))
    with refused(registry, UsageError, f"{key}: was changed while"):
        signatures.sign(registry, "1", key)


# Proven before it is stored


def test_a_module_over_another_backbone_s_layers_is_refused_before_anything_is_stored(
    registry: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    """It fits in every shape, and answers otherwise than it says."""
    honest = TaskModule.read(module(tap=2))
    moved = honest.spec.model_copy(update={"tap_layer": 1})
    TaskModule(moved, honest.tensors).write(tmp_path / "moved.safetensors")
    with refused(registry, ComposeError, "task intent: parity failed"):
        tasks.register(registry, "intent", tmp_path / "moved.safetensors")


def test_without_onnxruntime_the_reference_proves_it(
    registry: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("centra.releases.parity.importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("centra.releases.parity._MODULE_PARITY", {})
    tasks.register(registry, "intent", module(seed=9))
    assert recorded(registry, "intent")


def test_where_onnxruntime_finds_another_answer_the_reference_decides(
    registry: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from centra.runtime.onnx.engine import OnnxBranch

    monkeypatch.setattr("centra.releases.parity._MODULE_PARITY", {})
    hit = OnnxBranch.run
    monkeypatch.setattr(OnnxBranch, "run", lambda self, *given: hit(self, *given) + 1)
    tasks.register(registry, "intent", module(seed=8))
    assert recorded(registry, "intent")


def test_a_file_that_holds_no_module_says_so(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with refused(registry, CentraError, str(tmp_path / "empty")):
        tasks.register(registry, "intent", tmp_path / "empty")
