"""What the tests of the server share: releases of tiny modules, and a server that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.serving.servers import ServedStore, Server, make_modules, make_store, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from centra.formats.task_module import TaskModule
    from tests import support


@pytest.fixture(scope="session")
def served_modules(make_module: Callable[..., TaskModule]) -> dict[str, TaskModule]:
    """intent, same, slots, stars and topics: a task of each kind, and one on pairs."""
    return make_modules(make_module)


@pytest.fixture(scope="session")
def served_store(
    served_modules: dict[str, TaskModule],
    tiny_backbone: support.Backbone,
    tmp_path_factory: pytest.TempPathFactory,
) -> ServedStore:
    """A store whose channel production names release 7; not to be changed."""
    served = make_store(tmp_path_factory.mktemp("served"), tiny_backbone)
    served.publish(served_modules, number=7, version="2.1")
    return served


@pytest.fixture(scope="module")
def server(served_store: ServedStore) -> Iterator[Server]:
    """``centra serve`` as a process, on release 7."""
    with running(served_store.source) as running_server:
        yield running_server
