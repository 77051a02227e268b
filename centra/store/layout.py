"""Where things lie in a store, be it a folder or a bucket: paths with ``/`` from its root."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from centra.formats.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from centra.store.protocol import Witness

__all__ = [
    "BLOBS",
    "CHANNELS",
    "DOCUMENT",
    "SIGNATURES",
    "WITNESSES",
    "blob_path",
    "is_signature_name",
    "parse_witnesses",
    "pointer_path",
    "signature_name",
    "signatures_folder",
    "witness_file",
]

BLOBS = "blobs/sha256"
CHANNELS = "channels"
SIGNATURES = "signatures"
WITNESSES = "witnesses"
DOCUMENT = "store.json"

_SIGNATURE = re.compile(r"[0-9a-f]{64}\.json")
_WITNESS = re.compile(r"([1-9][0-9]{0,17})-([0-9a-f]{64})\.txt")


def blob_path(digest: str) -> str:
    """Where a blob lies."""
    return f"{BLOBS}/{digest[:2]}/{digest}"


def pointer_path(channel: str) -> str:
    """Where the pointer of a channel lies.

    Raises:
        InvalidNameError: the channel's name could leave the folder, or is none.
    """
    return f"{CHANNELS}/{parse_name(channel, 'channel name')}.json"


def signatures_folder(manifest: str) -> str:
    """Where the signatures of a release lie, by the digest of its manifest."""
    return f"{SIGNATURES}/{manifest}"


def signature_name(data: bytes) -> str:
    """The file name of a signature."""
    return f"{hashlib.sha256(data).hexdigest()}.json"


def is_signature_name(name: str) -> bool:
    """Whether a file beside the signatures is one."""
    return _SIGNATURE.fullmatch(name) is not None


def witness_file(witness: Witness) -> tuple[str, bytes]:
    """The file of a witness: its name, which says all, and the same for people."""
    count, digest = witness
    return f"{count}-{digest}.txt", f"{count}:{digest}\n".encode()


def parse_witnesses(names: Iterable[str]) -> list[Witness]:
    """Of the files beside the witnesses those that are some, in the log's order."""
    matches = (_WITNESS.fullmatch(name) for name in names)
    return sorted((int(match[1]), match[2]) for match in matches if match)
