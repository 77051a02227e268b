"""RoBERTa: BERT with positions that count from behind the padding's id.

So a model with 514 positions takes 512 tokens. The table of token types has a single row.
"""

from __future__ import annotations

from centra.families import bert
from centra.families.base import Family, TransformersClasses
from centra.families.heads import CheckpointHead

__all__ = ["ROBERTA"]

ROBERTA = Family(
    model_type="roberta",
    settings=bert.SETTINGS,
    embeddings=bert.embeddings,
    layer=bert.layer,
    layer_prefix="encoder.layer.",
    prefix="roberta.",
    position_offset=True,
    token_types=False,
    transformers=TransformersClasses(
        module="transformers.models.roberta.modeling_roberta",
        config="RobertaConfig",
        model="RobertaModel",
        embeddings="RobertaEmbeddings",
        layer="RobertaLayer",
    ),
    sentence_head=lambda _: CheckpointHead(
        dense="classifier.dense", activation="tanh", out="classifier.out_proj"
    ),
)
