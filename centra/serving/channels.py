"""The channels of one server, by the names that callers choose them by."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from centra.errors import NotFoundError, UsageError
from centra.formats.names import parse_name
from centra.serving.served_channel import ServedChannel

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection

    from centra.runtime.release import Release
    from centra.serving.follower import Following
    from centra.serving.mailbox import Mailbox
    from centra.serving.preparing import LoadOptions
    from centra.serving.shadow import Shadow

    Source = str | os.PathLike[str] | Release

__all__ = ["ServedChannels", "no_such_channel"]


class ServedChannels(Mapping[str, ServedChannel]):
    """By name, the default first; a source that was given alone is called ``""``."""

    def __init__(
        self,
        source: Source | Mapping[str, Source],
        *,
        options: LoadOptions,
        follow: bool,
        interval: float,
        make_follower: Callable[..., Following],
        shadow: Shadow | None,
    ) -> None:
        """Say what is served; nothing is read yet.

        Args:
            source, follow, interval, make_follower: as for :class:`centra.serving.Batcher`.
            options: how releases are loaded.
            shadow: what compares with the one source.

        Raises:
            UsageError: no source or a bad name among several, or a shadow of them.
        """
        sources = source if isinstance(source, Mapping) else {"": source}
        if isinstance(source, Mapping):
            _check(source, shadow)
        self._channels = {
            name: ServedChannel(
                name,
                one,
                options=options,
                follow=follow,
                interval=interval,
                make_follower=make_follower,
                shadow=shadow,
            )
            for name, one in sources.items()
        }

    def __getitem__(self, name: str) -> ServedChannel:
        """The channel of a name."""
        return self._channels[name]

    def __iter__(self) -> Iterator[str]:
        """The names, the default first."""
        return iter(self._channels)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._channels)

    @property
    def names(self) -> list[str]:
        """Those that callers may choose; none where one source was given alone."""
        return [name for name in self._channels if name]

    def choose(self, name: str | None = None) -> ServedChannel:
        """A channel; without a name the default.

        Raises:
            NotFoundError: there is none of that name.
        """
        if name is None:
            return next(iter(self.values()))
        if name not in self._channels:
            raise no_such_channel(name, self.names)
        return self[name]

    async def open(self, mailbox: Mailbox) -> None:
        """Load what each names, one after the other, so that the later share what the earlier have.

        Args:
            mailbox: of the event loop.

        Raises:
            CentraError: of one of them, which the text names; none is open then.
        """
        try:
            for channel in self.values():
                await channel.open(mailbox)
        except BaseException:
            await self.follow_no_more()
            await self.close()
            raise

    def start(self) -> None:
        """Follow all from now on."""
        for channel in self.values():
            channel.start()

    async def follow_no_more(self) -> None:
        """Let what is served stay."""
        await asyncio.gather(*(channel.follow_no_more() for channel in self.values()))

    async def close(self) -> None:
        """Close all releases, when no request is left."""
        await asyncio.gather(*(channel.close() for channel in self.values()))


def no_such_channel(name: str, known: Collection[str]) -> NotFoundError:
    """The error that there is no channel of a name.

    Args:
        name: which was asked for.
        known: those that there are, as far as whoever asks may know.
    """
    those = f"there are {', '.join(known)}" if known else "there is none to choose"
    return NotFoundError(f"there is no channel {name[:80]!r}; {those}", code="no-such-channel")


def _check(sources: Mapping[str, Source], shadow: Shadow | None) -> None:
    if not sources:
        raise UsageError("expected at least one channel; none is named", code="no-channels")
    for name in sources:
        parse_name(name, "channel name")
    if shadow is not None:
        raise UsageError(
            "a shadow compares with one release, and channels are served by name; compare in a "
            "server of this channel alone",
            code="shadow-of-channels",
        )
