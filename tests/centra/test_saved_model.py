"""Folders that are no model, or hold one that cannot be read: told with what to do."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING

import pytest

from centra.checkpoints.backbone import import_backbone
from centra.checkpoints.saved_model import read_config, read_headers
from centra.errors import FormatError
from tests import support
from tests.centra.checkpoints import WEIGHTS, converted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore

pytestmark = pytest.mark.usefixtures("few_samples")


def only(folder: Path, **files: bytes) -> None:
    """Replace all that a folder holds."""
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def trained(folder: Path, *steps: int, best: object = None) -> None:
    """Make a folder a trainer's output."""
    only(folder)
    for step in steps:
        inside = folder / f"checkpoint-{step}"
        inside.mkdir()
        (inside / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": best}))


def adapter(folder: Path, **config: str) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(config))


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (folder / "optimizer.pt").write_bytes(b"")


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])


def linked(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../../blobs/0123")


ODD: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "empty": (only, ("The folder is empty",)),
    "of other files": (lambda f: only(f, notes=b""), ("has no config.json", "holds notes")),
    "a trainer's output": (
        lambda f: trained(f, 50, 1000, 200),
        ("a trainer's output", "the last is {folder}/checkpoint-1000"),
    ),
    "a trainer's output with a best": (
        lambda f: trained(f, 50, 1000, 200, best="/elsewhere/out/checkpoint-200"),
        ("the trainer's best is {folder}/checkpoint-200", "the last is {folder}/checkpoint-1000"),
    ),
    "a trainer's output whose best is gone": (
        lambda f: trained(f, 50, best="out/checkpoint-40"),
        ("the last is {folder}/checkpoint-50",),
    ),
    "a trainer's output with a damaged state": (
        lambda f: trained(f, 50, best=7),
        ("the last is {folder}/checkpoint-50",),
    ),
    "a peft adapter": (
        lambda f: (only(f), adapter(f, peft_type="LORA", task_type="SEQ_CLS")),
        ("adapter_config.json) and no model", "AutoPeftModelForSequenceClassification"),
    ),
    "a peft adapter beside a model": (
        lambda f: adapter(f, peft_type="LORA", task_type="TOKEN_CLS"),
        ("beside a model", "merge_and_unload", "AutoPeftModelForTokenClassification"),
    ),
    "another adapter": (
        lambda f: (only(f), adapter(f, config="pfeiffer")),
        ("and no model", "save the whole model"),
    ),
    "weights beside the model's": (
        lambda f: (f / "adapter_model.safetensors").write_bytes((f / WEIGHTS).read_bytes()),
        ("holds adapter_model.safetensors beside model.safetensors", "move it away"),
    ),
    "a JSON array": (
        lambda f: (f / "config.json").write_text("[]"),
        ("holds a JSON array; expected the object",),
    ),
    "nested too deep": (
        lambda f: (f / "config.json").write_text("[" * 100_000),
        ("its config.json is no JSON in UTF-8",),
    ),
    "of another model type": (
        lambda f: (f / "config.json").write_text('{"model_type": ["bert"]}'),
        ("model_type ['bert']; expected one of albert, bert, ", ", distilbert, "),
    ),
    "a pickle": (
        pickled,
        ("there is only pytorch_model.bin", "never reads pickled weights", "save_pretrained(NEW"),
    ),
    "weights under another name": (
        lambda f: (f / WEIGHTS).rename(f / "weights.safetensors"),
        ("its weights are in weights.safetensors; expected model.safetensors",),
    ),
    "without weights": (lambda f: (f / WEIGHTS).unlink(), ("there is no model.safetensors",)),
    "cut short": (cut, ("not a readable safetensors file", "Copy or download it again")),
    "a Git LFS pointer": (
        lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"),
        ("is a Git LFS pointer", "git lfs pull"),
    ),
    "a link to nowhere": (linked, ("is a link to a missing file; copy files, not links",)),
}


