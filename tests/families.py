"""Tiny encoders of every family, one entry each; ``tests/centra/test_families.py`` is run with all.

A new family is an entry here: what its config says beside what nearly all say, and a tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HIDDEN", "LAYERS", "MAX_LENGTH", "TINY", "Tiny"]

LAYERS, HIDDEN, MAX_LENGTH = 3, 32, 64

_USUAL = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_LENGTH,
}
_OFFSET = {"max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1}


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A tiny encoder."""

    model_type: str
    tokenizer: Literal[
        *("wordpiece", "byte-level", "metaspace", "mpnet", "characters", "sentencepiece"),
        *("camembert", "deberta", "albert"),
    ]
    """One of :data:`tests.support.TOKENIZERS`."""
    token_types: bool = False
    """Whether its tokenizer tells the texts of a pair apart by token types."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What its config says beside or instead of the usual; None leaves the usual out."""
    exact: bool = True
    """Whether the torch trunk's states are transformers' own to the last bit, or within 1e-5."""

    @property
    def settings(self) -> dict[str, Any]:
        """What its config says, but for the size and the ids of the tokenizer."""
        both = _USUAL | dict(self.config)
        return {key: value for key, value in both.items() if value is not None}


TINY = {
    "bert": Tiny(model_type="bert", tokenizer="wordpiece", token_types=True),
    "roberta": Tiny(model_type="roberta", tokenizer="byte-level", config=_OFFSET),
    "xlm-roberta": Tiny(model_type="xlm-roberta", tokenizer="metaspace", config=_OFFSET),
    "distilbert": Tiny(
        model_type="distilbert",
        tokenizer="wordpiece",
        config=dict.fromkeys(_USUAL)
        | {"max_position_embeddings": MAX_LENGTH}
        | {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 64},
    ),
    "electra": Tiny(
        model_type="electra",
        tokenizer="wordpiece",
        token_types=True,
        config={"embedding_size": HIDDEN // 2},
    ),
    # multilingual-MiniLM and multilingual-E5 small; the larger E5 are XLM-R.
    "multilingual-minilm": Tiny(
        model_type="bert",
        tokenizer="sentencepiece",
        config={"pad_token_id": 0, "tokenizer_class": "XLMRobertaTokenizer"},
    ),
    "multilingual-e5": Tiny(model_type="xlm-roberta", tokenizer="sentencepiece", config=_OFFSET),
    # MacBERT and RoBERTa-wwm, too, whatever their names say.
    "bert-base-chinese": Tiny(model_type="bert", tokenizer="characters", token_types=True),
    "camembert": Tiny(model_type="camembert", tokenizer="camembert", config=_OFFSET),
    "ernie": Tiny(
        model_type="ernie",
        tokenizer="characters",
        token_types=True,
        config={"use_task_id": True, "task_type_vocab_size": 3, "type_vocab_size": 4},
    ),
    "modernbert": Tiny(
        model_type="modernbert",
        tokenizer="wordpiece",
        config={"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}
        | {"local_attention": 8, "classifier_pooling": "mean"},
        exact=False,
    ),
    "mpnet": Tiny(
        model_type="mpnet",
        tokenizer="mpnet",
        config={"max_position_embeddings": MAX_LENGTH + 2},
    ),
    # Of three layers the first two are one set of weights.
    "albert": Tiny(
        model_type="albert",
        tokenizer="albert",
        token_types=True,
        config={"embedding_size": HIDDEN // 2, "num_hidden_groups": 2},
    ),
    "nomic-bert": Tiny(
        model_type="nomic_bert", tokenizer="wordpiece", token_types=True, exact=False
    ),
    # As DeBERTa-v3 and mDeBERTa.
    "deberta-v3": Tiny(
        model_type="deberta-v2",
        tokenizer="deberta",
        config={
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
        exact=False,
    ),
    # With all that a DeBERTa-v2 may have beside or instead of it.
    "deberta-v2": Tiny(
        model_type="deberta-v2",
        tokenizer="deberta",
        token_types=True,
        config={
            "relative_attention": True,
            "max_relative_positions": 24,
            "pos_att_type": ["c2p", "p2c"],
            "type_vocab_size": 2,
            "embedding_size": HIDDEN // 2,
            "conv_kernel_size": 5,
            "conv_act": "tanh",
        },
        exact=False,
    ),
}
"""By the names that tests give them."""
