"""Releases and tasks in the files of other engines, one format a file.

A new format is a file here that makes a :class:`~centra.exports.base.Format`, and its entry in
:data:`FORMATS`. The libraries that a format needs are imported when something is written in it.
"""

from __future__ import annotations

from centra.errors import UsageError
from centra.exports.base import Export, Format, Source, Written
from centra.exports.hf import HF
from centra.exports.mlflow import MLFLOW
from centra.exports.oci import OCI
from centra.exports.onnx import ONNX
from centra.exports.openvino import OPENVINO
from centra.exports.optimum import OPTIMUM
from centra.exports.triton import TRITON
from centra.exports.writing import write_export

__all__ = ["FORMATS", "Export", "Format", "Source", "Written", "format_named", "write_export"]

FORMATS = {known.name: known for known in (ONNX, HF, OPTIMUM, TRITON, OPENVINO, OCI, MLFLOW)}
"""By their names."""


def format_named(name: str) -> Format:
    """The format of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in FORMATS:
        raise UsageError(
            f"unknown format {name!r:.60}; expected one of {', '.join(FORMATS)}",
            code="format-unknown",
            format=name,
            known=[*FORMATS],
        )
    return FORMATS[name]
