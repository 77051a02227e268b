"""What the Open Inference Protocol tells of a server and its models: here a model is a task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import centra
from centra.errors import NotFoundError
from centra.kinds import kind_named
from centra.serving.oip.outputs import outputs_of
from centra.serving.oip.tensors import BYTES, shown

if TYPE_CHECKING:
    from centra.formats.task_module import TaskSpec
    from centra.serving.oip.outputs import Output
    from centra.serving.served import ServedRelease
    from centra.serving.tokens import Caller

__all__ = [
    "Model",
    "find_model",
    "model_config",
    "model_metadata",
    "repository_index",
    "server_metadata",
]

PLATFORM = "centra"
_CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A task of a release, as a model of the protocol."""

    name: str
    served: ServedRelease

    @property
    def spec(self) -> TaskSpec:
        """What its module says about itself."""
        return self.served.release.specs[self.name]

    @property
    def version(self) -> str:
        """The task's version, ``2.1``; where that is unknown the start of its module's digest."""
        return self.served.versions.get(self.name) or self.module

    @property
    def module(self) -> str:
        """The start of its module's digest."""
        return self.served.module(self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of its input tensors."""
        return ("text", "text_pair") if self.spec.input == "pair" else ("text",)

    @cached_property
    def outputs(self) -> dict[str, Output]:
        """Its output tensors by name."""
        return outputs_of(kind_named(self.spec.kind))

    @property
    def identity(self) -> dict[str, str | int]:
        """What says which weights answered."""
        number = self.served.number
        return {
            **({} if number is None else {"release": number}),
            "digest": self.served.digest,
            "module": self.module,
        }

    @property
    def parameters(self) -> dict[str, Any]:
        """What callers rely on, and how its logits become answers."""
        decision = self.spec.effective_decision
        threshold = decision.threshold
        return {
            "kind": self.spec.kind,
            "input": self.spec.input,
            "labels": [*self.spec.labels],
            "max_length": self.served.release.max_lengths[self.name],
            "activation": decision.activation,
            "threshold": [*threshold] if isinstance(threshold, tuple) else threshold,
            "rejection": decision.rejection,
            **self.identity,
        }


def find_model(
    served: ServedRelease, name: str, version: str = "", caller: Caller | None = None
) -> Model:
    """A task of a release.

    Args:
        served: the release.
        name: the task's.
        version: its version or the start of its module's digest; empty for whichever is served.
        caller: who asks, where not everybody may ask for every task.

    Raises:
        NotAllowedError: the caller may not ask for it.
        NotFoundError: it is not served, or not in this version.
    """
    if caller is not None:
        caller.check([name], "model")
    if name not in served.release.specs:
        known = served.tasks if caller is None else caller.allowed(served.tasks)
        raise NotFoundError(
            f"there is no model {shown(name)}; this server has {', '.join(known)}",
            code="no-such-task",
        )
    model = Model(name=name, served=served)
    if version not in ("", model.version, model.module):
        raise NotFoundError(
            f"model {name} is served in version {model.version}, not {shown(version)}",
            code="no-such-version",
        )
    return model


def server_metadata() -> dict[str, Any]:
    """Name and version of this server, and what it understands beyond the protocol."""
    return {
        "name": "centra",
        "version": centra.__version__,
        "extensions": ["binary_tensor_data", "model_configuration", "model_repository(index)"],
    }


def model_metadata(model: Model) -> dict[str, Any]:
    """Versions, tensors and parameters of a task."""
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [{"name": name, "datatype": BYTES, "shape": [-1]} for name in model.inputs],
        "outputs": [
            {"name": output.name, "datatype": output.datatype, "shape": output.shape}
            for output in model.outputs.values()
        ],
        "parameters": model.parameters,
    }


def model_config(model: Model) -> dict[str, Any]:
    """The same in the form of Triton's model configuration, whose parameters are texts.

    Metadata over gRPC have no place for parameters; clients find them here.
    """
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        # Batches are the server's own affair: a request's first dimension is part of its shape.
        "max_batch_size": 0,
        "input": [
            {"name": name, "data_type": _CONFIG_TYPES[BYTES], "dims": [-1]} for name in model.inputs
        ],
        "output": [
            {
                "name": output.name,
                "data_type": _CONFIG_TYPES[output.datatype],
                "dims": output.shape,
            }
            for output in model.outputs.values()
        ],
        "parameters": {
            name: {"string_value": value if isinstance(value, str) else json.dumps(value)}
            for name, value in model.parameters.items()
        },
    }


def repository_index(served: ServedRelease, caller: Caller | None = None) -> list[dict[str, str]]:
    """Every task that the caller may ask for, with its version; all of them are ready."""
    names = served.tasks if caller is None else caller.allowed(served.tasks)
    return [
        {"name": name, "version": find_model(served, name).version, "state": "READY", "reason": ""}
        for name in names
    ]
