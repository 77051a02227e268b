"""Panics of libraries that are written in Rust, which are no Exceptions and would end a server."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["no_panic"]


@contextmanager
def no_panic(instead: Callable[[BaseException], Exception]) -> Iterator[None]:
    """Raise an error of ours where a library panics.

    Args:
        instead: makes it from the panic.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        # Its class is made anew by each library, and none of them exports it.
        if type(error).__name__ != "PanicException":
            raise
        raise instead(error) from error
