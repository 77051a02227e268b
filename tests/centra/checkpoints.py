"""Folders of fine-tuned checkpoints and of encoders, and what people do to them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from centra.checkpoints.conversion import convert
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

    from centra.formats.task_module import TaskModule

    Tensors = dict[str, torch.Tensor]

WEIGHTS = "model.safetensors"
SENTENCE, TOKEN = "AutoModelForSequenceClassification", "AutoModelForTokenClassification"
INTENTS, TAGS = ("alarm", "music", "weather"), ("O", "B-city", "I-city")


def fine_tune(encoder: Path, folder: Path, auto_class: str = SENTENCE) -> Path:
    """Save a checkpoint on an encoder, with new weights in its last layer and its head."""
    import torch
    import transformers

    torch.manual_seed(1)
    labels = TAGS if auto_class == TOKEN else INTENTS
    model = getattr(transformers, auto_class).from_pretrained(
        encoder,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    below = f"{model.base_model_prefix}."
    numbers = {name: layer_number(name) for name, _ in model.named_parameters()}
    last = max(numbers.values())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if numbers[name] == last or not name.startswith(below) or "pooler" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


def layer_number(name: str) -> int:
    """The layer that a parameter's name says, from 1; 0 where it says none."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), -1) + 1


def rewrite(folder: Path, change: Callable[[Tensors], Mapping[str, torch.Tensor]]) -> None:
    """Replace the weights of a folder."""
    from safetensors.torch import load, save_file

    tensors = change(load((folder / WEIGHTS).read_bytes()))
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in tensors.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )


def with_tensors(*names: str) -> Callable[[Tensors], Tensors]:
    """Add tensors of these names."""

    def change(tensors: Tensors) -> Tensors:
        import torch

        return tensors | {name: torch.ones(32) for name in names}

    return change


def configure(folder: Path, **settings: Any) -> None:
    """Change settings in config.json; ``...`` takes one out."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def converted(
    folder: Path, backbone: support.Backbone, **options: Any
) -> tuple[TaskModule, list[str]]:
    """The module in a checkpoint's folder, and what was remarked on."""
    remarks: list[str] = []
    module = convert(
        folder, {"tiny@1": backbone.spec}, backbone.store, remark=remarks.append, **options
    )
    return module, remarks


def copied(source: Path, folder: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(source, folder)
