"""Backbones: registering them, closing them to new modules, and reading them."""

from __future__ import annotations

from registry.backbones.changing import BackboneOutcome, register, restore, retire
from registry.backbones.reading import BackboneRow, BackboneUse, show, spec, status
from registry.backbones.reading import list_backbones as list  # noqa: A004 - it is said backbones.list
from registry.rules.lifecycle import BackboneState

__all__ = [
    "BackboneOutcome",
    "BackboneRow",
    "BackboneState",
    "BackboneUse",
    "list",
    "register",
    "restore",
    "retire",
    "show",
    "spec",
    "status",
]
