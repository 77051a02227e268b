"""What came of each row of an evaluation, kept in few bytes; see :meth:`centra.kinds.base.Kind.outcomes`.

Packed they are zlib over a line that names the type of the numbers and how many columns there are,
``<i2 2``, and the columns, one after the other.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from centra.errors import FormatError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["pack_outcomes", "unpack_outcomes"]

_MOST = 64 * 2**20
"""Bytes, unpacked."""
_TYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f8")


def pack_outcomes(outcomes: np.ndarray) -> bytes | None:
    """Outcomes as bytes, the same for the same; None where they are too many to be kept.

    Args:
        outcomes: ``(examples, columns)``; booleans, whole numbers or float64.
    """
    import numpy as np

    if outcomes.dtype.kind in "iu":
        edges = (int(outcomes.min(initial=0)), int(outcomes.max(initial=0)))
        outcomes = outcomes.astype(np.result_type(*map(np.min_scalar_type, edges)))
    if outcomes.nbytes > _MOST:
        return None
    little = outcomes.astype(outcomes.dtype.newbyteorder("<"), copy=False)
    header = f"{little.dtype.str} {outcomes.shape[1]}\n".encode()
    return zlib.compress(header + little.tobytes(order="F"), 9)


def unpack_outcomes(data: bytes, examples: int) -> np.ndarray:
    """Outcomes as :func:`pack_outcomes` was given them.

    Args:
        data: packed.
        examples: how many there are.

    Raises:
        FormatError: they are none, or of another number of examples.
    """
    import numpy as np

    try:
        header, _, body = zlib.decompressobj().decompress(data, _MOST + len(data)).partition(b"\n")
        kind, columns = header.decode().split()
        if kind not in _TYPES:
            raise ValueError(f"numbers of an unknown type {kind!r}")
        return np.frombuffer(body, dtype=kind).reshape(int(columns), examples).T
    except (zlib.error, ValueError) as error:
        raise FormatError(
            f"the outcomes of {examples} rows of an evaluation cannot be read: {error}"
        ) from error
