"""Clients that are slow, silent, endless or half gone hold nobody else up, and are let go."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from centra.serving.http import bodies, connection
from tests.serving.held import HeldServer, eventually, held

if TYPE_CHECKING:
    from collections.abc import Iterator

POST = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SIZE = 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[HeldServer]:
    """A server that waits for clients for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "BODY_SECONDS", 0.3)
        patch.setattr(connection, "HEAD_SECONDS", 0.3)
        patch.setattr(connection, "_READ_SECONDS", 0.3)
        patch.setattr(connection, "_LINGER_SECONDS", 0.1)
        with held(body_bytes=SIZE) as running:
            yield running


def connect(server: HeldServer, *data: bytes) -> socket.socket:
    """A connection over which this is sent."""
    made = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    for part in data:
        made.sendall(part)
    return made


def all_of(made: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while part := made.recv(65536):
            received += part
    except ConnectionResetError:
        pass  # It did not wait for the rest.
    made.close()
    return received


def endless(made: socket.socket, part: bytes) -> bytes:
    """Send this again and again until the server closes the connection; what it says."""
    made.settimeout(0.01)
    received = b""
    while True:
        try:
            made.sendall(part)
        except TimeoutError:
            pass
        except OSError:
            break
        try:
            said = made.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            break
        if not said:
            break
        received += said
    made.close()
    return received


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("begun", [b"", b"P", b"POST /v1/predict HTTP/1.1\r\nHost", POST])
def test_a_head_that_does_not_come_is_not_waited_for(server: HeldServer, begun: bytes) -> None:
    assert all_of(connect(server, begun)) == b""


def test_nor_is_one_that_never_begins(server: HeldServer) -> None:
    assert endless(connect(server), b"\r\n") == b""


def test_a_head_without_end_is_refused(server: HeldServer) -> None:
    answer = endless(connect(server, b"GET / HTTP/1.1\r\n"), b"X-More: " + b"x" * 4000 + b"\r\n")
    assert status(answer) == 431


def test_a_body_that_comes_slowly_is_refused(server: HeldServer) -> None:
    for begun in (CHUNKED + b"5\r\n[", POST + b"Content-Length: 100\r\n\r\n{"):
        answer = all_of(connect(server, begun))
        assert status(answer) == 408
        assert b"slow-body" in answer


def test_a_body_without_end_is_refused(server: HeldServer) -> None:
    part = b"80000\r\n" + b"x" * 0x80000 + b"\r\n"
    answer = endless(connect(server, CHUNKED), part)
    assert status(answer) == 413
    assert b"too-large" in answer
    # Where nobody reads the body, the answer comes at once, and the rest is let go.
    answer = endless(connect(server, CHUNKED.replace(b"POST /v1/predict", b"GET /livez")), part)
    assert status(answer) == 200


def test_a_client_that_does_not_read_is_let_go(server: HeldServer) -> None:
    text = b'"' + b"long-" * 9000 + b'",'
    body = b'{"inputs": [' + text * 20 + b'"end"]}'
    head = POST + b"Content-Length: %d\r\n\r\n" % len(body)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", server.port))
    for _ in range(8):  # One after the other on one connection: more than any buffer holds.
        try:
            made.sendall(head + body)
        except OSError:
            break
    eventually(lambda: server.connections == 0)
    made.close()


def test_they_hold_nobody_up(server: HeldServer) -> None:
    begun = [b"", POST, CHUNKED + b"5\r\n[", POST + b"Content-Length: 100\r\n\r\n{"]
    crowd = [connect(server, begun[i % 4]) for i in range(200)]
    for _ in range(20):
        response = server.client.post("/v1/predict", json={"inputs": ["hello"]})
        assert response.status_code == 200
    for made in crowd:
        made.close()


def test_what_a_client_that_left_asked_for_is_not_computed(server: HeldServer) -> None:
    release = server.release
    server.hold()
    body = b'{"inputs": ["%s"]}'
    head = POST + b"Connection: close\r\nContent-Length: 20\r\n\r\n"
    first = connect(server, head + body % b"held")
    assert release.begun.acquire(timeout=30)
    second = connect(server, head + body % b"left")
    eventually(lambda: server.batcher.queue.inputs == 1)
    second.close()
    eventually(lambda: server.batcher.queue.inputs == 0)
    release.go.set()
    assert b"held" in all_of(first)
    assert ["left"] not in release.batches
