"""ELECTRA: BERT with embeddings that may be narrower than its layers.

The projection that follows them then belongs to layer 0.
"""

from __future__ import annotations

from centra.families import bert
from centra.families.base import Family, TransformersClasses, size_of
from centra.families.heads import CheckpointHead

__all__ = ["ELECTRA"]

ELECTRA = Family(
    model_type="electra",
    settings=bert.SETTINGS
    | {"embedding_size": size_of("embeddings.word_embeddings.weight", axis=1)},
    embeddings=bert.embeddings,
    layer=bert.layer,
    layer_prefix="encoder.layer.",
    prefix="electra.",
    pooler=None,
    transformers=TransformersClasses(
        module="transformers.models.electra.modeling_electra",
        config="ElectraConfig",
        model="ElectraModel",
        embeddings="ElectraEmbeddings",
        layer="ElectraLayer",
    ),
    sentence_head=lambda _: CheckpointHead(
        dense="classifier.dense", activation="gelu", out="classifier.out_proj"
    ),
)
