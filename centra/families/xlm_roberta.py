"""XLM-RoBERTa: RoBERTa under classes of its own; its checkpoints say ``roberta.`` too."""

from __future__ import annotations

from dataclasses import replace

from centra.families.base import TransformersClasses
from centra.families.roberta import ROBERTA

__all__ = ["XLM_ROBERTA"]

XLM_ROBERTA = replace(
    ROBERTA,
    model_type="xlm-roberta",
    transformers=TransformersClasses(
        module="transformers.models.xlm_roberta.modeling_xlm_roberta",
        config="XLMRobertaConfig",
        model="XLMRobertaModel",
        embeddings="XLMRobertaEmbeddings",
        layer="XLMRobertaLayer",
    ),
)
