"""A tiny encoder, and task modules on it: real files, made in milliseconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# Before anything imports transformers: what is read here lies in a local folder.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

from centra.data.inputs import Input
from centra.formats.task_module import HeadSpec, TaskSpec
from centra.modeling.branch import Branch
from centra.modeling.shards import backbone_layer
from centra.modeling.trunk import Trunk
from centra.tokenization.text_encoder import TextEncoder
from centra.training.module import make_module

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader

__all__ = ["LAYERS", "ModuleMaker", "make_encoder"]

LAYERS = 3
_TEXTS = ("wake me at seven", "play some jazz in new york please", "is there snow")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_encoder(folder: Path) -> Path:
    """Write a random BERT of three layers with its tokenizer, as ``save_pretrained`` does."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pad, unk, cls, sep, mask = _SPECIAL
    words = sorted({word for text in _TEXTS for word in text.split()})
    vocabulary = {word: number for number, word in enumerate((*_SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    transformers.utils.logging.disable_progress_bar()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        pad_token=pad,
        unk_token=unk,
        cls_token=cls,
        sep_token=sep,
        mask_token=mask,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


class ModuleMaker:
    """Writes classification modules on one backbone: a copy of its last layer, and a random head.

    So does training begin. The probe of each is true, so it can be composed.
    """

    def __init__(self, backbone: BackboneSpec, reader: BlobReader) -> None:
        tap = backbone.num_layers - 1
        layer = backbone_layer(backbone, reader, backbone.num_layers)
        _, self._probe = TextEncoder.of(backbone, reader).batch(map(Input, _TEXTS))
        self._layer = {f"layers.1.{name}": tensor for name, tensor in layer.items()}
        self._trunk = Trunk(backbone, reader, depth=tap)
        self._backbone = backbone
        self._tap = tap

    def write(self, path: Path, seed: int, labels: Sequence[str], accuracy: float) -> Path:
        """Write a module; another seed gives other bytes."""
        spec = TaskSpec(
            kind="classification",
            input="single",
            labels=tuple(labels),
            backbone=self._backbone.digest,
            tap_layer=self._tap,
            depth=1,
            head=HeadSpec(activation="tanh"),
            metrics={"accuracy": accuracy},
            training={"seed": seed},
        )
        torch.manual_seed(seed)
        branch = Branch(self._backbone, spec)
        head = {f"head.{name}": tensor for name, tensor in branch.head.state_dict().items()}
        module = make_module(spec, self._trunk, branch.load(self._layer | head).eval(), self._probe)
        path.write_bytes(module.to_bytes())
        return path
