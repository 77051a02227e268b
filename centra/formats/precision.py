"""In which precision a release computes a task."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Precision"]


class Precision(StrEnum):
    """How the products with a task's weights are computed, those of the shared layers included."""

    FP32 = "fp32"
    INT8 = "int8"
