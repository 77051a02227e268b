"""``centra serve``: what it serves, where it listens, how it ends, and what it loads for that."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import pytest

from centra.errors import ConflictError
from centra.serving.listener import Listener
from tests.serving.servers import CENTRA, ServedStore, Server, running, self_signed

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "wake me at seven"


def refused(*words: str | Path, code: int, folder: Path | None = None) -> str:
    """The message of a server that does not start."""
    done = subprocess.run(
        [CENTRA, "serve", *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = self_signed()
    (folder / "cert.pem").write_bytes(cert)
    (folder / "key.pem").write_bytes(key)
    return folder / "cert.pem", folder / "key.pem"


def test_it_says_what_it_serves(server: Server) -> None:
    found = server.client.get("/v1/release").json()
    assert (found["release"], found["channel"], found["revision"]) == (7, "production", 1)
    assert found["refused"] is None
    assert found["tasks"]["intent"] == {
        "version": "2.1",
        "module": found["tasks"]["intent"]["module"],
        "kind": "classification",
        "input": "single",
        "labels": ["alarm", "music", "weather"],
    }
    told = [record["message"] for record in server.log]
    assert any("serving release 7" in message and "production" in message for message in told)


def test_probes_are_answered(server: Server) -> None:
    for path in ("/livez", "/readyz", "/health"):
        assert server.client.get(path).status_code == 200
        assert server.client.head(path).status_code == 200


def test_logs_hold_no_text_of_a_call(server: Server) -> None:
    secret = "xyzzyplugh"
    bodies = [
        {"inputs": [f"{secret} please", {"text": secret, secret: 1}], "tasks": ["intent"]},
        {"inputs": [secret], "tasks": [secret]},
        {secret: secret},
    ]
    for body in bodies:
        server.client.post("/v1/predict", json=body, headers={"X-Request-Id": "one-of-these"})
    server.client.post("/v1/predict", content=f'{{"inputs": [{secret}]}}')
    server.client.post("/v1/predict?text=" + secret, json={"inputs": ["snow"]})
    server.client.get("/nope%0Aa line of its own")
    server.client.get("/livez", headers={"X-Request-Id": "the-last"})
    while server.wait_for("GET /livez")["request_id"] != "the-last":
        pass
    calls = [record for record in server.log if record.get("request_id") == "one-of-these"]
    assert [call["status"] for call in calls] == [200, 422, 422]
    assert calls[0].items() >= {"method": "POST", "path": "/v1/predict", "inputs": 1}.items()
    assert not [record for record in server.log if secret in str(record)]
    assert [record for record in server.log if "GET /nope%0Aa%20line" in record["message"]]


def test_it_needs_the_store_alone_and_ends_when_all_is_answered(
    served_store: ServedStore, tmp_path: Path
) -> None:
    (tmp_path / "centra.toml").write_text(f'store = "{served_store.store.root}"\n')
    with running("production", folder=tmp_path, PYTHONPROFILEIMPORTTIME="1") as server:
        assert server.client.post("/v1/predict", json={"inputs": [TEXT]}).status_code == 200
        answered: list[list[httpx.Response]] = [[], [], []]

        def call(responses: list[httpx.Response]) -> None:
            with httpx.Client(base_url=server.url, timeout=30) as client:
                while not responses or "connection" not in responses[-1].headers:
                    responses.append(client.post("/v1/predict", json={"inputs": [TEXT] * 50}))

        unfinished = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        unfinished.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        callers = [threading.Thread(target=call, args=(responses,)) for responses in answered]
        for caller in callers:
            caller.start()
        assert server.terminate() == 0
        for caller in callers:
            caller.join()
        assert unfinished.recv(1) == b""
        unfinished.close()
    for responses in answered:
        assert {response.status_code for response in responses} == {200}
        assert responses[-1].headers["connection"] == "close"
    imported = {
        record["message"].rpartition("|")[2].strip().partition(".")[0]
        for record in server.log
        if record["message"].startswith("import time:")
    }
    assert {"fastapi", "onnxruntime"} <= imported
    assert not imported & {"torch", "transformers", "sqlalchemy", "alembic"}


def test_what_never_moves_is_served_too(
    served_store: ServedStore, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    from centra.releases.find import find_release
    from centra.releases.folder_writing import write_folder

    location = find_release(served_store.source)
    write_folder(location.manifest, location.reader, tmp_path / "release")
    cert, key = certificate
    words = ("--tls-cert", cert, "--tls-key", key, "--host", "localhost", "--task", "intent")
    with running(tmp_path / "release", *words) as server:
        assert server.url.startswith("https://localhost:")
        trusted = ssl.create_default_context(cafile=cert)
        with httpx.Client(base_url=server.url, verify=trusted) as client:
            found = client.get("/v1/release").json()
            assert (found["release"], found["channel"]) == (None, None)
            assert [*found["tasks"]] == ["intent"]
            assert found["tasks"]["intent"]["version"] is None
            answer = client.post("/v1/predict", json={"inputs": [TEXT]}).json()
        assert answer["release"]["digest"] == location.digest


def test_a_port_in_use_is_said(served_store: ServedStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused(served_store.source, "--port", str(port), code=5)
    assert f"127.0.0.1:{port} is in use" in message


def test_of_two_servers_that_begin_together_one_is_told_of_the_other() -> None:
    first = Listener(port=0)
    with ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in first.bind()]
        second = Listener(port=sockets[0].getsockname()[1])
        others = [stack.enter_context(each) for each in second.bind()]
        first.listen(sockets)
        with pytest.raises(ConflictError, match=f"{second.port} is in use"):
            second.listen(others)


def test_http_and_grpc_do_not_share_a_port(served_store: ServedStore) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    message = refused(served_store.source, "--port", port, "--grpc-port", port, code=5)
    assert f"gRPC on 127.0.0.1:{port}" in message


def test_what_cannot_be_served_is_said(
    served_store: ServedStore, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    empty = {"folder": tmp_path}
    assert "no store is configured" in refused(code=3, **empty)
    assert "no channel 'nope'" in refused(f"{served_store.store.root}#nope", code=3)
    assert "no task 'nope'" in refused(served_store.source, "--task", "nope", code=3)
    assert "--tls-key" in refused(served_store.source, "--tls-cert", certificate[0], code=2)
    swapped = ("--tls-cert", certificate[1], "--tls-key", certificate[0])
    assert "TLS with" in refused(served_store.source, *swapped, code=2)
