"""How much a server takes at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from centra.errors import UsageError

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is taken, held and computed at once. Each is at least 1.

    Raises:
        UsageError: a limit below 1.
    """

    queue_inputs: int = 2048
    """Inputs that wait; a request that would be one too many is refused as a whole."""
    queue_tokens: int = 65_536
    """Tokens that wait, as for :attr:`queue_inputs`."""
    queue_ms: int = 10_000
    """Milliseconds that what waits takes, as measured: while it takes longer, all are refused."""
    batch_tokens: int | None = None
    """Tokens that are computed together; None for what suits the engine."""
    request_inputs: int = 1024
    """Inputs of one request."""
    input_characters: int = 100_000
    """Characters of one input; a longer one fails alone."""
    body_bytes: int = 8 * 2**20
    """Bytes of one request on the wire."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise UsageError(
                    f"the limit {field.name} must be at least 1, not {value}",
                    code="bad-limit",
                    limit=field.name,
                    value=value,
                )
