"""Promoting a release to a channel: nothing undone that others shipped, every gate shown, one swap."""

from __future__ import annotations

from registry.promotion.outcome import GateError, Promotion, StaleReleaseError
from registry.promotion.promoting import promote

__all__ = ["GateError", "Promotion", "StaleReleaseError", "promote"]
