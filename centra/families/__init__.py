"""The encoder families that Centra knows, each in a file of its own."""

from __future__ import annotations

from centra.errors import ConflictError, IncompatibleError
from centra.families.albert import ALBERT
from centra.families.base import Family
from centra.families.bert import BERT
from centra.families.camembert import CAMEMBERT
from centra.families.deberta_v2 import DEBERTA_V2
from centra.families.distilbert import DISTILBERT
from centra.families.electra import ELECTRA
from centra.families.ernie import ERNIE
from centra.families.modernbert import MODERNBERT
from centra.families.mpnet import MPNET
from centra.families.nomic_bert import NOMIC_BERT
from centra.families.roberta import ROBERTA
from centra.families.xlm_roberta import XLM_ROBERTA

__all__ = ["FAMILIES", "Family", "add_family", "family_named"]

FAMILIES = {
    family.model_type: family
    for family in (
        ALBERT,
        BERT,
        ROBERTA,
        XLM_ROBERTA,
        CAMEMBERT,
        DEBERTA_V2,
        DISTILBERT,
        ELECTRA,
        ERNIE,
        MODERNBERT,
        MPNET,
        NOMIC_BERT,
    )
}
"""By their names in ``config.json`` and ``backbone.json``."""


def family_named(model_type: str) -> Family:
    """The family of a ``model_type``.

    Raises:
        IncompatibleError: Centra does not know this kind of encoder.
    """
    if model_type not in FAMILIES:
        raise IncompatibleError(
            f"model type {model_type!r:.60} is not supported; Centra knows {', '.join(sorted(FAMILIES))}",
            code="family-unknown",
            model_type=model_type,
            known=sorted(FAMILIES),
        )
    return FAMILIES[model_type]


def add_family(family: Family) -> None:
    """Make a family known in this process.

    Raises:
        ConflictError: there is one of its name.
    """
    if family.model_type in FAMILIES:
        raise ConflictError(
            f"there is a family {family.model_type!r} already", code="family-exists"
        )
    FAMILIES[family.model_type] = family
