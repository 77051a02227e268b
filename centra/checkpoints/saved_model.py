"""A model as ``save_pretrained`` writes it: ``config.json`` and safetensors, in a folder or on the hub.

It is read without trusting it. Names, types and shapes come from the headers of the safetensors
files, so that the numbers in ``config.json`` can be held against them before anything of their size
is made, and so that no tensor goes unseen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from centra.checkpoints.pretrained import find_file, read_json
from centra.errors import FormatError, first_line
from centra.formats.strict_json import parse_foreign
from centra.formats.tensors import read_header, read_metadata
from centra.system.files import read_text
from centra.system.reading import open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["StoredTensor", "load", "read_config", "read_headers"]

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth")
_OTHER_WEIGHTS = (".h5", ".msgpack", ".ot", ".onnx", ".gguf")
_LFS_START = b"version https://git-lfs"
_SHARD = re.compile(r"(?!\.)[\w.@+-]{1,255}\.safetensors", re.ASCII)
_STEP = re.compile(r"checkpoint-([0-9]{1,12})")
_PART = re.compile(r"crf|head|adapter|lora|classifier|prompt|prefix", re.IGNORECASE)
"""In the name of a pickle, that it holds a part of a model."""
_INNER_ADAPTER = "*/adapter_config.json"
"""Where peft puts an adapter that has a name."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor as the header of its file describes it."""

    path: Path
    key: str
    """Its name in the file."""
    dtype: str
    """The safetensors name of the element type, e.g. ``"F32"``."""
    shape: tuple[int, ...]
    rows: slice | None = None
    """Which of the stored rows it is; None is all of them."""


def read_config(source: str, revision: str | None = None) -> dict[str, Any]:
    """The content of ``config.json``, whatever it holds.

    Args:
        source: a folder, or a name on the hub.
        revision: the hub's branch, tag or commit.

    Raises:
        NotFoundError: there is no such folder or hub repository.
        FormatError: there is none, or it is no JSON object; or the folder is of another sort, which
            is named: an adapter, a trainer's output, a file.
    """
    if Path(source).is_file():
        raise FormatError(f"{source}: is a file; expected a folder as save_pretrained writes it")
    _refuse_adapter(source, revision)
    if find_file(source, "config.json", revision, required=True) is None:
        raise FormatError(f"{source}: has no config.json. {_what_it_is(Path(source))}")
    return read_json(source, "config.json", revision)


def read_headers(source: str, revision: str | None = None) -> dict[str, StoredTensor]:
    """Every tensor of a model's safetensors files, by the name that transformers knows it under.

    Args:
        source: a folder, or a name on the hub.
        revision: the hub's branch, tag or commit.

    Raises:
        NotFoundError: there is no such hub repository.
        FormatError: weights are missing, damaged or only there as a pickle; or there are others
            beside them, of which nobody could say what they are for.
    """
    single = find_file(source, _WEIGHTS, revision)
    index = None if single else find_file(source, _INDEX, revision)
    if single is not None:
        listed, paths = None, [single]
    elif index is not None:
        listed = _weight_map(index)
        paths = [_shard(source, name, revision) for name in sorted(set(listed.values()))]
    else:
        if not Path(source).is_dir():
            find_file(source, _WEIGHTS, revision, required=True)  # The hub says why not.
        raise FormatError(f"{source}: {_no_weights(Path(source))}")
    _refuse_others(Path(source), paths)
    found: dict[str, StoredTensor] = {}
    for path in paths:
        for tensor in _header(path):
            name = _todays_name(tensor.key)
            if name in found:
                raise FormatError(f"{source}: holds tensor {name} twice; save the model again")
            found[name] = tensor
    if listed is not None:
        stray = {tensor.key for tensor in found.values()} ^ listed.keys()
        if stray:
            raise FormatError(
                f"{index}: does not agree with the files about tensor {min(stray)}; a file is of "
                "another model, or was changed. Save the model again."
            )
    return found


def load(tensors: Mapping[str, StoredTensor]) -> dict[str, torch.Tensor]:
    """The tensors themselves, under the names given.

    Raises:
        FormatError: a file can no longer be read.
    """
    found = {}
    for path in sorted({tensor.path for tensor in tensors.values()}):
        try:
            with safe_open(path, framework="pt") as file:
                for name, tensor in tensors.items():
                    if tensor.path == path:
                        rows = tensor.rows
                        found[name] = (
                            file.get_tensor(tensor.key)
                            if rows is None
                            else file.get_slice(tensor.key)[rows]
                        )
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{path}: cannot be read ({first_line(error)})") from error
    return found


# Which files


def _weight_map(index: Path) -> dict[str, str]:
    try:
        listed = parse_foreign(read_text(index))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{index}: is no index of weights ({first_line(error)})") from error
    if not isinstance(listed, dict) or not listed:
        raise FormatError(f"{index}: its weight_map names no tensors")
    for file in listed.values():
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise FormatError(f"{index}: names {file!r:.90}; expected a file beside it")
    return listed


def _shard(source: str, name: str, revision: str | None) -> Path:
    path = find_file(source, name, revision)
    if path is None:
        raise FormatError(
            f"{source}: its index names {name}, which is missing; copy or download it again"
        )
    return path


