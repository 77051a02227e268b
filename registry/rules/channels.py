"""Names of channels: which can be moved to, and which move by themselves."""

from __future__ import annotations

from centra.errors import UsageError
from centra.formats.names import parse_name

__all__ = ["LATEST", "check_movable"]

LATEST = "latest"
"""The channel that follows the releases of the live set by itself."""


def check_movable(name: str) -> None:
    """Refuse a channel's name that cannot be moved to.

    Raises:
        InvalidNameError, UsageError: it is not acceptable, all digits, or reserved.
    """
    parse_name(name, "channel name")
    if name == LATEST:
        raise UsageError(
            f"the channel {LATEST!r} follows the releases of the live set by itself",
            code="reserved-channel",
            channel=name,
        )
    if name.isdecimal():
        raise UsageError(
            f"channel {name!r}: a name of digits alone would read as a release number",
            code="channel-of-digits",
            channel=name,
        )
