"""ERNIE: BERT, perhaps with a table of task types, of which transformers takes the first for every token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from centra.families import bert
from centra.families.base import SIZE, SWITCH, TransformersClasses
from centra.families.description import Table
from centra.families.heads import CheckpointHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.description import Embeddings

__all__ = ["ERNIE"]


def _embeddings(settings: Mapping[str, Any]) -> Embeddings:
    plain = bert.embeddings(settings)
    if not settings["use_task_id"]:
        return plain
    tasks = Table(
        name="embeddings.task_type_embeddings",
        rows=settings["task_type_vocab_size"],
        width=settings["hidden_size"],
        ids="zeros",
    )
    return replace(plain, tables=(*plain.tables, tasks))


ERNIE = replace(
    bert.BERT,
    model_type="ernie",
    # The size is that of a tensor which is there only where it is used.
    settings=bert.SETTINGS | {"task_type_vocab_size": SIZE, "use_task_id": SWITCH},
    embeddings=_embeddings,
    prefix="ernie.",
    transformers=TransformersClasses(
        module="transformers.models.ernie.modeling_ernie",
        config="ErnieConfig",
        model="ErnieModel",
        embeddings="ErnieEmbeddings",
        layer="ErnieLayer",
    ),
    sentence_head=lambda _: CheckpointHead(
        dense="ernie.pooler.dense", activation="tanh", out="classifier"
    ),
)
