"""What differs between the encoder families, in one table.

Everything else treats an encoder as an embedding module followed by N layers of one class. The
differences that matter:

- **Token types.** BERT and ELECTRA tell the two sentences of a pair apart by token types. RoBERTa
  and XLM-R have the table but a single row, so all types are 0. DistilBERT has none.
- **Position offset.** RoBERTa and XLM-R count positions from ``pad_token_id + 1``, so that a model
  with 514 positions takes 512 tokens; their embedding module derives positions from the ids.
- **Embedding projection.** ELECTRA's embeddings may be narrower than its layers; a linear
  projection follows them and belongs to layer 0.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from centra.errors import IncompatibleError

__all__ = ["ACTIVATIONS", "FAMILIES", "Family", "LayerNames", "family_of", "transformers_class"]

ACTIVATIONS = frozenset(
    (
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python"),
        *("gelu_python_tanh", "gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear"),
        *("mish", "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus"),
        *("swish", "tanh"),
    )
)
"""transformers' names of activations that have no weights of their own."""

_BERT_CONFIG = (
    "attention_probs_dropout_prob",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "type_vocab_size",
    "vocab_size",
)


@dataclass(frozen=True, kw_only=True)
class LayerNames:
    """What one layer calls its parts and the settings that they depend on.

    Each part is a linear layer or a layer norm with a ``weight`` and a ``bias``. The defaults are
    BERT's.
    """

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    inner: str = "intermediate.dense"
    outer: str = "output.dense"
    norm: str = "output.LayerNorm"
    heads_key: str = "num_attention_heads"
    activation_key: str = "hidden_act"
    epsilon: float | None = None
    """Of the layer norms; None where ``layer_norm_eps`` is a setting."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to find the parts of one encoder family in transformers and in its checkpoints."""

    model_type: str
    """transformers' ``config.model_type``."""
    module: str
    """The transformers module that holds the classes below."""
    config: str
    model: str
    embeddings: str
    layer: str
    layer_prefix: str
    """Where layer i's tensors lie in the encoder's state dict, before ``<i>.``."""
    prefix: str
    """Where the encoder lies inside a fine-tuned checkpoint's state dict."""
    config_keys: tuple[str, ...] = _BERT_CONFIG
    """The settings that the layers depend on; nothing else enters the backbone's digest."""
    max_length_key: str = "max_position_embeddings"
    position_offset: bool = False
    token_types: bool = True
    pooler: bool = True
    """Whether its encoder class has one, which lies in checkpoints even where no head reads it."""
    sentence_head: tuple[str, str, str]
    """Sentence classifier of a fine-tuned checkpoint: dense layer, activation, output layer."""
    token_head: str = "classifier"  # noqa: S105 - no password
    hidden_key: str = "hidden_size"
    inner_key: str = "intermediate_size"
    """The width within a layer's feed-forward part."""
    layers_key: str = "num_hidden_layers"
    names: LayerNames = LayerNames()


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            model_type="bert",
            module="transformers.models.bert.modeling_bert",
            config="BertConfig",
            model="BertModel",
            embeddings="BertEmbeddings",
            layer="BertLayer",
            layer_prefix="encoder.layer.",
            prefix="bert.",
            sentence_head=("bert.pooler.dense", "tanh", "classifier"),
        ),
        Family(
            model_type="roberta",
            module="transformers.models.roberta.modeling_roberta",
            config="RobertaConfig",
            model="RobertaModel",
            embeddings="RobertaEmbeddings",
            layer="RobertaLayer",
            layer_prefix="encoder.layer.",
            prefix="roberta.",
            position_offset=True,
            token_types=False,
            sentence_head=("classifier.dense", "tanh", "classifier.out_proj"),
        ),
        Family(
            model_type="xlm-roberta",
            module="transformers.models.xlm_roberta.modeling_xlm_roberta",
            config="XLMRobertaConfig",
            model="XLMRobertaModel",
            embeddings="XLMRobertaEmbeddings",
            layer="XLMRobertaLayer",
            layer_prefix="encoder.layer.",
            prefix="roberta.",
            position_offset=True,
            token_types=False,
            sentence_head=("classifier.dense", "tanh", "classifier.out_proj"),
        ),
        Family(
            model_type="distilbert",
            module="transformers.models.distilbert.modeling_distilbert",
            config="DistilBertConfig",
            model="DistilBertModel",
            embeddings="Embeddings",
            layer="TransformerBlock",
            layer_prefix="transformer.layer.",
            prefix="distilbert.",
            config_keys=(
                "activation",
                "attention_dropout",
                "dim",
                "dropout",
                "hidden_dim",
                "max_position_embeddings",
                "n_heads",
                "n_layers",
                "pad_token_id",
                "sinusoidal_pos_embds",
                "vocab_size",
            ),
            token_types=False,
            pooler=False,
            sentence_head=("pre_classifier", "relu", "classifier"),
            hidden_key="dim",
            inner_key="hidden_dim",
            layers_key="n_layers",
            names=LayerNames(
                query="attention.q_lin",
                key="attention.k_lin",
                value="attention.v_lin",
                attention_output="attention.out_lin",
                attention_norm="sa_layer_norm",
                inner="ffn.lin1",
                outer="ffn.lin2",
                norm="output_layer_norm",
                heads_key="n_heads",
                activation_key="activation",
                epsilon=1e-12,
            ),
        ),
        Family(
            model_type="electra",
            module="transformers.models.electra.modeling_electra",
            config="ElectraConfig",
            model="ElectraModel",
            embeddings="ElectraEmbeddings",
            layer="ElectraLayer",
            layer_prefix="encoder.layer.",
            prefix="electra.",
            config_keys=(*_BERT_CONFIG, "embedding_size"),
            pooler=False,
            sentence_head=("classifier.dense", "gelu", "classifier.out_proj"),
        ),
    )
}


def family_of(model_type: str) -> Family:
    """The family of a transformers ``model_type``.

    Raises:
        IncompatibleError: Centra does not know this kind of encoder.
    """
    if model_type not in FAMILIES:
        raise IncompatibleError(
            f"model type {model_type!r:.60} is not supported; Centra knows {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]


def transformers_class(family: Family, name: str) -> Any:
    """A class of the family's transformers module, imported now.

    Args:
        family: the encoder family.
        name: the class name, e.g. ``family.layer``.
    """
    return getattr(importlib.import_module(family.module), name)
