"""CamemBERT: RoBERTa under classes of its own; its checkpoints say ``roberta.`` too."""

from __future__ import annotations

from dataclasses import replace

from centra.families.base import TransformersClasses
from centra.families.roberta import ROBERTA

__all__ = ["CAMEMBERT"]

CAMEMBERT = replace(
    ROBERTA,
    model_type="camembert",
    transformers=TransformersClasses(
        module="transformers.models.camembert.modeling_camembert",
        config="CamembertConfig",
        model="CamembertModel",
        embeddings="CamembertEmbeddings",
        layer="CamembertLayer",
    ),
)
