"""The JSON of the Open Inference Protocol as models: what is checked, and what ``/docs`` shows.

Fields that the protocol does not have are passed over, as its other servers do.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, StrictInt

__all__ = [
    "ErrorBody",
    "InferBody",
    "InferResponseBody",
    "MetadataBody",
    "ServerBody",
]

_MOST = 16
"""Tensors of a request, and dimensions of one: more than any task has."""


class _Body(BaseModel):
    model_config = ConfigDict(
        extra="ignore", frozen=True, use_attribute_docstrings=True, defer_build=True
    )


class InputTensorBody(_Body):
    """An input tensor."""

    name: str
    """``text``, or ``text_pair``."""
    datatype: str
    """``BYTES``."""
    shape: Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(max_length=_MOST)]
    """``[n]``, or ``[n, 1]``."""
    parameters: dict[str, Any] | None = None
    """``binary_data_size``: so many bytes behind the JSON are its data."""
    data: SkipValidation[list[Any]] | None = None
    """Its texts, unless they stand behind the JSON."""


class RequestedOutputBody(_Body):
    """An output tensor that is wanted."""

    name: str
    parameters: dict[str, Any] | None = None
    """``binary_data``: whether its data are to stand behind the JSON."""


class InferBody(_Body):
    """A request for inference."""

    id: str | None = None
    """Comes back with the answer."""
    parameters: dict[str, Any] | None = None
    """``top_k``, ``timeout`` in microseconds, ``binary_data_output``."""
    inputs: Annotated[list[InputTensorBody], Field(max_length=_MOST)]
    outputs: Annotated[list[RequestedOutputBody], Field(max_length=_MOST)] | None = None
    """Those that are wanted; default all."""


class OutputTensorBody(_Body):
    """An output tensor."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferResponseBody(_Body):
    """The answer to a request for inference."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any]
    """``release`` and ``digest`` of the release that answered, ``module`` of the task's module, and
    ``truncated`` where inputs were cut."""
    outputs: list[OutputTensorBody]


class TensorMetadataBody(_Body):
    """What a tensor is."""

    name: str
    datatype: str
    shape: list[int]


class MetadataBody(_Body):
    """What a task is."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadataBody]
    outputs: list[TensorMetadataBody]
    parameters: dict[str, Any]


class ServerBody(_Body):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class ErrorBody(_Body):
    """Why a request failed."""

    error: str
