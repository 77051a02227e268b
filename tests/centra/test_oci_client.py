"""Asking OCI registries: logins, proxies, TLS, what breaks off, and who must not see what."""

from __future__ import annotations

import base64
import json
import logging
import shutil
import ssl
import subprocess
import time
from email.utils import formatdate
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from centra.errors import (
    CentraError,
    CorruptBlobError,
    NotAllowedError,
    StoreError,
    StoreUnreachableError,
)
from centra.formats.documents import sha256
from centra.store.oci import OciAddress, OciRepository
from tests.registries import Asked, FakeRegistry, fake_registry, oci_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BLOB = bytes(range(256)) * 4096
DIGEST = sha256(BLOB)
IMAGE = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of logins, which is empty; and no proxy."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long was waited, instead of waiting."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        registry.blobs[DIGEST] = BLOB
        registry.put("1", b"{}")
        yield registry


def repository(host: str, options: str = "") -> OciRepository:
    return OciRepository(OciAddress.parse(f"oci://{host}/teams/a:1{options}"))


def fetched(repository: OciRepository) -> bytes:
    """A blob, downloaded."""
    file = BytesIO()
    assert repository.download(DIGEST, len(BLOB), file) == DIGEST
    return file.getvalue()


def challenge(asked: Asked, actions: str = "pull") -> bool:
    """Ask for a token, as registries do."""
    realm = f"http://{asked.headers['Host']}/token"
    asks = f'Bearer realm="{realm}",service="tests",scope="repository:teams/a:{actions}"'
    return asked.reply(401, b"{}", WWW_Authenticate=asks)


def test_an_identity_token_gets_tokens(registry: FakeRegistry, docker: Path) -> None:
    """As ``docker login`` keeps what Azure's registry gives it."""
    forms: list[dict[str, list[str]]] = []

    def answer(asked: Asked) -> bool:
        if asked.place == "/token":
            assert (asked.command, asked.options, asked.authorization) == ("POST", {}, None)
            forms.append(parse_qs(asked.body().decode()))
            good = forms[-1]["refresh_token"] == ["r3fresh"]
            return asked.reply(*((200, b'{"access_token": "t1"}') if good else (401, b"")))
        return asked.authorization != "Bearer t1" and challenge(asked)

    registry.answer = answer
    config = docker / "config.json"
    config.write_text(json.dumps({"auths": {registry.host: {"identitytoken": "r3fresh"}}}))
    assert fetched(repository(registry.host)) == BLOB
    (form,) = forms
    assert form["grant_type"] == ["refresh_token"]
    assert form["scope"] == ["repository:teams/a:pull"]
    config.write_text(json.dumps({"auths": {registry.host: {"identitytoken": "stale"}}}))
    with pytest.raises(NotAllowedError, match="this login"):
        repository(registry.host).has(DIGEST)


def test_a_token_that_runs_out_is_got_anew(registry: FakeRegistry) -> None:
    """Also where it does so while a large blob is on its way."""
    good = ["t1"]

    def answer(asked: Asked) -> bool:
        if asked.place == "/token":
            return asked.reply(200, json.dumps({"token": good[-1]}).encode())
        if asked.authorization != f"Bearer {good[-1]}":
            return challenge(asked, "pull,push")
        if asked.command == "PUT" and len(good) == 1:
            asked.body()
            good.append("t2")
            return challenge(asked, "pull,push")
        return False

    registry.answer = answer
    there = repository(registry.host)
    assert not there.has(sha256(b"new"))
    there.upload(sha256(b"new"), b"new")
    assert registry.blobs[sha256(b"new")] == b"new"
    assert [asked.place for asked in registry.asked].count("/token") == 2


def test_whoever_gives_no_token_is_named(registry: FakeRegistry, pauses: list[float]) -> None:
    registry.answer = lambda asked: (
        asked.reply(503) if asked.place == "/token" else challenge(asked)
    )
    with pytest.raises(StoreError, match=rf"{registry.host}, which gives tokens .* status 503"):
        repository(registry.host).has(DIGEST)
    assert pauses


def test_a_login_is_not_sent_where_there_is_no_tls(registry: FakeRegistry, docker: Path) -> None:
    log_in(docker, registry.host)
    elsewhere = 'Bearer realm="ftp://tokens.example/token"'
    registry.answer = lambda asked: asked.reply(401, WWW_Authenticate=elsewhere)
    with pytest.raises(StoreError, match="without TLS") as refused:
        repository(registry.host).has(DIGEST)
    assert refused.value.code == "oci-realm"


