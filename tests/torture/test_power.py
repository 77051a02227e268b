"""One power cut of each kind; see :mod:`tests.torture.power`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.torture import power
from tests.torture.commands import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.torture.crashes import Attacked
    from tests.torture.worlds import Services

_BACKBONE = "backbone register tiny {given}/encoder"
_REGISTER = Command(
    name="a first module",
    line="task register topics {given}/topics.safetensors",
    start="empty",
    before=(_BACKBONE,),
)
_PULL = Command(
    name="a first pull",
    line="release pull 1 --output out",
    start="empty",
    before=(_BACKBONE, _REGISTER.line, "compose --release"),
    outputs=("out",),
)
_EXPORT = Command(
    name="a first export",
    line="export out.tar --task topics",
    start="empty",
    before=(_BACKBONE, _REGISTER.line),
    outputs=("out.tar",),
)


@pytest.fixture(scope="module")
def on_a_disk(
    torture_services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    """A world whose power can be cut."""
    if why := power.missing():
        pytest.skip(f"no power can be cut: {why}")
    with power.opened(torture_services, tmp_path_factory.mktemp("power") / "world") as attacked:
        yield attacked


@pytest.mark.parametrize("command", [_REGISTER, _PULL, _EXPORT], ids=lambda one: one.name)
def test_what_a_command_says_is_done_outlives_a_power_cut(
    on_a_disk: Attacked, command: Command
) -> None:
    assert power.cut(on_a_disk, command) == []


def test_a_power_cut_in_between_is_mended_by_repeating(on_a_disk: Attacked) -> None:
    assert power.cut(on_a_disk, _REGISTER, 8) == []
