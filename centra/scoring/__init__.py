"""Files of inputs, answered: JSONL, CSV, Parquet and lines of text, in constant memory."""

from __future__ import annotations

from centra.scoring.files import ScoredFile, score_files

__all__ = ["ScoredFile", "score_files"]