@pytest.mark.parametrize("what", ODD)
def test_a_folder_that_is_no_model_is_told_by_what_it_is(
    what: str,
    checkpoint: Path,
    encoder: Path,
    tiny_backbone: support.Backbone,
    store: LocalStore,
) -> None:
    change, says = ODD[what]
    for folder, read in (
        (checkpoint, lambda: converted(checkpoint, tiny_backbone)),
        (encoder, lambda: import_backbone(str(encoder), store)),
    ):
        change(folder)
        with pytest.raises(FormatError) as error:
            read()
        for text in says:
            assert text.format(folder=folder) in str(error.value)
    assert not store.root.exists()


def test_a_file_in_place_of_a_folder_is_told(encoder: Path, store: LocalStore) -> None:
    with pytest.raises(FormatError, match="is a file; expected a folder"):
        import_backbone(str(encoder / WEIGHTS), store)


def test_a_task_module_in_a_folder_is_named(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    only(checkpoint)
    module = support.make_module("regression", tiny_backbone.spec, tiny_backbone.store)
    module.write(checkpoint / "stars.safetensors")
    with pytest.raises(FormatError, match=r"a task module: give the file, .*stars\.safetensors"):
        converted(checkpoint, tiny_backbone)


def test_pickled_weights_that_were_saved_again_as_advised_are_taken(
    checkpoint: Path, tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    import shutil

    import torch
    import transformers

    before = converted(checkpoint, tiny_backbone)[0].to_bytes()
    auto_class = transformers.AutoModelForSequenceClassification
    torch.save(
        auto_class.from_pretrained(checkpoint).state_dict(), checkpoint / "pytorch_model.bin"
    )
    (checkpoint / WEIGHTS).unlink()

    auto_class.from_pretrained(checkpoint).save_pretrained(tmp_path / "new")
    for path in checkpoint.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "new")

    assert converted(tmp_path / "new", tiny_backbone)[0].to_bytes() == before


# Many files


def split(folder: Path) -> Path:
    """Save a checkpoint in many files; the path of their index."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    return folder / "model.safetensors.index.json"


def test_a_checkpoint_in_many_files_is_the_same(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    before = converted(checkpoint, tiny_backbone)[0].to_bytes()
    split(checkpoint)
    assert converted(checkpoint, tiny_backbone)[0].to_bytes() == before


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ([], "is no index of weights"),
        ({"weight_map": None}, "names no tensors"),
        ({"weight_map": {}}, "names no tensors"),
        ({"weight_map": {"classifier.bias": 3}}, "names 3; expected a file beside it"),
        ({"weight_map": {"classifier.bias": "../x.safetensors"}}, "expected a file beside it"),
        ({"weight_map": {"classifier.bias": "x.safetensors"}}, "names x.safetensors, which is mis"),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(
    index: object, says: str, checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    split(checkpoint).write_text(json.dumps(index))
    with pytest.raises(FormatError, match=says):
        converted(checkpoint, tiny_backbone)


def test_an_index_and_its_files_must_name_the_same_tensors(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    path = split(checkpoint)
    content = json.loads(path.read_text())
    del content["weight_map"]["classifier.bias"]
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"does not agree .* tensor classifier\.bias"):
        converted(checkpoint, tiny_backbone)


def test_a_file_that_another_save_left_behind_is_refused(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    whole = (checkpoint / WEIGHTS).read_bytes()
    split(checkpoint)
    (checkpoint / WEIGHTS).write_bytes(whole)
    with pytest.raises(FormatError, match=r"holds model-00001-of-.* beside model\.safetensors"):
        converted(checkpoint, tiny_backbone)


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a\x00.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "model.bin",
        ".safetensors",
        "a\n.safetensors",
        7,
        None,
        "x" * 300,
    ],
)
def test_an_index_names_safetensors_files_beside_it_alone(name: object, tmp_path: Path) -> None:
    index = {"weight_map": {"a": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(FormatError, match="expected a file beside it"):
        read_headers(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_nested_json_of_a_model_is_refused_in_words(name: str, tmp_path: Path) -> None:
    for text in ("[" * 100_000, '{"weight_map": ' + '{"a": ' * 500 + "1" + "}" * 501):
        (tmp_path / name).write_text(text)

        with pytest.raises(FormatError, match="nested deeper than 64"):
            read_config(str(tmp_path)) if name == "config.json" else read_headers(str(tmp_path))
