"""Standard output and standard error on which no command can fail.

What cannot be written, because a disk is full, a reader has left or a stream is closed, is lost and
remembered; a character that the encoding lacks is written as an escape. So are those that a terminal
obeys instead of showing them: labels, names and messages come from files that others wrote. So every command comes to its
own end, and only there is it decided what lost output means: nothing for what was changed, and a
failure for what was only to be read.
"""

from __future__ import annotations

import io
import os
import re
import select
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["CONTROLS", "Output", "mark_done", "printable", "protect", "unescaped"]

CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys: control characters but for tab and line feed, and what turns the direction of
a text around, so that it reads as another. Marks that only say the direction of a letter stay."""
_LAST = 2
"""The descriptor of standard error, the last of the three."""
_BROKEN_PIPE = 141
"""The exit code of a program that a closed pipe has ended."""


def printable(text: str) -> str:
    """A text in which what a terminal would obey is written as an escape, as in Python."""
    return CONTROLS.sub(_escape, text)


def _escape(control: re.Match[str]) -> str:
    code = ord(control[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class _Sink(io.RawIOBase):
    """A stream's file, to which writing always succeeds."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.error: OSError | None = None
        """Why something was lost, if anything was."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some bytes, or lose all of them."""
        if self.error is None:
            try:
                # None: whoever shares the pipe or terminal has set it not to block.
                while (written := self._raw.write(data)) is None:
                    select.select([], [self._raw], [])
                return written
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


class Output(io.TextIOWrapper):
    """One of the two streams, with what has become of it."""

    done = False
    """Whether the command has done what it was asked, so that lost output is no failure."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # Which would close its file if it were not kept.
        self._sink = _Sink(_raw(stream))
        super().__init__(
            io.BufferedWriter(self._sink),
            encoding=stream.encoding if stream else "utf-8",
            errors="backslashreplace",
            line_buffering=stream is not None and stream.isatty(),
        )

    def write(self, text: str, /) -> int:
        """Write some text, in which only what moves nothing but a line's own start is left as it is."""
        # Where a library draws a bar, it goes back to the start of its line first.
        start = "\r" if text.startswith("\r") else ""
        self.write_unescaped(start + printable(text.removeprefix(start)))
        return len(text)

    def write_unescaped(self, text: str) -> int:
        """Write what a terminal is to obey."""
        return super().write(text)

    @property
    def error(self) -> OSError | None:
        """Why something was lost, if anything was."""
        self.flush()
        return self._sink.error

    def exit_code(self) -> int:
        """What a command ends with that came to its end without an error."""
        error = self.error
        if error is None:
            return 0
        what = f"standard output cannot be written: {error.strerror}"
        if self.done:
            click.echo(f"done, but not reported: {what}", err=True)
            return 0
        if isinstance(error, BrokenPipeError):
            return _BROKEN_PIPE  # The reader has what it wanted, as 'head' does.
        click.echo(f"Error: {what}", err=True)
        return 1


def protect() -> Output:
    """Put such streams in the place of the two that there are; the one of standard output."""
    # A descriptor that is closed would be given to the next file that is opened, a database say,
    # and get what libraries print.
    while (number := os.open(os.devnull, os.O_RDONLY)) <= _LAST:
        pass
    os.close(number)
    output = Output(sys.stdout)
    sys.stdout, sys.stderr = output, Output(sys.stderr)
    return output


class _Unescaped:
    """A stream as a library writes to it that draws on terminals."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)

    def write(self, text: str) -> int:
        """Write it as it is."""
        return self._output.write_unescaped(text)


def unescaped(stream: TextIO) -> Any:
    """A stream for what draws on a terminal, and makes printable what it is given itself."""
    return _Unescaped(stream) if isinstance(stream, Output) else stream


def mark_done() -> None:
    """Say that a command has done what it was asked, before it prints what that was."""
    if isinstance(sys.stdout, Output):
        sys.stdout.done = True


def _raw(stream: TextIO | None) -> io.RawIOBase:
    if stream is None:  # It was closed before we began. Reading alone: each write fails.
        return io.FileIO(os.open(os.devnull, os.O_RDONLY), "w", closefd=False)
    buffer: Any = stream.buffer
    raw: io.RawIOBase = getattr(buffer, "raw", buffer)
    return raw
