"""Sizes as people type them."""

from __future__ import annotations

import pytest

from centra.formats.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GB", 20 * 10**9),
        ("500 MB", 500 * 10**6),
        ("1.5 gb", 1_500_000_000),
        ("2k", 2000),
        ("3T", 3 * 10**12),
        (" 7 ", 7),
        ("5 B", 5),
        ("0", 0),
    ],
)
def test_a_size_is_read_in_powers_of_ten(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "off", "GB", "-1", "1e9", "1 GiB", "1,5 GB", "9" * 400])
def test_what_is_no_size_is_none(text: str) -> None:
    assert parse_size(text) is None
