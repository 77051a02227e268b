"""A task as one of transformers' own classes: the layers up to its tap, its own, and its head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from centra.errors import IncompatibleError
from centra.exports.onnx import write_tokenizer
from centra.families import family_named
from centra.formats.backbone import BackboneSpec
from centra.formats.head import ACTIVATIONS
from centra.formats.task_module import check_stored
from centra.formats.template import PLAIN
from centra.kinds import kind_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

    from centra.exports.base import Source
    from centra.families.base import Family
    from centra.families.heads import CheckpointHead
    from centra.formats.task_module import ModuleFile, TaskSpec

__all__ = ["NO_CLASS", "Checkpoint", "write_checkpoint", "write_config", "write_own_tokenizer"]

NO_CLASS = "no-class-of-transformers"
"""The code of an error: transformers has no class that computes a task."""

_SPECIAL = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
"""Settings that change no answer, and of which transformers warns where the tokenizer has others."""

_CHOICES = (True, False, *ACTIVATIONS, "cls", "bos", "first", "mean", "max", "late")
"""What settings of classifiers may say, where it matters."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A task that is to be said in transformers' words."""

    task: str
    backbone: BackboneSpec
    module: ModuleFile

    @classmethod
    def of(cls, source: Source) -> Checkpoint:
        """The one task of a source.

        Raises:
            FormatError, BlobNotFoundError, CorruptBlobError, StoreError: it cannot be read.
        """
        ((task, entry),) = source.manifest.tasks.items()
        backbone = BackboneSpec.fetch(entry.backbone, source.reader)
        module = check_stored(source.reader.fetch(entry.digest), entry.digest, backbone)
        entry.check(task, module.spec)
        return cls(task=task, backbone=backbone, module=module)

    @property
    def spec(self) -> TaskSpec:
        """The task's."""
        return self.module.spec

    @property
    def family(self) -> Family:
        """The backbone's."""
        return family_named(self.backbone.family)

    @property
    def architecture(self) -> str:
        """The name of transformers' class."""
        classes = self.family.transformers
        if classes is None:
            raise IncompatibleError(
                f"task {self.task}: transformers has no {self.family.model_type}", code=NO_CLASS
            )
        end = "Token" if self.spec.reads_every_token else "Sequence"
        return f"{classes.model.removesuffix('Model')}For{end}Classification"

    @property
    def auto_class(self) -> str:
        """The class that finds it."""
        end = "Token" if self.spec.reads_every_token else "Sequence"
        return f"AutoModelFor{end}Classification"

    @property
    def token_types(self) -> bool:
        """Whether the model is given token types; where they tell nothing apart, it is not."""
        return self.backbone.token_types

    def config(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """What its ``config.json`` says.

        Args:
            head: the settings of the classifier.
        """
        spec = self.spec
        kind, activation = kind_named(spec.kind), spec.effective_decision.activation
        names = spec.logit_names or ("LABEL_0",)
        settings = self.family.of_depth(self.backbone.config, spec.tap_layer + spec.depth)
        return {
            "model_type": self.family.model_type,
            **settings,
            **head,
            "architectures": [self.architecture],
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            **({"problem_type": kind.problem_type} if kind.problem_type else {}),
            # What pipelines ask for, where the kind's own is another.
            **({} if activation == kind.activations[0] else {"function_to_apply": activation}),
        }

    def head(self) -> tuple[CheckpointHead, dict[str, Any]]:
        """Its classifier in transformers' class, and the settings with which it is that.

        Raises:
            IncompatibleError: the class has no such classifier.
        """
        from centra.checkpoints.conversion import head_spec

        spec, family = self.spec, self.family
        usual = type(spec.head)()
        own = spec.head.model_copy(
            update={"threshold": usual.threshold, "words": usual.words, "tags": usual.tags}
        )
        every_token = spec.reads_every_token
        made = family.token_head if every_token else family.sentence_head
        for settings in self._head_settings():
            head = made(self.backbone.config | settings)
            fits = head.activation in (None, *ACTIVATIONS) and (
                head_spec(head, every_token=every_token) == own
            )
            if fits and (every_token or head.pooling == spec.decision.pooling):
                return head, settings
        raise IncompatibleError(
            f"task {self.task}: {self.architecture} has no head like its own ({self._words()}), so no "
            "plain checkpoint answers as it does; export it as onnx",
            code=NO_CLASS,
            task=self.task,
            architecture=self.architecture,
        )

    def notes(self) -> Iterator[str]:
        """What its user must do himself.

        Raises:
            IncompatibleError: what cannot be left to him.
        """
        spec, decision = self.spec, self.spec.effective_decision
        if spec.head.crf:
            raise IncompatibleError(
                f"task {self.task}: a CRF chooses its tags, which no class of transformers has; without "
                "it the answers would be others. Export it as onnx: the manifest has the CRF's scores.",
                code=NO_CLASS,
                task=self.task,
            )
        if decision.template != PLAIN:
            yield f"put each text into the template before it is tokenised: {decision.template!r}"
        if decision.threshold not in (None, 0.5):
            yield f"labels are named from the score {decision.threshold}, which pipelines do not know"
        if decision.rejection is not None:
            yield f"no label is given below the score {decision.rejection}, which pipelines do not know"
        if spec.reads_every_token:
            yield (
                "a word has the tag of its first token: take the pipeline's "
                "aggregation_strategy='first'"
            )
        if self.family.groups_key is not None:
            yield "layers that are one set of weights are written each by itself"
        yield "pipelines cut long inputs where they are told to: truncation=True"

    def state(self, source: Source, head: CheckpointHead) -> dict[str, torch.Tensor]:
        """Its tensors, as the class names them."""
        from centra.formats.task_module import TaskModule
        from centra.formats.tensors import under
        from centra.modeling.shards import backbone_layer, load_shard

        family, spec, backbone = self.family, self.spec, self.backbone
        settings = family.of_depth(backbone.config, spec.tap_layer + spec.depth)
        tensors = TaskModule.read(self.module.path).tensors
        found = dict(load_shard(backbone, source.reader, 0))
        for number in range(1, spec.tap_layer + spec.depth + 1):
            own = number - spec.tap_layer
            layer = (
                backbone_layer(backbone, source.reader, number)
                if own < 1
                else under(tensors, f"layers.{own}.")
            )
            for name, tensor in layer.items():
                found[family.encoder_name(settings, number, name)] = tensor
        if family.final_norm is not None:
            norm = family.final_norm(settings).name
            for end, tensor in under(tensors, "head.norm.").items():
                found[f"{norm}.{end}"] = tensor
        found = {family.prefix + name: tensor for name, tensor in found.items()}
        for part, name in head.parts.items():
            for end, tensor in under(tensors, f"head.{part}.").items():
                found[f"{name}.{end}"] = tensor
        return found

    def _head_settings(self) -> Iterator[dict[str, Any]]:
        known = self.family.head_settings
        choices = (
            [value for value in _CHOICES if setting.fits(value)] for setting in known.values()
        )
        yield from (dict(zip(known, values, strict=True)) for values in product(*choices))

    def _words(self) -> str:
        head = self.spec.head
        dense = (
            "no dense layer" if head.activation is None else f"a dense layer with {head.activation}"
        )
        norm = "" if head.dense_norm is None else " and a norm"
        pooling = "" if self.spec.reads_every_token else f", of {self.spec.decision.pooling} tokens"
        return f"{dense}{norm}{pooling}"


def write_checkpoint(checkpoint: Checkpoint, source: Source, folder: Path) -> None:
    """Write weights and ``config.json`` as ``save_pretrained`` does, to where the tokenizer lies.

    Raises:
        IncompatibleError: transformers has no class that computes the task.
    """
    import torch
    from transformers.utils import logging

    head, settings = checkpoint.head()
    config = _config(checkpoint, settings, folder)
    classes = checkpoint.family.transformers
    assert classes is not None
    with torch.random.fork_rng(devices=[]):
        model = classes.named(checkpoint.architecture)(config).eval()
    state = checkpoint.state(source, head)
    lacking, unknown = model.load_state_dict(state, strict=False)
    assert not unknown, unknown
    # What no layer reads; the comparison with the probe shows it.
    parameters = model.state_dict()
    for name in lacking:
        parameters[name].zero_()
    logging.disable_progress_bar()  # Centra shows its own
    model.save_pretrained(folder)


def write_config(checkpoint: Checkpoint, folder: Path) -> None:
    """Write ``config.json`` alone, for what computes from a graph, to where the tokenizer lies."""
    _config(checkpoint, {}, folder).save_pretrained(folder)


def _config(checkpoint: Checkpoint, head: Mapping[str, Any], folder: Path) -> Any:
    """The config of transformers, with the ids of special tokens that the tokenizer of a folder has.

    Raises:
        IncompatibleError: transformers has no such family.
    """
    from centra.tokenization.loading import load_tokenizer

    stated = checkpoint.config(head)  # Which asks for the class.
    classes = checkpoint.family.transformers
    assert classes is not None
    config = classes.named(classes.config)(**stated)
    known = checkpoint.backbone.tokenizer["tokenizer.json"]
    tokenizer = load_tokenizer(str(folder), config=config, known=(known,))
    for name in _SPECIAL:
        if hasattr(config, name):  # Not every family's has all; where it has, it has a default.
            setattr(config, name, getattr(tokenizer, name))
    return config


def write_own_tokenizer(checkpoint: Checkpoint, source: Source, folder: Path) -> None:
    """Write the tokenizer, with the task's longest input and the inputs that the model takes."""
    write_tokenizer(source, folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    types = ["token_type_ids"] if checkpoint.token_types else []
    limit = checkpoint.spec.decision.max_length or checkpoint.backbone.max_length
    settings |= {
        "model_max_length": limit,
        "model_input_names": ["input_ids", *types, "attention_mask"],
    }
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
