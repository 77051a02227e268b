"""``SHA256SUMS``: the list of a folder's files and their digests, as ``sha256sum -c`` reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from centra.errors import FormatError
from centra.formats.strict_json import LARGEST
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["PATH", "PULL_AGAIN", "SUMS", "read_sums", "sums_text"]

SUMS = "SHA256SUMS"
PULL_AGAIN = "pull the release again"
"""What mends a damaged folder."""
PATH = r"(?!\.)[A-Za-z0-9_.-]{1,255}(?:/(?!\.)[A-Za-z0-9_.-]{1,255}){0,7}"
"""No such path leads out of its folder."""
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({PATH})")


def read_sums(root: Path) -> dict[str, str]:
    """The digests that a folder's list gives, by path.

    Raises:
        FormatError: the list is missing, cannot be read or is malformed.
    """
    try:
        *lines, end = read_regular(root / SUMS, LARGEST).decode().split("\n")
    except FileNotFoundError as error:
        raise _damaged(root, f"missing; {PULL_AGAIN}") from error
    except OSError as error:
        raise _damaged(root, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _damaged(root, f"is damaged; {PULL_AGAIN}") from error
    sums: dict[str, str] = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            raise _damaged(root, f"malformed line {line[:90]!r}")
        digest, path = found.groups()
        if path in sums:
            raise _damaged(root, f"lists {path} twice")
        sums[path] = digest
    if end:
        raise _damaged(root, "its last line is cut off")
    return sums


def sums_text(sums: Mapping[str, str]) -> bytes:
    """The list of these digests, by path."""
    return "".join(f"{sums[path]}  {path}\n" for path in sorted(sums)).encode()


def _damaged(root: Path, fault: str) -> FormatError:
    return FormatError(f"{root / SUMS}: {fault}", code="folder-damaged", folder=str(root))
