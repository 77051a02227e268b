"""What a Serve application is told: the ``args`` of a Serve config file, checked by name."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from centra.errors import UsageError
from centra.formats.names import parse_name
from centra.serving.limits import Limits
from centra.serving.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Settings"]

Text = Annotated[str, Field(min_length=1)]
"""Empty is what a variable leaves that nobody set."""
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseModel):
    """How an application serves; what is not said here is as for :class:`centra.serving.Batcher`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: Text | None = None
    """A channel, ``STORE#CHANNEL``, which all replicas follow together; or what never moves."""
    channels: dict[str, Text] | None = Field(default=None, min_length=1)
    """Instead of it several sources, by the names that callers choose them by; the first is default."""
    tasks: list[str] | None = None
    keys: list[Path] = []
    threads: PositiveInt | None = None
    """Of each replica; default as many as ``num_cpus`` has whole ones."""
    device: str | None = None
    dtype: str | None = None
    interval: PositiveFloat = 5.0
    """Seconds between two looks at a channel."""
    shadow: Text | None = None
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    tokens: Path | None = None
    """The file of tokens, on every node."""
    limits: Limits = Limits()
    """Of each replica."""
    replicas: PositiveInt | None = None
    """How many there are, always; default one."""
    autoscaling: dict[str, Any] | None = None
    """Instead of it Ray Serve's own ``autoscaling_config``: ``max_replicas`` at least."""
    num_cpus: NonNegativeFloat = 1.0
    """Processors that Ray sets aside for each replica."""
    num_gpus: NonNegativeFloat = 0.0
    """GPUs likewise; with 0.25 four replicas share one."""
    host: Text = "127.0.0.1"
    """Where replicas listen themselves."""
    replica_port: Port | None = None
    """For HTTP past Ray's proxy, shared by the replicas of a node; 0 gives each one of its own, None
    none at all."""
    grpc_port: Port | None = None
    """For gRPC, likewise; it takes a ``replica_port``."""

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Self:
        """The settings that some ``args`` say.

        Raises:
            UsageError: one of them is unknown, or not as it must be.
        """
        for name in args:
            if name not in cls.model_fields:
                known = ", ".join(sorted(cls.model_fields))
                raise _refusal(name, f"there is no such argument; expected {known}")
        try:
            return cls.model_validate(args)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise _refusal(where, first["msg"].removeprefix("Value error, ")) from error

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object) -> object:
        """No setting is yes or no; texts may be numbers, since variables are texts."""
        inner = value.values() if isinstance(value, dict) else ()
        for each in (value, *inner):
            if isinstance(each, bool):
                raise ValueError(f"expected no yes or no, found {str(each).lower()}")  # noqa: TRY004
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.source is None) == (self.channels is None):
            raise ValueError("expected source or channels, and one of them")
        for name in self.channels or ():
            parse_name(name, "channel name")
        if self.channels is not None and self.shadow is not None:
            raise ValueError("shadow compares with a source, not with channels")
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("expected replicas or autoscaling, not both")
        if self.autoscaling is not None and "max_replicas" not in self.autoscaling:
            raise ValueError("autoscaling lacks max_replicas")
        if self.grpc_port is not None and self.replica_port is None:
            raise ValueError("grpc_port takes a replica_port: both are listened on past the proxy")
        if self.replica_port == 0 and self.grpc_port:
            raise ValueError("replica_port 0 gives each replica one of its own: so must grpc_port")
        if self.grpc_port and self.grpc_port == self.replica_port:
            raise ValueError(f"grpc_port and replica_port are both {self.grpc_port}")
        return self

    @property
    def sources(self) -> str | dict[str, str]:
        """As :class:`centra.serving.Batcher` takes them."""
        return self.channels or self.source or ""

    @property
    def compute_threads(self) -> int:
        """Threads that a replica computes on."""
        return self.threads or max(1, int(self.num_cpus))

    @property
    def listener(self) -> Listener | None:
        """Where replicas listen themselves, if they do."""
        if self.replica_port is None:
            return None
        return Listener(
            host=self.host,
            port=self.replica_port,
            grpc_port=self.grpc_port,
            shared=self.replica_port != 0,
        )


def _refusal(where: str, reason: str) -> UsageError:
    text = f"{where}: {reason}" if where else reason
    return UsageError(f"the application's arguments: {text}", code="bad-arguments", field=where)
