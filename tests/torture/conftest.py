"""Worlds to attack, made once a session."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.torture import shim, worlds
from tests.torture.crashes import Attacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services import S3Server
    from tests.torture.worlds import Services


@pytest.fixture(scope="session")
def torture_services(warm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Services:
    """A warm Python whose processes can be broken, and what commands take."""
    if shim.built() is None:
        pytest.skip("no process can be broken at a system call: there is no C compiler 'cc'")
    given = tmp_path_factory.mktemp("given")
    worlds.make_given(given)
    return worlds.Services(python=warm_python, given=given)


@pytest.fixture(scope="session")
def on_sqlite(
    torture_services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    """SQLite with a folder."""
    folder = tmp_path_factory.mktemp("torture") / "world"
    with worlds.opened("sqlite", torture_services, folder) as world:
        yield Attacked(world=world)


@pytest.fixture(scope="session")
def on_servers(
    torture_services: Services,
    postgres_url: str,
    s3_server: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Attacked]:
    """PostgreSQL with the S3 server."""
    folder = tmp_path_factory.mktemp("torture") / "world"
    there = dataclasses.replace(torture_services, postgres=postgres_url, s3=s3_server)
    with worlds.opened("servers", there, folder) as world:
        yield Attacked(world=world)