def log_in(docker: Path, host: str) -> None:
    """What ``docker login`` writes."""
    auth = base64.b64encode(b"ada:pa55word").decode()
    (docker / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_a_proxy_is_gone_through(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the login that stands in its address; hosts of NO_PROXY are asked without it."""
    seen: list[tuple[str, str | None]] = []

    def answer(asked: Asked) -> bool:
        if asked.path.startswith("http://"):
            seen.append((asked.headers["Host"], asked.headers["Proxy-Authorization"]))
        return False

    registry.answer = answer
    monkeypatch.setenv("http_proxy", f"http://ada:s%40cret@{registry.host}")
    assert fetched(repository("registry.example", "?plain_http=true")) == BLOB
    login = base64.b64encode(b"ada:s@cret").decode()
    assert seen == [("registry.example", f"Basic {login}")]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetched(repository(registry.host)) == BLOB
    assert len(seen) == 1
    registry.answer = lambda asked: asked.reply(407)
    with pytest.raises(StoreError, match="the proxy before its registry wants another login"):
        fetched(repository("registry.example", "?plain_http=true"))


def test_a_proxy_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setenv("https_proxy", "http://ada:s3cret@127.0.0.1:9")
    with pytest.raises(StoreUnreachableError, match="through the proxy") as refused:
        repository("registry.example").has(DIGEST)
    assert "s3cret" not in str(refused.value)
    assert len(pauses) == 4


def test_a_registry_with_a_certificate_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "req -x509 -nodes -days 1 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=tests"
    command = ["openssl", *words.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    sent: list[str | None] = []

    def answer(asked: Asked) -> bool:
        if asked.authorization is None:
            return asked.reply(401, WWW_Authenticate='Basic realm="tests"')
        if asked.command == "POST":
            # As behind a proxy that ends TLS and does not say so.
            return asked.reply(202, Location=f"http://{registry.host}/upload")
        return False

    with fake_registry(answer, tls=context) as registry:
        registry.blobs[DIGEST] = BLOB
        log_in(tmp_path / "docker", registry.host)
        with pytest.raises(StoreUnreachableError, match=r"certificate.*\?plain_http=true"):
            repository(registry.host, "?plain_http=false").has(DIGEST)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        there = repository(registry.host, "?plain_http=false")
        assert fetched(there) == BLOB
        with fake_registry(lambda asked: not sent.append(asked.authorization)) as plain:
            registry.host, host = plain.host, registry.host
            monkeypatch.setattr("centra.store.oci.repository._TRIES", 1)
            with pytest.raises(StoreUnreachableError):
                there.upload(DIGEST, BLOB)
            registry.host = host
    assert sent == [None]


def test_an_upload_that_breaks_off_is_made_again(
    registry: FakeRegistry, tmp_path: Path, pauses: list[float]
) -> None:
    """From a file, whose beginning has been read then."""
    left = [lambda asked: asked.rfile.read(1000), lambda asked: asked.body() and asked.reply(502)]

    def answer(asked: Asked) -> bool:
        if asked.command != "PUT" or not left:
            return False
        left.pop(0)(asked)
        asked.close_connection = True
        return True

    registry.answer = answer
    registry.blobs.clear()
    path = tmp_path / "blob"
    path.write_bytes(BLOB)
    repository(registry.host).upload(DIGEST, path)
    assert registry.blobs == {DIGEST: BLOB}
    assert [asked.command for asked in registry.asked] == ["POST", "PUT"] * 3
    # One more for each connection that is found closed only when it is used again.
    assert len(pauses) >= 2


def test_an_upload_that_never_arrives_is_told(registry: FakeRegistry, pauses: list[float]) -> None:
    registry.answer = lambda asked: (
        asked.command == "PUT" and bool(asked.body()) and asked.reply(500)
    )
    with pytest.raises(StoreError, match="status 500"):
        repository(registry.host).upload(DIGEST, BLOB)
    assert len(pauses) == 3


def test_a_registry_refuses_a_blob_with_another_digest(tmp_path: Path) -> None:
    with oci_server(tmp_path) as server:
        there = repository(server.host)
        with pytest.raises(StoreError, match=r"status 400 .*digest") as refused:
            there.upload(sha256(b"one"), b"other")
        assert refused.value.code == "oci-refused"
        assert not there.has(sha256(b"one"))


def test_what_a_registry_gives_instead_is_refused(registry: FakeRegistry) -> None:
    there = repository(registry.host)
    registry.blobs[DIGEST] = BLOB[::-1]
    assert there.download(DIGEST, len(BLOB), BytesIO()) == sha256(BLOB[::-1])
    with pytest.raises(StoreError, match="more than the 100 bytes"):
        there.download(DIGEST, 100, BytesIO())
    reference = f"sha256:{sha256(b'{}')}"
    registry.manifests[reference] = b"[]"
    with pytest.raises(CorruptBlobError, match="its manifest"):
        there.read_manifest(reference, IMAGE)


def test_a_download_goes_on_where_it_broke_off(registry: FakeRegistry, pauses: list[float]) -> None:
    whole = [False]

    def answer(asked: Asked) -> bool:
        if not asked.headers["Range"]:
            return asked.break_off(BLOB)
        # A server that cannot go on gives all of it again.
        return whole[0] and asked.reply(200, BLOB)

    registry.answer = answer
    for whole[0] in (False, True):
        registry.asked.clear()
        assert fetched(repository(registry.host)) == BLOB
        ranges = [asked.headers["Range"] for asked in registry.asked]
        assert ranges == [None, f"bytes={len(BLOB) // 2}-"]
    registry.answer = lambda asked: (
        asked.reply(206, BLOB) if asked.headers["Range"] else asked.break_off(BLOB)
    )
    with pytest.raises(StoreError, match="more than"):
        fetched(repository(registry.host))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("command", ["GET", "HEAD", "POST", "PUT"])
def test_a_registry_that_wants_a_pause_gets_it(
    command: str, status: int, registry: FakeRegistry, pauses: list[float]
) -> None:
    asks = ["7", "7"]

    def answer(asked: Asked) -> bool:
        if asked.command != command or not asks:
            return False
        if asked.headers["Content-Length"]:
            asked.body()
        return asked.reply(status, b"{}", Retry_After=asks.pop())

    registry.answer = answer
    there = repository(registry.host)
    assert there.has(DIGEST)
    assert fetched(there) == BLOB
    there.upload(sha256(b"new"), b"new")
    assert pauses == [7, 7]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (lambda: "86400", "asked again in 86,400 seconds"),
        (lambda: formatdate(time.time() + 7500, usegmt=True), "asked again in 7,[45]"),
    ],
    ids=["seconds", "date"],
)
def test_a_registry_that_wants_a_day_is_not_asked_again(
    said: Callable[[], str], told: str, registry: FakeRegistry, pauses: list[float]
) -> None:
    error = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "you have pulled enough"}]}'
    registry.answer = lambda asked: asked.reply(429, error, Retry_After=said())
    with pytest.raises(StoreError, match=rf"TOOMANYREQUESTS: you have pulled enough.*{told}"):
        fetched(repository(registry.host))
    assert (len(registry.asked), pauses) == (1, [])


def test_nonsense_for_a_pause_is_none(registry: FakeRegistry, pauses: list[float]) -> None:
    asks = ["soon"]
    registry.answer = lambda asked: bool(asks) and asked.reply(503, Retry_After=asks.pop())
    assert repository(registry.host).has(DIGEST)
    assert 0.1 < pauses[0] < 1


def test_another_machine_gets_no_login(registry: FakeRegistry, docker: Path) -> None:
    """Storage that a registry leads to has addresses which are passwords themselves."""
    log_in(docker, registry.host)

    def answer(asked: Asked) -> bool:
        if asked.authorization is None:
            return asked.reply(401, WWW_Authenticate='Basic realm="tests"')
        if asked.command == "GET":
            return asked.reply(307, Location=f"http://{storage.host}/blobs/sha256:{DIGEST}?sig=s1")
        return asked.command == "POST" and asked.reply(
            202, Location=f"http://{storage.host}/blobs/upload?sig=s2"
        )

    registry.answer = answer
    with fake_registry() as storage:
        storage.blobs[DIGEST] = BLOB
        there = repository(registry.host)
        assert fetched(there) == BLOB
        there.upload(sha256(b"new"), b"new")
        assert sha256(b"new") in storage.blobs
    assert [(asked.command, asked.authorization) for asked in storage.asked] == [
        ("GET", None),
        ("PUT", None),
    ]


def test_a_registry_that_leads_in_circles(registry: FakeRegistry) -> None:
    registry.answer = lambda asked: asked.reply(302, Location=asked.path)
    with pytest.raises(StoreError, match="status 302"):
        repository(registry.host).has(DIGEST)
    assert len(registry.asked) == 6


def test_no_log_and_no_error_has_a_secret(
    registry: FakeRegistry,
    docker: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="centra")
    log_in(docker, registry.host)
    monkeypatch.setenv("http_proxy", f"http://ada:pr0xy@{registry.host}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    basic = base64.b64encode(b"ada:pa55word").decode()
    times: dict[str, int] = {}

    def answer(asked: Asked) -> bool:
        count = times[asked.path] = times.get(asked.path, 0) + 1
        if asked.place == "/token":
            return asked.reply(200, b'{"token": "t0ken"}')
        if asked.place == "/storage":
            return asked.break_off(BLOB) if count < 3 else asked.reply(403)
        if asked.authorization != "Bearer t0ken":
            return challenge(asked)
        if asked.command == "HEAD":
            asked.close_connection = True
            return True
        return asked.reply(307, Location="/storage?X-Amz-Signature=s1gned")

    registry.answer = answer
    there, errors = repository(registry.host), []
    for ask in (lambda: fetched(there), lambda: there.has(DIGEST)):
        with pytest.raises(CentraError) as refused:
            ask()
        errors.append(f"{refused.value} {refused.value!r} {refused.value.data}")
    told = f"{caplog.text} {errors} {there!r} {vars(there)}"
    assert "going on" in caplog.text
    assert not [word for word in ("pa55word", basic, "t0ken", "s1gned", "pr0xy") if word in told]