def _refuse_others(folder: Path, paths: list[Path]) -> None:
    others = sorted({path.name for path in folder.glob("*.safetensors")} - {p.name for p in paths})
    others += sorted(
        path.name
        for path in folder.glob("*")
        if path.name.endswith(_PICKLES) and _PART.search(path.name) and path.is_file()
    )
    others += sorted(
        f"{path.parent.name}/{path.name}"
        for path in folder.glob(_INNER_ADAPTER)
        if not _STEP.fullmatch(path.parent.name)  # A trainer's earlier states are no part of it.
    )
    if others:
        raise FormatError(
            f"{folder}: holds {', '.join(others[:3])} beside {paths[0].name}, and nothing says what "
            "for. If it belongs to the model, save the whole model again; if not, move it away."
        )


def _header(path: Path) -> list[StoredTensor]:
    try:
        with open_regular(path) as file:
            start = file.read(len(_LFS_START))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    if start == _LFS_START:
        raise FormatError(f"{path}: is a Git LFS pointer, not the weights; first: git lfs pull")
    return [
        StoredTensor(path=path, key=key, dtype=tensor.dtype, shape=tensor.shape)
        for key, tensor in read_header(path).tensors.items()
    ]


def _todays_name(name: str) -> str:
    """What transformers calls a tensor today: TensorFlow called a layer norm's two gamma and beta."""
    head, dot, end = name.rpartition("LayerNorm.")
    return head + dot + {"gamma": "weight", "beta": "bias"}.get(end, end) if dot else name


# What a folder is instead


def _refuse_adapter(source: str, revision: str | None) -> None:
    path = find_file(source, "adapter_config.json", revision)
    if path is None:
        return
    try:
        adapter = parse_foreign(read_text(path))
    except (OSError, ValueError):
        adapter = None
    adapter = adapter if isinstance(adapter, dict) else {}
    classes = {"SEQ_CLS": "SequenceClassification", "TOKEN_CLS": "TokenClassification"}
    end = classes.get(str(adapter.get("task_type")), "…")
    mend = (
        f"Merge it into the model that it was trained on: peft's AutoPeftModelFor{end}"
        ".from_pretrained(FOLDER, num_labels=…).merge_and_unload().save_pretrained(NEW_FOLDER)."
        if "peft_type" in adapter
        else "Merge it into the model that it was trained on, and save the whole model."
    )
    beside = find_file(source, "config.json", revision) is not None
    raise FormatError(
        f"{source}: holds an adapter (adapter_config.json)"
        + (" beside a model" if beside else " and no model")
        + f"; expected a whole model. {mend}"
        + (" If the model is complete without it, move the adapter away." if beside else "")
    )


def _what_it_is(folder: Path) -> str:
    """What a folder without ``config.json`` seems to be, and what to give instead."""
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "The folder is empty; give one that save_pretrained wrote."
    modules = [path.name for path in sorted(folder.glob("*.safetensors")) if _is_task_module(path)]
    if modules:
        return f"It holds a task module: give the file, {folder / modules[0]}"
    inside = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
    return (
        _trainer_output(folder)
        or (f"The model seems to be in {folder / inside[0]}" if inside else "")
        or f"Expected a folder that save_pretrained wrote; this one holds {', '.join(names[:5])}"
    )


def _is_task_module(path: Path) -> bool:
    try:
        return "centra" in read_metadata(path)
    except FormatError:
        return False


def _no_weights(folder: Path) -> str:
    """Why a folder has no weights that can be read, and the mend."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    pickles = [name for name in names if name.endswith(_PICKLES) and name not in _NO_WEIGHTS]
    others = [name for name in names if name.endswith(_OTHER_WEIGHTS)]
    tensors = [name for name in names if name.endswith(".safetensors") and name != _WEIGHTS]
    if tensors:
        return f"its weights are in {tensors[0]}; expected {_WEIGHTS}. Save the whole model again."
    output = "" if pickles or others else _trainer_output(folder)
    if output:
        return f"has no weights. {output}"
    what = f"only {(pickles + others)[0]}" if pickles or others else f"no {_WEIGHTS}"
    return (
        f"no usable safetensors weights: there is {what}. Centra never reads pickled weights, which "
        "can run code. Where you trust them, load them with the class that they were saved by, in "
        "the environment of the training, and save them again: "
        "model.save_pretrained(NEW_FOLDER) writes model.safetensors (transformers 4.35 and later)."
    )


def _trainer_output(folder: Path) -> str:
    """The advice for a folder of ``checkpoint-NNN``; empty for others."""
    steps = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and (match := _STEP.fullmatch(path.name))
    }
    if not steps:
        return ""
    last = steps[max(steps)]
    best = _best(last)
    named = f"the last is {last}"
    if best is not None and (folder / best).is_dir():
        named = f"the trainer's best is {folder / best}" + (
            ", which is also the last" if best == last.name else f", {named}"
        )
    return f"It is a trainer's output; give one of the checkpoints inside: {named}"


def _best(last: Path) -> str | None:
    """The name of the checkpoint that a trainer's last one calls the best."""
    try:
        state = parse_foreign(read_text(last / "trainer_state.json"))
    except (OSError, ValueError):
        return None
    best = state.get("best_model_checkpoint") if isinstance(state, dict) else None
    # Written on another machine, perhaps with another separator.
    return re.split(r"[/\\]", best.rstrip("/\\"))[-1] if isinstance(best, str) else None
