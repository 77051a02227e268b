"""A small race; see :mod:`tests.torture.races`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.torture import races

if TYPE_CHECKING:
    from tests.torture.crashes import Attacked


def test_eight_processes_of_three_teams_lose_nothing(on_sqlite: Attacked) -> None:
    counts, lost = races.race(on_sqlite.world, 3, processes=8, steps=3)
    assert lost == []
    assert counts["commands"] == 24
