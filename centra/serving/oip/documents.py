"""The JSON of the Open Inference Protocol as models: what is checked, and what ``/docs`` shows.

Fields that the protocol does not have are passed over, as its other servers do.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, StrictInt

__all__ = [
    "INFER_EXAMPLES",
    "ErrorBody",
    "InferBody",
    "InferResponseBody",
    "MetadataBody",
    "ServerBody",
    "answered",
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


INFER_EXAMPLES = {
    "texts": {
        "inputs": [
            {
                "name": "text",
                "datatype": "BYTES",
                "shape": [2],
                "data": ["wake me at seven", "is it cold?"],
            }
        ]
    },
    "best labels": {
        "id": "42",
        "parameters": {"top_k": 3, "timeout": 500_000},
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["wake me at seven"]}
        ],
        "outputs": [{"name": "labels"}, {"name": "scores"}],
    },
}
"""Requests for inference."""
_ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    MetadataBody: {
        "name": "intent",
        "versions": ["2.1"],
        "platform": "centra",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP32", "shape": [-1]},
        ],
        "parameters": {"kind": "classification", "labels": ["alarm", "music"], "max_length": 128},
    },
    InferResponseBody: {
        "model_name": "intent",
        "model_version": "2.1",
        "parameters": {"release": 7, "digest": "9f2c…", "module": "4be1d1f1c0aa"},
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["alarm", "weather"]},
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.98, 0.91]},
        ],
    },
}


def answered(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """What ``/docs`` shows of an answer, with an example."""
    content = {"application/json": {"example": _ANSWERS[model]}}
    return {200: {"model": model, "description": "The answer.", "content": content}}
