"""A port that an application's replicas share, and nobody else gets a part of."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import pytest

from centra.errors import ConflictError
from centra.serving.listener import Listener
from centra.serving.ray.ports import NodePorts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ports are shared on Linux alone")


@pytest.fixture
def listener() -> Listener:
    """Of a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Listener(port=free.getsockname()[1], shared=True)


def taken(listener: Listener, application: str, replica: str) -> closing[NodePorts]:
    """The ports, until the block ends."""
    return closing(NodePorts(listener, application=application, replica=replica))


def test_replicas_of_one_application_share_it(listener: Listener) -> None:
    with taken(listener, "centra", "one") as one:
        listener.listen(one.sockets)
        with taken(listener, "centra", "two") as two:
            listener.listen(two.sockets)
            assert one.sockets[0].getsockname() == two.sockets[0].getsockname()


def test_another_application_is_refused(listener: Listener) -> None:
    with (
        taken(listener, "centra/en", "one"),
        pytest.raises(ConflictError, match="replicas of the application centra/en"),
    ):
        taken(listener, "centra/zh", "two")
    with taken(listener, "centra/zh", "two"):
        pass


def test_so_is_who_would_share_with_a_stranger(listener: Listener) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", listener.port))
        stranger.listen()
        with pytest.raises(ConflictError, match=f"{listener.port} is in use"):
            taken(listener, "centra", "one")
        listener = Listener(port=0, grpc_port=listener.port, shared=True)
        with pytest.raises(ConflictError, match=f"{listener.grpc_port} is in use"):
            taken(listener, "centra", "one")
