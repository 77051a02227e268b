"""Every error that Centra raises on purpose, in one tree.

Callers catch :class:`CentraError`. The five branches below it tell what sort of fault it was. An
error says what is wrong and with which objects: in words (its text), as a stable ``code``, and as
``data``. It names no command and no option: who shows it to people adds what they can do there; the
command line has one table of codes for that, in ``cli/errors.py``.
"""

from __future__ import annotations

from typing import Any


class CentraError(Exception):
    """A fault that a user can understand and mend."""

    code: str = "failed"
    """What is wrong, stable and for programs. A class has one; where it is raised a narrower one can
    be given."""

    def __init__(self, message: str = "", *, code: str | None = None, **data: Any) -> None:
        """Make an error.

        Args:
            message: what was found and what was expected, in words.
            code: instead of the class's own.
            data: the objects that it is about, by name; plain values.
        """
        super().__init__(message)
        if code is not None:
            self.code = code
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        # Some errors take other arguments than their text; workers must be able to send them.
        return _again, (type(self), self.args, vars(self))


class UsageError(CentraError):
    """The request itself is malformed: a bad name, a bad setting, options that exclude each other."""

    code = "usage"


class NotFoundError(CentraError):
    """Something named does not exist."""

    code = "not-found"


class NotAllowedError(CentraError):
    """The actor or the credentials may not do this."""

    code = "not-allowed"


class ConflictError(CentraError):
    """The request contradicts what is recorded: an existing name, another label set, a stale revision."""

    code = "conflict"


class VerificationError(CentraError):
    """Bytes or numbers are not what they were declared to be."""

    code = "verification"


class InvalidNameError(UsageError):
    """A name that Centra does not accept, for example because it could leave its folder."""

    code = "invalid-name"

    def __init__(self, what: str, name: str, expected: str) -> None:
        super().__init__(
            f"{name!r} is not a valid {what}: expected {expected}", what=what, name=name
        )
        self.name = name


class FormatError(VerificationError):
    """A file is not readable as what it should be: truncated, corrupted, of another kind."""

    code = "format"


class UnsupportedFormatError(FormatError):
    """A document of another major format version."""

    code = "unsupported-format"

    def __init__(self, where: str, *, found: str, supported: str) -> None:
        super().__init__(
            f"{where}: format {found} is not supported; this Centra reads {supported}. "
            "Use a Centra of that major version, or write the file again with this one.",
            found=found,
            supported=supported,
        )
        self.found = found
        self.supported = supported


class IncompatibleError(VerificationError):
    """A module and a backbone, or two modules, cannot be served together."""

    code = "incompatible"


class DataError(CentraError):
    """Training or prediction data that cannot be used; the text names file and line."""

    code = "data"


class TrainingDivergedError(CentraError):
    """Training ended in weights that are NaN or infinite."""

    code = "training-diverged"

    def __init__(self, learning_rate: float) -> None:
        super().__init__(
            f"training diverged: the weights are NaN or infinite at learning rate "
            f"{learning_rate:g}; try a lower one",
            learning_rate=learning_rate,
        )


class StoreError(CentraError):
    """The blob store cannot be reached or refuses to work."""

    code = "store"


class StoreUnreachableError(StoreError):
    """The blob store does not answer."""

    code = "store-unreachable"


class StoreNotWritableError(NotAllowedError):
    """The blob store can be read but not written."""

    code = "not-writable"


class BlobNotFoundError(NotFoundError):
    """The store holds no blob with this digest."""

    code = "blob-not-found"

    def __init__(self, digest: str, where: str, mend: str = "") -> None:
        super().__init__(
            f"blob sha256:{digest} is missing from {where}" + (mend and f"; {mend}"), digest=digest
        )
        self.digest = digest


class CorruptBlobError(VerificationError):
    """A blob's bytes do not hash to its name."""

    code = "corrupt-blob"

    def __init__(
        self, digest: str, actual: str, where: str, mend: str = "put the original again"
    ) -> None:
        super().__init__(
            f"{where} is corrupt: its SHA-256 is {actual}, expected {digest}. "
            f"Nothing was loaded from it; {mend}.",
            digest=digest,
            actual=actual,
        )
        self.digest = digest
        self.actual = actual


def _again(kind: type[CentraError], args: tuple[Any, ...], state: dict[str, Any]) -> CentraError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, short and printable, or its type's name without one."""
    line = str(error).strip().split("\n")[0][:500] or type(error).__name__
    return line.encode(errors="backslashreplace").decode()
